/* Who the process is and what it may do. The calls go straight to the kernel: they act on this thread, the only one. */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/prctl.h>
#include <linux/resource.h>
#include <linux/sched/types.h>
#include <linux/seccomp.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

int perform_set_rlimit(const struct step *s) {
  struct rlimit64 limit = {s->set_rlimit.soft, s->set_rlimit.hard};
  return (int)SYS(prlimit64, 0, s->set_rlimit.resource, &limit, 0);
}

int perform_bounding_set(const struct step *s) {
  for (unsigned capability = 0; capability < 64; capability++) {
    if (s->bounding_set.mask & (1ULL << capability)) continue;
    int result = (int)SYS(prctl, PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (result < 0) return result == -EINVAL ? 0 : result; /* past the last one */
  }
  return 0;
}

int perform_capabilities(const struct step *s) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2];
  for (int i = 0; i < 2; i++) {
    data[i].effective = (uint32_t)(s->capabilities.effective >> (32 * i));
    data[i].permitted = (uint32_t)(s->capabilities.permitted >> (32 * i));
    data[i].inheritable = (uint32_t)(s->capabilities.inheritable >> (32 * i));
  }
  return (int)SYS(capset, &header, data);
}

int perform_ambient(const struct step *s) {
  int result = (int)SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  for (unsigned capability = 0; capability < 64 && result == 0; capability++)
    if (s->ambient.mask & (1ULL << capability)) result = (int)SYS(prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0);
  return result;
}

int perform_set_user(const struct step *s) {
  uint64_t uid = s->set_user.uid, gid = s->set_user.gid;
  int result = s->set_user.keep_groups ? 0 : (int)SYS(setgroups, s->set_user.groups_size / 4, s->set_user.groups);
  if (result == 0) result = (int)SYS(setresgid, gid, gid, gid);
  if (result == 0) result = (int)SYS(setresuid, uid, uid, uid);
  return result;
}

int perform_set_scheduler(const struct step *s) {
  struct sched_attr attributes = {
    .size = SCHED_ATTR_SIZE_VER0,
    .sched_policy = (uint32_t)s->set_scheduler.policy,
    .sched_flags = s->set_scheduler.flags,
    .sched_nice = (int32_t)s->set_scheduler.nice,
    .sched_priority = (uint32_t)s->set_scheduler.priority,
    .sched_runtime = s->set_scheduler.runtime,
    .sched_deadline = s->set_scheduler.deadline,
    .sched_period = s->set_scheduler.period,
  };
  return (int)SYS(sched_setattr, 0, &attributes, 0);
}

int has_listener;

/* A listener goes to the parent at once; the filter must let sendmsg pass. */
int perform_seccomp_filter(const struct step *s) {
  uint64_t length = s->seccomp_filter.program_size / sizeof(struct sock_filter);
  struct sock_fprog program = {(unsigned short)length, (struct sock_filter *)(uintptr_t)s->seccomp_filter.program};
  if (length > BPF_MAXINSNS) return -E2BIG;
  int result = (int)SYS(seccomp, SECCOMP_SET_MODE_FILTER, s->seccomp_filter.flags, &program);
  if (result < 0 || !(s->seccomp_filter.flags & SECCOMP_FILTER_FLAG_NEW_LISTENER)) return result;
  has_listener = 1;
  return close_with(result, send_message(SYNC_FD, MESSAGE_LISTENER, 0, 0, result));
}

/* As struct landlock_ruleset_attr of a newer kernel than the one whose headers are here. */
struct landlock_ruleset { uint64_t files, network, scoped; };

static int allow_below(int ruleset, const char *path, uint64_t access) {
  OWNED int directory = open_path(path, O_PATH | O_DIRECTORY);
  if (directory < 0) return directory == -ENOENT || directory == -ENOTDIR ? 0 : directory;
  struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = directory};
  return (int)SYS(landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

int perform_landlock(const struct step *s) {
  struct landlock_ruleset rules = {.files = s->landlock.handled, .scoped = s->landlock.scoped};
  OWNED int ruleset = (int)SYS(landlock_create_ruleset, &rules, sizeof rules, 0);
  if (ruleset < 0) return ruleset;
  int result = allow_below(ruleset, "/", s->landlock.everywhere & s->landlock.handled);
  const uint8_t *record = s->list;
  for (uint64_t i = 0; i < s->landlock.writable_count && result == 0; i++, record = plan_next_string(record))
    result = allow_below(ruleset, (const char *)record + 4, s->landlock.handled);
  return result < 0 ? result : (int)SYS(landlock_restrict_self, ruleset, 0);
}

/* The kernel asks the program about every device that is opened or made, or every socket that is made, bound or connected. */
int perform_cgroup_program(const struct step *s) {
  static const char license[] = "Apache-2.0";
  union bpf_attr load, join;
  memset(&load, 0, sizeof load);
  memset(&join, 0, sizeof join);
  load.prog_type = (uint32_t)s->cgroup_program.kind;
  load.expected_attach_type = (uint32_t)s->cgroup_program.attach;
  load.insns = (uintptr_t)s->cgroup_program.program;
  load.insn_cnt = (uint32_t)s->cgroup_program.program_size / 8;
  load.license = (uintptr_t)license;
  OWNED int program = (int)SYS(bpf, BPF_PROG_LOAD, &load, sizeof load);
  if (program < 0) return program;
  OWNED int cgroup = open_path(s->cgroup_program.directory, O_RDONLY | O_DIRECTORY);
  join.target_fd = (uint32_t)cgroup;
  join.attach_bpf_fd = (uint32_t)program;
  join.attach_type = (uint32_t)s->cgroup_program.attach;
  join.attach_flags = BPF_F_ALLOW_MULTI;
  return cgroup < 0 ? cgroup : (int)SYS(bpf, BPF_PROG_ATTACH, &join, sizeof join);
}

/* The user may open /dev/stdin and its like again. The null device is everybody's and stays as it is. */
int perform_chown_stdio(const struct step *s) {
  for (int fd = 0; fd < 3; fd++) {
    struct statx status;
    if (status_of(fd, "", &status) < 0) continue;
    if (status.stx_uid == s->chown_stdio.uid || (status.stx_mode & S_IFMT) != S_IFIFO) continue;
    int result = (int)SYS(fchown, fd, s->chown_stdio.uid, -1);
    if (result < 0 && result != -EINVAL && result != -EPERM && result != -EROFS) return result;
  }
  return 0;
}
