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

/* Wait for a message of this kind. The other side's death closes its end: then there is nobody to go on for. */
static int wait_for_message(int channel, uint32_t kind) {
  struct message message;
  long n;
  while ((n = SYS(read, channel, ADDRESS(&message), sizeof message)) == -EINTR) continue;
  if (n < 0) return (int)n;
  return n == (long)sizeof message && message.kind == kind ? 0 : -ECANCELED;
}

/* Receive at most `size` bytes and a descriptor, -1 without one. Returns their number, or a negative errno. */
static long receive(int channel, void *bytes, size_t size, int *descriptor) {
  struct rights rights = {.size = sizeof rights, .descriptor = -1};
  struct vector vector = {bytes, size};
  struct header header = {.vectors = &vector, .vector_count = 1, .control = &rights, .control_size = sizeof rights};
  long n;
  while ((n = SYS(recvmsg, channel, ADDRESS(&header), MSG_CMSG_CLOEXEC_)) == -EINTR) continue;
  *descriptor = n >= 0 && header.control_size >= rights.size && rights.type == SCM_RIGHTS_ ? rights.descriptor : -1;
  return n;
}

int perform_sync(const struct step *s) {
  int result = send_message(SYNC_FD, MESSAGE_SYNC, (int32_t)s->sync.number, 0, -1);
  return result < 0 ? result : wait_for_message(SYNC_FD, MESSAGE_GO);
}

/* The container is created. Whoever connects to the listening socket next starts it, and hears of what fails. */
int perform_wait_start(const struct step *s) {
  int result = send_message(SYNC_FD, MESSAGE_READY, 0, 0, -1);
  if (result < 0) return result;
  SYS(close, SYNC_FD);
  int connection;
  while ((connection = (int)SYS(accept4, LISTEN_FD, 0, 0, SOCK_CLOEXEC_)) == -EINTR) continue;
  if (connection < 0) return connection;
  SYS(close, LISTEN_FD);
  result = move_fd(connection, SYNC_FD);
  return result < 0 ? result : wait_for_message(SYNC_FD, MESSAGE_GO);
}

/* Whoever listens at the path knows from the socket who asks, does what it wants to be done first, and says one byte. A
 * descriptor that comes with it becomes standard input. A socket that is closed instead is a refusal. */
int perform_request_admission(const struct step *s) {
  struct { unsigned short family; char path[108]; } address = {.family = 1 /* AF_UNIX */};
  uint64_t size = s->request_admission.path_size + 1;
  if (size > sizeof address.path) return -ENAMETOOLONG;
  memcpy(address.path, s->request_admission.path, size);
  int connection = (int)SYS(socket, address.family, 1 /* SOCK_STREAM */ | SOCK_CLOEXEC_, 0), descriptor = -1;
  if (connection < 0) return connection;
  char word;
  long n = SYS(connect, connection, ADDRESS(&address), sizeof address.family + size);
  if (n >= 0) n = receive(connection, &word, 1, &descriptor);
  int placed = descriptor < 0 ? 0 : move_fd(descriptor, 0);
  if (placed < 0) n = placed;
  return close_with(connection, n < 0 ? (int)n : n == 1 ? 0 : -EACCES);
}

/* The slave side: whose it is, how large, the controlling terminal, the three standard streams. */
static int settle(int slave, const struct step *s) {
  struct winsize size = {.ws_row = (unsigned short)s->terminal.rows, .ws_col = (unsigned short)s->terminal.columns};
  int result = (int)SYS(fchown, slave, s->terminal.uid, -1);
  if (result == 0 && size.ws_row) result = (int)SYS(ioctl, slave, TIOCSWINSZ, ADDRESS(&size));
  if (result == 0 && s->terminal.console) { /* it is /dev/console too */
    int target = make_file_in_root("dev/console");
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

/* A new terminal of the container's own devpts; its master goes to the parent. The peer is opened through the master, never by a name that the image could have taken. */
int perform_terminal(const struct step *s) {
  int master = open_strictly_in_root("dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW);
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
