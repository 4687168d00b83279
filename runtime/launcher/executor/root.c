/* Paths below the container's root. The image decides what lies there, symbolic links included, so a path is never
 * handed to the kernel as text relative to the host: openat2 resolves it as if ROOT_FD were /.
 *
 * What is written follows more rules. Where mounts lie is the plan's choice, what links say is the image's: the way to
 * it either follows no link, or leads over no mount, so that no link of an image's can send it to /proc/sys or to what is
 * bound from the host. The last component is never followed, and what lies there is never opened: it is replaced. */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

enum { RETRIES = 128, REPLACEMENTS = 16, LINKS = 40, LED = -4096 };

int close_with(int fd, int result) {
  SYS(close, fd);
  return result;
}

/* A rename elsewhere makes the kernel unsure (EAGAIN): then it is asked again. */
static int resolved(const char *path, uint64_t flags, uint64_t resolve) {
  struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | resolve};
  int fd = -EAGAIN;
  for (int i = 0; i < RETRIES && fd == -EAGAIN; i++) fd = (int)SYS(openat2, ROOT_FD, path, &how, sizeof how);
  return fd;
}

/* Open what is at `path` below the root, wherever the image's links lead in it. */
int open_in_root(const char *path, uint64_t flags) { return resolved(path, flags, 0); }

int open_strictly_in_root(const char *path, uint64_t flags) {
  int fd = resolved(path, flags, RESOLVE_NO_SYMLINKS);
  return fd == -ELOOP ? resolved(path, flags, RESOLVE_NO_XDEV) : fd;
}

int parent_in_root(const char *path, const char **name) {
  struct text directory = {.n = 0};
  *name = last_part(path);
  if (!**name) return -EINVAL;
  add_bytes(&directory, path, (size_t)(*name - path));
  return directory.cut ? -ENAMETOOLONG : open_strictly_in_root(directory.n ? directory.bytes : ".", O_PATH | O_DIRECTORY);
}

/* A new file, open for writing, in the place of whatever has its name, unless that is a directory. */
int replace_in_root(const char *path) {
  const char *name;
  OWNED int parent = parent_in_root(path, &name);
  int fd = parent < 0 ? parent : -EEXIST;
  for (int i = 0; i < REPLACEMENTS && fd == -EEXIST; i++) {
    fd = (int)SYS(openat, parent, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
    int result = fd == -EEXIST ? (int)SYS(unlinkat, parent, name, 0) : 0;
    if (result < 0 && result != -ENOENT) return result;
  }
  return fd;
}

static int make(int parent, const char *name, int directory) {
  if (directory) return (int)SYS(mkdirat, parent, name, 0755);
  OWNED int fd = (int)SYS(openat, parent, name, O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_WRONLY, 0644);
  return fd < 0 ? fd : 0;
}

/* A link that leads to nothing, the component of `path` from `begin` to `end`: change `path` to the one that it leads to. */
static int lead(int parent, struct text *path, size_t begin, size_t end) {
  struct text name = {.n = 0}, link = {.n = 0}, led = {.n = 0};
  add_bytes(&name, path->bytes + begin, end - begin);
  long n = SYS(readlinkat, parent, name.bytes, link.bytes, sizeof link.bytes - 1);
  if (n < 0) return (int)n;
  if (link.bytes[0] != '/') add_bytes(&led, path->bytes, begin);
  add_bytes(&led, link.bytes, (size_t)n);
  add_bytes(&led, path->bytes + end, path->n - end);
  *path = led;
  return led.cut ? -ENAMETOOLONG : LED;
}

/* Make the components of `path` that are missing and open it. At a link that leads to nothing `path` is changed to where
 * it leads, and the result is LED. */
static int make_missing(struct text *path, int directory) {
  int parent = open_in_root(".", O_PATH | O_DIRECTORY);
  for (size_t at = 0; parent >= 0 && path->bytes[at];) {
    size_t begin = at;
    while (path->bytes[begin] == '/') begin++;
    size_t end = begin;
    while (path->bytes[end] && path->bytes[end] != '/') end++;
    if (begin == end) break;
    char after = path->bytes[end];
    path->bytes[end] = 0;
    int fd = open_in_root(path->bytes, O_PATH);
    if (fd == -ENOENT) {
      int result = make(parent, path->bytes + begin, directory || after);
      fd = result < 0 && result != -EEXIST ? result : open_in_root(path->bytes, O_PATH);
    }
    path->bytes[end] = after;
    if (fd == -ENOENT) return close_with(parent, lead(parent, path, begin, end));
    parent = close_with(parent, fd);
    at = end;
  }
  return parent;
}

/* Open `path` below the root for a mount on it; what is missing of it is made, the last component as asked, and so is
 * what a link on the way leads to (an image's /etc/resolv.conf may lead to where its system would have made a file). */
int make_in_root(const char *path, int directory) {
  struct text text = joined(path, NULL);
  if (text.cut) return -ENAMETOOLONG;
  for (int links = 0; links <= LINKS; links++) {
    int fd = open_in_root(text.bytes, O_PATH);
    if (fd == -ENOENT) fd = make_missing(&text, directory);
    if (fd != LED) return fd;
  }
  return -ELOOP;
}

int status_of(int directory, const char *name, struct statx *status) {
  status->stx_mode = 0; /* GCC 14's analyzer does not see that a system call writes */
  return (int)SYS(statx, directory, name, *name ? AT_SYMLINK_NOFOLLOW : AT_EMPTY_PATH, STATX_BASIC_STATS, status);
}

int is_directory(int fd) {
  struct statx status;
  int result = status_of(fd, "", &status);
  return result < 0 ? result : (status.stx_mode & S_IFMT) == S_IFDIR;
}

int make_file_in_root(const char *path) {
  int fd = open_strictly_in_root(path, O_PATH | O_NOFOLLOW);
  if (fd == -ENOENT) {
    const char *name;
    OWNED int parent = parent_in_root(path, &name);
    int result = parent < 0 ? parent : make(parent, name, 0);
    if (result < 0) return result;
    fd = open_strictly_in_root(path, O_PATH | O_NOFOLLOW);
  }
  struct statx status;
  int result = fd < 0 ? fd : status_of(fd, "", &status);
  return result == 0 && (status.stx_mode & S_IFMT) == S_IFLNK ? close_with(fd, -ELOOP) : fd;
}
