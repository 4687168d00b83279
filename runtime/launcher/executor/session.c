/* Talking with whoever started the launcher, and the terminal that is handed over to it. */
#include <sys/mman.h>
#include <sys/socket.h>
#include <asm/ioctls.h>
#include <asm/statfs.h>
#include <asm/termios.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

/* struct cmsghdr, and what follows it. */
struct rights {
  size_t size;
  int level, type, descriptors[MOST_RECEIVED];
};

/* Without a descriptor to carry, plain write(2): a seccomp filter that has begun seldom forbids that one. */
int send_message(int channel, uint32_t kind, int32_t number, int64_t value, int descriptor) {
  struct message message = {kind, number, value};
  if (descriptor < 0) return transfer(__NR_write, channel, &message, sizeof message);
  struct rights rights = {CMSG_LEN(sizeof descriptor), SOL_SOCKET, SCM_RIGHTS, {descriptor}};
  struct iovec bytes = {&message, sizeof message};
  struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = CMSG_SPACE(sizeof descriptor)};
  long n = SYS(sendmsg, channel, &header, MSG_NOSIGNAL);
  return n < 0 ? (int)n : 0;
}

long receive(int channel, void *to, size_t size, int *descriptors, size_t most) {
  struct rights rights = {.size = 0};
  struct iovec bytes = {to, size};
  struct msghdr header = {.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &rights, .msg_controllen = CMSG_LEN(most * sizeof(int))};
  long n = SYS_AGAIN(recvmsg, channel, &header, MSG_CMSG_CLOEXEC);
  int any = n >= 0 && header.msg_controllen > CMSG_LEN(0) && rights.type == SCM_RIGHTS;
  for (size_t i = 0; i < most; i++) descriptors[i] = any && CMSG_LEN((i + 1) * sizeof(int)) <= rights.size ? rights.descriptors[i] : -1;
  return n;
}

/* Wait for a message of this kind. The other side's death closes its end: then there is nobody to go on for. */
static int wait_for_message(int channel, uint32_t kind) {
  struct message message;
  long n = SYS_AGAIN(read, channel, &message, sizeof message);
  return n < 0 ? (int)n : n == (long)sizeof message && message.kind == kind ? 0 : -ECANCELED;
}

int perform_sync(const struct step *s) {
  int result = send_message(SYNC_FD, MESSAGE_SYNC, (int32_t)s->sync.number, 0, -1);
  return result < 0 ? result : wait_for_message(SYNC_FD, MESSAGE_GO);
}

static volatile int64_t *step_times;

void note_time(uint32_t index) {
  if (step_times) step_times[index] = now_ns();
}

/* A file of ours that is shorter than the plan needs is none that could be written to. */
int perform_note_times(const struct step *s) {
  OWNED int file = (int)s->note_times.fd;
  struct statx status;
  size_t size = (plan_steps(s->progress->plan) + 1) * sizeof *step_times;
  int result = status_of(file, "", &status);
  if (result < 0) return result;
  if (status.stx_size < size) return -ENOSPC;
  long address = SYS(mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (address < 0 && address > -4096) return (int)address;
  step_times = (volatile int64_t *)address;
  return 0;
}

/* What whoever starts the container reads when the socket has closed and the process may have been reaped, so that nobody
 * else can tell whether it had come to its exec. It is memory because a filter may forbid every call but that. */
static volatile struct message *last_word;

int has_last_word(void) { return last_word != NULL; }

void leave_last_word(uint32_t kind, int32_t number, int64_t value) {
  if (!last_word) return;
  last_word->number = number;
  last_word->value = value;
  last_word->kind = kind;
}

/* The word to start, with which a file may come: one page for the last word. */
static int wait_for_start(int channel) {
  struct message message;
  int descriptor;
  long n = receive(channel, &message, sizeof message, &descriptor, 1);
  OWNED int file = descriptor;
  if (n < 0) return (int)n;
  if (n != (long)sizeof message || message.kind != MESSAGE_GO) return -ECANCELED;
  if (file < 0) return 0;
  long address = SYS(mmap, 0, sizeof message, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (address < 0 && address > -4096) return (int)address;
  last_word = (volatile struct message *)address;
  return 0;
}

/* The container is created. Whoever connects to the listening socket next starts it, and hears of what fails. */
int perform_wait_start(const struct step *s) {
  int result = send_message(SYNC_FD, MESSAGE_READY, 0, 0, -1);
  if (result < 0) return result;
  SYS(close, SYNC_FD);
  int connection = (int)SYS_AGAIN(accept4, LISTEN_FD, 0, 0, SOCK_CLOEXEC);
  if (connection < 0) return connection;
  SYS(close, LISTEN_FD);
  result = move_fd(connection, SYNC_FD);
  return result < 0 ? result : wait_for_start(SYNC_FD);
}

/* Whoever listens at the path knows from the socket who asks, does what it wants to be done first, and says one byte. A
 * descriptor that comes with it becomes standard input. A socket that is closed instead is a refusal. */
int perform_request_admission(const struct step *s) {
  OWNED int connection = unix_socket(__NR_connect, SOCK_STREAM, s->request_admission.path);
  if (connection < 0) return connection;
  char word;
  int descriptor;
  long n = receive(connection, &word, 1, &descriptor, 1);
  int placed = descriptor < 0 ? 0 : move_fd(descriptor, 0);
  return placed < 0 ? placed : n < 0 ? (int)n : n == 1 ? 0 : -EACCES;
}

/* The slave is /dev/console too. */
static int bind_console(int slave) {
  OWNED int target = make_file_in_root("dev/console");
  if (target < 0) return target;
  OWNED int tree = (int)SYS(open_tree, slave, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | O_CLOEXEC);
  return tree < 0 ? tree : attach(tree, target);
}

/* The slave side: whose it is, how large, the controlling terminal, the three standard streams. */
static int settle(int slave, const struct step *s) {
  struct winsize size = {.ws_row = (unsigned short)s->terminal.rows, .ws_col = (unsigned short)s->terminal.columns};
  int result = (int)SYS(fchown, slave, s->terminal.uid, -1);
  if (result == 0 && size.ws_row) result = (int)SYS(ioctl, slave, TIOCSWINSZ, &size);
  if (result == 0 && s->terminal.console) result = bind_console(slave);
  if (result == 0) result = (int)SYS(setsid);
  if (result == -EPERM) result = 0; /* it leads a session already */
  if (result >= 0) result = (int)SYS(ioctl, slave, TIOCSCTTY, 0);
  for (int fd = 0; fd < 3 && result >= 0; fd++) result = (int)SYS(dup3, slave, fd, 0);
  return result < 0 ? result : 0;
}

/* A new terminal of the container's own devpts; its master goes to the parent. The peer is opened through the master, never
 * by a name that the image could have taken. */
int perform_terminal(const struct step *s) {
  OWNED int master = open_strictly_in_root("dev/pts/ptmx", O_RDWR | O_NOCTTY | O_NOFOLLOW);
  if (master < 0) return master;
  struct statfs64 status;
  int unlock = 0, result = (int)SYS(fstatfs, master, &status);
  if (result == 0 && status.f_type != DEVPTS_SUPER_MAGIC) result = -ENODEV;
  if (result == 0) result = (int)SYS(ioctl, master, TIOCSPTLCK, &unlock);
  OWNED int slave = result < 0 ? result : (int)SYS(ioctl, master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
  result = slave < 0 ? slave : settle(slave, s);
  return result < 0 ? result : send_message(SYNC_FD, MESSAGE_CONSOLE, 0, 0, master);
}
