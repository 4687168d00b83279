/* Files on the host that outlive the process: locks, records that appear whole, sockets, and their removal. */
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <linux/time_types.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { EXCLUSIVE = 2, AT_ONCE = 4 /* LOCK_NB */, REMOVE_DIRECTORY = 0x200, UNIX = 1, SEQPACKET = 5 | O_CLOEXEC, PAUSE_MS = 1 };

static void pause_ms(void) {
  struct __kernel_timespec pause = {0, PAUSE_MS * 1000000};
  SYS(nanosleep, ADDRESS(&pause), 0);
}

/* Numbers: the descriptor that holds the lock from then on, milliseconds (none: as long as it takes), whether it is made.
 * Whoever had the lock before may have removed the file, and another have made one of the same name: ESTALE. */
int take_lock(const struct step *s) {
  struct statx ours, present;
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(s->string[0]), O_RDWR | O_CLOEXEC | O_NOFOLLOW | (s->number[2] ? O_CREAT : 0), 0600);
  if (fd < 0) return fd;
  int result;
  for (uint64_t waited = 0; (result = (int)SYS(flock, fd, EXCLUSIVE | (s->number[1] ? AT_ONCE : 0))) == -EAGAIN && waited < s->number[1]; waited += PAUSE_MS)
    pause_ms();
  if (result == 0) result = (int)SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_INO, ADDRESS(&ours));
  if (result == 0 && (SYS(statx, AT_FDCWD, ADDRESS(s->string[0]), AT_SYMLINK_NOFOLLOW, STATX_INO, ADDRESS(&present)) < 0 || present.stx_ino != ours.stx_ino))
    result = -ESTALE;
  return result < 0 ? close_with(fd, result) : move_fd(fd, (int)s->number[0]);
}

/* Number: the mode. Strings: the path, a name beside it, the content, which is there whole or not at all. */
int replace_file(const struct step *s) {
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(s->string[1]), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, s->number[0]);
  if (fd < 0) return fd;
  int result = close_with(fd, write_all(fd, s->string[2], s->length[2]));
  if (result == 0) result = (int)SYS(renameat2, AT_FDCWD, ADDRESS(s->string[1]), AT_FDCWD, ADDRESS(s->string[0]), 0);
  if (result < 0) SYS(unlinkat, AT_FDCWD, ADDRESS(s->string[1]), 0);
  return result;
}

/* Numbers: whether it is a directory, for how many milliseconds it is tried again while it is busy. */
int remove_path(const struct step *s) {
  int result;
  for (uint64_t waited = 0; (result = (int)SYS(unlinkat, AT_FDCWD, ADDRESS(s->string[0]), s->number[0] ? REMOVE_DIRECTORY : 0)) == -EBUSY && waited < s->number[1]; waited += PAUSE_MS)
    pause_ms();
  return result;
}

/* Number: the descriptor of the socket that listens at the path from then on. */
int listen_at(const struct step *s) {
  struct { unsigned short family; char path[108]; } address = {.family = UNIX};
  struct text path = {.n = 0}; /* short enough for an address wherever the directory is */
  const char *name = s->string[0] + s->length[0];
  while (name > s->string[0] && name[-1] != '/') name--;
  struct text parent = {.n = 0};
  add(&parent, s->string[0]);
  if (parent.cut) return -ENAMETOOLONG;
  parent.bytes[name - s->string[0]] = 0;
  int directory = (int)SYS(openat, AT_FDCWD, ADDRESS(parent.bytes), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  add(&path, "/proc/self/fd/");
  add_number(&path, directory);
  add(&path, "/");
  add(&path, name);
  if (path.n >= sizeof address.path) return close_with(directory, -ENAMETOOLONG);
  memcpy(address.path, path.bytes, path.n + 1);
  int fd = (int)SYS(socket, UNIX, SEQPACKET, 0);
  int result = fd < 0 ? fd : (int)SYS(bind, fd, ADDRESS(&address), sizeof address.family + path.n + 1);
  if (result == 0) result = (int)SYS(listen, fd, 1);
  SYS(close, directory);
  return result < 0 ? close_with(fd, result) : move_fd(fd, (int)s->number[0]);
}
