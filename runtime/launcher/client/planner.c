/* Finding the planner, or starting one. It listens in a directory that only its user can write to, at a socket whose
 * name says which version it is of and which namespaces it sees: only there are our paths and numbers its own. */
#include <asm/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>

#include "client.h"
#include "steps.h"
#include "sys.h"
#include "text.h"

#ifndef PYTHON
#define PYTHON "/usr/bin/python3"
#define PACKAGES "/usr/lib/python3/dist-packages"
#define VERSION "0"
#endif

enum { UNIX = 1, STREAM = 1 | O_CLOEXEC, OTHERS_WRITE = 022, INTERPRETER_FD = 3 };

static void add_namespace(struct text *name, const char *path) {
  char link[64] = {0};
  long n = SYS(readlinkat, AT_FDCWD, ADDRESS(path), ADDRESS(link), sizeof link - 1);
  add(name, "-");
  for (long i = 0; i < n; i++)
    if (link[i] >= '0' && link[i] <= '9') add(name, (char[]){link[i], 0});
}

/* The socket's name in its directory. */
static struct text socket_name(void) {
  struct text name = {.n = 0};
  struct statx root = {.stx_ino = 0};
  SYS(statx, AT_FDCWD, ADDRESS("/"), 0, STATX_INO, ADDRESS(&root));
  add(&name, VERSION);
  add_namespace(&name, "/proc/self/ns/user");
  add_namespace(&name, "/proc/self/ns/mnt");
  add_namespace(&name, "/proc/self/ns/pid");
  add_namespace(&name, "/proc/self/ns/cgroup");
  add(&name, "-");
  add_number(&name, (long)root.stx_ino);
  add(&name, ".socket");
  return name;
}

/* Where planners of this user listen; 0 and 1 are tried in turn. */
static struct text directory_of(int which, const char **environment) {
  struct text path = {.n = 0};
  const char *runtime = variable(environment, "XDG_RUNTIME_DIR");
  long user = SYS(geteuid);
  if (which == 0 && user == 0) {
    add(&path, "/run");
  } else if (runtime && *runtime == '/') {
    add(&path, runtime);
  } else {
    add(&path, "/tmp/testbed-runtime-");
    add_number(&path, user);
  }
  add(&path, "/testbed-runtime-planner");
  return path;
}

static int is_ours(int fd) {
  struct statx status;
  return SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_UID | STATX_MODE, ADDRESS(&status)) == 0 &&
         status.stx_uid == (uint32_t)SYS(geteuid) && !(status.stx_mode & OTHERS_WRITE);
}

static int is_ours_to_talk_to(int fd) {
  struct { int pid; uint32_t uid, gid; } peer = {0, 0, 0};
  unsigned size = sizeof peer;
  return SYS(getsockopt, fd, SOL_SOCKET, SO_PEERCRED, ADDRESS(&peer), ADDRESS(&size)) == 0 && peer.uid == (uint32_t)SYS(geteuid);
}

static int connected(int directory, const struct text *name) {
  struct unix_address address;
  int result = unix_address(&address, directory, name->bytes);
  if (result < 0) return result;
  int fd = (int)SYS(socket, UNIX, STREAM | O_NONBLOCK, 0); /* one whose queue is full is not waited for */
  if (fd < 0) return fd;
  result = (int)SYS(connect, fd, ADDRESS(&address), sizeof address);
  if (result == 0 && !is_ours_to_talk_to(fd)) result = -EACCES;
  if (result == 0) result = (int)SYS(fcntl, fd, F_SETFL, 0);
  return result < 0 ? close_with(fd, result) : fd;
}

static int is_off(const char **environment) {
  const char *word = variable(environment, "TESTBED_PLANNER");
  return word && same(word, "off");
}

int resident_planner(const char **environment) {
  if (is_off(environment)) return -ENOENT;
  struct text name = socket_name();
  int fd = -ENOENT;
  for (int which = 0; which < 2 && fd < 0; which++) {
    struct text path = directory_of(which, environment);
    int directory = path.cut ? -ENAMETOOLONG : (int)SYS(openat, AT_FDCWD, ADDRESS(path.bytes), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (directory < 0) continue;
    fd = close_with(directory, is_ours(directory) ? connected(directory, &name) : -EACCES);
  }
  return fd;
}

/* The program that the interpreter runs: beside this file's directory. */
static struct text program(void) {
  struct text path = {.n = 0};
  long n = SYS(readlinkat, AT_FDCWD, ADDRESS("/proc/self/exe"), ADDRESS(path.bytes), sizeof path.bytes - 1);
  for (int slashes = 0; n > 0 && slashes < 2; slashes += path.bytes[n] == '/') n--;
  path.n = n > 0 ? (size_t)n : 0;
  path.bytes[path.n] = 0;
  add(&path, "/oci/interpreter.py");
  return path;
}

/* It has nothing of ours: neither descriptors nor directory, session, signals or environment. */
static __attribute__((noreturn)) void be_interpreter(int fd, const char **environment) {
  struct text script = program(), name = socket_name(), directories[2] = {directory_of(0, environment), directory_of(1, environment)};
  const char *seconds = variable(environment, "TESTBED_PLANNER"), *argv[11], *envp[3];
  default_signals();
  SYS(setsid);
  SYS(chdir, ADDRESS("/"));
  SYS(umask, 077);
  if (move_fd(fd, PLANNER_FD) < 0) end_process(127); /* out of the way */
  for (int i = 0; i < INTERPRETER_FD; i++) {
    SYS(close, i);
    SYS(openat, AT_FDCWD, ADDRESS("/dev/null"), O_RDWR); /* the lowest number, which is this one */
  }
  SYS(dup3, PLANNER_FD, INTERPRETER_FD, 0);
  SYS(close_range, INTERPRETER_FD + 1, ~0U, 0);
  argv[0] = PYTHON;
  argv[1] = "-I"; /* nothing is imported from where the caller is */
  argv[2] = "-S";
  argv[3] = script.bytes;
  argv[4] = PACKAGES;
  argv[5] = "planner";
  argv[6] = seconds ? seconds : "";
  argv[7] = name.bytes;
  argv[8] = directories[0].bytes;
  argv[9] = directories[1].bytes;
  argv[10] = NULL;
  envp[0] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  envp[1] = "LC_ALL=C.UTF-8";
  envp[2] = NULL;
  SYS(execve, ADDRESS(PYTHON), ADDRESS(argv), ADDRESS(envp));
  end_process(127);
}

int new_planner(const char **environment) {
  int ends[2];
  int result = (int)SYS(socketpair, UNIX, STREAM, 0, ADDRESS(ends));
  if (result < 0) return result;
  long pid = fork_process();
  if (pid == 0) { /* a grandchild: nobody of the caller's waits for it */
    if (fork_process() == 0) be_interpreter(ends[1], environment);
    end_process(0);
  }
  SYS(close, ends[1]);
  if (pid < 0) return close_with(ends[0], (int)pid);
  (void)wait_for(pid);
  return ends[0];
}
