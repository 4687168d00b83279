/* Starting a plan's child: clone3 with the plan's namespaces, then its steps, then exec. */
#ifndef TESTBED_SPAWN_H
#define TESTBED_SPAWN_H

#include <stdint.h>
#include <sys/types.h>

#include "steps.h"

struct spawned {
  pid_t pid;
  int pidfd;                        /* close-on-exec; the caller's to close */
  int64_t cloned_ns, executed_ns;   /* CLOCK_MONOTONIC: the child's first instruction; exec done */
};

/* Perform the parent's steps, clone, perform the child's; returns once the child has executed. `stdio` are
 * the descriptors that become its 0, 1 and 2. Returns 0, or -1 with `failure` filled and no child left. */
int spawn(const struct plan *plan, const int stdio[3], struct spawned *spawned, struct failure *failure);

#endif
