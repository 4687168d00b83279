/* What a prepared run rests on: whether all of it is as it was. */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "front.h"
#include "sys.h"
#include "text.h"

long read_below(int directory, const char *path, uint8_t *to, size_t size) {
  int fd = (int)SYS(openat, directory, ADDRESS(path), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fd;
  long n, all = 0;
  while ((size_t)all < size && (n = SYS(read, fd, ADDRESS(to + all), size - (size_t)all)) > 0) all += n;
  SYS(close, fd);
  return all;
}

long read_file(const char *path, uint8_t *to, size_t size) { return read_below(AT_FDCWD, path, to, size); }

static int holds(const char *path, const uint8_t *expected, size_t n) {
  uint8_t *found = map(-1, n + 1);
  return found && read_file(path, found, n + 1) == (long)n && memcmp(found, expected, n) == 0;
}

/* Size and time of the last change, as three little-endian u64. */
static int looks_as(const char *path, const uint8_t *expected, size_t n) {
  struct statx s;
  if (SYS(statx, AT_FDCWD, ADDRESS(path), 0, STATX_SIZE | STATX_MTIME, ADDRESS(&s)) < 0) return 0;
  uint64_t found[3] = {s.stx_size, (uint64_t)s.stx_mtime.tv_sec, s.stx_mtime.tv_nsec};
  return n == sizeof found && memcmp(found, expected, n) == 0;
}

/* Where a path leads, symbolic links followed. */
static struct text resolved(const char *path) {
  struct text link = {.n = 0}, found = {.n = 0};
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(path), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return found;
  add(&link, "/proc/self/fd/");
  add_number(&link, fd);
  long n = SYS(readlinkat, AT_FDCWD, ADDRESS(link.bytes), ADDRESS(found.bytes), sizeof found.bytes - 1);
  SYS(close, fd);
  found.n = n > 0 ? (size_t)n : 0;
  found.bytes[found.n] = 0;
  return found;
}

static int leads_to(const char *path, const uint8_t *expected, size_t n) {
  struct text found = resolved(path);
  return found.n == n && memcmp(found.bytes, expected, n) == 0;
}

static int has_cgroup(const uint8_t *line, size_t n) {
  static const char words[] = " - cgroup";
  for (size_t i = 0; i + sizeof words - 1 <= n; i++)
    if (memcmp(line + i, words, sizeof words - 1) == 0) return 1;
  return 0;
}

/* The lines of /proc/self/mountinfo that are about cgroups. */
static int mounts_are(const char *path, const uint8_t *expected, size_t n) {
  enum { LARGEST = 1 << 20 };
  uint8_t *found = map(-1, LARGEST);
  long size = found ? read_file(path, found, LARGEST) : 0;
  if (size <= 0 || size == LARGEST) return 0;
  size_t seen = 0;
  for (long begin = 0, end; begin < size; begin = end) {
    for (end = begin; end < size && found[end] != '\n'; end++) continue;
    end += end < size;
    size_t length = (size_t)(end - begin);
    if (!has_cgroup(found + begin, length)) continue;
    if (seen + length > n || memcmp(expected + seen, found + begin, length) != 0) return 0;
    seen += length;
  }
  return seen == n;
}

static int as_it_was(const struct prepared *prepared) {
  const uint8_t *input = prepared->inputs;
  for (uint32_t i = 0; i < prepared->input_count; i++) {
    const char *path = (const char *)input + 4;
    const uint8_t *expected = plan_next_string(input);
    size_t n = plan_string_length(expected);
    int same_as_then = 0;
    switch (*path) {
    case 'h': same_as_then = holds(path + 1, expected + 4, n); break;
    case 's': same_as_then = looks_as(path + 1, expected + 4, n); break;
    case 'l': same_as_then = leads_to(path + 1, expected + 4, n); break;
    case 'm': same_as_then = mounts_are(path + 1, expected + 4, n); break;
    }
    if (!same_as_then) return 0;
    input = plan_next_string(expected);
  }
  return 1;
}

/* The bundle's prepared run is found by the FNV-1a hash of where the bundle is; its inputs then say it for sure. */
int find_prepared(struct prepared *prepared, const char *root, const char *bundle) {
  struct text at = resolved(bundle), path = {.n = 0};
  uint64_t hash = 0xcbf29ce484222325;
  for (size_t i = 0; i < at.n; i++) hash = (hash ^ (uint8_t)at.bytes[i]) * 0x100000001b3;
  add(&path, root);
  add(&path, "/@prepared/");
  for (int shift = 60; shift >= 0; shift -= 4) add(&path, (char[]){"0123456789abcdef"[hash >> shift & 15], 0});
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(path.bytes), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  struct statx status;
  if (path.cut || fd < 0 || SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_SIZE | STATX_UID, ADDRESS(&status)) < 0) return 0;
  const uint8_t *bytes = status.stx_size && status.stx_uid == 0 ? map(fd, status.stx_size) : NULL;
  SYS(close, fd);
  return bytes && !prepared_read(prepared, bytes, status.stx_size) && as_it_was(prepared);
}
