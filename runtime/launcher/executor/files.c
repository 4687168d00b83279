/* Files on the host that outlive the process: locks, records that appear whole, sockets, and their removal. */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <linux/time_types.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { EXCLUSIVE = 2, AT_ONCE = 4 /* LOCK_NB */, REMOVE_DIRECTORY = 0x200, UNIX = 1, SEQPACKET = 5 | O_CLOEXEC };

static int try_lock(int fd, uint64_t timeout_ms) {
  struct __kernel_timespec pause = {0, 1000000};
  int result = (int)SYS(flock, fd, EXCLUSIVE | (timeout_ms ? AT_ONCE : 0));
  for (; result == -EAGAIN && timeout_ms; timeout_ms--) {
    SYS(nanosleep, ADDRESS(&pause), 0);
    result = (int)SYS(flock, fd, EXCLUSIVE | AT_ONCE);
  }
  return result;
}

/* Whoever had the lock before may have removed the file, and another have made one of the same name: ESTALE. */
int perform_lock(const struct step *s) {
  struct statx ours, present;
  const char *path = s->lock.path;
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(path), O_RDWR | O_CLOEXEC | O_NOFOLLOW | (s->lock.create ? O_CREAT : 0), 0600);
  if (fd < 0) return fd;
  int result = try_lock(fd, s->lock.timeout_ms);
  if (result == 0) result = (int)SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_INO, ADDRESS(&ours));
  if (result < 0) return close_with(fd, result);
  result = (int)SYS(statx, AT_FDCWD, ADDRESS(path), AT_SYMLINK_NOFOLLOW, STATX_INO, ADDRESS(&present));
  return result < 0 || present.stx_ino != ours.stx_ino ? close_with(fd, -ESTALE) : move_fd(fd, (int)s->lock.fd);
}

int perform_replace(const struct step *s) {
  const char *path = s->replace.path, *temporary = s->replace.temporary;
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(temporary), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, s->replace.mode);
  if (fd < 0) return fd;
  int result = close_with(fd, write_whole(fd, s->replace.content, s->replace.content_size));
  if (result == 0) result = (int)SYS(renameat2, AT_FDCWD, ADDRESS(temporary), AT_FDCWD, ADDRESS(path), 0);
  if (result < 0) SYS(unlinkat, AT_FDCWD, ADDRESS(temporary), 0);
  return result;
}

int perform_remove(const struct step *s) {
  return (int)SYS(unlinkat, AT_FDCWD, ADDRESS(s->remove.path), s->remove.directory ? REMOVE_DIRECTORY : 0);
}

int perform_close(const struct step *s) { return (int)SYS(close, s->close.fd); }

int unix_address(struct unix_address *address, int directory, const char *name) {
  struct text path = {.n = 0}; /* short enough wherever the directory is */
  add(&path, "/proc/self/fd/");
  add_number(&path, directory);
  add(&path, "/");
  add(&path, name);
  if (path.n >= sizeof address->path) return -ENAMETOOLONG;
  address->family = UNIX;
  memcpy(address->path, path.bytes, path.n + 1);
  return 0;
}

int perform_listen(const struct step *s) {
  struct unix_address address;
  struct text parent = {.n = 0};
  const char *name = last_part(s->listen.path);
  add(&parent, s->listen.path);
  if (parent.cut) return -ENAMETOOLONG;
  parent.bytes[name - s->listen.path] = 0;
  int directory = open_path(parent.bytes, O_PATH | O_DIRECTORY);
  if (directory < 0) return directory;
  int result = unix_address(&address, directory, name), fd = (int)SYS(socket, UNIX, SEQPACKET, 0);
  if (fd < 0) return close_with(directory, fd);
  if (result == 0) result = (int)SYS(bind, fd, ADDRESS(&address), sizeof address);
  if (result == 0) result = (int)SYS(listen, fd, 1);
  SYS(close, directory);
  return result < 0 ? close_with(fd, result) : move_fd(fd, (int)s->listen.fd);
}
