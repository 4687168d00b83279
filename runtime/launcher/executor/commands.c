/* Programs that are started from afar, beside the workload: frames come and go through a port (runtime/launcher/frames.py),
 * several programs at a time, each by a plan that is performed as any other. */
#include <sys/socket.h>
#include <asm/ioctls.h>
#include <asm/termios.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "steps.h"
#include "sys.h"

enum { STREAMS = 2, WATCHED = 5, LEFT_AT_END = 1 << 20 };

/* A command: `talk` is where its start is told of, -1 once it is executed; then `process` is a descriptor of it. Of a
 * terminal, `output[0]` is its master, and the input too. */
struct command {
  uint32_t id;
  int used, terminal, killed, ended, status;
  int talk, process, input, output[STREAMS];
  long launcher, pid;
  struct failure failure;
  uint32_t credit, left; /* bytes that may be sent, and of those after its end */
  uint32_t pending, passed_on;
  uint8_t piece[FRAME_PIECE_BYTES];
};

static struct command commands[FRAME_MOST_COMMANDS];
static uint8_t frame[FRAME_HEADER_BYTES + FRAME_PLAN_BYTES];

static void put(uint8_t *at, uint32_t value) {
  for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> 8 * i);
}

static int send_frame(int port, uint32_t id, uint32_t kind, const void *bytes, uint32_t size) {
  uint8_t whole[FRAME_HEADER_BYTES + FRAME_PIECE_BYTES];
  put(whole, id);
  put(whole + 4, kind);
  put(whole + 8, size);
  memcpy(whole + FRAME_HEADER_BYTES, bytes, size);
  return transfer(__NR_write, port, whole, FRAME_HEADER_BYTES + size);
}

static int send_numbers(int port, uint32_t id, uint32_t kind, int32_t first, int32_t second) {
  uint8_t numbers[8];
  put(numbers, (uint32_t)first);
  put(numbers + 4, (uint32_t)second);
  return send_frame(port, id, kind, numbers, sizeof numbers);
}

static void close_one(int *fd) {
  close_owned(fd);
  *fd = -1;
}

static void close_streams(struct command *c) {
  if (c->terminal) c->input = -1;
  close_one(&c->input);
  for (int i = 0; i < STREAMS; i++) close_one(&c->output[i]);
}

static int forget(struct command *c, int result) {
  close_streams(c);
  close_one(&c->talk);
  close_one(&c->process);
  c->used = 0;
  return result;
}

/* --- the start -------------------------------------------------------------------------------------------- */

/* In a process of its own, which is its caller's only until the program's is there: the three streams, the socket, and then
 * it is the launcher. */
static __attribute__((noreturn)) void begin_command(const uint8_t *bytes, size_t size, const int *streams, int talk) {
  struct plan plan;
  for (int fd = 0; fd < 3; fd++)
    if (SYS(dup3, streams[fd], fd, 0) < 0) end_process(125);
  if (SYS(dup3, talk, SYNC_FD, O_CLOEXEC) < 0) end_process(125);
  end_process(start_beside(read_plan(&plan, bytes, size, NULL, NULL) ? NULL : &plan));
}

/* Pipes and a socket, of which [0] is ours: `ours` and `theirs` have input, output, errors, socket. */
static int make_streams(int *ours, int *theirs) {
  for (int i = 0; i < 4; i++) ours[i] = theirs[i] = -1;
  for (int i = 0; i < 4; i++) {
    int pair[2], result = i == 3 ? (int)SYS(socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) : (int)SYS(pipe2, pair, O_CLOEXEC);
    if (result < 0) return result;
    ours[i] = pair[i == 0];
    theirs[i] = pair[i != 0];
    if (i < 3) SYS(fcntl, ours[i], F_SETFL, O_NONBLOCK);
  }
  return 0;
}

static int start_command(struct command *c, uint32_t id, const uint8_t *bytes, size_t size) {
  int ours[4], theirs[4], result = make_streams(ours, theirs);
  long pid = result < 0 ? result : fork_process(0);
  if (pid == 0) begin_command(bytes, size, theirs, theirs[3]);
  for (int i = 0; i < 4; i++) {
    close_owned(&theirs[i]);
    if (pid < 0) close_owned(&ours[i]);
  }
  if (pid < 0) return (int)pid;
  *c = (struct command){.id = id,
    .used = 1,
    .launcher = pid,
    .talk = ours[3],
    .process = -1,
    .credit = FRAME_CREDIT_BYTES,
    .left = LEFT_AT_END,
    .input = ours[0],
    .output = {ours[1], ours[2]}};
  return 0;
}

static void take_terminal(struct command *c, int master) {
  close_streams(c);
  c->terminal = 1;
  c->input = c->output[0] = master;
  SYS(fcntl, master, F_SETFL, O_NONBLOCK);
}

/* The socket is closed once all of its other ends are: the program is executed, or there is no process any more. */
static int end_start(struct command *c, int port) {
  close_one(&c->talk);
  (void)wait_for(c->launcher);
  if (!c->pid && !c->failure.error) c->failure = (struct failure){-1, ECANCELED};
  if (c->failure.error) {
    if (c->pid) (void)wait_for(c->pid);
    return forget(c, send_numbers(port, c->id, FRAME_FAILED, c->failure.step, c->failure.error));
  }
  c->process = (int)SYS(pidfd_open, c->pid, 0);
  if (c->process < 0) return c->process;
  if (c->killed) SYS(pidfd_send_signal, c->process, SIGKILL, 0, 0);
  int result = send_numbers(port, c->id, FRAME_STARTED, (int32_t)c->pid, 0);
  return result < 0 || c->terminal ? result : send_frame(port, c->id, FRAME_WANTED, "", 0);
}

static int take_word(struct command *c, int port) {
  struct message message;
  int descriptor;
  long n = receive(c->talk, &message, sizeof message, &descriptor, 1);
  if (n == (long)sizeof message && message.kind == MESSAGE_CONSOLE && descriptor >= 0) {
    take_terminal(c, descriptor);
    return send_frame(port, c->id, FRAME_WANTED, "", 0);
  }
  close_owned(&descriptor);
  if (n != (long)sizeof message) return end_start(c, port);
  if (message.kind == MESSAGE_PID) c->pid = message.number;
  else if (message.kind == MESSAGE_FAILED && !c->failure.error) c->failure = (struct failure){message.number, (int32_t)message.value};
  return 0;
}

/* --- its streams ------------------------------------------------------------------------------------------ */

/* What it does not read any more is as good as read. */
static int pass_on(struct command *c, int port) {
  long n = SYS(write, c->input, c->piece + c->passed_on, c->pending - c->passed_on);
  if (n == -EAGAIN || n == -EINTR) return 0;
  c->passed_on = n < 0 ? c->pending : c->passed_on + (uint32_t)n;
  if (c->passed_on < c->pending) return 0;
  c->pending = c->passed_on = 0;
  return send_frame(port, c->id, FRAME_WANTED, "", 0);
}

static int take_input(struct command *c, int port, const uint8_t *bytes, uint32_t size) {
  if (!size || c->input < 0) {
    if (!c->terminal) close_one(&c->input);
    return size ? send_frame(port, c->id, FRAME_WANTED, "", 0) : 0;
  }
  if (size > sizeof c->piece || c->pending) return -EPROTO;
  memcpy(c->piece, bytes, size);
  c->pending = size;
  return pass_on(c, port);
}

/* One piece of what it writes. After its end a process that it left behind may go on to write for ever. */
static int take_output(struct command *c, int port, int i) {
  uint8_t bytes[FRAME_PIECE_BYTES];
  uint32_t most = c->credit < sizeof bytes ? c->credit : sizeof bytes;
  if (c->ended && c->left < most) most = c->left;
  long n = most ? SYS(read, c->output[i], bytes, most) : 0;
  if (n == -EINTR || (n == -EAGAIN && !c->ended)) return 0;
  if (n <= 0) {
    if (c->terminal) c->input = -1;
    close_one(&c->output[i]);
    return 0;
  }
  c->credit -= (uint32_t)n;
  if (c->ended) c->left -= (uint32_t)n;
  return send_frame(port, c->id, i ? FRAME_ERRORS : FRAME_OUTPUT, bytes, (uint32_t)n);
}

static int take_end(struct command *c, int port) {
  if (!c->ended) c->status = wait_for(c->pid);
  c->ended = 1;
  for (int i = 0; i < STREAMS; i++)
    while (c->output[i] >= 0) {
      if (!c->credit) return 0; /* until more is taken */
      int result = take_output(c, port, i);
      if (result < 0) return result;
    }
  return forget(c, send_numbers(port, c->id, FRAME_ENDED, c->status, 0));
}

/* --- the port --------------------------------------------------------------------------------------------- */

static struct command *find(uint32_t id) {
  for (int i = 0; i < FRAME_MOST_COMMANDS; i++)
    if (commands[i].used && commands[i].id == id) return &commands[i];
  return NULL;
}

static int open_command(int port, uint32_t id, const uint8_t *bytes, uint32_t size) {
  int result = -EAGAIN;
  for (int i = 0; i < FRAME_MOST_COMMANDS && result == -EAGAIN; i++)
    if (!commands[i].used) result = start_command(&commands[i], id, bytes, size);
  return result < 0 ? send_numbers(port, id, FRAME_FAILED, -1, -result) : 0;
}

static void kill_command(struct command *c) {
  c->killed = 1;
  if (c->process >= 0 && !c->ended) SYS(pidfd_send_signal, c->process, SIGKILL, 0, 0);
}

static void set_size(struct command *c, const uint8_t *bytes) {
  struct winsize size = {.ws_row = (unsigned short)u32(bytes), .ws_col = (unsigned short)u32(bytes + 4)};
  if (c->terminal && c->output[0] >= 0) SYS(ioctl, c->output[0], TIOCSWINSZ, &size);
}

static int take_frame(int port, uint32_t id, uint32_t kind, const uint8_t *bytes, uint32_t size) {
  struct command *c = find(id);
  if (kind == FRAME_START) return c ? -EPROTO : open_command(port, id, bytes, size);
  if (!c) return 0; /* it has ended meanwhile */
  if (kind == FRAME_INPUT) return take_input(c, port, bytes, size);
  if (kind == FRAME_KILL) kill_command(c);
  else if (kind == FRAME_TAKEN && size >= 4) c->credit += u32(bytes);
  else if (kind == FRAME_SIZE && size >= 8) set_size(c, bytes);
  return 0;
}

/* Nothing to read means that the other end is not there yet, or not any more. */
static int read_frame(int port) {
  long n = SYS_AGAIN(read, port, frame, FRAME_HEADER_BYTES);
  if (n <= 0) sleep_1ms();
  if (n <= 0) return (int)n;
  int result = transfer(__NR_read, port, frame + n, (size_t)(FRAME_HEADER_BYTES - n));
  uint32_t size = u32(frame + 8);
  if (result == 0 && size > FRAME_PLAN_BYTES) return -EPROTO;
  if (result == 0) result = transfer(__NR_read, port, frame + FRAME_HEADER_BYTES, size);
  return result < 0 ? result : take_frame(port, u32(frame), u32(frame + 4), frame + FRAME_HEADER_BYTES, size);
}

/* What of a command is waited for, in the order in which it is looked at. */
static void watch(const struct command *c, struct pollfd *at) {
  int reads = c->used && !c->ended && c->talk < 0 && c->credit;
  at[0] = (struct pollfd){c->used ? c->talk : -1, POLLIN, 0};
  at[1] = (struct pollfd){c->used && c->pending ? c->input : -1, POLLOUT, 0};
  at[2] = (struct pollfd){reads ? c->output[0] : -1, POLLIN, 0};
  at[3] = (struct pollfd){reads ? c->output[1] : -1, POLLIN, 0};
  at[4] = (struct pollfd){c->used && !c->ended ? c->process : -1, POLLIN, 0};
}

static int look_at(struct command *c, int port, const struct pollfd *at) {
  int result = 0;
  if (at[0].revents) return take_word(c, port);
  if (at[1].revents) result = pass_on(c, port);
  for (int i = 0; i < STREAMS && result == 0; i++)
    if (at[2 + i].revents && c->output[i] >= 0) result = take_output(c, port, i);
  return result == 0 && c->used && (at[4].revents || c->ended) ? take_end(c, port) : result;
}

/* The first of the paths that there is. */
static int open_port(const struct step *s) {
  for (uint64_t waited_ms = 0; waited_ms < s->serve_commands.timeout_ms; waited_ms++, sleep_1ms()) {
    const uint8_t *path = s->list;
    for (uint64_t i = 0; i < s->serve_commands.paths_count; i++, path = plan_next_string(path)) {
      int port = open_path((const char *)path + 4, O_RDWR);
      if (port != -ENOENT) return port;
    }
  }
  return -ETIMEDOUT;
}

/* Ends when the port does. A reader of ours that has gone is an error, not a signal. */
int perform_serve_commands(const struct step *s) {
  struct { uint64_t handler, flags, restorer, mask; } ignored = {1 /* SIG_IGN */, 0, 0, 0};
  OWNED int port = open_port(s);
  int result = port < 0 ? port : (int)SYS(rt_sigaction, SIGPIPE, &ignored, 0, sizeof ignored.mask);
  while (result == 0) {
    struct pollfd watched[1 + WATCHED * FRAME_MOST_COMMANDS];
    watched[0] = (struct pollfd){port, POLLIN, 0};
    for (int i = 0; i < FRAME_MOST_COMMANDS; i++) watch(&commands[i], &watched[1 + WATCHED * i]);
    long n = SYS_AGAIN(ppoll, watched, sizeof watched / sizeof *watched, 0, 0, 0);
    if (n < 0) return (int)n;
    if (watched[0].revents) result = read_frame(port);
    for (int i = 0; i < FRAME_MOST_COMMANDS && result == 0; i++)
      if (commands[i].used) result = look_at(&commands[i], port, &watched[1 + WATCHED * i]);
  }
  return result;
}
