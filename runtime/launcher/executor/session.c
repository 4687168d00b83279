/* Talking with whoever started the launcher, and the terminal that is handed over to it. */
#include <asm/ioctls.h>
#include <asm/statfs.h>
#include <asm/termios.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

enum { DEVPTS_MAGIC = 0x1cd1, SOL_SOCKET_ = 1, SCM_RIGHTS_ = 1, SOCK_CLOEXEC_ = 02000000, MSG_CMSG_CLOEXEC_ = 0x40000000, MSG_NOSIGNAL_ = 0x4000 };

/* struct msghdr and its parts as the kernel has them (include/linux/socket.h). */
struct vector { void *base; size_t size; };
struct header { void *name; long name_size; struct vector *vectors; size_t vector_count; void *control; size_t control_size; unsigned flags; };
struct rights { size_t size; int level, type, descriptor, padding; };

/* Without a descriptor to carry, plain write(2): a seccomp filter that has begun seldom forbids that one. */
int send_message(int channel, uint32_t kind, int32_t number, int64_t value, int descriptor) {
  struct message message = {kind, number, value};
  long n;
  if (descriptor < 0) {
    n = SYS(write, channel, ADDRESS(&message), sizeof message);
  } else {
    struct rights rights = {sizeof(size_t) + 3 * sizeof(int), SOL_SOCKET_, SCM_RIGHTS_, descriptor, 0};
    struct vector vector = {&message, sizeof message};
    struct header header = {.vectors = &vector, .vector_count = 1, .control = &rights, .control_size = sizeof rights};
    n = SYS(sendmsg, channel, ADDRESS(&header), MSG_NOSIGNAL_);
  }
  return n < 0 ? (int)n : 0;
}

/* The starter's death closes its end: then there is nobody to go on for. */
static int wait_for_go(void) {
  struct message message;
  long n;
  while ((n = SYS(read, SYNC_FD, ADDRESS(&message), sizeof message)) == -EINTR) continue;
  if (n < 0) return (int)n;
  return n == (long)sizeof message && message.kind == MESSAGE_GO ? 0 : -ECANCELED;
}

int sync_with_starter(const struct step *s) {
  int result = send_message(SYNC_FD, MESSAGE_SYNC, (int32_t)s->number[0], 0, -1);
  return result < 0 ? result : wait_for_go();
}

/* Wait for what the launcher made beside us and hands over, and enter it (a namespace) or keep it. Its death, or its
 * failure, which it tells the starter by itself, closes its end. Numbers: descriptor, CLONE_NEW... or 0. */
int take_over(const struct step *s) {
  struct message message;
  struct rights rights = {.size = sizeof rights, .descriptor = -1};
  struct vector vector = {&message, sizeof message};
  struct header header = {.vectors = &vector, .vector_count = 1, .control = &rights, .control_size = sizeof rights};
  long n;
  while ((n = SYS(recvmsg, BESIDE_FD, ADDRESS(&header), MSG_CMSG_CLOEXEC_)) == -EINTR) continue;
  if (n < 0) return (int)n;
  if (n != (long)sizeof message || header.control_size < rights.size || rights.type != SCM_RIGHTS_) return -ECANCELED;
  if (message.kind != MESSAGE_HANDED || message.number != (int32_t)s->number[0]) return close_with(rights.descriptor, -EPROTO);
  if (!s->number[1]) return move_fd(rights.descriptor, (int)s->number[0]);
  return close_with(rights.descriptor, (int)SYS(setns, rights.descriptor, s->number[1]));
}

int announce(void) {
  struct message message = {.kind = MESSAGE_ANNOUNCED};
  long n = SYS(sendto, BESIDE_FD, ADDRESS(&message), sizeof message, MSG_NOSIGNAL_, 0, 0);
  return n < 0 ? (int)n : 0;
}

/* As with what is handed over: a launcher that has failed closes its end. */
int await_announced(void) {
  struct message message;
  long n;
  while ((n = SYS(read, BESIDE_FD, ADDRESS(&message), sizeof message)) == -EINTR) continue;
  if (n < 0) return (int)n;
  return n == (long)sizeof message && message.kind == MESSAGE_ANNOUNCED ? 0 : -ECANCELED;
}

/* The container is created. Whoever connects to the listening socket next starts it, and hears of what fails. */
int await_start(void) {
  int result = send_message(SYNC_FD, MESSAGE_READY, 0, 0, -1);
  if (result < 0) return result;
  SYS(close, SYNC_FD);
  int connection;
  while ((connection = (int)SYS(accept4, LISTEN_FD, 0, 0, SOCK_CLOEXEC_)) == -EINTR) continue;
  if (connection < 0) return connection;
  SYS(close, LISTEN_FD);
  result = move_fd(connection, SYNC_FD);
  return result < 0 ? result : wait_for_go();
}

/* Whoever listens at the path knows from the socket who asks, does what it wants to be done first, and says one byte. A
 * descriptor that comes with it becomes standard input. A socket that is closed instead is a refusal. */
int admission(const struct step *s) {
  struct { unsigned short family; char path[108]; } address = {.family = 1 /* AF_UNIX */};
  size_t size = s->length[0] + 1;
  if (size > sizeof address.path) return -ENAMETOOLONG;
  memcpy(address.path, s->string[0], size);
  int connection = (int)SYS(socket, address.family, 1 /* SOCK_STREAM */ | SOCK_CLOEXEC_, 0);
  if (connection < 0) return connection;
  long n = SYS(connect, connection, ADDRESS(&address), sizeof address.family + size);
  char word;
  struct rights rights = {.size = sizeof rights, .descriptor = -1};
  struct vector vector = {&word, 1};
  struct header header = {.vectors = &vector, .vector_count = 1, .control = &rights, .control_size = sizeof rights};
  while (n >= 0 && (n = SYS(recvmsg, connection, ADDRESS(&header), MSG_CMSG_CLOEXEC_)) == -EINTR) n = 0;
  if (n >= 0 && header.control_size >= rights.size && rights.type == SCM_RIGHTS_) {
    int placed = move_fd(rights.descriptor, 0);
    if (placed < 0) n = placed;
  }
  return close_with(connection, n < 0 ? (int)n : n == 1 ? 0 : -EACCES);
}

/* The slave side: whose it is, how large, the controlling terminal, the three standard streams. */
static int settle(int slave, const struct step *s) {
  struct winsize size = {.ws_row = (unsigned short)s->number[1], .ws_col = (unsigned short)s->number[2]};
  int result = (int)SYS(fchown, slave, s->number[0], -1);
  if (result == 0 && size.ws_row) result = (int)SYS(ioctl, slave, TIOCSWINSZ, ADDRESS(&size));
  if (result == 0 && s->number[3]) { /* it is /dev/console too */
    int target = below_file("dev/console");
    if (target < 0) return target;
    int tree = (int)SYS(open_tree, slave, ADDRESS(""), AT_EMPTY_PATH | 1 /* OPEN_TREE_CLONE */ | O_CLOEXEC);
    result = tree < 0 ? tree : close_with(tree, attach(tree, target));
    SYS(close, target);
  }
  if (result == 0) result = (int)SYS(setsid);
  if (result == -EPERM) result = 0; /* it leads a session already */
  if (result >= 0) result = (int)SYS(ioctl, slave, TIOCSCTTY, 0);
  for (int fd = 0; fd < 3 && result >= 0; fd++) result = (int)SYS(dup3, slave, fd, 0);
  return result < 0 ? result : 0;
}

/* A new terminal of the container's own devpts; its master goes to the starter. Numbers: uid, rows, columns, whether it
 * is /dev/console too. The peer is opened through the master, never by a name that the image could have taken. */
int terminal(const struct step *s) {
  int master = below_strictly("dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW);
  if (master < 0) return master;
  struct statfs64 status;
  int unlock = 0, result = (int)SYS(fstatfs, master, ADDRESS(&status));
  if (result == 0 && status.f_type != DEVPTS_MAGIC) result = -ENODEV;
  if (result == 0) result = (int)SYS(ioctl, master, TIOCSPTLCK, ADDRESS(&unlock));
  if (result < 0) return close_with(master, result);
  int slave = (int)SYS(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  if (slave < 0) return close_with(master, slave);
  result = settle(slave, s);
  if (result == 0) result = send_message(SYNC_FD, MESSAGE_CONSOLE, 0, 0, master);
  return close_with(master, close_with(slave, result));
}
