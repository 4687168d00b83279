/* One line or one function a step: each is a system call or a few. */
#include "steps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <linux/prctl.h>
#include <linux/stat.h>
#include <linux/time_types.h>

#include "sys.h"

enum { IOPRIO_WHO_PROCESS = 1, KEYCTL_JOIN_SESSION = 1, DEVICE_NAME_BITS = 0xff };

int move_fd(int fd, int wanted) {
  if (fd < 0 || fd == wanted) return fd < 0 ? fd : 0;
  int result = (int)SYS(dup3, fd, wanted, wanted > 2 ? O_CLOEXEC : 0);
  return close_with(fd, result < 0 ? result : 0);
}

static int write_record(int fd, const uint8_t *string) {
  long length = plan_string_length(string), n = SYS(write, fd, ADDRESS(string + 4), length);
  return n < 0 ? (int)n : n == length ? 0 : -EIO;
}

int write_all(int fd, const void *bytes, size_t n) {
  for (const uint8_t *at = bytes; n > 0;) {
    long written = SYS(write, fd, ADDRESS(at), n);
    if (written == -EINTR) continue;
    if (written <= 0) return written < 0 ? (int)written : -EIO;
    at += written;
    n -= (size_t)written;
  }
  return 0;
}

static int open_to_write(const char *path, int create, int inside) {
  if (inside) return create ? below_replaced(path) : below_strictly(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK);
  return (int)SYS(openat, AT_FDCWD, ADDRESS(path), O_WRONLY | O_CLOEXEC | (create ? O_CREAT | O_TRUNC : 0), 0644);
}

/* Numbers: create, inside. Each string after the path is written by a call of its own. */
static int write_file(const struct step *s) {
  int fd = open_to_write(s->string[0], s->number[0] != 0, s->number[1] != 0);
  if (fd < 0) return fd;
  int result = 0;
  const uint8_t *record = s->strings;
  for (uint32_t i = 0; i < s->string_count && result == 0; i++, record = plan_next_string(record))
    if (i > 0) result = write_record(fd, record);
  return close_with(fd, result);
}

static int make_directory(const struct step *s) {
  const char *name;
  int directory = parent_of(s->string[0], s->number[1] != 0, &name);
  if (directory < 0 && directory != AT_FDCWD) return directory;
  return close_parent(directory, (int)SYS(mkdirat, directory, ADDRESS(name), s->number[0]));
}

static int make_symlink(const struct step *s) {
  const char *name;
  int directory = parent_of(s->string[1], s->number[0] != 0, &name);
  if (directory < 0 && directory != AT_FDCWD) return directory;
  return close_parent(directory, (int)SYS(symlinkat, ADDRESS(s->string[0]), directory, ADDRESS(name)));
}

/* Whether what has the name already is of the type that is to be made: 0, or -EEXIST. Of devices it may be another, as
 * where /dev/urandom has been bound on /dev/random. */
static int is_of_type(int directory, const char *name, uint64_t mode) {
  struct statx status;
  int result = (int)SYS(statx, directory, ADDRESS(name), AT_SYMLINK_NOFOLLOW, STATX_TYPE, ADDRESS(&status));
  return result < 0 ? result : (status.stx_mode & S_IFMT) == (mode & S_IFMT) ? 0 : -EEXIST;
}

/* Numbers: mode with the file type, major, minor, uid, gid, inside. */
static int make_node(const struct step *s) {
  const char *name;
  uint64_t minor = s->number[2], device = (minor & DEVICE_NAME_BITS) | s->number[1] << 8 | (minor & ~0xffULL) << 12;
  int directory = parent_of(s->string[0], s->number[5] != 0, &name);
  if (directory < 0 && directory != AT_FDCWD) return directory;
  int result = (int)SYS(mknodat, directory, ADDRESS(name), s->number[0], device);
  int made = result == 0; /* what is there already keeps its owner: it may be the host's */
  if (result == -EEXIST) result = is_of_type(directory, name, s->number[0]);
  if (made && (s->number[3] || s->number[4]))
    result = (int)SYS(fchownat, directory, ADDRESS(name), s->number[3], s->number[4], AT_SYMLINK_NOFOLLOW);
  return close_parent(directory, result);
}

static int open_step(const struct step *s) {
  uint64_t flags = s->number[1] | O_CLOEXEC;
  return move_fd((int)SYS(openat, AT_FDCWD, ADDRESS(s->string[0]), flags, 0644), (int)s->number[0]);
}

/* A directory outside of the root has a path that begins with "(unreachable)": a way out, so it is refused. */
static int change_directory(const struct step *s) {
  int result = s->number[0] ? (int)SYS(fchdir, ROOT_FD) : (int)SYS(chdir, ADDRESS(s->string[0]));
  if (result < 0 || !s->number[1]) return result;
  char path[4096];
  result = (int)SYS(getcwd, ADDRESS(path), sizeof path);
  return result < 0 ? result : path[0] == '/' ? 0 : -EXDEV;
}

static int load_module(const struct step *s) {
  int fd = (int)SYS(openat, AT_FDCWD, ADDRESS(s->string[0]), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fd;
  size_t n = s->length[0];
  int plain = n >= 3 && memcmp(s->string[0] + n - 3, ".ko", 3) == 0;
  return close_with(fd, (int)SYS(finit_module, fd, ADDRESS(""), plain ? 0 : 4 /* MODULE_INIT_COMPRESSED_FILE */));
}

static int wait_path(const struct step *s) {
  struct __kernel_timespec pause = {0, 1000000};
  for (uint64_t waited = 0; SYS(faccessat, AT_FDCWD, ADDRESS(s->string[0]), 0) < 0; waited++) {
    if (waited >= s->number[0]) return -ETIMEDOUT;
    SYS(nanosleep, ADDRESS(&pause), 0);
  }
  return 0;
}

static int session_keyring(const struct step *s) {
  long result = SYS(keyctl, KEYCTL_JOIN_SESSION, ADDRESS(s->string[0]));
  return result < 0 ? (int)result : 0;
}

static int personality(const struct step *s) {
  long result = SYS(personality, s->number[0]);
  return result < 0 ? (int)result : 0;
}

/* Number: the mode and its flags. String: the nodes' bits, of which the kernel takes one less than it is told there are. */
static int memory_policy(const struct step *s) {
  return (int)SYS(set_mempolicy, s->number[0], s->length[0] ? ADDRESS(s->string[0]) : 0, 8 * (uint64_t)s->length[0] + 1);
}

static int affinity(const struct step *s) {
  return (int)SYS(sched_setaffinity, 0, s->length[0], ADDRESS(s->string[0]));
}

static int perform_file(const struct step *s) {
  switch (s->operation) {
  case OP_MKDIR: return make_directory(s);
  case OP_MOUNT: return mount_step(s);
  case OP_UNMOUNT: return (int)SYS(umount2, ADDRESS(s->string[0]), s->number[0]);
  case OP_PIVOT_ROOT: return (int)SYS(pivot_root, ADDRESS(s->string[0]), ADDRESS(s->string[1]));
  case OP_CHROOT: return (int)SYS(chroot, ADDRESS(s->string[0]));
  case OP_CHDIR: return change_directory(s);
  case OP_SYMLINK: return make_symlink(s);
  case OP_MKNOD: return make_node(s);
  case OP_WRITE: return write_file(s);
  case OP_OPEN: return open_step(s);
  case OP_WAIT_PATH: return wait_path(s);
  case OP_MASK_PATH: return mask_path(s);
  case OP_READONLY_PATH: return readonly_path(s->string[0]);
  case OP_HOLD_TREE: return hold_tree(s);
  case OP_NEW_TREE: return new_tree(s);
  case OP_BIND: return bind_step(s);
  case OP_MOUNT_ATTRIBUTES: return mount_attributes(s);
  case OP_WRITE_DESCRIPTOR: return write_all((int)s->number[0], s->string[0], s->length[0]);
  case OP_LOAD_MODULE: return load_module(s);
  case OP_MESSAGE: return write_record(2, s->strings);
  default: return -ENOSYS;
  }
}

static int perform_process(const struct step *s) {
  switch (s->operation) {
  case OP_SET_HOSTNAME: return (int)SYS(sethostname, ADDRESS(s->string[0]), s->length[0]);
  case OP_SET_DOMAINNAME: return (int)SYS(setdomainname, ADDRESS(s->string[0]), s->length[0]);
  case OP_SET_RLIMIT: return set_rlimit(s);
  case OP_UNSHARE: return (int)SYS(unshare, s->number[0]);
  case OP_JOIN_NAMESPACE: return join_namespace(s);
  case OP_NEW_USER_NAMESPACE: return new_user_namespace(s);
  case OP_BOUNDING_SET: return bounding_set(s->number[0]);
  case OP_CAPABILITIES: return capabilities(s);
  case OP_AMBIENT: return ambient(s->number[0]);
  case OP_KEEP_CAPABILITIES: return (int)SYS(prctl, PR_SET_KEEPCAPS, s->number[0], 0, 0, 0);
  case OP_NO_NEW_PRIVILEGES: return (int)SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  case OP_UNDUMPABLE: return (int)SYS(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
  case OP_SET_USER: return set_user(s);
  case OP_UMASK: SYS(umask, s->number[0]); return 0;
  case OP_SETSID: { int result = (int)SYS(setsid); return result < 0 ? result : 0; }
  case OP_SCHEDULER: return scheduler(s);
  case OP_AFFINITY: return affinity(s);
  case OP_MEMORY_POLICY: return memory_policy(s);
  case OP_IO_PRIORITY: return (int)SYS(ioprio_set, IOPRIO_WHO_PROCESS, 0, s->number[0]);
  case OP_PERSONALITY: return personality(s);
  case OP_SESSION_KEYRING: return session_keyring(s);
  case OP_SECCOMP: return seccomp_filter(s);
  case OP_DEVICE_FILTER: return device_filter(s);
  case OP_DEATH_SIGNAL: return (int)SYS(prctl, PR_SET_PDEATHSIG, s->number[0], 0, 0, 0);
  case OP_OWN_STREAMS: return own_streams(s);
  case OP_SET_CLOCK: return set_clock(s);
  case OP_ADD_ENTROPY: return add_entropy(s);
  default: return perform_file(s);
  }
}

static int perform_one(const struct plan *plan, const struct step *s) {
  switch (s->operation) {
  case OP_CLOSE_ON_EXEC: return (int)SYS(close_range, s->number[0], ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
  case OP_NETLINK_SOCKET: return netlink_socket(s);
  case OP_NETLINK: return netlink_request(s);
  case OP_SYNC: return sync_with_starter(s);
  case OP_HAND_OVER: return send_message(BESIDE_FD, MESSAGE_HANDED, (int32_t)s->number[0], 0, (int)s->number[0]);
  case OP_TAKE_OVER: return take_over(s);
  case OP_ANNOUNCE: return announce();
  case OP_AWAIT_ANNOUNCED: return await_announced();
  case OP_AWAIT_START: return await_start();
  case OP_TERMINAL: return terminal(s);
  case OP_AWAIT_END: return await_end(s);
  case OP_SERVE: return serve(s);
  case OP_ADMISSION: return admission(s);
  case OP_LOOK_UP: return look_up(s);
  case OP_HOME: return find_home(s);
  case OP_ANSWER: return answer(s);
  case OP_LOCK: return take_lock(s);
  case OP_REPLACE: return replace_file(s);
  case OP_REMOVE: return remove_path(s);
  case OP_LISTEN: return listen_at(s);
  case OP_SPAWN: return spawn(s);
  case OP_REAP: return reap(s);
  case OP_SIGNAL_PROCESS: return signal_process(s);
  case OP_HOLD_SIGNALS: return hold_signals();
  case OP_ACCOMPANY: return accompany(s);
  case OP_CLOSE: return (int)SYS(close, s->number[0]);
  case OP_EXEC: return execute(plan, s);
  default: return perform_process(s);
  }
}

static int tolerated(const struct step *s, int error) {
  for (unsigned i = 0; i < s->tolerated_count; i++) {
    uint32_t value;
    memcpy(&value, s->tolerated + 4 * (size_t)i, sizeof value);
    if ((int)value == error) return 1;
  }
  return 0;
}

int perform(const struct plan *plan, size_t offset, uint32_t index, uint32_t n, struct failure *failure) {
  for (uint32_t i = 0; i < n; i++) {
    struct step step;
    plan_step(plan, &offset, &step);
    uint32_t at = index + i;
    int result = step.operation == OP_FORK ? fork_steps(plan, &offset, at, &step, failure) : perform_one(plan, &step);
    if (result == FORK_FAILED) return -1;
    if (step.operation == OP_FORK) i += (uint32_t)step.number[0];
    if (result >= 0 || tolerated(&step, -result)) continue;
    *failure = (struct failure){(int32_t)at, -result};
    return -1;
  }
  return 0;
}
