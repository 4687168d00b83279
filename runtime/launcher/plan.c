/* Reading a plan: all that could be malformed is rejected here, so that the executor can trust it. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

static const char MAGIC[8] = "TBPLAN\x01\n";
enum { HEADER_SIZE = 32, STEP_SIZE = 32, MAX_STEPS = 4096, MAX_SIZE = 16 << 20 };

static uint16_t u16(const uint8_t *p) { uint16_t v; memcpy(&v, p, sizeof v); return v; }
static uint32_t u32(const uint8_t *p) { uint32_t v; memcpy(&v, p, sizeof v); return v; }
static uint64_t u64(const uint8_t *p) { uint64_t v; memcpy(&v, p, sizeof v); return v; }
static size_t padded(size_t n) { return (n + 7) & ~(size_t)7; }

const uint8_t *plan_next_string(const uint8_t *string) { return string + padded(4 + (size_t)u32(string) + 1); }

/* The size of the encoded string at `offset`, or 0 when it does not fit or is not terminated. */
static size_t string_size(const uint8_t *bytes, size_t size, size_t offset) {
  if (offset > size || size - offset < 8) return 0;
  size_t length = u32(bytes + offset), all = padded(4 + length + 1);
  if (all > size - offset || bytes[offset + 4 + length] != 0) return 0;
  return all;
}

/* The least number of strings that each operation needs. */
static unsigned strings_needed(unsigned operation) {
  switch (operation) {
  case OP_MOUNT: return 4;
  case OP_PIVOT_ROOT: case OP_SYMLINK: case OP_WRITE: case OP_EXEC: return 2;
  case OP_MKDIR: case OP_UNMOUNT: case OP_CHROOT: case OP_CHDIR: case OP_MKNOD: case OP_SET_HOSTNAME:
  case OP_SET_USER: case OP_OPEN: case OP_NETLINK: case OP_LOAD_MODULE: case OP_WAIT_PATH:
  case OP_MESSAGE: case OP_MASK_PATH: case OP_READONLY_PATH: return 1;
  default: return 0;
  }
}

/* The size of the encoded step at `offset`, or 0 when it is malformed. */
static size_t step_size(const uint8_t *bytes, size_t size, size_t offset) {
  if (offset > size || size - offset < STEP_SIZE) return 0;
  unsigned operation = u16(bytes + offset);
  uint32_t strings = u32(bytes + offset + 4);
  if (operation == 0 || operation >= OP_END || strings < strings_needed(operation)) return 0;
  size_t at = offset + STEP_SIZE + padded(4 * (size_t)u16(bytes + offset + 2));
  for (uint32_t i = 0; i < strings; i++) {
    size_t n = string_size(bytes, size, at);
    if (n == 0) return 0;
    at += n;
  }
  return at > size ? 0 : at - offset;
}

static size_t count(char **list) {
  size_t n = 0;
  while (list && list[n]) n++;
  return n;
}

/* Point argv and envp at the strings of an exec step: search path, then arguments, then environment. */
static const char *fill_exec(struct plan *plan, const struct step *step, char **extra, char **environment) {
  uint64_t args = step->number[1], env = step->number[2];
  int wrapper = step->number[0] == 1;
  if (plan->argv) return "two exec steps";
  if (args == 0 || args > step->string_count || env != step->string_count - args - 1) return "exec counts do not match";
  size_t more = wrapper ? count(extra) : 0, kept = wrapper ? count(environment) : 0;
  plan->argv = calloc(args + more + 1 + env + kept + 1, sizeof *plan->argv);
  if (!plan->argv) return "out of memory";
  plan->envp = plan->argv + args + more + 1;
  const uint8_t *at = plan_next_string(step->strings);
  for (uint64_t i = 0; i < args + env; i++) {
    char *value = (char *)(uintptr_t)(at + 4);
    if (i < args) plan->argv[i] = value; else plan->envp[i - args] = value;
    at = plan_next_string(at);
  }
  for (size_t i = 0; i < more; i++) plan->argv[args + i] = extra[i];
  for (size_t i = 0; i < kept; i++) plan->envp[env + i] = environment[i];
  return NULL;
}

const char *plan_read(struct plan *plan, const uint8_t *bytes, size_t size, char **extra, char **environment) {
  memset(plan, 0, sizeof *plan);
  if (size < HEADER_SIZE || size > MAX_SIZE || memcmp(bytes, MAGIC, sizeof MAGIC) != 0) return "not a plan";
  if (u32(bytes + 8) != size) return "the plan is cut short";
  plan->bytes = bytes;
  plan->size = size;
  plan->parent_count = u32(bytes + 12);
  plan->child_count = u32(bytes + 16);
  plan->clone_flags = u64(bytes + 24);
  if (plan->parent_count > MAX_STEPS || plan->child_count > MAX_STEPS) return "too many steps";
  size_t at = HEADER_SIZE, n = string_size(bytes, size, at);
  if (n == 0) return "malformed cgroup name";
  plan->into_cgroup = (const char *)bytes + at + 4;
  at += n;
  plan->first_step = at;
  for (uint32_t i = 0; i < plan->parent_count + plan->child_count; i++) {
    if (i == plan->parent_count) plan->first_child_step = at;
    n = step_size(bytes, size, at);
    if (n == 0) { plan_free(plan); return "malformed step"; }
    struct step step;
    size_t next = at;
    plan_step(plan, &next, &step);
    if (step.operation == OP_EXEC) {
      const char *wrong = fill_exec(plan, &step, extra, environment);
      if (wrong) { plan_free(plan); return wrong; }
    }
    at += n;
  }
  if (at != size) { plan_free(plan); return "bytes after the last step"; }
  return NULL;
}

void plan_free(struct plan *plan) {
  free(plan->argv);
  plan->argv = plan->envp = NULL;
}

void plan_step(const struct plan *plan, size_t *offset, struct step *step) {
  const uint8_t *p = plan->bytes + *offset;
  memset(step, 0, sizeof *step);
  step->operation = u16(p);
  step->tolerated_count = u16(p + 2);
  step->string_count = u32(p + 4);
  for (int i = 0; i < 3; i++) step->number[i] = u64(p + 8 + 8 * i);
  step->tolerated = p + STEP_SIZE;
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
  static const char *const names[OP_END] = {
    "?", "mkdir", "mount", "umount", "pivot_root", "chroot", "chdir", "symlink", "mknod", "write",
    "sethostname", "setrlimit", "unshare", "bounding set", "capset", "no_new_privs",
    "set user", "umask", "setsid", "open", "close on exec", "netlink socket", "netlink", "load module",
    "wait for", "message", "mask", "make read-only", "exec",
  };
  return operation < OP_END ? names[operation] : names[0];
}
