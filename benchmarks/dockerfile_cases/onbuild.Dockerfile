FROM base AS parent
ENV WHERE=/of/parent
ONBUILD COPY a.txt /triggered/
ONBUILD ENV SEEN=$WHERE
ONBUILD RUN echo "$SEEN" > /triggered/ran
ONBUILD WORKDIR /triggered/dir
FROM parent
COPY b.txt .
