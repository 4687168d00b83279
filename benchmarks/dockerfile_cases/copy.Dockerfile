# differs: /c11/modes/s*: buildah takes the set-user-ID and set-group-ID bits off what comes from a context
# differs: /c31/s*: buildah takes the set-user-ID and set-group-ID bits off what comes from a context
# differs: /c32/suid: buildah takes the set-user-ID and set-group-ID bits off what comes from a context
FROM base AS stage
RUN mkdir -p /out/d /out/e/f && echo 1 > /out/d/f && ln -s d /out/ld && ln -s d/f /out/lf && ln -s /nowhere /out/zlost
RUN chmod 1777 /out/e && chmod 4711 /out/d/f && chown 7:8 /out/d
FROM base
COPY a.txt /c1/
COPY a.txt /c2
COPY a.txt b.txt /c3/
COPY dir /c4
COPY dir /c5/
COPY dir/ /c6/in
COPY dlink /c7
COPY flink /c8
COPY flink /c9/
COPY d* /c10/
COPY . /c11/
COPY empty /c12
COPY dir/* /c13/
COPY dir/. /c14
COPY dir/sub/../x /c15/
COPY ./a.txt ./c16
COPY /a.txt /c17
COPY ["with space.txt", "a.txt", "/c18/"]
COPY [ "with space.txt", "/c19 too/" ]
COPY [ab].txt /c21/
COPY [^a].txt /c22/
COPY ?.txt /c23/
COPY deep/*/?/c /c24/
COPY deep/a* /c25/
COPY *.txt *.md /c26/
COPY .hidden /c27/
COPY .* /c28/
COPY ünï.txt /c30/
COPY modes /c31/
COPY modes/suid modes/sticky /c32/
COPY --from=stage /out /s1
COPY --from=stage /out/ld /s2
COPY --from=stage /out/lf /s3
COPY --from=stage /out/lf /s4/
COPY --from=stage /out/l* /s5/
COPY --from=stage /out/d/f /out/ld /s6/
COPY --from=0 out/e /s7/
COPY --from=stage / /s8/
COPY --from=stage ../out/d/ /s9/
COPY --from=base /etc/passwd /s10/
COPY odd /c29/
