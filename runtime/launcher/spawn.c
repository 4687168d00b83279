/* clone3 with CLONE_VM and CLONE_VFORK: the child borrows the parent's memory until it executes, so neither
 * page tables are copied nor is a helper program executed, and a failure is reported by writing it down. */
#define _GNU_SOURCE
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { STACK_SIZE = 64 << 10 };

struct child {
  const struct plan *plan;
  const int *stdio;
  struct spawned *spawned;
  struct failure *failure;
};

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* Copies first, so that a descriptor that is itself 0, 1 or 2 is not overwritten before it is used. */
static int place_stdio(const int stdio[3]) {
  int copy[3];
  for (int i = 0; i < 3; i++)
    if ((copy[i] = fcntl(stdio[i], F_DUPFD_CLOEXEC, 3)) < 0) return -1;
  for (int i = 0; i < 3; i++)
    if (dup2(copy[i], i) < 0) return -1;
  return 0;
}

__attribute__((noreturn, used)) static void child_main(struct child *c) {
  c->spawned->cloned_ns = now_ns();
  struct sigaction defaults;
  memset(&defaults, 0, sizeof defaults);
  defaults.sa_handler = SIG_DFL;
  for (int number = 1; number < 32; number++) sigaction(number, &defaults, NULL);
  uint32_t first = c->plan->parent_count;
  if (place_stdio(c->stdio) != 0) *c->failure = (struct failure){-1, errno};
  else if (perform(c->plan, c->plan->first_child_step, first, c->plan->child_count, c->failure) == 0)
    *c->failure = (struct failure){-1, ENOEXEC}; /* a plan with no exec step */
  _exit(127);
}

/* clone3 onto a stack of its own. A C function must not return on the child's empty stack, so the child's
 * first call is made here. */
static long clone3_call(struct clone_args *args, struct child *child) {
#if defined(__x86_64__)
  register struct child *argument __asm__("r12") = child;
  register void *entry __asm__("r13") = (void *)child_main;
  long result = SYS_clone3;
  __asm__ volatile("syscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\txor %%ebp, %%ebp\n\tmov %%r12, %%rdi\n\tcall *%%r13\n\thlt\n1:"
                   : "+a"(result)
                   : "D"(args), "S"(sizeof *args), "r"(argument), "r"(entry)
                   : "rcx", "r11", "memory", "cc");
  return result;
#elif defined(__aarch64__)
  register long number __asm__("x8") = SYS_clone3;
  register long result __asm__("x0") = (long)args;
  register long size __asm__("x1") = sizeof *args;
  register struct child *argument __asm__("x19") = child;
  register void *entry __asm__("x20") = (void *)child_main;
  __asm__ volatile("svc 0\n\tcbnz x0, 1f\n\tmov x29, xzr\n\tmov x0, x19\n\tblr x20\n\tbrk 0\n1:"
                   : "+r"(result)
                   : "r"(number), "r"(size), "r"(argument), "r"(entry)
                   : "x30", "memory", "cc");
  return result;
#else
#error "clone3_call has no version for this processor"
#endif
}

static int fail(struct failure *failure, int error) {
  *failure = (struct failure){-1, error};
  return -1;
}

int spawn(const struct plan *plan, const int stdio[3], struct spawned *spawned, struct failure *failure) {
  *failure = (struct failure){-2, 0};
  if (perform(plan, plan->first_step, 0, plan->parent_count, failure) != 0) return -1;
  int cgroup = -1;
  if (*plan->into_cgroup && (cgroup = open(plan->into_cgroup, O_PATH | O_DIRECTORY | O_CLOEXEC)) < 0)
    return fail(failure, errno);
  void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stack == MAP_FAILED) {
    int error = errno;
    if (cgroup >= 0) close(cgroup);
    return fail(failure, error);
  }
  struct child child = {plan, stdio, spawned, failure};
  struct clone_args args = {
    .flags = plan->clone_flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
    .pidfd = (uintptr_t)&spawned->pidfd,
    .exit_signal = SIGCHLD,
    .stack = (uintptr_t)stack,
    .stack_size = STACK_SIZE,
    .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
  };
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before); /* no handler of the parent may run in the child */
  long pid = clone3_call(&args, &child);
  spawned->executed_ns = now_ns();
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  munmap(stack, STACK_SIZE);
  if (cgroup >= 0) close(cgroup);
  if (pid < 0) return fail(failure, (int)-pid);
  spawned->pid = (pid_t)pid;
  if (failure->step == -2) return 0;
  close(spawned->pidfd);
  while (waitpid(spawned->pid, NULL, 0) < 0 && errno == EINTR) continue;
  return -1;
}
