/* Who the process is and what it may do. The calls go straight to the kernel: they act on this thread, the only one. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched/types.h>
#include <linux/seccomp.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

int set_rlimit(const struct step *s) {
  struct rlimit64 limit = {s->number[1], s->number[2]};
  return (int)SYS(prlimit64, 0, s->number[0], ADDRESS(&limit), 0);
}

int bounding_set(uint64_t keep) {
  for (unsigned capability = 0; capability < 64; capability++) {
    if (keep & (1ULL << capability)) continue;
    int result = (int)SYS(prctl, PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (result < 0) return result == -EINVAL ? 0 : result; /* past the last one */
  }
  return 0;
}

int capabilities(const struct step *s) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  for (int i = 0; i < 2; i++) {
    data[i].effective = (uint32_t)(s->number[0] >> (32 * i));
    data[i].permitted = (uint32_t)(s->number[1] >> (32 * i));
    data[i].inheritable = (uint32_t)(s->number[2] >> (32 * i));
  }
  return (int)SYS(capset, ADDRESS(&header), ADDRESS(data));
}

int ambient(uint64_t mask) {
  int result = (int)SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (unsigned capability = 0; capability < 64 && result == 0; capability++)
    if (mask & (1ULL << capability)) result = (int)SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
  return result;
}

/* Numbers: uid, gid, and whether the groups stay as they are (a user namespace may forbid setgroups). */
int set_user(const struct step *s) {
  int result = s->number[2] ? 0 : (int)SYS(setgroups, s->length[0] / 4, ADDRESS(s->string[0]));
  if (result == 0) result = (int)SYS(setresgid, s->number[1], s->number[1], s->number[1]);
  if (result == 0) result = (int)SYS(setresuid, s->number[0], s->number[0], s->number[0]);
  return result;
}

/* Numbers: policy with the flags above it, nice, priority, runtime, deadline, period. */
int scheduler(const struct step *s) {
  struct sched_attr attributes = {
    .size = SCHED_ATTR_SIZE_VER0,
    .sched_policy = (uint32_t)s->number[0],
    .sched_flags = s->number[0] >> 32,
    .sched_nice = (int32_t)s->number[1],
    .sched_priority = (uint32_t)s->number[2],
    .sched_runtime = s->number[3],
    .sched_deadline = s->number[4],
    .sched_period = s->number[5],
  };
  return (int)SYS(sched_setattr, 0, ADDRESS(&attributes), 0);
}

/* Number: flags for seccomp(2). A listener goes to the starter at once; the filter must let sendmsg pass. */
int seccomp_filter(const struct step *s) {
  struct sock_fprog program = {
    .len = (unsigned short)(s->length[0] / sizeof(struct sock_filter)),
    .filter = (struct sock_filter *)(uintptr_t)s->string[0],
  };
  if (s->length[0] / sizeof(struct sock_filter) > BPF_MAXINSNS) return -E2BIG;
  int result = (int)SYS(seccomp, SECCOMP_SET_MODE_FILTER, s->number[0], ADDRESS(&program));
  if (result < 0 || !(s->number[0] & SECCOMP_FILTER_FLAG_NEW_LISTENER)) return result;
  return close_with(result, send_message(SYNC_FD, MESSAGE_LISTENER, 0, 0, result));
}

/* Strings: the cgroup's directory, the program. The kernel asks it about every device that is opened or made. */
int device_filter(const struct step *s) {
  static const char license[] = "Apache-2.0";
  union bpf_attr load, join;
  memset(&load, 0, sizeof load);
  memset(&join, 0, sizeof join);
  load.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
  load.insns = (uintptr_t)s->string[1];
  load.insn_cnt = s->length[1] / 8;
  load.license = (uintptr_t)license;
  int program = (int)SYS(bpf, BPF_PROG_LOAD, ADDRESS(&load), sizeof load);
  if (program < 0) return program;
  int cgroup = (int)SYS(openat, AT_FDCWD, ADDRESS(s->string[0]), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (cgroup < 0) return close_with(program, cgroup);
  join.target_fd = (uint32_t)cgroup;
  join.attach_bpf_fd = (uint32_t)program;
  join.attach_type = BPF_CGROUP_DEVICE;
  join.attach_flags = BPF_F_ALLOW_MULTI;
  int result = (int)SYS(bpf, BPF_PROG_ATTACH, ADDRESS(&join), sizeof join);
  return close_with(cgroup, close_with(program, result));
}

/* Number: the user who may open /dev/stdin and its like again. The null device is everybody's and stays as it is. */
int own_streams(const struct step *s) {
  for (int fd = 0; fd < 3; fd++) {
    struct statx status;
    if (SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_TYPE | STATX_UID, ADDRESS(&status)) < 0) continue;
    if (status.stx_uid == s->number[0] || (status.stx_mode & S_IFMT) != S_IFIFO) continue;
    int result = (int)SYS(fchown, fd, s->number[0], -1);
    if (result < 0 && result != -EINVAL && result != -EPERM && result != -EROFS) return result;
  }
  return 0;
}
