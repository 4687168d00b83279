/* The launcher. `launcher --start` is what the runtime starts: the plan is at PLAN_FD, what happens is told through
 * SYNC_FD. As a wrapper, or as PID 1 of a container that libvirt makes, it performs the plan named by TESTBED_PLAN in
 * place; as PID 1 of a guest /plan; as a wrapper without that variable the one beside it, <its own name>.plan; under the
 * name testbed-runtime it is the command line (client/client.c); otherwise it starts the plan named on its command line
 * and waits for it. */
#include <fcntl.h>

#include "client.h"
#include "steps.h"
#include "sys.h"

enum { FAILED = 125 };

static int give_up(const char *what, const char *why) { return complain(FAILED, joined("testbed: ", what, ": ", why, NULL)); }

int main(int argc, char **argv, char **environment) {
  int opened = open_streams();
  if (opened < 0) return give_up("/dev/null", error_name(-opened));
  if (argc == 2 && same(argv[1], "--start")) return start_plan();
  if (argc && same(last_part(argv[0]), "testbed-runtime")) return command_line((const char **)argv, (const char **)environment);
  const char **extra = (const char **)argv + 1, **kept = (const char **)environment;
  struct text beside = joined(argc ? argv[0] : "", ".plan", NULL);
  if (beside.cut) return give_up("my own name", "too long");
  const char *path = variable(kept, "TESTBED_PLAN");
  if (!path && SYS(getpid) == 1) path = "/plan";
  if (!path && SYS(faccessat, AT_FDCWD, beside.bytes, 4) == 0) path = beside.bytes;
  int wrapper = path != NULL;
  if (!path && argc == 2) path = argv[1];
  if (!path) return give_up("usage", "testbed-launcher PLAN");
  int fd = open_path(path, O_RDONLY);
  if (fd < 0) return give_up(path, error_name(-fd));
  struct plan plan;
  const char *wrong = load_plan(fd, &plan, wrapper ? extra : NULL, wrapper ? kept : NULL);
  if (wrong) return give_up(path, wrong);
  if (SYS(getpid) == 1) SYS(umask, 0); /* steps give modes as they are to be */
  return wrapper ? perform_in_place(&plan) : start_and_wait(&plan);
}
