FROM base
RUN ["/bin/sh", "-c", "echo exec > /1"]
RUN echo "a  b" > /2 && \
    # a comment within
    echo c >> /2

SHELL ["/bin/sh", "-x", "-c"]
RUN echo d > /3
USER alice
RUN id -u > /tmp/4; echo $HOME > /tmp/5; umask > /tmp/6
USER 4711
RUN id -g > /tmp/7
USER alice:staff
RUN id -G > /tmp/8 ; touch /tmp/made
USER root
RUN chown bob:staff /tmp/made && chmod 6755 /tmp/made && rm /tmp/4 && mv /tmp/5 /five
RUN mkdir -m 1777 /sticky && mknod /fifo p && ln /five /hard && ln -s five /soft
