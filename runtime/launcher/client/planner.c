/* Finding the planner, or starting one. It listens in a directory that only its user can write to, at a socket whose
 * name says which version it is of and which namespaces it sees: only there are our paths and numbers its own. */
#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "client.h"
#include "steps.h"
#include "sys.h"

#ifndef PYTHON
#define PYTHON "/usr/bin/python3"
#define PACKAGES "/usr/lib/python3/dist-packages"
#define VERSION "0"
#endif

enum { OTHERS_WRITE = 022, INTERPRETER_FD = 3 };

/* The socket's name in its directory. */
static struct text socket_name(void) {
  static const char seen[][24] = {"/proc/self/ns/user", "/proc/self/ns/mnt", "/proc/self/ns/pid", "/proc/self/ns/cgroup", "/"};
  uint64_t numbers[sizeof seen / sizeof *seen];
  for (size_t i = 0; i < sizeof seen / sizeof *seen; i++) {
    struct statx status = {.stx_ino = 0};
    SYS(statx, AT_FDCWD, seen[i], 0, STATX_INO, &status);
    numbers[i] = status.stx_ino;
  }
  return joined(VERSION, "-", DECIMAL(numbers[0]), "-", DECIMAL(numbers[1]), "-", DECIMAL(numbers[2]), "-", DECIMAL(numbers[3]), "-",
    DECIMAL(numbers[4]), ".socket", NULL);
}

/* Where planners of this user listen; 0 and 1 are tried in turn. */
static struct text directory_of(int which, const char **environment) {
  static const char name[] = "/testbed-runtime-planner";
  const char *runtime = variable(environment, "XDG_RUNTIME_DIR");
  long user = SYS(geteuid);
  if (which == 0 && user == 0) return joined("/run", name, NULL);
  if (runtime && *runtime == '/') return joined(runtime, name, NULL);
  return joined("/tmp/testbed-runtime-", DECIMAL(user), name, NULL);
}

static int is_ours(int fd) {
  struct statx status;
  return status_of(fd, "", &status) == 0 && status.stx_uid == (uint32_t)SYS(geteuid) && !(status.stx_mode & OTHERS_WRITE);
}

static int is_ours_to_talk_to(int fd) {
  struct ucred peer = {0, 0, 0};
  unsigned size = sizeof peer;
  return SYS(getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == (uint32_t)SYS(geteuid);
}

/* One whose queue is full is not waited for. */
static int connected(int directory, const char *name) {
  int fd = unix_socket(__NR_connect, SOCK_STREAM | SOCK_NONBLOCK, path_in(directory, name).bytes);
  if (fd < 0) return fd;
  int result = is_ours_to_talk_to(fd) ? (int)SYS(fcntl, fd, F_SETFL, 0) : -EACCES;
  return result < 0 ? close_with(fd, result) : fd;
}

int resident_planner(const char **environment) {
  const char *word = variable(environment, "TESTBED_PLANNER");
  if (word && same(word, "off")) return -ENOENT;
  struct text name = socket_name();
  int fd = -ENOENT;
  for (int which = 0; which < 2 && fd < 0; which++) {
    struct text path = directory_of(which, environment);
    if (path.cut) continue;
    OWNED int directory = (int)SYS(openat, AT_FDCWD, path.bytes, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory >= 0) fd = is_ours(directory) ? connected(directory, name.bytes) : -EACCES;
  }
  return fd;
}

/* The program that the interpreter runs: beside this file's directory. */
static struct text program(void) {
  struct text path = {.n = 0};
  long n = SYS(readlinkat, AT_FDCWD, "/proc/self/exe", path.bytes, sizeof path.bytes - 1);
  for (int slashes = 0; n > 0 && slashes < 2; slashes += path.bytes[n] == '/') n--;
  path.bytes[n > 0 ? n : 0] = 0;
  return joined(path.bytes, "/oci/interpreter.py", NULL);
}

/* It has nothing of ours: neither descriptors nor directory, session, signals or environment. */
static __attribute__((noreturn)) void be_interpreter(int fd, const char **environment) {
  struct text script = program(), name = socket_name(), first = directory_of(0, environment), second = directory_of(1, environment);
  const char *seconds = variable(environment, "TESTBED_PLANNER"), *envp[3];
  const char *argv[] = {PYTHON, "-I" /* nothing is imported from where the caller is */, "-S", script.bytes, PACKAGES, "planner",
    seconds ? seconds : "", name.bytes, first.bytes, second.bytes, NULL};
  envp[0] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"; /* no table: it would need relocation */
  envp[1] = "LC_ALL=C.UTF-8";
  envp[2] = NULL;
  default_signals();
  SYS(setsid);
  SYS(chdir, "/");
  SYS(umask, 077);
  if (move_fd(fd, PLANNER_FD) < 0) end_process(127); /* out of the way */
  SYS(close_range, 0, INTERPRETER_FD, 0);
  open_streams();
  SYS(dup3, PLANNER_FD, INTERPRETER_FD, 0);
  SYS(close_range, INTERPRETER_FD + 1, ~0U, 0);
  SYS(execve, PYTHON, argv, envp);
  end_process(127);
}

int new_planner(const char **environment) {
  int ends[2] = {-1, -1};
  int result = (int)SYS(socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends);
  if (result < 0) return result;
  long pid = fork_process(0);
  if (pid == 0) { /* a grandchild: nobody of the caller's waits for it */
    if (fork_process(0) == 0) be_interpreter(ends[1], environment);
    end_process(0);
  }
  SYS(close, ends[1]);
  if (pid < 0) return close_with(ends[0], (int)pid);
  (void)wait_for(pid);
  return ends[0];
}
