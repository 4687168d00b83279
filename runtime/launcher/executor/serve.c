/* Serving: plans that come while the launcher runs, through a terminal, which is how a guest is told who it is after it was
 * restored; and what a file says, again each time that somebody asks. */
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <linux/time_types.h>

#include "steps.h"
#include "sys.h"

enum { LARGEST_PLAN = 1 << 16, PREFIX = 12, MOST_ENTROPY = 512, BLOCK_SIZE = 4096, CLOCK_REALTIME_ = 0, BILLION = 1000000000 };

/* Bytes pass as they are, none is echoed and none has a meaning; what is written stays text. */
static int raw_input(int fd) {
  struct termios terminal;
  int result = (int)SYS(ioctl, fd, TCGETS, &terminal);
  if (result < 0) return result == -ENOTTY ? 0 : result;
  terminal.c_iflag = terminal.c_lflag = 0;
  terminal.c_cc[VMIN] = 1;
  terminal.c_cc[VTIME] = 0;
  return (int)SYS(ioctl, fd, TCSETS, &terminal);
}

/* A plan of steps only: what would execute a program has no arguments here. One that fails is reported and ends there,
 * and with it a process that it has forked. */
static int serve_plan(const uint8_t *bytes, size_t size) {
  struct plan plan;
  struct failure failure;
  long server = SYS(getpid);
  if (plan_read(&plan, bytes, size) != NULL || plan.exec_count) return -EINVAL;
  if (perform(&plan, plan.first_step, 0, plan_steps(&plan), &failure) == 0) return 0;
  int status = report(&plan, &failure);
  if (SYS(getpid) != server) end_process(status);
  return 0;
}

/* Ends with the file, or with bytes that are no plan: after those nothing can be made out. */
int perform_serve_plans(const struct step *s) {
  int fd = (int)s->serve_plans.fd, result = raw_input(fd);
  uint8_t *bytes = map(-1, LARGEST_PLAN);
  if (!bytes) return -ENOMEM;
  while (result >= 0 && (result = transfer(__NR_read, fd, bytes, PREFIX)) == 0) {
    uint32_t size = u32(bytes + 8); /* the header's second field, after the magic */
    if (size < PREFIX || size > LARGEST_PLAN) return -EPROTO;
    result = transfer(__NR_read, fd, bytes + PREFIX, size - PREFIX);
    if (result == 0) result = serve_plan(bytes, size);
  }
  return result == -EPIPE ? 0 : result;
}

/* A file of the kernel's is read in one piece, so what is written is of one moment. */
static int copy_out(const char *path, int fd) {
  char block[BLOCK_SIZE];
  OWNED int file = open_path(path, O_RDONLY);
  if (file < 0) return file;
  long n;
  while ((n = SYS(read, file, block, sizeof block)) > 0 && (n = SYS(write, fd, block, n)) > 0) continue;
  return (int)n;
}

/* Ends when the other side does. */
int perform_serve_file(const struct step *s) {
  char asked[BLOCK_SIZE];
  int fd = (int)s->serve_file.fd;
  for (;;) {
    long n = SYS(read, fd, asked, sizeof asked);
    if (n <= 0) return (int)n;
    int result = copy_out(s->serve_file.path, fd);
    if (result == 0) result = transfer(__NR_write, fd, s->serve_file.end, s->serve_file.end_size);
    if (result < 0) return result;
  }
}

/* Whoever writes gives the word; whoever closes will not. */
int perform_wait_input(const struct step *s) {
  char word;
  long n = SYS_AGAIN(read, (int)s->wait_input.fd, &word, 1);
  return n < 0 ? (int)n : n ? 0 : -EPIPE;
}

int perform_set_clock(const struct step *s) {
  struct __kernel_timespec time = {(int64_t)(s->set_clock.realtime_ns / BILLION), (int64_t)(s->set_clock.realtime_ns % BILLION)};
  return (int)SYS(clock_settime, CLOCK_REALTIME_, &time);
}

/* The bytes are credited in full and the generator is made to draw from them at once: what a copy of the kernel's state
 * would have given out next is given out by none of the copies. */
int perform_add_entropy(const struct step *s) {
  uint64_t size = s->add_entropy.entropy_size;
  int entropy[2 + MOST_ENTROPY / sizeof(int)] = {(int)size * 8, (int)size}; /* struct rand_pool_info */
  if (size > MOST_ENTROPY) return -E2BIG;
  memcpy(entropy + 2, s->add_entropy.entropy, size);
  OWNED int fd = open_path(s->add_entropy.device, O_RDONLY);
  int result = fd < 0 ? fd : (int)SYS(ioctl, fd, RNDADDENTROPY, entropy);
  return result < 0 ? result : (int)SYS(ioctl, fd, RNDRESEEDCRNG, 0);
}
