/* Reading a plan: all that could be malformed is rejected here, so that the executor can trust it. */
#include "plan.h"

#include "sys.h"
#include "table.h"

enum { HEADER_SIZE = 24, STEP_SIZE = 8, MAGIC_SIZE = 6, MAX_STEPS = 4096, MAX_SIZE = 16 << 20 };

static unsigned u16(const uint8_t *p) { return p[0] | (unsigned)p[1] << 8; }
static uint64_t u64(const uint8_t *p) { return u32(p) | (uint64_t)u32(p + 4) << 32; }

size_t plan_string_size(const uint8_t *bytes, size_t size, size_t offset) {
  if (offset > size || size - offset < 8) return 0;
  size_t length = u32(bytes + offset), all = padded(4 + length + 1);
  if (all > size - offset || bytes[offset + 4 + length] != 0) return 0;
  return all;
}

/* Whether a step has as many strings as its numbers say, none of which is larger than its use can hold: whoever passes
 * more would be cut off to another's. */
static int numbers_hold(const struct step *step, const struct layout *layout) {
  uint64_t strings = layout->strings;
  for (unsigned i = 0, plain = layout->numbers - layout->lists; i < layout->numbers; i++) {
    if (step->number[i] > (i < plain ? limits[layout->limit[i]] : MAX_SIZE)) return 0;
    if (i >= plain) strings += step->number[i];
  }
  return strings == step->string_count;
}

/* Decode the step at `offset`. Returns where it ends, or 0 when it is malformed. */
static size_t decode(const uint8_t *bytes, size_t size, size_t offset, struct step *step) {
  if (offset > size || size - offset < STEP_SIZE) return 0;
  unsigned code = u16(bytes + offset);
  if (code == NO_OPERATION || code >= OP_END) return 0;
  const struct layout *layout = &layouts[code];
  step->operation = (uint16_t)code;
  step->tolerated_count = (uint16_t)u16(bytes + offset + 2);
  step->string_count = u32(bytes + offset + 4);
  const uint8_t *numbers = bytes + offset + STEP_SIZE;
  size_t tolerated = offset + STEP_SIZE + 8 * (size_t)layout->numbers, at = tolerated + padded(4 * (size_t)step->tolerated_count);
  if (at > size) return 0;
  for (unsigned i = 0; i < STEP_NUMBERS; i++) step->number[i] = i < layout->numbers ? u64(numbers + 8 * (size_t)i) : 0;
  for (unsigned i = 0; i < STEP_STRINGS; i++) step->string[i] = "";
  memset(step->size, 0, sizeof step->size);
  if (!numbers_hold(step, layout)) return 0;
  step->tolerated = bytes + tolerated;
  step->strings = step->list = bytes + at;
  for (uint32_t i = 0; i < step->string_count; i++) {
    size_t n = plan_string_size(bytes, size, at);
    if (n == 0) return 0;
    if (i < layout->strings) {
      step->string[i] = (const char *)bytes + at + 4;
      step->size[i] = u32(bytes + at);
      step->list = bytes + at + n;
    }
    at += n;
  }
  return at;
}

/* What holds between steps: where a forked process's end, and that each process executes one program. */
struct reading {
  uint32_t end;        /* of the steps of the same part of the plan */
  uint32_t forked_end; /* of the last forked process's steps */
  int main_executes, fork_executes;
};

static const char *check_exec(const struct step *step, uint32_t index, struct reading *reading) {
  int *executes = index < reading->forked_end ? &reading->fork_executes : &reading->main_executes;
  if ((*executes)++) return "two exec steps in one process";
  if (step->exec.args_count == 0) return "an exec step without arguments";
  if (step->exec.at_home && (step->exec.env_count == 0 || step->exec.append_arguments))
    return "an exec step without a variable for the home directory";
  return NULL;
}

/* A forked process is made of the steps that follow, all in the same part of the plan, and forks no further. */
static const char *check_fork(const struct step *step, uint32_t index, struct reading *reading) {
  if (index < reading->forked_end) return "a fork within a fork";
  if (step->fork.count == 0 || step->fork.count > reading->end - index - 1) return "a fork's steps are not all there";
  reading->forked_end = index + 1 + (uint32_t)step->fork.count;
  reading->fork_executes = 0;
  return NULL;
}

/* A step whose own bytes are well-formed. */
static const char *check_step(struct plan *plan, const struct step *step, uint32_t index, struct reading *reading) {
  if (step->operation == OP_FORK) return check_fork(step, index, reading);
  if (step->operation != OP_EXEC) return NULL;
  plan->exec_count++;
  if (step->string_count > plan->exec_strings) plan->exec_strings = step->string_count;
  return check_exec(step, index, reading);
}

const char *plan_read(struct plan *plan, const uint8_t *bytes, size_t size) {
  if (size < HEADER_SIZE || size > MAX_SIZE || memcmp(bytes, MAGIC, MAGIC_SIZE) != 0) return "not a plan";
  if (memcmp(bytes, MAGIC, sizeof MAGIC) != 0) return "a plan for another version of the launcher";
  if (u32(bytes + 8) != size) return "the plan is cut short";
  *plan = (struct plan){
    .bytes = bytes,
    .size = size,
    .parent_count = u32(bytes + 12),
    .child_count = u32(bytes + 16),
    .clone_flags = u32(bytes + 20),
    .into_cgroup = (const char *)bytes + HEADER_SIZE + 4,
  };
  if (plan->parent_count > MAX_STEPS || plan->child_count > MAX_STEPS) return "too many steps";
  size_t n = plan_string_size(bytes, size, HEADER_SIZE), at = plan->first_step = HEADER_SIZE + n;
  if (n == 0) return "malformed cgroup name";
  struct reading reading = {.end = 0};
  for (uint32_t i = 0; i < plan_steps(plan); i++) {
    struct step step;
    if (i == plan->parent_count) plan->first_child_step = at;
    reading.end = i < plan->parent_count ? plan->parent_count : plan_steps(plan);
    at = decode(bytes, size, at, &step);
    if (at == 0) return "malformed step";
    const char *wrong = check_step(plan, &step, i, &reading);
    if (wrong) return wrong;
  }
  return at == size ? NULL : "bytes after the last step";
}

uint32_t plan_steps(const struct plan *plan) { return plan->parent_count + plan->child_count; }

static size_t count(const char **list) {
  size_t n = 0;
  while (list && list[n]) n++;
  return n;
}

size_t plan_pointers(const struct plan *plan) { return plan->exec_strings + count(plan->extra) + count(plan->environment) + 2; }

/* Point at `n` strings from *at, which is moved on, and at those of `more`; NULL ends them. */
static const char **point(const char **pointers, const uint8_t **at, uint64_t n, const char **more) {
  for (; n > 0; n--, *at = plan_next_string(*at)) *pointers++ = (const char *)*at + 4;
  while (more && *more) *pointers++ = *more++;
  *pointers++ = NULL;
  return pointers;
}

const char **plan_arguments(const struct plan *plan, const struct step *step, const char ***envp) {
  const uint8_t *at = step->list;
  int more = step->exec.append_arguments != 0;
  *envp = point(plan->pointers, &at, step->exec.args_count, more ? plan->extra : NULL);
  point(*envp, &at, step->exec.env_count, more ? plan->environment : NULL);
  return plan->pointers;
}

void plan_step(const struct plan *plan, size_t *offset, struct step *step) { *offset = decode(plan->bytes, plan->size, *offset, step); }

const char *operation_name(unsigned operation) { return layouts[operation < OP_END ? operation : 0].name; }

const char *error_name(int error) { return error_names[error > 0 && error < ERRORS ? error : 0]; }

const char *plan_subject(const struct step *step) {
  const uint8_t *at = step->strings;
  uint32_t subject = layouts[step->operation].subject;
  if (subject == 0 || subject > step->string_count) return "";
  for (uint32_t i = 1; i < subject; i++) at = plan_next_string(at);
  return (const char *)at + 4;
}
