/* A prepared run (runtime/prepared.py writes and describes it): all that `run` does with a bundle, for any id. */
#ifndef TESTBED_PREPARED_H
#define TESTBED_PREPARED_H

#include "plan.h"

/* A checked prepared run. Strings lie one after another, as in plans; marks in them stand for the container's id. */
struct prepared {
  uint32_t input_count, directory_count, parent_count;
  uint32_t claim;              /* the host plan's step that makes the first cgroup, which must not be there */
  const uint8_t *record;       /* a string: the text of record.json */
  const uint8_t *inputs;       /* pairs of strings: a kind with a path, and what must be found there */
  const uint8_t *directories;  /* strings: the container's cgroups, then the cgroups above them */
  struct plan host, container;
};

/* Returns NULL, or what is wrong. */
const char *prepared_read(struct prepared *prepared, const uint8_t *bytes, size_t size);

/* How many bytes `n` bytes can become with the marks replaced by `id`. */
size_t filled_size(const uint8_t *bytes, size_t n, const char *id);
/* Write a string's bytes, and a NUL, with the marks replaced; returns their number without the NUL. */
size_t fill(uint8_t *to, const uint8_t *string, const char *id);
/* Write a plan with the marks in its strings replaced; returns its size. */
size_t fill_plan(uint8_t *to, const struct plan *plan, const char *id);

#endif
