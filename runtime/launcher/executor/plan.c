/* Reading a plan: all that could be malformed is rejected here, so that the executor can trust it. */
#include "plan.h"

#include "sys.h"

static const char MAGIC[8] = "TBPLAN\x03\n";
enum { HEADER_SIZE = 32, STEP_SIZE = 56, MAX_STEPS = 4096, MAX_SIZE = 16 << 20 };

static uint16_t u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }
static uint64_t u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return v; }

uint32_t plan_string_length(const uint8_t *string) { return u32(string); }
const uint8_t *plan_next_string(const uint8_t *string) { return string + padded(4 + (size_t)u32(string) + 1); }

size_t plan_string_size(const uint8_t *bytes, size_t size, size_t offset) {
  if (offset > size || size - offset < 8) return 0;
  size_t length = u32(bytes + offset), all = padded(4 + length + 1);
  if (all > size - offset || bytes[offset + 4 + length] != 0) return 0;
  return all;
}

/* The least number of strings that each operation needs. */
static unsigned strings_needed(unsigned operation) {
  switch (operation) {
  case OP_MOUNT: return 4;
  case OP_REPLACE: return 3;
  case OP_PIVOT_ROOT: case OP_SYMLINK: case OP_WRITE: case OP_EXEC: case OP_BIND: case OP_LOOK_UP:
  case OP_DEVICE_FILTER: case OP_HOLD_TREE: case OP_NEW_USER_NAMESPACE: case OP_ADD_ENTROPY: case OP_ANSWER: return 2;
  case OP_MKDIR: case OP_UNMOUNT: case OP_CHROOT: case OP_CHDIR: case OP_MKNOD: case OP_SET_HOSTNAME:
  case OP_SET_USER: case OP_OPEN: case OP_NETLINK: case OP_LOAD_MODULE: case OP_WAIT_PATH:
  case OP_MESSAGE: case OP_MASK_PATH: case OP_READONLY_PATH: case OP_MOUNT_ATTRIBUTES:
  case OP_WRITE_DESCRIPTOR: case OP_JOIN_NAMESPACE: case OP_AFFINITY: case OP_SESSION_KEYRING:
  case OP_SET_DOMAINNAME: case OP_SECCOMP: case OP_NEW_TREE: case OP_ADMISSION: case OP_MEMORY_POLICY:
  case OP_LOCK: case OP_REMOVE: case OP_LISTEN: case OP_SPAWN: return 1;
  default: return 0;
  }
}

/* What a step's number may be: the largest that its use can hold. Whoever passes more would be cut off to another's. */
enum range { WORD, BIT, MODE, MODE_AND_TYPE, NUMBER, ID, PORT, MAJOR, MINOR, LONG, RANGES };

static uint64_t largest(enum range range) {
  static const uint64_t all[RANGES] = {
    [WORD] = UINT32_MAX, [BIT] = 1, [MODE] = 07777, [MODE_AND_TYPE] = 0177777, [NUMBER] = INT32_MAX,
    [ID] = UINT32_MAX - 1, /* the last one means none */
    [PORT] = UINT16_MAX, [MAJOR] = (1 << 12) - 1, [MINOR] = (1 << 20) - 1, [LONG] = UINT64_MAX};
  return all[range];
}

static int numbers_fit(const uint8_t *step, unsigned operation) {
  static const uint8_t ranges[OP_END][STEP_NUMBERS] = {
    [OP_MKDIR] = {MODE, BIT},
    [OP_MOUNT] = {LONG, BIT, BIT},
    [OP_BIND] = {NUMBER, LONG, LONG, LONG, LONG, LONG},
    [OP_MOUNT_ATTRIBUTES] = {BIT, BIT, LONG, LONG, LONG},
    [OP_HOLD_TREE] = {NUMBER, BIT, BIT},
    [OP_NEW_TREE] = {NUMBER, LONG},
    [OP_MASK_PATH] = {NUMBER},
    [OP_CHDIR] = {BIT, BIT},
    [OP_SYMLINK] = {BIT},
    [OP_MKNOD] = {MODE_AND_TYPE, MAJOR, MINOR, ID, ID, BIT},
    [OP_WRITE] = {BIT, BIT},
    [OP_OPEN] = {NUMBER, NUMBER},
    [OP_WRITE_DESCRIPTOR] = {NUMBER},
    [OP_SET_RLIMIT] = {NUMBER, LONG, LONG},
    [OP_BOUNDING_SET] = {LONG},
    [OP_CAPABILITIES] = {LONG, LONG, LONG},
    [OP_AMBIENT] = {LONG},
    [OP_KEEP_CAPABILITIES] = {BIT},
    [OP_SET_USER] = {ID, ID, BIT},
    [OP_OWN_STREAMS] = {ID},
    [OP_UMASK] = {MODE},
    [OP_SCHEDULER] = {LONG, LONG, WORD, LONG, LONG, LONG},
    [OP_TERMINAL] = {ID, PORT, PORT, BIT},
    [OP_SYNC] = {NUMBER},
    [OP_HAND_OVER] = {NUMBER},
    [OP_TAKE_OVER] = {NUMBER},
    [OP_NETLINK_SOCKET] = {NUMBER},
    [OP_NETLINK] = {NUMBER},
    [OP_SERVE] = {NUMBER},
    [OP_ANSWER] = {NUMBER},
    [OP_NEW_USER_NAMESPACE] = {NUMBER},
    [OP_FORK] = {NUMBER},
    [OP_SET_CLOCK] = {WORD, NUMBER},
    [OP_EXEC] = {BIT},
    [OP_HOME] = {ID},
    [OP_DEATH_SIGNAL] = {NUMBER},
    [OP_LOCK] = {NUMBER, NUMBER, BIT},
    [OP_REPLACE] = {MODE},
    [OP_REMOVE] = {BIT, NUMBER},
    [OP_LISTEN] = {NUMBER},
    [OP_SPAWN] = {NUMBER},
    [OP_REAP] = {NUMBER},
    [OP_SIGNAL_PROCESS] = {NUMBER, NUMBER},
    [OP_ACCOMPANY] = {NUMBER, NUMBER},
    [OP_CLOSE] = {NUMBER},
  };
  for (unsigned i = 0; i < STEP_NUMBERS; i++)
    if (u64(step + 8 + 8 * (size_t)i) > largest(ranges[operation][i])) return 0;
  return 1;
}

/* The size of the encoded step at `offset`, or 0 when it is malformed. */
static size_t step_size(const uint8_t *bytes, size_t size, size_t offset) {
  if (offset > size || size - offset < STEP_SIZE) return 0;
  unsigned operation = u16(bytes + offset);
  uint32_t strings = u32(bytes + offset + 4);
  if (operation == 0 || operation >= OP_END || strings < strings_needed(operation)) return 0;
  if (!numbers_fit(bytes + offset, operation)) return 0;
  size_t at = offset + STEP_SIZE + padded(4 * (size_t)u16(bytes + offset + 2));
  for (uint32_t i = 0; i < strings; i++) {
    size_t n = plan_string_size(bytes, size, at);
    if (n == 0) return 0;
    at += n;
  }
  return at > size ? 0 : at - offset;
}

/* What holds between steps: where a forked process's end, and that each process executes one program. */
struct reading {
  uint32_t end;                /* of the parent's or the child's steps */
  uint32_t forked_end;         /* of the last forked process's steps */
  int main_executes, fork_executes;
};

/* An exec step's strings: the search path or the program, then its arguments, then its environment. */
static const char *check_exec(const struct step *step, uint32_t index, struct reading *reading) {
  uint64_t args = step->number[1], env = step->number[2];
  int *executes = index < reading->forked_end ? &reading->fork_executes : &reading->main_executes;
  if ((*executes)++) return "two exec steps in one process";
  if (args == 0 || args >= step->string_count || env != step->string_count - 1 - args) return "exec counts do not match";
  if (step->number[3] & EXEC_HOME && (env == 0 || step->number[0])) return "an exec step without a variable for the home directory";
  return NULL;
}

/* A forked process is made of the steps that follow, all in the same part of the plan, and forks no further. */
static const char *check_fork(const struct step *step, uint32_t index, struct reading *reading) {
  if (index < reading->forked_end) return "a fork within a fork";
  if (step->number[0] == 0 || step->number[0] > reading->end - index - 1) return "a fork's steps are not all there";
  reading->forked_end = index + 1 + (uint32_t)step->number[0];
  reading->fork_executes = 0;
  return NULL;
}

/* The step at `offset`, whose own bytes are well-formed. */
static const char *check_step(struct plan *plan, size_t offset, uint32_t index, struct reading *reading) {
  struct step step;
  size_t next = offset;
  plan_step(plan, &next, &step);
  if (index == plan->parent_count) reading->end += plan->beside_count;
  if (index == plan->parent_count + plan->beside_count) reading->end += plan->child_count;
  if (step.operation == OP_FORK) return check_fork(&step, index, reading);
  if (step.operation != OP_EXEC) return NULL;
  if (plan->exec_count++ == 0) plan->exec_step = offset;
  return check_exec(&step, index, reading);
}

const char *plan_read(struct plan *plan, const uint8_t *bytes, size_t size) {
  memset(plan, 0, sizeof *plan);
  if (size < HEADER_SIZE || size > MAX_SIZE || memcmp(bytes, MAGIC, sizeof MAGIC) != 0) return "not a plan";
  if (u32(bytes + 8) != size) return "the plan is cut short";
  plan->bytes = bytes;
  plan->size = size;
  plan->parent_count = u32(bytes + 12);
  plan->child_count = u32(bytes + 16);
  plan->beside_count = u32(bytes + 20);
  plan->clone_flags = u64(bytes + 24);
  if (plan->parent_count > MAX_STEPS || plan->beside_count > MAX_STEPS || plan->child_count > MAX_STEPS) return "too many steps";
  size_t at = HEADER_SIZE, n = plan_string_size(bytes, size, at);
  if (n == 0) return "malformed cgroup name";
  plan->into_cgroup = (const char *)bytes + at + 4;
  at += n;
  plan->first_step = at;
  struct reading reading = {.end = plan->parent_count};
  for (uint32_t i = 0; i < plan_steps(plan); i++) {
    if (i == plan->parent_count) plan->first_beside_step = at;
    if (i == plan->parent_count + plan->beside_count) plan->first_child_step = at;
    n = step_size(bytes, size, at);
    if (n == 0) return "malformed step";
    const char *wrong = check_step(plan, at, i, &reading);
    if (wrong) return wrong;
    at += n;
  }
  return at == size ? NULL : "bytes after the last step";
}

uint32_t plan_steps(const struct plan *plan) { return plan->parent_count + plan->beside_count + plan->child_count; }

static size_t count(const char **list) {
  size_t n = 0;
  while (list && list[n]) n++;
  return n;
}

/* Move *offset to after the next exec step, which is filled in. */
static void next_exec(const struct plan *plan, size_t *offset, struct step *step) {
  do plan_step(plan, offset, step);
  while (step->operation != OP_EXEC);
}

/* argv and envp of one exec step, each ended by NULL. */
static size_t pointers_of(const struct step *step, size_t extra_count) {
  return (size_t)(step->number[1] + step->number[2]) + 2 + (step->number[0] == 1 ? extra_count : 0);
}

size_t plan_pointers(const struct plan *plan, const char **extra, const char **environment) {
  size_t offset = plan->exec_step, all = 2;
  struct step step;
  for (uint32_t i = 0; i < plan->exec_count; i++) {
    next_exec(plan, &offset, &step);
    all += pointers_of(&step, count(extra) + count(environment));
  }
  return all;
}

static const char **point(const char **pointers, const struct step *step, const char **extra, const char **environment) {
  int wrapper = step->number[0] == 1;
  const uint8_t *at = plan_next_string(step->strings);
  for (uint64_t i = 0; i < step->number[1]; i++, at = plan_next_string(at)) *pointers++ = (const char *)at + 4;
  for (size_t i = 0; wrapper && i < count(extra); i++) *pointers++ = extra[i];
  *pointers++ = NULL;
  for (uint64_t i = 0; i < step->number[2]; i++, at = plan_next_string(at)) *pointers++ = (const char *)at + 4;
  for (size_t i = 0; wrapper && i < count(environment); i++) *pointers++ = environment[i];
  *pointers++ = NULL;
  return pointers;
}

void plan_arguments(struct plan *plan, const char **pointers, const char **extra, const char **environment) {
  size_t offset = plan->exec_step;
  struct step step;
  plan->pointers = pointers;
  plan->extra_count = count(extra) + count(environment);
  for (uint32_t i = 0; i < plan->exec_count; i++) {
    next_exec(plan, &offset, &step);
    pointers = point(pointers, &step, extra, environment);
  }
}

const char **plan_argv(const struct plan *plan, const struct step *step, const char ***envp) {
  size_t offset = plan->exec_step;
  const char **argv = plan->pointers;
  struct step other;
  for (next_exec(plan, &offset, &other); other.strings != step->strings; next_exec(plan, &offset, &other))
    argv += pointers_of(&other, plan->extra_count);
  if (envp) *envp = argv;
  while (envp && *(*envp)++) continue;
  return argv;
}

void plan_step(const struct plan *plan, size_t *offset, struct step *step) {
  const uint8_t *p = plan->bytes + *offset;
  step->operation = u16(p);
  step->tolerated_count = u16(p + 2);
  step->string_count = u32(p + 4);
  for (int i = 0; i < STEP_NUMBERS; i++) step->number[i] = u64(p + 8 + 8 * (size_t)i);
  step->tolerated = p + STEP_SIZE;
  for (int i = 0; i < STEP_STRINGS; i++) {
    step->string[i] = "";
    step->length[i] = 0;
  }
  p = step->strings = p + STEP_SIZE + padded(4 * (size_t)step->tolerated_count);
  for (uint32_t i = 0; i < step->string_count; i++) {
    if (i < STEP_STRINGS) {
      step->string[i] = (const char *)p + 4;
      step->length[i] = u32(p);
    }
    p = plan_next_string(p);
  }
  *offset = (size_t)(p - plan->bytes);
}

const char *operation_name(unsigned operation) {
  /* rows, not pointers: the binary then needs no relocation */
  static const char names[OP_END][20] = {
    "?", "mkdir", "mount", "umount", "pivot_root", "chroot", "chdir", "symlink", "mknod", "write",
    "sethostname", "setrlimit", "unshare", "bounding set", "capset", "no_new_privs",
    "set user", "umask", "setsid", "open", "close on exec", "netlink socket", "netlink", "load module",
    "wait for", "message", "mask", "make read-only", "exec", "bind", "mount attributes", "write descriptor",
    "join namespace", "ambient set", "keep capabilities", "scheduler", "affinity", "io priority", "personality",
    "session keyring", "setdomainname", "seccomp", "terminal", "sync", "await start", "look up", "device filter",
    "undumpable", "own streams", "hold tree", "user namespace", "fork", "new tree", "hand over", "take over",
    "await end", "serve", "set clock", "add entropy", "ask at", "answer",
    "announce", "await announced", "home", "death signal", "memory policy",
  };
  return names[operation < OP_END ? operation : 0];
}
