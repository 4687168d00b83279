// A neighbour that turns bad when it is told to, and never beyond what it was given: testbed/neighbours says what for.
//
// Every process of it ends with the one that started it, and at the end of its time by itself; none takes more memory, files or tasks
// than the limits allow, whatever holds it: a cgroup, a guest, or nothing.
#ifndef NEIGHBOUR_H
#define NEIGHBOUR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// What all its processes have done, for who asks: shared between them, and gone with the last.
struct state {
  _Atomic uint64_t work;    // units of its kind: rounds, forks, pages, bytes, packets, renames, mappings
  _Atomic uint64_t refused; // what the kernel did not let it do: a fork, a page, a byte
  _Atomic uint64_t killed;  // workers that a signal ended, as the kernel does when memory is short
  _Atomic uint64_t tasks;   // those that were started by a fork bomb
};

struct limits {
  int64_t end_ns; // of CLOCK_MONOTONIC
  uint64_t bytes, tasks;
  const char *address; // that packets are sent to
};

struct kind {
  const char *name;
  void (*misbehave)(struct state *, const struct limits *); // returns at the end of its time
  bool alone;                                               // one worker does it, instead of one for each processor
};

extern const struct kind kinds[];
extern const unsigned kind_count;

int64_t now_ns(void);

// Make the calling process, just forked, one that ends with its parent `parent` and soon after its time; ends it where either has passed.
void bind_to_parent(pid_t parent, const struct limits *limits);

#endif
