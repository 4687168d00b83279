/* The command line without an interpreter. What `testbed-runtime run ID` does with a bundle was worked out by the
 * interpreter the first time (runtime/prepared.py), with all that this rests on. Where that is as it was, it is done
 * again here, for another id; operations on a container that is there are operations.c's. Everything else, and whatever
 * fails, is the interpreter's, which does it anew and explains. */
#include "front.h"

#include <asm/signal.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { UNPREPARED = HAND_OVER, ENDED = -EIO, SEQPACKET = 5 | O_CLOEXEC, UNIX = 1, ADD_SEALS = 1033, ALL_SEALS = 15, EXCLUSIVE = 2, REMOVE_DIRECTORY = 0x200 };
enum { BUSY_TRIES = 200 };

struct run {
  const char *root, *bundle, *id;
  struct prepared prepared;
  struct text place; /* the container's state */
  int lock;
};

/* --- the container's state, as runtime/state.py has it ---------------------------------------------------- */

static struct text state_file(const struct run *run, const char *name) {
  struct text path = run->place;
  add(&path, name);
  return path;
}

static int replace(const struct run *run, const char *name, const uint8_t *bytes, size_t n) {
  struct text path = state_file(run, name), new = state_file(run, "/new");
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(new.bytes), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return fd;
  long written = SYS(write, fd, ADDRESS(bytes), n);
  SYS(close, fd);
  if (written != (long)n) return -EIO;
  return (int)SYS(renameat2, AT_FDCWD, ADDRESS(new.bytes), AT_FDCWD, ADDRESS(path.bytes), 0);
}

static int lock(struct run *run) {
  run->lock = (int)SYS(openat, AT_FDCWD, ADDRESS(state_file(run, "/lock").bytes), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  return run->lock < 0 ? run->lock : (int)SYS(flock, run->lock, EXCLUSIVE);
}

static int record_process(const struct run *run, long pid) {
  struct text words = {.n = 0};
  struct stat_line stat;
  if (!stat_of(&stat, pid)) return -ESRCH;
  add_number(&words, pid);
  add(&words, " ");
  add_number(&words, stat.start_time);
  add(&words, "\n");
  return replace(run, "/process", (const uint8_t *)words.bytes, words.n);
}

static int record(const struct run *run) {
  const uint8_t *text = run->prepared.record;
  uint8_t *filled = map(-1, filled_size(text + 4, plan_string_length(text), run->id));
  return filled ? replace(run, "/record.json", filled, fill(filled, text, run->id)) : -ENOMEM;
}

static int remove_directory(const char *path, int tries) {
  struct __kernel_timespec { long long s, ns; } pause = {0, 1000000};
  int result;
  while ((result = (int)SYS(unlinkat, AT_FDCWD, ADDRESS(path), REMOVE_DIRECTORY)) == -EBUSY && --tries > 0)
    SYS(nanosleep, ADDRESS(&pause), 0);
  return result == -ENOENT ? 0 : result;
}

static int remove_cgroups(const struct run *run) {
  const uint8_t *string = run->prepared.directories;
  uint32_t own = run->prepared.directory_count;
  for (uint32_t i = 0; i < own + run->prepared.parent_count; i++, string = plan_next_string(string)) {
    uint8_t path[4096];
    if (filled_size(string + 4, plan_string_length(string), run->id) > sizeof path) return -ENAMETOOLONG;
    fill(path, string, run->id);
    int result = remove_directory((const char *)path, i < own ? BUSY_TRIES : 1);
    if (result < 0 && i < own) return result; /* those above may be others' too */
  }
  return 0;
}

static void forget(const struct run *run) {
  static const char names[][16] = {"/new", "/process", "/record.json", "/lock"};
  for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
    SYS(unlinkat, AT_FDCWD, ADDRESS(state_file(run, names[i]).bytes), 0);
  remove_directory(run->place.bytes, 1);
}

/* --- processes -------------------------------------------------------------------------------------------- */

/* As in runtime/processes.py, and the one that tells that a child has ended. */
static const uint64_t NOT_PASSED_ON = 1ULL << (SIGKILL - 1) | 1ULL << (SIGSTOP - 1) | 1ULL << (SIGSEGV - 1) | 1ULL << (SIGBUS - 1) |
                             1ULL << (SIGFPE - 1) | 1ULL << (SIGILL - 1) | 1ULL << (SIGTRAP - 1) | 1ULL << (SIGABRT - 1) |
                             1ULL << (SIGSYS - 1) | 1ULL << (SIGTTIN - 1) | 1ULL << (SIGTTOU - 1) | 1ULL << (SIGURG - 1) |
                             1ULL << (SIGWINCH - 1);
static const uint64_t PASSED_ON = ~NOT_PASSED_ON;

static void set_mask(uint64_t mask) { SYS(rt_sigprocmask, SIG_SETMASK, ADDRESS(&mask), 0, sizeof mask); }

static int in_memory(const char *name, const void *bytes, size_t n) {
  int fd = (int)SYS(memfd_create, ADDRESS(name), 3 /* MFD_CLOEXEC | MFD_ALLOW_SEALING */);
  if (fd < 0 || !bytes) return fd;
  return SYS(write, fd, ADDRESS(bytes), n) == (long)n ? fd : close_with(fd, -EIO);
}

/* What a container finds behind /proc/PID/exe while it is being made must be no file of the host, nor be writable. */
static int sealed_launcher(void) {
  struct statx status;
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS("/proc/self/exe"), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fd;
  int copy = in_memory("testbed-launcher", NULL, 0);
  long n = SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_SIZE, ADDRESS(&status));
  if (copy >= 0 && n == 0) n = SYS(sendfile, copy, fd, 0, status.stx_size);
  SYS(close, fd);
  if (copy < 0 || n != (long)status.stx_size) return copy < 0 ? copy : close_with(copy, -EIO);
  return SYS(fcntl, copy, ADD_SEALS, ALL_SEALS) < 0 ? close_with(copy, -EIO) : copy;
}

static __attribute__((noreturn)) void be_launcher(int launcher, int plan, int channel) {
  const char *argv[3], *none[1]; /* filled here: the binary holds no pointers, for nothing would relocate them */
  argv[0] = "testbed-launcher";
  argv[1] = "--start";
  argv[2] = none[0] = NULL;
  if (SYS(dup3, channel, SYNC_FD, 0) == SYNC_FD && SYS(dup3, plan, PLAN_FD, 0) == PLAN_FD)
    SYS(execveat, launcher, ADDRESS(""), ADDRESS(argv), ADDRESS(none), AT_EMPTY_PATH);
  end_process(125);
}

/* Start the launcher with the container's plan. Returns our end of the socket; `pid` is the launcher's. */
static int start_launcher(const struct run *run, long *pid) {
  const struct plan *template = &run->prepared.container;
  uint8_t *bytes = map(-1, filled_size(template->bytes, template->size, run->id));
  int ends[2] = {-1, -1}, launcher = sealed_launcher();
  int plan = bytes ? in_memory("testbed-plan", bytes, fill_plan(bytes, template, run->id)) : -ENOMEM;
  int result = launcher < 0 || plan < 0 ? -ENOMEM : (int)SYS(socketpair, UNIX, SEQPACKET, 0, ADDRESS(ends));
  if (result == 0 && (ends[1] >= SYNC_FD || plan >= SYNC_FD || launcher >= SYNC_FD)) result = -EMFILE;
  if (result == 0) {
    *pid = fork_process();
    if (*pid == 0) be_launcher(launcher, plan, ends[1]);
    result = *pid < 0 ? (int)*pid : 0;
  }
  if (launcher >= 0) SYS(close, launcher);
  if (plan >= 0) SYS(close, plan);
  if (ends[1] >= 0) SYS(close, ends[1]);
  return result < 0 ? result : ends[0];
}

static void say_it_is_not_recorded(const struct run *run, int error) {
  struct text line = {.n = 0};
  add(&line, "error: run container ");
  add(&line, run->id);
  add(&line, ": write which process it is below ");
  add(&line, run->place.bytes);
  add(&line, ": ");
  add(&line, error_name(-error));
  add(&line, "; it has been killed\n");
  SYS(write, 2, ADDRESS(line.bytes), line.n);
}

/* Start the container's process; its pid once it has executed its program. Else no process is left: ENDED when the
 * program may have begun, and must not once more; another negative errno when it has not. */
static long start(const struct run *run) {
  long launcher = 0, pid = 0, n;
  int channel = start_launcher(run, &launcher), failed = 0, recorded = 0;
  if (channel < 0) return channel;
  struct message message;
  while ((n = SYS(read, channel, ADDRESS(&message), sizeof message)) == (long)sizeof message || n == -EINTR) {
    if (n < 0) continue;
    failed |= message.kind != MESSAGE_PID;
    if (message.kind != MESSAGE_PID) continue;
    pid = message.number;
    recorded = record_process(run, pid);
    if (recorded < 0) SYS(kill, pid, SIGKILL);
  }
  SYS(close, channel);
  wait_for(launcher);
  struct stat_line stat;
  int executed = pid && !failed && (!stat_of(&stat, pid) || stat.executed);
  if (executed && recorded == 0) return pid;
  if (pid) {
    SYS(kill, pid, SIGKILL);
    wait_for(pid);
  }
  if (executed) say_it_is_not_recorded(run, recorded);
  return executed ? ENDED : -ECANCELED;
}

/* Wait for the container's process and pass signals on to it. */
static int accompany(long pid) {
  int signals = (int)SYS(signalfd4, -1, ADDRESS(&PASSED_ON), sizeof PASSED_ON, O_CLOEXEC);
  for (;;) {
    uint32_t info[32]; /* struct signalfd_siginfo, of which the first is the number */
    int status = 0;
    if (SYS(wait4, pid, ADDRESS(&status), 1 /* WNOHANG */, 0) == pid)
      return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
    if (SYS(read, signals, ADDRESS(info), sizeof info) != (long)sizeof info) return wait_for(pid);
    if (info[0] != SIGCHLD) SYS(kill, pid, info[0]);
  }
}

/* --- a run ------------------------------------------------------------------------------------------------ */

/* The container's cgroups and state go. What is not simple is the interpreter's. */
static void end(struct run *run, const char **environment) {
  int result = lock(run);
  if (result >= 0) result = remove_cgroups(run);
  if (result >= 0) {
    forget(run);
    return;
  }
  if (run->lock >= 0) SYS(close, run->lock);
  const char *arguments[] = {"--root", run->root, "delete", "--force", run->id};
  long pid = fork_process();
  if (pid == 0) {
    default_signals();
    interpreter(arguments, sizeof arguments / sizeof *arguments, environment);
  }
  if (pid > 0) wait_for(pid);
}

/* The cgroups, from the host's plan. Whoever else has a cgroup of this name keeps it. */
static int make_cgroups(const struct run *run) {
  const struct plan *template = &run->prepared.host;
  uint8_t *bytes = map(-1, filled_size(template->bytes, template->size, run->id));
  struct plan plan;
  struct failure failure;
  if (!bytes || plan_read(&plan, bytes, fill_plan(bytes, template, run->id)) || plan.exec_count) return -EINVAL;
  if (perform(&plan, plan.first_step, 0, plan.parent_count, &failure) == 0) return 0;
  if (failure.step > (int32_t)run->prepared.claim) remove_cgroups(run);
  return -failure.error;
}

/* The exit status, or UNPREPARED when nothing was done. */
static int perform_run(struct run *run, const char **environment) {
  add(&run->place, run->root);
  add(&run->place, "/");
  add(&run->place, run->id);
  if (run->place.n + 16 > sizeof run->place.bytes || !find_prepared(&run->prepared, run->root, run->bundle)) return UNPREPARED;
  if (SYS(mkdirat, AT_FDCWD, ADDRESS(run->place.bytes), 0700) < 0) return UNPREPARED;
  long pid = lock(run);
  if (pid >= 0) pid = record(run);
  if (pid >= 0) pid = make_cgroups(run);
  if (pid < 0) {
    forget(run);
    return UNPREPARED;
  }
  pid = start(run);
  SYS(close, run->lock);
  int status = pid == ENDED ? 1 : pid < 0 ? UNPREPARED : accompany(pid);
  end(run, environment);
  return status;
}

/* Whether the caller's environment has a say: sockets that it passes on (sd_listen_fds(3)), or to be told when the
 * container is ready (sd_notify(3)). */
static int is_service(const char **environment) {
  for (; *environment; environment++) {
    static const char names[][16] = {"LISTEN_FDS=", "NOTIFY_SOCKET="};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++)
      if (strlen(*environment) > strlen(names[i]) && memcmp(*environment, names[i], strlen(names[i])) == 0) return 1;
  }
  return 0;
}

/* [...] run [--bundle DIRECTORY] ID, of which nothing says how to make a container; as root. */
static int perform_prepared(const struct request *request, const char **environment) {
  struct run run = {.root = request->root, .bundle = request->bundle ? request->bundle : ".", .id = request->id, .lock = -1};
  uint64_t mask = 0;
  SYS(rt_sigprocmask, SIG_BLOCK, ADDRESS(&PASSED_ON), ADDRESS(&mask), sizeof mask);
  int status = perform_run(&run, environment);
  if (status == UNPREPARED) set_mask(mask);
  return status;
}

/* The interpreter, with one more argument: what the launcher said of a start that failed. */
static __attribute__((noreturn)) void explain(int argc, const char **argv, const struct failure *failure, const char **environment) {
  struct text words = {.n = 0};
  const char **more = map(-1, ((size_t)argc + 1) * sizeof *more);
  add(&words, "--failed=");
  add_number(&words, failure->step);
  add(&words, ":");
  add_number(&words, failure->error);
  if (more) {
    memcpy(more, argv + 1, ((size_t)argc - 1) * sizeof *more);
    more[argc - 1] = words.bytes;
  }
  if (!more) end_process(1);
  interpreter(more, (size_t)argc, environment);
}

/* Whether we alone can write to the state's root, as check_root of runtime/state.py asks. */
static int is_ours(const char *root) {
  struct statx status;
  return SYS(statx, AT_FDCWD, ADDRESS(root), AT_SYMLINK_NOFOLLOW, STATX_TYPE | STATX_UID | STATX_MODE, ADDRESS(&status)) == 0 &&
         (status.stx_mode & 0170022) == 0040000 && status.stx_uid == 0;
}

/* Whether the log can be opened, as open_log of runtime/log.py does. It is written to when something fails, which is the
 * interpreter's to tell. */
static int can_log(const char *path) {
  if (!path) return 1;
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(path), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
  return fd >= 0 && SYS(close, fd) == 0;
}

int command_line(int argc, const char **argv, const char **environment) {
  struct request request;
  struct failure failure = {-1, 0};
  int status = HAND_OVER;
  if (read_request(&request, argc, argv) && SYS(geteuid) == 0 && is_ours(request.root) && can_log(request.log)) {
    if (request.command != COMMAND_RUN) status = operate(&request, &failure);
    else if (request.by_default && !is_service(environment)) status = perform_prepared(&request, environment);
    if (status >= 0) return status;
  }
  if (status == EXPLAIN) explain(argc, argv, &failure, environment);
  interpreter(argv + 1, (size_t)argc - 1, environment);
}
