# differs: /missing/file*: what a destination is a link to is written, not the link (BuildKit, fsutil's Copy)
# differs: /real/file: what a destination is a link to is written, not the link (BuildKit, fsutil's Copy)
# differs: /real/inner: what a destination is a link to is written, not the link (BuildKit, fsutil's Copy)
# differs: /tofile: what a destination is a link to is written, not the link (BuildKit, fsutil's Copy)
FROM base
RUN mkdir -p /real/sub /w && ln -s /real /abs && ln -s real /rel && ln -s abs /chain && ln -s ../../../real /w/up
RUN echo old > /real/file && ln -s /real/file /tofile && ln -s /missing/file /dangling && ln -s /missing /lost
RUN ln -s /real/sub /w/tosub && ln -s file /real/inner
COPY a.txt /abs/1
COPY a.txt /rel/2
COPY a.txt /chain/3
COPY a.txt /w/up/4
COPY a.txt /abs
COPY b.txt /abs/
COPY dir /chain
COPY a.txt /tofile
COPY b.txt /dangling
COPY b.txt /lost/
COPY dir /lost2/../lost
COPY other/ /w/tosub
COPY b.txt /real/inner
COPY tree /w
WORKDIR /rel/made
COPY a.txt .
WORKDIR /missing2/x
COPY a.txt ../y/
ADD t.tar /abs/t
ADD t.tar /chain
