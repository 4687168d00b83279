/* Namespaces that others made, and user namespaces that nobody is in. */
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <signal.h>

#include "steps.h"
#include "sys.h"

int perform_join_namespace(const struct step *s) {
  OWNED int fd = open_path(s->join_namespace.path, O_RDONLY);
  return fd < 0 ? fd : (int)SYS(setns, fd, s->join_namespace.flag);
}

int perform_join_process(const struct step *s) { return (int)SYS(setns, s->join_process.fd, s->join_process.flags); }

static struct text of_process(long pid, const char *rest) { return joined("/proc/", DECIMAL(pid), rest, NULL); }

static int write_map(long pid, const char *name, const char *map, uint64_t size) {
  OWNED int fd = open_path(of_process(pid, name).bytes, O_WRONLY);
  return fd < 0 ? fd : transfer(__NR_write, fd, map, size);
}

/* Be in the namespace until we are killed, at the latest with the parent: which may have ended before that was asked. */
static __attribute__((noreturn)) void stay(long parent) {
  if (SYS(prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || SYS(getppid) != parent) end_process(0);
  for (;;) SYS(ppoll, 0, 0, 0, 0, 0);
}

/* The namespace lives as long as a process in it, or a descriptor: a process is started for as long as it takes to
 * write the maps. */
int perform_new_user_namespace(const struct step *s) {
  long parent = SYS(getpid), pid = fork_process(CLONE_NEWUSER);
  if (pid < 0) return (int)pid;
  if (pid == 0) stay(parent);
  int result = write_map(pid, "/uid_map", s->new_user_namespace.uid_map, s->new_user_namespace.uid_map_size);
  if (result == 0) result = write_map(pid, "/gid_map", s->new_user_namespace.gid_map, s->new_user_namespace.gid_map_size);
  if (result == 0) result = move_fd(open_path(of_process(pid, "/ns/user").bytes, O_RDONLY), (int)s->new_user_namespace.fd);
  SYS(kill, pid, SIGKILL);
  (void)wait_for(pid);
  return result;
}
