# differs: /12/s*: buildah takes the set-user-ID and set-group-ID bits off what comes from a context
FROM base
RUN mkdir -p /o1/sub && chown 5:6 /o1
COPY --chown=alice a.txt /1/
COPY --chown=alice:staff a.txt /2/
COPY --chown=1000 a.txt /3/
COPY --chown=1000:50 dir /4
COPY --chown=bob dir /5/
COPY --chown=:staff a.txt /6/
COPY --chown=4711:alice a.txt /7/
COPY --chown=alice dir /o1
COPY --chown=3:4 a.txt b.txt /o1/new/deep/
COPY --chown=3:4 flink dlink /8/
COPY --chown=3:4 tree /9/
ARG WHO=alice
COPY --chown=${WHO}:${WHO} a.txt /10/
ADD --chown=3:4 a.txt /11/
COPY --chown=3:4 modes /12/
COPY --chown=0 a.txt /13/
USER alice
COPY a.txt /14/
ADD dir /15/
COPY --chown=bob:bob a.txt /16/
