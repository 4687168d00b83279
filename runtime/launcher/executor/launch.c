/* The ways to perform a whole plan: in place, or in a process of its own. */
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/stat.h>
#include <linux/time_types.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { FAILED = 125, SIGCHLD_ = 17, CLOCK_MONOTONIC_ = 1 };

static int64_t now_ns(void) {
  struct __kernel_timespec t = {0, 0};
  SYS(clock_gettime, CLOCK_MONOTONIC_, ADDRESS(&t));
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* A plan's file, whole: the descriptor is closed. */
const char *load_plan(int fd, struct plan *plan, const char **extra, const char **environment) {
  struct statx status;
  if (SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_SIZE, ADDRESS(&status)) < 0) return "it cannot be looked at";
  const uint8_t *bytes = status.stx_size ? map(fd, status.stx_size) : NULL;
  SYS(close, fd);
  if (!bytes) return "it cannot be mapped";
  const char *wrong = plan_read(plan, bytes, status.stx_size);
  if (wrong) return wrong;
  plan->extra = extra;
  plan->environment = environment;
  plan->pointers = map(-1, plan_pointers(plan) * sizeof *plan->pointers);
  return plan->pointers ? NULL : "out of memory";
}

/* --- words on standard error, for a person ---------------------------------------------------------------- */

const char *error_name(int error) {
  static const char names[][16] = {
    "errno", "EPERM", "ENOENT", "ESRCH", "EINTR", "EIO", "ENXIO", "E2BIG", "ENOEXEC", "EBADF", "ECHILD", "EAGAIN",
    "ENOMEM", "EACCES", "EFAULT", "ENOTBLK", "EBUSY", "EEXIST", "EXDEV", "ENODEV", "ENOTDIR", "EISDIR", "EINVAL",
    "ENFILE", "EMFILE", "ENOTTY", "ETXTBSY", "EFBIG", "ENOSPC", "ESPIPE", "EROFS", "EMLINK", "EPIPE", "EDOM", "ERANGE",
    "EDEADLK", "ENAMETOOLONG", "ENOLCK", "ENOSYS", "ENOTEMPTY", "ELOOP"};
  return names[error > 0 && error < (int)(sizeof names / sizeof *names) ? error : 0];
}

int report(const struct plan *plan, const struct failure *failure) {
  size_t offset = plan->first_step;
  struct step step = {.operation = NO_OPERATION};
  for (int32_t i = 0; i <= failure->step; i++) plan_step(plan, &offset, &step);
  struct text line = {.n = 0};
  add(&line, "testbed: step ");
  add_number(&line, failure->step);
  if (failure->step < 0) add(&line, ": clone ");
  else add_all(&line, ": ", operation_name(step.operation), " ", plan_subject(&step), NULL);
  add_all(&line, ": ", error_name(failure->error), " (", NULL);
  add_number(&line, failure->error);
  add(&line, ")\n");
  say(&line);
  return FAILED;
}

/* --- the ways to perform a plan --------------------------------------------------------------------------- */

int perform_in_place(const struct plan *plan) {
  struct failure failure;
  if (perform(plan, plan->first_step, 0, plan_steps(plan), &failure) == 0)
    failure = (struct failure){-1, ENOEXEC};
  return report(plan, &failure);
}

/* The parent's steps and the clone. Returns the child's pid, 0 in the child, or -1 with `failure` filled. */
static long begin(const struct plan *plan, uint64_t flags, uint64_t exit_signal, struct failure *failure) {
  if (perform(plan, plan->first_step, 0, plan->parent_count, failure) != 0) return -1;
  long cgroup = -1;
  if (*plan->into_cgroup) {
    cgroup = open_path(plan->into_cgroup, O_PATH | O_DIRECTORY);
    if (cgroup < 0) { *failure = (struct failure){-1, (int32_t)-cgroup}; return -1; }
  }
  struct clone_args args = {
    .flags = plan->clone_flags | flags | (cgroup >= 0 ? CLONE_INTO_CGROUP : 0),
    .exit_signal = exit_signal,
    .cgroup = cgroup >= 0 ? (uint64_t)cgroup : 0,
  };
  long pid = SYS(clone3, ADDRESS(&args), sizeof args);
  if (pid < 0) { *failure = (struct failure){-1, (int32_t)-pid}; return -1; }
  if (pid > 0 && cgroup >= 0) SYS(close, cgroup);
  return pid;
}

static int child(const struct plan *plan, struct failure *failure) {
  if (perform(plan, plan->first_child_step, plan->parent_count, plan->child_count, failure) == 0)
    *failure = (struct failure){-1, ENOEXEC}; /* a plan with no exec step */
  return FAILED;
}

/* The container's first process is a child of whoever started us (CLONE_PARENT): we are gone when it runs. */
int start_plan(void) {
  struct plan plan;
  struct failure failure = {-2, EINVAL};
  default_signals();
  SYS(umask, 0);
  long pid = load_plan(PLAN_FD, &plan, NULL, NULL) ? -1 : begin(&plan, CLONE_PARENT, 0, &failure);
  if (pid == 0) child(&plan, &failure);
  else if (pid > 0) return send_message(SYNC_FD, MESSAGE_PID, (int32_t)pid, now_ns(), -1) < 0 ? FAILED : 0;
  send_message(SYNC_FD, MESSAGE_FAILED, failure.step, failure.error, -1);
  return FAILED;
}

int start_and_wait(const struct plan *plan) {
  struct failure failure;
  long pid = begin(plan, 0, SIGCHLD_, &failure);
  if (pid == 0) child(plan, &failure);
  if (pid <= 0) return report(plan, &failure);
  return wait_for(pid);
}
