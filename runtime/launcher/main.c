/* The launcher. `launcher --start` is what the runtime starts: the plan is at PLAN_FD, what happens is told through
 * SYNC_FD. As a wrapper, or as PID 1 of a container that libvirt makes, it performs the plan named by TESTBED_PLAN in
 * place; as PID 1 of a guest /plan; as a wrapper without that variable the one beside it, <its own name>.plan; under the name testbed-runtime it is the command line (client/client.c);
 * otherwise it starts the plan named on its command line and waits for it. */
#include <errno.h>
#include <fcntl.h>

#include "client.h"
#include "steps.h"
#include "sys.h"
#include "text.h"

enum { FAILED = 125 };

int main(int argc, char **argv, char **environment);

static int complain(const char *what, const char *why) {
  struct text line = {.n = 0};
  add_all(&line, "testbed: ", what, ": ", why, "\n", NULL);
  say(&line);
  return FAILED;
}

/* A standard stream that is closed is the null device, or what is opened next would become one of the workload's: the
 * lock of its state, a socket of ours. PID 1 has a console or nothing, and no devices yet. */
static int open_streams(void) {
  for (int fd = 0; fd < 3; fd++) {
    if (SYS(fcntl, fd, F_GETFD) != -EBADF) continue;
    int result = (int)SYS(openat, AT_FDCWD, ADDRESS("/dev/null"), O_RDWR); /* the lowest number, which is this one */
    if (result < 0) return SYS(getpid) == 1 ? 0 : result;
  }
  return 0;
}

int main(int argc, char **argv, char **environment) {
  int opened = open_streams();
  if (opened < 0) return complain("/dev/null", error_name(-opened));
  if (argc == 2 && same(argv[1], "--start")) return start_plan();
  if (argc && same(last_part(argv[0]), "testbed-runtime")) return command_line((const char **)argv, (const char **)environment);
  const char **extra = (const char **)argv + 1, **kept = (const char **)environment;
  struct text beside = {.n = 0};
  add(&beside, argc ? argv[0] : "");
  add(&beside, ".plan");
  if (beside.cut) return complain("my own name", "too long");
  const char *path = variable(kept, "TESTBED_PLAN");
  if (!path && SYS(getpid) == 1) path = "/plan";
  if (!path && SYS(faccessat, AT_FDCWD, ADDRESS(beside.bytes), 4) == 0) path = beside.bytes;
  int wrapper = path != NULL;
  if (!path && argc == 2) path = argv[1];
  if (!path) return complain("usage", "testbed-launcher PLAN");
  int fd = open_path(path, O_RDONLY);
  if (fd < 0) return complain(path, error_name(-fd));
  struct plan plan;
  const char *wrong = load_plan(fd, &plan, wrapper ? extra : NULL, wrapper ? kept : NULL);
  if (wrong) return complain(path, wrong);
  if (SYS(getpid) == 1) SYS(umask, 0); /* steps give modes as they are to be */
  return wrapper ? perform_in_place(&plan) : start_and_wait(&plan);
}
