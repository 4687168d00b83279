FROM base
RUN mkdir -p /m1/sub /m2/dir /m3 /m4/dir/sub && chmod 700 /m1 /m1/sub && chown 5:6 /m1 /m1/sub && echo old > /m1/x
RUN echo old > /m1/keep && ln -s /m3 /m1/link && chmod 2775 /m3 && echo old > /f1 && chown 9:9 /f1 && chmod 600 /f1
COPY dir /m1
COPY dir /m1/
COPY dir /m2/dir
COPY a.txt /m3
COPY a.txt /m2/dir/sub
COPY a.txt /f1
COPY dir other /m3/
COPY dir/sub /m3/sub
COPY other /m3/sub
COPY a.txt b.txt /m4
RUN rm -r /m1/sub /m2
COPY dir/sub /m1/sub
COPY dir /m2
