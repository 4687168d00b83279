/* Executing the steps of a checked plan. */
#ifndef TESTBED_STEPS_H
#define TESTBED_STEPS_H

#include "plan.h"

/* Where execution stopped. */
struct failure {
  int32_t step;   /* index over the parent's, then the child's steps; -1: the clone itself; -2: none */
  int32_t error;  /* errno */
};

/* Perform `n` steps from *offset; returns 0, or -1 with `failure` filled. `index` is the first one's. */
int perform(const struct plan *plan, size_t offset, uint32_t index, uint32_t n, struct failure *failure);

#endif
