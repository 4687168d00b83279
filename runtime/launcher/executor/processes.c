/* Processes of whoever performs a plan in its own process: those that it starts, signals and waits for. */
#include <sys/mman.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <signal.h>
#include <time.h>

#include "steps.h"
#include "sys.h"

int64_t step_value;

void *map(int fd, size_t size) {
  long address = SYS(mmap, 0, size, fd < 0 ? PROT_READ | PROT_WRITE : PROT_READ, fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_PRIVATE, fd, 0);
  return address < 0 && address > -4096 ? NULL : (void *)address;
}

int64_t now_ns(void) {
  struct timespec t = {0, 0};
  SYS(clock_gettime, CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void sleep_1ms(void) {
  struct timespec pause = {0, 1000000};
  SYS(nanosleep, &pause, 0);
}

/* A filter may forbid even that, with an error: then it is an instruction that nothing can go on after. */
void end_process(int status) {
  SYS(exit_group, status);
  for (;;) __builtin_trap();
}

long fork_process(uint64_t flags) {
  struct clone_args args = {.flags = flags, .exit_signal = SIGCHLD};
  return SYS(clone3, &args, sizeof args);
}

int wait_for(long pid) {
  int status = 0;
  long result = SYS_AGAIN(wait4, pid, &status, 0, 0);
  return result < 0 ? (int)result : exit_code(status);
}

/* Ignored signals outlive an exec, and so does the mask. */
void default_signals(void) {
  struct { uint64_t handler, flags, restorer, mask; } action = {0, 0, 0, 0};
  for (int number = 1; number <= 64; number++) SYS(rt_sigaction, number, &action, 0, sizeof action.mask);
  SYS(rt_sigprocmask, SIG_SETMASK, &action.mask, 0, sizeof action.mask);
}

/* In the new process: what it is given takes its places, and then it is the launcher. */
static __attribute__((noreturn)) void be_launcher(const struct step *s) {
  const char *argv[3]; /* filled here: the binary holds no pointers, for nothing would relocate them */
  int32_t pair[2];
  argv[0] = "testbed-launcher";
  argv[1] = "--start";
  argv[2] = NULL;
  for (size_t at = 0; at + sizeof pair <= s->spawn.descriptors_size; at += sizeof pair) {
    memcpy(pair, s->spawn.descriptors + at, sizeof pair);
    if (SYS(dup3, pair[0], pair[1], 0) < 0) end_process(125);
  }
  SYS(execveat, s->spawn.launcher, "", argv, argv + 2 /* no environment */, AT_EMPTY_PATH);
  end_process(125);
}

int perform_spawn(const struct step *s) {
  long pid = fork_process(0);
  if (pid == 0) be_launcher(s);
  if (pid > 0) step_value = pid;
  return pid < 0 ? (int)pid : 0;
}

int perform_reap(const struct step *s) {
  int status = wait_for((long)s->reap.pid);
  if (status >= 0) step_value = status;
  return status < 0 ? status : 0;
}

int perform_signal_process(const struct step *s) {
  return (int)SYS(pidfd_send_signal, s->signal_process.fd, s->signal_process.number, 0, 0);
}

/* What a process alone can be told, by its kernel, its terminal or its child, is not passed on; all else is, as runc does. */
static const uint64_t PASSED_ON = ~(1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1) | 1ULL << (SIGSEGV - 1) | 1ULL << (SIGBUS - 1) |
  1ULL << (SIGFPE - 1) | 1ULL << (SIGILL - 1) | 1ULL << (SIGTRAP - 1) | 1ULL << (SIGABRT - 1) | 1ULL << (SIGSYS - 1) |
  1ULL << (SIGTTIN - 1) | 1ULL << (SIGTTOU - 1) | 1ULL << (SIGURG - 1) | 1ULL << (SIGWINCH - 1));

int perform_hold_signals(const struct step *s) { return (int)SYS(rt_sigprocmask, SIG_BLOCK, &PASSED_ON, 0, sizeof PASSED_ON); }

int perform_accompany(const struct step *s) {
  long pid = (long)s->accompany.pid;
  (void)perform_hold_signals(s); /* from now on at the latest: the first look at the child comes after it */
  int signals = (int)SYS(signalfd4, -1, &PASSED_ON, sizeof PASSED_ON, O_CLOEXEC), status = 0;
  for (;;) {
    uint32_t info[32]; /* struct signalfd_siginfo, of which the first is the number */
    long result = SYS(wait4, pid, &status, WNOHANG, 0);
    if (result < 0) return (int)result;
    if (result == pid) break;
    if (SYS(read, signals, info, sizeof info) == (long)sizeof info && info[0] != SIGCHLD) SYS(kill, pid, info[0]);
  }
  step_value = exit_code(status);
  if (s->accompany.relay) (void)wait_for((long)s->accompany.relay);
  return 0;
}
