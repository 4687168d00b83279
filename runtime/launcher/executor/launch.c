/* The ways to perform a whole plan: in place, or in a process of its own. */
#include <sys/socket.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <signal.h>

#include "steps.h"
#include "sys.h"

enum { FAILED = 125 };

const char *read_plan(struct plan *plan, const uint8_t *bytes, size_t size, const char **extra, const char **environment) {
  const char *wrong = plan_read(plan, bytes, size);
  if (wrong) return wrong;
  plan->extra = extra;
  plan->environment = environment;
  plan->pointers = (const char **)map(-1, plan_pointers(plan) * sizeof *plan->pointers);
  return plan->pointers ? NULL : "out of memory";
}

const char *load_plan(int fd, struct plan *plan, const char **extra, const char **environment) {
  struct statx status;
  if (status_of(fd, "", &status) < 0) return "it cannot be looked at";
  const uint8_t *bytes = status.stx_size ? map(fd, status.stx_size) : NULL;
  SYS(close, fd);
  return bytes ? read_plan(plan, bytes, status.stx_size, extra, environment) : "it cannot be mapped";
}

/* --- words on standard error, for a person ---------------------------------------------------------------- */

int report(const struct plan *plan, const struct failure *failure) {
  size_t offset = plan->first_step;
  struct step step = {.operation = NO_OPERATION};
  for (int32_t i = 0; i <= failure->step; i++) plan_step(plan, &offset, &step);
  int any = failure->step >= 0;
  const char *index = DECIMAL(failure->step), *error = DECIMAL(failure->error);
  const char *name = any ? operation_name(step.operation) : "clone", *subject = any ? plan_subject(&step) : "";
  struct text what = joined("testbed: step ", index, ": ", name, " ", subject, ": ", error_name(failure->error), " (", error, ")", NULL);
  return complain(FAILED, what);
}

/* --- the ways to perform a plan --------------------------------------------------------------------------- */

/* Perform steps of which one executes a program: only a failure returns. */
static void execute(const struct plan *plan, size_t offset, uint32_t index, uint32_t n, struct failure *failure) {
  if (perform(plan, offset, index, n, failure) == 0) *failure = (struct failure){-1, ENOEXEC};
}

int perform_in_place(const struct plan *plan) {
  struct failure failure;
  execute(plan, plan->first_step, 0, plan_steps(plan), &failure);
  return report(plan, &failure);
}

static long fail(struct failure *failure, long result) {
  *failure = (struct failure){-1, (int32_t)-result};
  return -1;
}

/* The parent's steps and the clone. Returns the child's pid, 0 in the child, or -1 with `failure` filled. */
static long begin(const struct plan *plan, uint64_t flags, uint64_t exit_signal, struct failure *failure) {
  if (perform(plan, plan->first_step, 0, plan->parent_count, failure) != 0) return -1;
  OWNED int cgroup = *plan->into_cgroup ? open_path(plan->into_cgroup, O_PATH | O_DIRECTORY) : -1;
  if (*plan->into_cgroup && cgroup < 0) return fail(failure, cgroup);
  struct clone_args args = {
    .flags = plan->clone_flags | flags | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
    .exit_signal = exit_signal,
    .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
  };
  long pid = SYS(clone3, &args, sizeof args);
  return pid < 0 ? fail(failure, pid) : pid;
}

/* One that executes no program ends with its steps. */
static void child(const struct plan *plan, struct failure *failure) {
  note_time(plan_steps(plan));
  if (plan->exec_count) execute(plan, plan->first_child_step, plan->parent_count, plan->child_count, failure);
  else if (perform(plan, plan->first_child_step, plan->parent_count, plan->child_count, failure) == 0) end_process(0);
}

/* The process of the plan, NULL for one that could not be read, is a child of whoever started us (CLONE_PARENT): we are
 * gone when it runs. What happens is told through SYNC_FD. */
int start_beside(const struct plan *plan) {
  struct failure failure = {-2, EINVAL};
  default_signals();
  SYS(umask, 0);
  long pid = plan ? begin(plan, CLONE_PARENT, 0, &failure) : -1;
  if (pid == 0) child(plan, &failure);
  else if (pid > 0) return send_message(SYNC_FD, MESSAGE_PID, (int32_t)pid, now_ns(), -1) < 0 ? FAILED : 0;
  leave_last_word(MESSAGE_FAILED, failure.step, failure.error);
  send_message(SYNC_FD, MESSAGE_FAILED, failure.step, failure.error, -1);
  return FAILED;
}

int start_plan(void) {
  struct plan plan;
  return start_beside(load_plan(PLAN_FD, &plan, NULL, NULL) ? NULL : &plan);
}

int start_and_wait(const struct plan *plan) {
  struct failure failure;
  long pid = begin(plan, 0, SIGCHLD, &failure);
  if (pid == 0) child(plan, &failure);
  if (pid <= 0) return report(plan, &failure);
  return wait_for(pid);
}
