/* Files on the host that outlive the process: locks, records that appear whole, sockets, and their removal. */
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

static int try_lock(int fd, uint64_t timeout_ms) {
  int how = LOCK_EX | (timeout_ms ? LOCK_NB : 0), result;
  while ((result = (int)SYS(flock, fd, how)) == -EAGAIN && timeout_ms--) sleep_1ms();
  return result;
}

/* Whoever had the lock before may have removed the file, and another have made one of the same name: ESTALE. */
int perform_lock(const struct step *s) {
  struct statx ours, present;
  const char *path = s->lock.path;
  int fd = (int)SYS(openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | (s->lock.create ? O_CREAT : 0), 0600);
  if (fd < 0) return fd;
  int result = try_lock(fd, s->lock.timeout_ms);
  if (result == 0) result = status_of(fd, "", &ours);
  if (result != 0) return close_with(fd, result);
  result = status_of(AT_FDCWD, path, &present);
  return result < 0 || present.stx_ino != ours.stx_ino ? close_with(fd, -ESTALE) : move_fd(fd, (int)s->lock.fd);
}

int perform_replace(const struct step *s) {
  const char *path = s->replace.path, *temporary = s->replace.temporary;
  int fd = (int)SYS(openat, AT_FDCWD, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, s->replace.mode);
  if (fd < 0) return fd;
  int result = close_with(fd, transfer(__NR_write, fd, s->replace.content, s->replace.content_size));
  if (result == 0) result = (int)SYS(renameat2, AT_FDCWD, temporary, AT_FDCWD, path, 0);
  if (result < 0) SYS(unlinkat, AT_FDCWD, temporary, 0);
  return result;
}

int perform_remove(const struct step *s) { return (int)SYS(unlinkat, AT_FDCWD, s->remove.path, s->remove.directory ? AT_REMOVEDIR : 0); }

int perform_close(const struct step *s) { return (int)SYS(close, s->close.fd); }

int unix_socket(long call, int type, const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  size_t size = strlen(path) + 1;
  if (size > sizeof address.sun_path) return -ENAMETOOLONG;
  memcpy(address.sun_path, path, size);
  int fd = (int)SYS(socket, AF_UNIX, type | SOCK_CLOEXEC, 0);
  int result = fd < 0 ? fd : (int)sys6(call, fd, (long)&address, sizeof address, 0, 0, 0);
  return result < 0 ? close_with(fd, result) : fd;
}

int open_streams(void) {
  for (int fd = 0; fd < 3; fd++) {
    if (SYS(fcntl, fd, F_GETFD) != -EBADF) continue;
    int result = (int)SYS(openat, AT_FDCWD, "/dev/null", O_RDWR); /* the lowest number, which is this one */
    if (result < 0) return SYS(getpid) == 1 ? 0 : result;
  }
  return 0;
}

struct text path_in(int directory, const char *name) { return joined("/proc/self/fd/", DECIMAL(directory), "/", name, NULL); }

int perform_listen(const struct step *s) {
  const char *name = last_part(s->listen.path);
  struct text parent = joined(s->listen.path, NULL);
  if (parent.cut) return -ENAMETOOLONG;
  parent.bytes[name - s->listen.path] = 0;
  OWNED int directory = open_path(parent.bytes, O_PATH | O_DIRECTORY);
  if (directory < 0) return directory;
  int fd = unix_socket(__NR_bind, SOCK_SEQPACKET, path_in(directory, name).bytes);
  int result = fd < 0 ? fd : (int)SYS(listen, fd, 1);
  return result < 0 ? close_with(fd, result) : move_fd(fd, (int)s->listen.fd);
}
