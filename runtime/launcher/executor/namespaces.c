/* Namespaces that others made, and user namespaces that nobody is in. */
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { SIGKILL_ = 9, SIGCHLD_ = 17 };

int perform_join_namespace(const struct step *s) {
  int fd = open_path(s->join_namespace.path, O_RDONLY);
  return fd < 0 ? fd : close_with(fd, (int)SYS(setns, fd, s->join_namespace.flag));
}

static struct text of_process(long pid, const char *rest) {
  struct text path = {.n = 0};
  add(&path, "/proc/");
  add_number(&path, pid);
  add(&path, rest);
  return path;
}

static int write_map(const char *path, const char *map, uint64_t size) {
  int fd = open_path(path, O_WRONLY);
  return fd < 0 ? fd : close_with(fd, write_whole(fd, map, size));
}

/* Be in the namespace until we are killed, at the latest with the parent: which may have ended before that was asked. */
static __attribute__((noreturn)) void stay(long parent) {
  if (SYS(prctl, PR_SET_PDEATHSIG, SIGKILL_, 0, 0, 0) < 0 || SYS(getppid) != parent) end_process(0);
  for (;;) SYS(ppoll, 0, 0, 0, 0, 0);
}

/* The namespace lives as long as a process in it, or a descriptor: a process is started for as long as it takes to
 * write the maps. */
int perform_new_user_namespace(const struct step *s) {
  struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD_};
  long parent = SYS(getpid), pid = SYS(clone3, ADDRESS(&args), sizeof args);
  if (pid < 0) return (int)pid;
  if (pid == 0) stay(parent);
  int result = write_map(of_process(pid, "/uid_map").bytes, s->new_user_namespace.uid_map, s->new_user_namespace.uid_map_size);
  if (result == 0) result = write_map(of_process(pid, "/gid_map").bytes, s->new_user_namespace.gid_map, s->new_user_namespace.gid_map_size);
  if (result == 0) {
    int fd = open_path(of_process(pid, "/ns/user").bytes, O_RDONLY);
    result = move_fd(fd, (int)s->new_user_namespace.fd);
  }
  SYS(kill, pid, SIGKILL_);
  while (SYS(wait4, pid, 0, 0, 0) == -EINTR) continue;
  return result;
}
