/* One line or one function a step: each is a system call or a few. */
#include "steps.h"

#include <sys/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/module.h>
#include <linux/prctl.h>
#include <linux/stat.h>

#include "sys.h"

enum { IOPRIO_WHO_PROCESS = 1, KEYCTL_JOIN_SESSION = 1, DEVICE_NAME_BITS = 0xff };

int move_fd(int fd, int wanted) {
  if (fd < 0 || fd == wanted) return fd < 0 ? fd : 0;
  int result = (int)SYS(dup3, fd, wanted, wanted > 2 ? O_CLOEXEC : 0);
  return close_with(fd, result < 0 ? result : 0);
}

int open_path(const char *path, uint64_t flags) { return (int)SYS(openat, AT_FDCWD, path, flags | O_CLOEXEC, 0644); }

int transfer(long call, int fd, const void *bytes, size_t size) {
  const uint8_t *at = bytes, *end = at + size;
  for (long n; at < end; at += n) {
    n = sys6(call, fd, (long)at, end - at, MSG_NOSIGNAL, 0, 0); /* flags that only sendto looks at */
    if (n == -EINTR) n = 0;
    else if (n <= 0) return n < 0 ? (int)n : -EPIPE;
  }
  return 0;
}

int exit_code(int status) { return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff; }

/* --- files ------------------------------------------------------------------------------------------------ */

static int open_to_write(const char *path, int create, int inside) {
  if (inside) return create ? replace_in_root(path) : open_strictly_in_root(path, O_WRONLY | O_NOFOLLOW | O_NONBLOCK);
  return open_path(path, O_WRONLY | (create ? O_CREAT | O_TRUNC : 0));
}

int perform_write(const struct step *s) {
  OWNED int fd = open_to_write(s->write.path, s->write.create != 0, s->write.inside != 0);
  int result = fd < 0 ? fd : 0;
  const uint8_t *record = s->list;
  for (uint64_t i = 0; i < s->write.data_count && result == 0; i++, record = plan_next_string(record))
    result = transfer(__NR_write, fd, record + 4, plan_string_length(record));
  return result;
}

int perform_write_descriptor(const struct step *s) {
  return transfer(__NR_write, (int)s->write_descriptor.fd, s->write_descriptor.data, s->write_descriptor.data_size);
}

int perform_log_line(const struct step *s) { return transfer(__NR_write, 2, s->log_line.text, s->log_line.text_size); }

/* A step that makes the last component of its path, which may be below the root, in the directory that holds it. */
typedef int making(int directory, const char *name, const struct step *s);
static int make_at(const char *path, uint64_t inside, making *make, const struct step *s) {
  if (!inside) return make(AT_FDCWD, path, s);
  const char *name;
  OWNED int directory = parent_in_root(path, &name);
  return directory < 0 ? directory : make(directory, name, s);
}

static int make_directory(int directory, const char *name, const struct step *s) {
  int result = (int)SYS(mkdirat, directory, name, s->mkdir.mode);
  if (result < 0 || !s->mkdir.owner) return result;
  return (int)SYS(fchownat, directory, name, s->mkdir.owner, s->mkdir.owner, AT_SYMLINK_NOFOLLOW);
}
int perform_mkdir(const struct step *s) { return make_at(s->mkdir.path, s->mkdir.inside, make_directory, s); }

static int make_link(int directory, const char *name, const struct step *s) {
  return (int)SYS(symlinkat, s->symlink.target, directory, name);
}
int perform_symlink(const struct step *s) { return make_at(s->symlink.path, s->symlink.inside, make_link, s); }

/* What has the name already must be of the type that is to be made, and keeps its owner: it may be the host's. Of devices it
 * may be another, as where /dev/urandom has been bound on /dev/random. */
static int make_node(int directory, const char *name, const struct step *s) {
  uint64_t mode = s->mknod.mode, minor = s->mknod.minor;
  uint64_t device = (minor & DEVICE_NAME_BITS) | s->mknod.major << 8 | (minor & ~0xffULL) << 12;
  int result = (int)SYS(mknodat, directory, name, mode, device);
  struct statx status;
  if (result == -EEXIST) {
    result = status_of(directory, name, &status);
    if (result == 0) return (status.stx_mode & S_IFMT) == (mode & S_IFMT) ? 0 : -EEXIST;
  }
  if (result < 0 || (!s->mknod.uid && !s->mknod.gid)) return result;
  return (int)SYS(fchownat, directory, name, s->mknod.uid, s->mknod.gid, AT_SYMLINK_NOFOLLOW);
}
int perform_mknod(const struct step *s) { return make_at(s->mknod.path, s->mknod.inside, make_node, s); }

int perform_open(const struct step *s) { return move_fd(open_path(s->open.path, s->open.flags), (int)s->open.fd); }

/* A directory outside of the root has a path that begins with "(unreachable)": a way out, so it is refused. */
int perform_chdir(const struct step *s) {
  char path[4096];
  int result = (int)SYS(chdir, s->chdir.path);
  if (result < 0 || !s->chdir.confined) return result;
  result = (int)SYS(getcwd, path, sizeof path);
  return result < 0 ? result : path[0] == '/' ? 0 : -EXDEV;
}

int perform_load_module(const struct step *s) {
  OWNED int fd = open_path(s->load_module.path, O_RDONLY);
  uint64_t n = s->load_module.path_size;
  int plain = n >= 3 && memcmp(s->load_module.path + n - 3, ".ko", 3) == 0;
  return fd < 0 ? fd : (int)SYS(finit_module, fd, "", plain ? 0 : MODULE_INIT_COMPRESSED_FILE);
}

int perform_wait_path(const struct step *s) {
  for (uint64_t waited_ms = 0; SYS(faccessat, AT_FDCWD, s->wait_path.path, 0) < 0; waited_ms++) {
    if (waited_ms >= s->wait_path.timeout_ms) return -ETIMEDOUT;
    sleep_1ms();
  }
  return 0;
}

int perform_unmount(const struct step *s) { return (int)SYS(umount2, s->unmount.target, s->unmount.flags); }
int perform_chroot(const struct step *s) { return (int)SYS(chroot, s->chroot.path); }
int perform_pivot_root(const struct step *s) { return (int)SYS(pivot_root, s->pivot_root.new_root, s->pivot_root.put_old); }

/* --- the process ------------------------------------------------------------------------------------------ */

/* The call's result, where that may be a number that is no errno. */
static int without_number(long result) { return result < 0 ? (int)result : 0; }

int perform_set_hostname(const struct step *s) { return (int)SYS(sethostname, s->set_hostname.hostname, s->set_hostname.hostname_size); }
int perform_set_domainname(const struct step *s) {
  return (int)SYS(setdomainname, s->set_domainname.domainname, s->set_domainname.domainname_size);
}
int perform_unshare(const struct step *s) { return (int)SYS(unshare, s->unshare.flags); }
int perform_umask(const struct step *s) { return without_number(SYS(umask, s->umask.mask)); }
int perform_setsid(const struct step *s) { return without_number(SYS(setsid)); }
int perform_personality(const struct step *s) { return without_number(SYS(personality, s->personality.persona)); }
int perform_session_keyring(const struct step *s) { return without_number(SYS(keyctl, KEYCTL_JOIN_SESSION, s->session_keyring.name)); }
int perform_io_priority(const struct step *s) { return (int)SYS(ioprio_set, IOPRIO_WHO_PROCESS, 0, s->io_priority.value); }
int perform_close_on_exec(const struct step *s) { return (int)SYS(close_range, s->close_on_exec.first, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */); }
int perform_affinity(const struct step *s) {
  return without_number(SYS(sched_setaffinity, 0, s->affinity.processors_size, s->affinity.processors));
}

/* Of the nodes' bits the kernel takes one less than it is told there are. */
int perform_memory_policy(const struct step *s) {
  uint64_t size = s->memory_policy.nodes_size;
  return (int)SYS(set_mempolicy, s->memory_policy.mode, size ? s->memory_policy.nodes : 0, 8 * size + 1);
}

int perform_keep_capabilities(const struct step *s) { return (int)SYS(prctl, PR_SET_KEEPCAPS, s->keep_capabilities.keep, 0, 0, 0); }
int perform_no_new_privileges(const struct step *s) { return (int)SYS(prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); }
int perform_set_non_dumpable(const struct step *s) { return (int)SYS(prctl, PR_SET_DUMPABLE, 0, 0, 0, 0); }
int perform_death_signal(const struct step *s) { return (int)SYS(prctl, PR_SET_PDEATHSIG, s->death_signal.number, 0, 0, 0); }

/* --- a plan's steps --------------------------------------------------------------------------------------- */

static int tolerated(const struct step *s, int error) {
  for (unsigned i = 0; i < s->tolerated_count; i++)
    if ((int)u32(s->tolerated + 4 * (size_t)i) == error) return 1;
  return 0;
}

int perform(const struct plan *plan, size_t offset, uint32_t index, uint32_t n, struct failure *failure) {
  struct progress progress = {.plan = plan, .offset = offset, .index = index, .end = index + n};
  while (progress.index < progress.end) {
    struct step step = {.progress = &progress};
    plan_step(plan, &progress.offset, &step);
    uint32_t at = progress.index++;
    int result = perform_operation(&step);
    note_time(at);
    if (result >= 0 || tolerated(&step, -result)) continue;
    *failure = (struct failure){(int32_t)at, -result};
    return -1;
  }
  if (progress.forked) end_process(0);
  return 0;
}
