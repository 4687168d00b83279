   # syntax = docker/dockerfile:1
# check=skip=all

	FROM	alpine	AS	one	
RUN\
 echo a\\
RUN echo ["a"]
RUN ["echo", "b\u00e9", "\"c\""]
HEALTHCHECK NONE
healthcheck --start-interval=5s --start-period=1m cmd ["true"]
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY --exclude=*.md --exclude=doc/** --parents a/./b c /d/
ENV a=b\ c d='e $f' g="h \"i\"" j=k=l
ARG empty=
STOPSIGNAL $SIG
USER ${UID:-1000}:${GID:-1000}
WORKDIR /path with blanks
EXPOSE $PORT 80/udp 8000-8010
RUN --network=none --security=sandbox --mount=type=secret,id=aws,target=/root/.aws/credentials aws s3 ls
RUN --mount=type=ssh,required=true ssh -q -T git@example.org 2>&1 | tee /hello
RUN echo x \
# comment

  y \
