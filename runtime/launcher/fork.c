/* Several processes from one plan: a step that makes those after it a process of their own. */
#include <linux/sched.h>

#include "steps.h"
#include "sys.h"

enum { SIGCHLD_ = 17 };

/* Numbers: how many steps, clone flags. The forked process ends with its steps, unless one executes a program; what is
 * open stays open in both. */
int fork_steps(const struct plan *plan, size_t *offset, uint32_t index, const struct step *s, struct failure *failure) {
  uint32_t n = (uint32_t)s->number[0];
  struct clone_args args = {.flags = s->number[1], .exit_signal = SIGCHLD_};
  long pid = SYS(clone3, ADDRESS(&args), sizeof args);
  if (pid == 0) {
    if (perform(plan, *offset, index + 1, n, failure) != 0) return FORK_FAILED;
    for (;;) SYS(exit_group, 0);
  }
  struct step skipped;
  for (uint32_t i = 0; i < n; i++) plan_step(plan, offset, &skipped);
  return pid < 0 ? (int)pid : 0;
}
