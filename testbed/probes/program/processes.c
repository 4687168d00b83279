// Attempts on processes: signals, memory, priorities, namespaces and users.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <grp.h>
#include <linux/capability.h>

#include "probe.h"

enum { SECRET_BYTES = 64, OTHER_USER = 12345, NAME_BYTES = 16 };

// A process of this number that must exist, and never every process, a group or the caller's own.
static pid_t to_process(const char *word) {
  uint64_t number = to_number(word);
  return number > 1 && number < (1 << 22) ? (pid_t)number : -2;
}

static int refuse_process(void) {
  errno = ESRCH;
  return -1;
}

// A descriptor's owner gets a signal when there is something to read (F_SETOWN in fcntl(2)).
static int signal_as_owner(pid_t pid, int number) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) != 0 || fcntl(ends[0], F_SETOWN, pid) != 0 || fcntl(ends[0], F_SETSIG, number) != 0)
    return -1;
  if (fcntl(ends[0], F_SETFL, O_ASYNC | O_NONBLOCK) != 0) return -1;
  return write(ends[1], "x", 1) == 1 ? 0 : -1;
}

// HOW PID NUMBER
static int send_signal(char **words, char *got) {
  (void)got;
  pid_t pid = to_process(words[1]);
  int number = (int)to_number(words[2]);
  if (pid < 0) return refuse_process();
  if (strcmp(words[0], "kill") == 0) return kill(pid, number);
  if (strcmp(words[0], "group") == 0) return kill(-pid, number);
  if (strcmp(words[0], "thread") == 0) return (int)syscall(SYS_tgkill, pid, pid, number);
  if (strcmp(words[0], "queue") == 0) return sigqueue(pid, number, (union sigval){.sival_int = 1});
  if (strcmp(words[0], "owner") == 0) return signal_as_owner(pid, number);
  int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
  return descriptor < 0 ? -1 : (int)syscall(SYS_pidfd_send_signal, descriptor, number, NULL, 0);
}

static int signal_own(char **words, char *got) {
  (void)words, (void)got;
  int status = 0;
  pid_t child = fork();
  if (child == 0) stay(NULL);
  if (child < 0 || kill(child, SIGTERM) != 0 || waitpid(child, &status, 0) != child) return -1;
  return WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM ? 0 : -1;
}

static int trace_own(char **words, char *got) {
  (void)words, (void)got;
  int status = 0;
  pid_t child = fork();
  if (child == 0) stay(NULL);
  if (child < 0) return -1;
  int result = ptrace(PTRACE_SEIZE, child, NULL, NULL) == 0 ? 0 : -1, error = errno;
  (void)kill(child, SIGKILL);
  (void)waitpid(child, &status, 0);
  errno = error;
  return result;
}

// PID ADDRESS
static int read_memory(char **words, char *got) {
  struct iovec own = {got, SECRET_BYTES}, other = {(void *)(uintptr_t)to_number(words[1]), SECRET_BYTES};
  return process_vm_readv(to_process(words[0]), &own, 1, &other, 1, 0) < 0 ? -1 : 0;
}

// PID ADDRESS TEXT
static int write_memory(char **words, char *got) {
  (void)got;
  struct iovec own = {words[2], strlen(words[2]) + 1}, other = {(void *)(uintptr_t)to_number(words[1]), strlen(words[2]) + 1};
  return process_vm_writev(to_process(words[0]), &own, 1, &other, 1, 0) < 0 ? -1 : 0;
}

// PID ADDRESS
static int read_memory_file(char **words, char *got) {
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/%d/mem", (int)to_process(words[0]));
  int file = open(path, O_RDONLY);
  return file < 0 || pread(file, got, SECRET_BYTES, (off_t)to_number(words[1])) < 0 ? -1 : 0;
}

// PID ADDRESS
static int trace(char **words, char *got) {
  pid_t pid = to_process(words[0]);
  int status = 0;
  if (pid < 0) return refuse_process();
  if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) != 0 || ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) != 0 || waitpid(pid, &status, __WALL) != pid)
    return -1;
  for (size_t at = 0; at < SECRET_BYTES; at += sizeof(long)) {
    long word = ptrace(PTRACE_PEEKDATA, pid, (void *)(uintptr_t)(to_number(words[1]) + at), NULL);
    memcpy(got + at, &word, sizeof word);
  }
  return ptrace(PTRACE_DETACH, pid, NULL, NULL) == 0 ? 0 : -1;
}

// PID DESCRIPTOR
static int take_descriptor(char **words, char *got) {
  int process = (int)syscall(SYS_pidfd_open, to_process(words[0]), 0);
  int taken = process < 0 ? -1 : (int)syscall(SYS_pidfd_getfd, process, (int)to_number(words[1]), 0);
  return taken < 0 || pread(taken, got, SECRET_BYTES, 0) < 0 ? -1 : 0;
}

// PID NICE
static int set_priority(char **words, char *got) {
  (void)got;
  pid_t pid = to_process(words[0]);
  return pid < 0 ? refuse_process() : setpriority(PRIO_PROCESS, (id_t)pid, (int)to_number(words[1]));
}

// PID BYTES: a core file's limit, lowered.
static int set_limit(char **words, char *got) {
  (void)got;
  pid_t pid = to_process(words[0]);
  struct rlimit limit = {to_number(words[1]), to_number(words[1])};
  return pid < 0 ? refuse_process() : prlimit(pid, RLIMIT_CORE, &limit, NULL);
}

// PID: onto the first processor that it may use alone.
static int set_affinity(char **words, char *got) {
  (void)got;
  pid_t pid = to_process(words[0]);
  cpu_set_t all, one;
  if (pid < 0) return refuse_process();
  if (sched_getaffinity(pid, sizeof all, &all) != 0) return -1;
  CPU_ZERO(&one);
  for (int cpu = 0; cpu < CPU_SETSIZE && CPU_COUNT(&one) == 0; cpu++)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  return sched_setaffinity(pid, sizeof one, &one);
}

static int to_namespace(const char *name) {
  static const struct {
    const char *name;
    int flag;
  } known[] = {{"user", CLONE_NEWUSER}, {"net", CLONE_NEWNET}, {"mnt", CLONE_NEWNS}, {"uts", CLONE_NEWUTS}, {"ipc", CLONE_NEWIPC},
    {"pid", CLONE_NEWPID}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(known[i].name, name) == 0) return known[i].flag;
  return 0;
}

static int make_namespace(char **words, char *got) {
  (void)got;
  return unshare(to_namespace(words[0]));
}

// clone(2) with a flag, whose child stays.
static int clone_namespace(char **words, char *got) {
  (void)got;
  long child = syscall(SYS_clone, to_namespace(words[0]) | SIGCHLD, NULL, NULL, NULL, NULL);
  if (child == 0) stay(NULL);
  return child < 0 ? -1 : 0;
}

// PID KIND
static int join_namespace(char **words, char *got) {
  (void)got;
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/%d/ns/%s", (int)to_process(words[0]), words[1]);
  int namespace = open(path, O_RDONLY);
  return namespace < 0 ? -1 : setns(namespace, to_namespace(words[1]));
}

static int set_user(char **words, char *got) {
  (void)words, (void)got;
  return setgroups(0, NULL) != 0 || setgid(OTHER_USER) != 0 || setuid(OTHER_USER) != 0 ? -1 : 0;
}

// Nothing is tried: the host looks at what the process is anyway.
static int do_nothing(char **words, char *got) {
  (void)words, (void)got;
  return 0;
}

static int copy_self(void) {
  int from = open("/proc/self/exe", O_RDONLY), to = open("own", O_WRONLY | O_CREAT | O_EXCL, 0755);
  char room[1 << 16];
  if (from < 0 || to < 0) return -1;
  for (ssize_t size; (size = read(from, room, sizeof room)) != 0;)
    if (size < 0 || write(to, room, (size_t)size) != size) return -1;
  (void)close(from);
  return close(to);
}

// Let another user execute a program that gives it what it lacks; the program stays, and the host looks at what it has.
static int become_by_program(int (*prepare)(void)) {
  char name[NAME_BYTES];
  (void)prctl(PR_GET_NAME, name, 0, 0, 0);
  if (enter_own_directory() != 0 || copy_self() != 0 || prepare() != 0) return -1;
  int started[2];
  if (pipe2(started, O_CLOEXEC) != 0) return -1;
  pid_t child = fork();
  if (child == 0) {
    (void)set_user(NULL, NULL);
    bind_to_parent();
    (void)execl("./own", "own", "stay", name, NULL);
    int error = errno;
    (void)!write(started[1], &error, sizeof error);
    _exit(1);
  }
  (void)close(started[1]);
  int error = 0;
  if (child < 0) return -1;
  if (read(started[0], &error, sizeof error) == sizeof error) {
    errno = error;
    return -1;
  }
  return 0;
}

static int make_setuid(void) { return chmod("own", 04755); }

// All of a permitted CAP_CHOWN, as capabilities(7) lays it out in the extended attribute.
static int make_capable(void) {
  struct vfs_cap_data data = {.magic_etc = VFS_CAP_REVISION_2 | VFS_CAP_FLAGS_EFFECTIVE, .data = {{.permitted = 1 << CAP_CHOWN}}};
  return setxattr("own", "security.capability", &data, sizeof data, 0);
}

static int execute_setuid(char **words, char *got) {
  (void)words, (void)got;
  return become_by_program(make_setuid);
}

static int execute_capable(char **words, char *got) {
  (void)words, (void)got;
  return become_by_program(make_capable);
}

const struct operation process_operations[] = {
  {"signal", 3, send_signal},
  {"signal_own", 0, signal_own},
  {"trace_own", 0, trace_own},
  {"vm_read", 2, read_memory},
  {"vm_write", 3, write_memory},
  {"memory_file", 2, read_memory_file},
  {"trace", 2, trace},
  {"take_descriptor", 2, take_descriptor},
  {"priority", 2, set_priority},
  {"limit", 2, set_limit},
  {"affinity", 1, set_affinity},
  {"namespace", 1, make_namespace},
  {"clone", 1, clone_namespace},
  {"join", 2, join_namespace},
  {"set_user", 0, set_user},
  {"nothing", 0, do_nothing},
  {"setuid_program", 0, execute_setuid},
  {"capable_program", 0, execute_capable},
  {NULL, 0, NULL},
};
