/* Several processes from one plan: a step that makes those after it a process of their own, and one that waits for their
 * end. */
#include <asm/ioctls.h>
#include <errno.h>
#include <linux/sched.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { SIGCHLD_ = 17, MOST_FORKED = 64 };

/* Whom a plan has forked, in order. Beyond the most it goes on without remembering: their end has no name then. */
static long forked[MOST_FORKED];
static uint32_t forked_count;

/* Numbers: how many steps, clone flags. The forked process ends with its steps, unless one executes a program; what is
 * open stays open in both. */
int fork_steps(const struct plan *plan, size_t *offset, uint32_t index, const struct step *s, struct failure *failure) {
  uint32_t n = (uint32_t)s->number[0];
  struct clone_args args = {.flags = s->number[1], .exit_signal = SIGCHLD_};
  long pid = SYS(clone3, ADDRESS(&args), sizeof args);
  if (pid == 0) {
    if (perform(plan, *offset, index + 1, n, failure) != 0) return FORK_FAILED;
    end_process(0);
  }
  if (pid > 0 && forked_count < MOST_FORKED) forked[forked_count++] = pid;
  struct step skipped;
  for (uint32_t i = 0; i < n; i++) plan_step(plan, offset, &skipped);
  return pid < 0 ? (int)pid : 0;
}

/* The name of a forked process, or an empty one. */
static const char *name_of(long pid, const struct step *s) {
  const uint8_t *at = s->strings;
  for (uint32_t i = 0; i < s->string_count && i < forked_count; i++, at = plan_next_string(at))
    if (forked[i] == pid) return (const char *)at + 4;
  return "";
}

/* Strings: the names of the forked processes, in order. Ends with the status of the first named one that ends; orphans
 * are only reaped. A terminal may still hold what was written to it when PID 1 ends, and would lose it. */
int await_end(const struct step *s) {
  for (;;) {
    int status = 0;
    long pid = SYS(wait4, -1, ADDRESS(&status), 0, 0);
    if (pid == -EINTR) continue;
    if (pid < 0) return (int)pid;
    const char *name = name_of(pid, s);
    if (!*name) continue;
    int code = status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
    struct text line = {.n = 0};
    add(&line, "testbed: ");
    add(&line, name);
    add(&line, ": ended: ");
    add_number(&line, code);
    add(&line, "\n");
    SYS(write, 2, ADDRESS(line.bytes), line.n);
    SYS(ioctl, 2, TCSBRK, 1);
    end_process(code);
  }
}
