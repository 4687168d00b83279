# differs: /all/modes/s*: buildah takes the set-user-ID and set-group-ID bits off what comes from a context
FROM base
COPY . /all/
COPY dir /dir/
COPY deep /deep
COPY *.txt /texts/
COPY logs/ /logs
