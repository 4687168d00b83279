# differs: /all/modes/s*: buildah takes the set-user-ID and set-group-ID bits off what comes from a context
# differs: /all/dir/sub: a folder that is left out but for what an exception keeps has its own permissions (fsutil)
FROM base
COPY . /all/
COPY deep /deep/
COPY tree* /trees/
