FROM base
WORKDIR /w/x
COPY a.txt .
COPY a.txt ./b
COPY dir sub/
COPY dir ./
WORKDIR y
COPY a.txt ..
COPY b.txt ../z
WORKDIR ../up/./here/
COPY a.txt here
ENV PLACE=/env PART=p
WORKDIR $PLACE/${PART}
COPY a.txt $PART.txt
WORKDIR "quoted path"
COPY a.txt ./
WORKDIR /etc
WORKDIR relative
USER alice
WORKDIR /of/alice
COPY a.txt .
USER 1234
WORKDIR /of/number
USER 1234:4321
WORKDIR /of/both
USER bob
WORKDIR later
RUN echo $PWD > /tmp/where
