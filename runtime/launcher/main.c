/* The static launcher. As PID 1 of a guest it performs /plan in place; as a wrapper it performs the plan
 * named by TESTBED_PLAN, or lying beside it as <its own name>.plan, in place; otherwise it starts the plan
 * named on its command line and waits for it. */
#define _GNU_SOURCE
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static uint8_t *read_whole(const char *path, size_t *size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  struct stat status;
  if (fd < 0 || fstat(fd, &status) != 0) return NULL;
  uint8_t *bytes = malloc((size_t)status.st_size + 1);
  size_t have = 0;
  while (bytes && have < (size_t)status.st_size) {
    ssize_t n = read(fd, bytes + have, (size_t)status.st_size - have);
    if (n <= 0) break;
    have += (size_t)n;
  }
  close(fd);
  *size = have;
  return bytes;
}

static int report(const struct plan *plan, const struct failure *failure) {
  size_t offset = plan->first_step;
  struct step step = {0};
  for (int32_t i = 0; i <= failure->step; i++) plan_step(plan, &offset, &step);
  const char *name = failure->step < 0 ? "clone" : operation_name(step.operation);
  const char *what = failure->step < 0 || step.operation == OP_NETLINK || !step.string[0] ? "" : step.string[0];
  if (step.operation == OP_MOUNT && failure->step >= 0) what = step.string[1];
  if (step.operation == OP_EXEC && failure->step >= 0) what = plan->argv[0];
  fprintf(stderr, "testbed: step %d: %s %s: %s\n", failure->step, name, what, strerror(failure->error));
  return 125;
}

static int in_place(const struct plan *plan) {
  struct failure failure;
  if (perform(plan, plan->first_step, 0, plan->parent_count + plan->child_count, &failure) == 0)
    failure = (struct failure){-1, ENOEXEC};
  return report(plan, &failure);
}

static int start_and_wait(const struct plan *plan) {
  static const int stdio[3] = {0, 1, 2};
  struct spawned spawned;
  struct failure failure;
  if (spawn(plan, stdio, &spawned, &failure) != 0) return report(plan, &failure);
  int status;
  while (waitpid(spawned.pid, &status, 0) < 0)
    if (errno != EINTR) return 125;
  return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

int main(int argc, char **argv) {
  char beside[4096];
  snprintf(beside, sizeof beside, "%s.plan", argv[0]);
  const char *path = getpid() == 1 ? "/plan" : getenv("TESTBED_PLAN");
  if (!path && access(beside, R_OK) == 0) path = beside;
  int wrapper = path != NULL;
  if (!path && argc == 2) path = argv[1];
  if (!path) {
    fprintf(stderr, "usage: %s PLAN\n", argv[0]);
    return 125;
  }
  size_t size = 0;
  uint8_t *bytes = read_whole(path, &size);
  if (!bytes) {
    fprintf(stderr, "testbed: open %s: %s\n", path, strerror(errno));
    return 125;
  }
  struct plan plan;
  const char *wrong = plan_read(&plan, bytes, size, wrapper ? argv + 1 : NULL, environ);
  if (wrong) {
    fprintf(stderr, "testbed: %s: %s\n", path, wrong);
    return 125;
  }
  return wrapper ? in_place(&plan) : start_and_wait(&plan);
}
