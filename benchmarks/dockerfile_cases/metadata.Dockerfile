# differs: Cmd: buildah's shell form of CMD forgets SHELL
FROM base AS parent
CMD ["from", "parent"]
ENTRYPOINT ["entry"]
EXPOSE 1
LABEL l=parent
ENV E=parent
USER alice
WORKDIR /parent
STOPSIGNAL 9
HEALTHCHECK --interval=5s --timeout=1m --retries=3 CMD curl -f http://localhost/
FROM parent AS reset
ENTRYPOINT ["other"]
FROM parent AS kept
ENTRYPOINT ["other"]
CMD ["mine"]
ENTRYPOINT shell form $E
SHELL ["/bin/sh", "-ec"]
CMD shell $E
HEALTHCHECK NONE
LABEL l=child
MAINTAINER somebody
VOLUME /data
ONBUILD ENV SET=$E
ONBUILD CMD ["x"]
EXPOSE 2/udp
