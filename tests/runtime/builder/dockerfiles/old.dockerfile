FROM debian:wheezy
MAINTAINER  Some Body <some.body@example.org>
LABEL "with quotes"="a value" multi.label1="value1" multi.label2="value2"
LABEL version 1.0
ENV LC_ALL C.UTF-8
add rootfs.tar.xz /
Add http://example.org/big.tar.xz /usr/src/things/
run apt-get update && \
    apt-get install -y \
      bzip2 \
      cvs # not a comment of ours
ONBUILD ADD . /app/src
ONBUILD RUN /usr/local/bin/python-build --dir /app/src
onbuild copy --chown=a:b x y
CMD []
ENTRYPOINT exec top -b
