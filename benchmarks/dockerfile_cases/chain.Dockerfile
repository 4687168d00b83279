FROM base AS first
ONBUILD ENV A=1
ONBUILD RUN echo "$A" >> /ran
FROM first AS second
ENV A=2
ONBUILD RUN echo "second $A" >> /ran
FROM second
RUN cat /ran > /all
