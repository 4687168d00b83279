/* One function a step, each a system call or a few. Nothing in here allocates memory or takes a lock: it
 * runs between clone and exec, in memory that a suspended parent still owns. For the same reason the calls
 * that glibc would broadcast to other threads (setuid and its kin) are made raw. */
#define _GNU_SOURCE
#include "steps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#ifndef MODULE_INIT_COMPRESSED_FILE
#define MODULE_INIT_COMPRESSED_FILE 4
#endif

static int write_file(const struct step *s) {
  int flags = O_WRONLY | O_CLOEXEC | (s->number[0] ? O_CREAT | O_TRUNC : 0);
  int fd = open(s->string[0], flags, 0644);
  if (fd < 0) return -1;
  int error = 0;
  const uint8_t *record = s->strings;
  for (uint32_t i = 0, length = 0; i < s->string_count && !error; i++, record = plan_next_string(record)) {
    memcpy(&length, record, sizeof length);
    if (i == 0) continue; /* the path */
    ssize_t n = write(fd, record + 4, length);
    error = n < 0 ? errno : (size_t)n == length ? 0 : EIO;
  }
  close(fd);
  errno = error;
  return error ? -1 : 0;
}

/* Put `fd` at descriptor `wanted`, close-on-exec unless it is one of the standard three. */
static int place(int fd, int wanted) {
  if (fd < 0 || fd == wanted) return fd < 0 ? -1 : 0;
  int result = dup3(fd, wanted, wanted > 2 ? O_CLOEXEC : 0), error = errno;
  close(fd);
  errno = error;
  return result < 0 ? -1 : 0;
}

static int netlink_request(const struct step *s) {
  int fd = (int)s->number[0];
  char answer[1024];
  if (send(fd, s->string[0], s->length[0], 0) < 0) return -1;
  ssize_t n = recv(fd, answer, sizeof answer, 0);
  if (n < 0) return -1;
  struct nlmsghdr header;
  struct nlmsgerr result;
  if ((size_t)n < sizeof header + sizeof result.error) { errno = EPROTO; return -1; }
  memcpy(&header, answer, sizeof header);
  memcpy(&result.error, answer + NLMSG_HDRLEN, sizeof result.error);
  if (header.nlmsg_type != NLMSG_ERROR) { errno = EPROTO; return -1; }
  errno = -result.error;
  return result.error ? -1 : 0;
}

static int ends_with(const char *text, size_t length, const char *suffix) {
  size_t n = strlen(suffix);
  return length >= n && memcmp(text + length - n, suffix, n) == 0;
}

static int load_module(const struct step *s) {
  int fd = open(s->string[0], O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  int flags = ends_with(s->string[0], s->length[0], ".ko") ? 0 : MODULE_INIT_COMPRESSED_FILE;
  int result = (int)syscall(SYS_finit_module, fd, "", flags), error = errno;
  close(fd);
  errno = error;
  return result;
}

static int wait_path(const struct step *s) {
  struct timespec pause = {0, 1000000};
  for (uint64_t waited = 0; access(s->string[0], F_OK) != 0; waited++) {
    if (waited >= s->number[0]) { errno = ETIMEDOUT; return -1; }
    nanosleep(&pause, NULL);
  }
  return 0;
}

/* As the runtime-spec's maskedPaths: a file is hidden by /dev/null, a directory by an empty tmpfs. */
static int mask_path(const char *path) {
  if (mount("/dev/null", path, NULL, MS_BIND, NULL) == 0 || errno == ENOENT) return 0;
  if (errno != ENOTDIR) return -1;
  return mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "size=0k");
}

/* As the runtime-spec's readonlyPaths. A cloned tree keeps the flags it had (nosuid, noexec). */
static int readonly_path(const char *path) {
  int tree = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (tree < 0) return errno == ENOENT ? 0 : -1;
  struct mount_attr attributes = {.attr_set = MOUNT_ATTR_RDONLY};
  int result = (int)syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes);
  if (result == 0) result = (int)syscall(SYS_move_mount, tree, "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH);
  int error = errno;
  close(tree);
  errno = error;
  return result;
}

static int bounding_set(uint64_t keep) {
  for (unsigned capability = 0; capability < 64; capability++) {
    if (keep & (1ULL << capability)) continue;
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0) return errno == EINVAL ? 0 : -1; /* past the last one */
  }
  return 0;
}

static int capabilities(const struct step *s) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  for (int i = 0; i < 2; i++) {
    data[i].effective = (uint32_t)(s->number[0] >> (32 * i));
    data[i].permitted = (uint32_t)(s->number[1] >> (32 * i));
    data[i].inheritable = (uint32_t)(s->number[2] >> (32 * i));
  }
  return (int)syscall(SYS_capset, &header, data);
}

static int set_user(const struct step *s) {
  unsigned uid = (unsigned)s->number[0], gid = (unsigned)s->number[1];
  if (syscall(SYS_setgroups, s->length[0] / 4, s->string[0]) != 0) return -1;
  if (syscall(SYS_setresgid, gid, gid, gid) != 0) return -1;
  return (int)syscall(SYS_setresuid, uid, uid, uid);
}

static int open_at(const struct step *s) {
  return place(open(s->string[0], (int)s->number[1] | O_CLOEXEC, 0644), (int)s->number[0]);
}

static int netlink_socket(const struct step *s) {
  return place(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), (int)s->number[0]);
}

/* execvpe without its allocation: try each directory of the search path, EACCES is remembered. */
static int execute(const struct plan *plan, const struct step *s) {
  const char *name = plan->argv[0], *search = s->string[0];
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  if (strchr(name, '/') || !*search) return execve(name, plan->argv, plan->envp);
  char path[4096];
  int error = ENOENT;
  size_t name_size = strlen(name) + 1;
  for (const char *at = search; at; at = *at ? at + 1 : NULL) {
    size_t n = strcspn(at, ":");
    if (n > 0 && n + 1 + name_size <= sizeof path) {
      memcpy(path, at, n);
      path[n] = '/';
      memcpy(path + n + 1, name, name_size);
      execve(path, plan->argv, plan->envp);
      if (errno == EACCES) error = EACCES;
      else if (errno != ENOENT && errno != ENOTDIR) return -1;
    }
    at += n;
    if (!*at) break;
  }
  errno = error;
  return -1;
}

static const char *or_null(const char *text) { return *text ? text : NULL; }

static int set_rlimit(const struct step *s) {
  struct rlimit limit = {s->number[1], s->number[2]};
  return setrlimit((int)s->number[0], &limit);
}

/* File systems: what changes the tree that the workload will see. */
static int perform_file(const struct step *s) {
  switch (s->operation) {
  case OP_MKDIR: return mkdir(s->string[0], (mode_t)s->number[0]);
  case OP_MOUNT:
    return mount(or_null(s->string[0]), s->string[1], or_null(s->string[2]), s->number[0], or_null(s->string[3]));
  case OP_UNMOUNT: return umount2(s->string[0], (int)s->number[0]);
  case OP_PIVOT_ROOT: return (int)syscall(SYS_pivot_root, s->string[0], s->string[1]);
  case OP_CHROOT: return chroot(s->string[0]);
  case OP_CHDIR: return chdir(s->string[0]);
  case OP_SYMLINK: return symlink(s->string[0], s->string[1]);
  case OP_MKNOD: {
    if (mknod(s->string[0], S_IFCHR, makedev((unsigned)s->number[1], (unsigned)s->number[2])) != 0) return -1;
    return chmod(s->string[0], (mode_t)s->number[0]); /* past the umask */
  }
  case OP_WRITE: return write_file(s);
  case OP_OPEN: return open_at(s);
  case OP_WAIT_PATH: return wait_path(s);
  case OP_MASK_PATH: return mask_path(s->string[0]);
  case OP_READONLY_PATH: return readonly_path(s->string[0]);
  default: errno = ENOSYS; return -1;
  }
}

/* Everything else: the process's own attributes, namespaces, the network, the kernel. */
static int perform_one(const struct plan *plan, const struct step *s) {
  switch (s->operation) {
  case OP_SET_HOSTNAME: return sethostname(s->string[0], s->length[0]);
  case OP_SET_RLIMIT: return set_rlimit(s);
  case OP_UNSHARE: return unshare((int)s->number[0]);
  case OP_BOUNDING_SET: return bounding_set(s->number[0]);
  case OP_CAPABILITIES: return capabilities(s);
  case OP_NO_NEW_PRIVILEGES: return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
  case OP_SET_USER: return set_user(s);
  case OP_UMASK: umask((mode_t)s->number[0]); return 0;
  case OP_SETSID: return setsid() < 0 ? -1 : 0;
  case OP_CLOSE_ON_EXEC: return (int)syscall(SYS_close_range, (unsigned)s->number[0], ~0U, 4 /* CLOSE_RANGE_CLOEXEC */);
  case OP_NETLINK_SOCKET: return netlink_socket(s);
  case OP_NETLINK: return netlink_request(s);
  case OP_LOAD_MODULE: return load_module(s);
  case OP_MESSAGE: return write(2, s->string[0], s->length[0]) < 0 ? -1 : 0;
  case OP_EXEC: return execute(plan, s);
  default: return perform_file(s);
  }
}

static int tolerated(const struct step *s, int error) {
  for (unsigned i = 0; i < s->tolerated_count; i++) {
    uint32_t value;
    memcpy(&value, s->tolerated + 4 * i, sizeof value);
    if ((int)value == error) return 1;
  }
  return 0;
}

int perform(const struct plan *plan, size_t offset, uint32_t index, uint32_t n, struct failure *failure) {
  for (uint32_t i = 0; i < n; i++) {
    struct step step;
    plan_step(plan, &offset, &step);
    if (perform_one(plan, &step) == 0 || tolerated(&step, errno)) continue;
    failure->step = (int32_t)(index + i);
    failure->error = errno;
    return -1;
  }
  return 0;
}
