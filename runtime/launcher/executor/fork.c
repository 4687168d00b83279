/* Several processes from one plan: a step that makes those after it a process of their own, and one that waits for their
 * end. */
#include <asm/ioctls.h>
#include <errno.h>

#include "steps.h"
#include "sys.h"

enum { MOST_FORKED = 64 };

/* Whom a plan has forked, in order. Beyond the most it goes on without remembering: their end has no name then. */
static long forked[MOST_FORKED];
static uint32_t forked_count;

/* The forked process goes on with the steps that follow, and ends with them unless one executes a program; this one goes
 * on after them. What is open stays open in both. */
int perform_fork(const struct step *s) {
  struct progress *progress = s->progress;
  uint32_t n = (uint32_t)s->fork.count;
  long pid = fork_process(s->fork.flags);
  if (pid == 0) {
    progress->end = progress->index + n;
    progress->forked = 1;
    return 0;
  }
  if (pid > 0 && forked_count < MOST_FORKED) forked[forked_count++] = pid;
  struct step skipped;
  for (uint32_t i = 0; i < n; i++) plan_step(progress->plan, &progress->offset, &skipped);
  progress->index += n;
  return pid < 0 ? (int)pid : 0;
}

/* What became of a process that has just been reaped: its name, empty for one without, whether it may leave, and how many
 * named ones are there still. */
struct departure {
  const char *name;
  int may_leave;
  uint32_t others;
};

static struct departure depart(long pid, const struct step *s) {
  struct departure of = {"", 0, 0};
  const uint8_t *at = s->list;
  for (uint32_t i = 0; i < s->wait_first_exit.names_count && i < forked_count; i++, at = plan_next_string(at)) {
    const char *name = (const char *)at + 4;
    if (forked[i] == pid) {
      of.name = name;
      of.may_leave = (int)(s->wait_first_exit.leaving >> i & 1);
      forked[i] = 0;
    } else if (forked[i] && *name) of.others++;
  }
  return of;
}

/* Ends with the status of the first named one that ends and may not leave, or of the last; orphans are only reaped. A terminal
 * may still hold what was written to it when PID 1 ends, and would lose it. */
int perform_wait_first_exit(const struct step *s) {
  for (;;) {
    int status = 0;
    long pid = SYS_AGAIN(wait4, -1, &status, 0, 0);
    if (pid < 0) return (int)pid;
    struct departure of = depart(pid, s);
    if (!*of.name) continue;
    int code = exit_code(status), leaves = of.may_leave && of.others;
    complain(code, joined("testbed: ", of.name, leaves ? ": left: " : ": ended: ", DECIMAL(code), NULL));
    if (leaves) continue;
    SYS(ioctl, 2, TCSBRK, 1);
    end_process(code);
  }
}

/* The descriptors outlive the process, and never mean another one. */
int perform_open_process(const struct step *s) { return move_fd((int)SYS(pidfd_open, s->open_process.pid, 0), (int)s->open_process.fd); }

int perform_open_forked(const struct step *s) {
  uint32_t number = (uint32_t)s->open_forked.number;
  return number < forked_count ? move_fd((int)SYS(pidfd_open, forked[number], 0), (int)s->open_forked.fd) : -ESRCH;
}
