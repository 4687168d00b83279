/* Copying a directory's content: what the mount option tmpcopyup asks for. */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

enum { MAX_DEPTH = 32, BUFFER_SIZE = 4096 };

struct entry { /* linux_dirent64 */
  uint64_t inode;
  int64_t offset;
  uint16_t size;
  uint8_t type;
  char name[];
};

static int copy_owner(int fd, const struct statx *status) {
  int result = (int)SYS(fchown, fd, status->stx_uid, status->stx_gid);
  return result < 0 ? result : (int)SYS(fchmod, fd, status->stx_mode & 07777);
}

static int copy_file(int from, int to, const char *name, const struct statx *status) {
  OWNED int source = (int)SYS(openat, from, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC); /* a pipe by now? */
  if (source < 0) return source;
  OWNED int target = (int)SYS(openat, to, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
  if (target < 0) return target;
  long n;
  while ((n = SYS(sendfile, target, source, 0, 1 << 20)) > 0) continue;
  return n < 0 ? (int)n : copy_owner(target, status);
}

static int copy_link(int from, int to, const char *name) {
  char target[BUFFER_SIZE];
  long n = SYS(readlinkat, from, name, target, sizeof target - 1);
  if (n < 0) return (int)n;
  target[n] = 0;
  return (int)SYS(symlinkat, target, to, name);
}

static int copy_directory(int from, int to, const char *name, unsigned depth) {
  int result = (int)SYS(mkdirat, to, name, 0700);
  if (result < 0) return result;
  OWNED int source = (int)SYS(openat, from, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (source < 0) return source;
  OWNED int target = (int)SYS(openat, to, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  return target < 0 ? target : copy_tree(source, target, depth + 1);
}

static int copy_entry(int from, int to, const char *name, unsigned depth) {
  struct statx status;
  int result = status_of(from, name, &status);
  if (result < 0) return result;
  switch (status.stx_mode & S_IFMT) {
  case S_IFREG: return copy_file(from, to, name, &status);
  case S_IFLNK: return copy_link(from, to, name);
  case S_IFDIR: return copy_directory(from, to, name, depth);
  default: return 0; /* a socket or a node has no content to keep */
  }
}

int copy_tree(int from, int to, unsigned depth) {
  if (depth > MAX_DEPTH) return -ELOOP;
  struct statx status;
  int result = status_of(from, "", &status);
  if (result == 0) result = copy_owner(to, &status);
  char buffer[BUFFER_SIZE] __attribute__((aligned(8)));
  while (result == 0) {
    long n = SYS(getdents64, from, buffer, sizeof buffer);
    if (n <= 0) return (int)n;
    for (long at = 0; at < n && result == 0;) {
      const struct entry *entry = (const struct entry *)(buffer + at);
      at += entry->size;
      if (!same(entry->name, ".") && !same(entry->name, "..")) result = copy_entry(from, to, entry->name, depth);
    }
  }
  return result;
}
