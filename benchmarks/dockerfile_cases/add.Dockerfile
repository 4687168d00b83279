# differs: /11: an archive's entry for itself says nothing of a directory that is there (BuildKit, applyRootArchive)
# differs: /13: an archive's entry for itself says nothing of a directory that is there (BuildKit, applyRootArchive)
# differs: /19: an archive's entry for itself says nothing of a directory that is there (BuildKit, applyRootArchive)
# differs: /19/*: --chown is for what an archive holds, too (BuildKit, mapArchiveHeaderOwner)
FROM base
ADD t.tar /1
ADD t.tar /2/
ADD t.tar a.txt /3/
ADD dir /4
ADD t.tar.gz /5/
ADD t.tar.bz2 t.tar.xz /6/
ADD plain.gz /7/
ADD fake.tar /8/
ADD named.txt /9/
COPY t.tar /10/
ADD owned.tar /11/
ADD linked.tar /12/
RUN mkdir -p /13/dir && chmod 700 /13/dir && echo old > /13/dir/x && mkdir -p /14 && ln -s /14 /13/to
ADD t.tar /13/dir
ADD owned.tar /13/
ADD t.ta[r] /15/
ADD empty.tar /16/
ADD a.txt b.txt /17/
ADD special.tar /18/
ADD --chown=3:4 owned.tar /19/
ADD t.tar.zst /20/
