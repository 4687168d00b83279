/* The binary form of a plan: runtime/plan/encode.py describes it, and the operations are runtime/plan/steps. */
#ifndef TESTBED_PLAN_H
#define TESTBED_PLAN_H

#include <stddef.h>

#include "operations.h"

/* A checked plan. */
struct plan {
  const uint8_t *bytes;
  size_t size;
  uint32_t parent_count, child_count;
  uint64_t clone_flags;
  const char *into_cgroup;
  size_t first_step; /* offset of the first step */
  size_t first_child_step;
  uint32_t exec_count, exec_strings; /* how many exec steps, and the most strings that one of them has */
  const char **extra, **environment; /* what an exec step that asks for it adds to its own; NULL: nothing */
  const char **pointers;             /* room for plan_pointers of them */
};

/* A little-endian number, and the size that a record or a string of n bytes is padded to. */
static inline uint32_t u32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static inline size_t padded(size_t n) { return (n + 7) & ~(size_t)7; }

/* Check every length and offset of `bytes` and fill `plan`. Returns NULL, or what is wrong. */
const char *plan_read(struct plan *plan, const uint8_t *bytes, size_t size);

/* How many steps there are in all. */
uint32_t plan_steps(const struct plan *plan);

/* How many pointers plan_arguments needs. */
size_t plan_pointers(const struct plan *plan);
/* The argv and the envp of an exec step, in the plan's `pointers`, of which each process needs them once. */
const char **plan_arguments(const struct plan *plan, const struct step *step, const char ***envp);

/* Decode the step at *offset of a checked plan and move *offset to the next. */
void plan_step(const struct plan *plan, size_t *offset, struct step *step);

/* The size of the encoded string at `offset`, or 0 when it does not fit or is not terminated. */
size_t plan_string_size(const uint8_t *bytes, size_t size, size_t offset);
/* The encoded string after the one at `string`, and a string's length. */
static inline const uint8_t *plan_next_string(const uint8_t *string) { return string + padded(4 + (size_t)u32(string) + 1); }
static inline uint32_t plan_string_length(const uint8_t *string) { return u32(string); }

/* What a step is called in an error, and what it acts on, which may be empty. */
const char *operation_name(unsigned operation);
const char *error_name(int error);
const char *plan_subject(const struct step *step);

#endif
