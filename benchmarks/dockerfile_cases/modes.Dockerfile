FROM base
COPY --chmod=640 a.txt /1/
COPY --chmod=0751 a.txt dir /2/
COPY --chmod=4755 a.txt /3
COPY --chmod=1777 dir /4
COPY --chmod=600 tree /5/
ADD --chmod=444 a.txt /6
COPY --chmod=700 --chown=3:4 modes /7/
COPY --chmod=755 exec.sh b.txt /existing/
COPY --chmod=700 dir /existing
