# differs: /v/*: a volume that RUN writes to keeps what is written (BuildKit; buildah and the classic builder drop it)
# differs: /w/*: as above
FROM base
RUN mkdir /v && echo before > /v/a
VOLUME /v /w
RUN echo after > /v/b; echo changed > /v/a; mkdir -p /w; echo w > /w/c
COPY a.txt /v/copied
COPY b.txt /w/
VOLUME ["/v"]
