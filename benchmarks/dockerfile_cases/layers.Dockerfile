FROM base
COPY dir /l/
COPY deep /deep
RUN cd /l && rm x && mv sub moved && ln .inside hard && chmod 4750 .inside && chown 7:8 void && mkfifo pipe
RUN cd /l && rm -r void && echo file > void && rm link && mkdir link && echo in > link/in
RUN cd /l && rm void && ln -s moved void && rm -r link && ln -s nowhere link && touch -t 196001010000 moved/y
RUN cd /deep && rm -r a && mkdir a && echo new > a/b && mv ab "two words" && echo x > "$(printf 'new\nline')"
RUN cd /deep && mkdir -m 2770 -p made/x && chown -R 5:6 made && dd if=/dev/zero of=sparse bs=1 count=1 seek=100000
RUN mkdir -p /deep/long/$(printf %0200d 1)/$(printf %0200d 2) && echo y > /deep/long/$(printf %0200d 1)/z
RUN chmod 711 /etc && chown 9 /l && rm -rf /deep/none /l/pipe
COPY --chown=1:2 other /l/moved
RUN rm -r /l/moved && true
COPY a.txt /l/moved/
