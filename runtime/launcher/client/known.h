/* What the interpreter leaves beside a container's record for the launcher (runtime/known.py writes and describes it). */
#ifndef TESTBED_KNOWN_H
#define TESTBED_KNOWN_H

#include "plan.h"

/* What the launcher may do by itself, and how the host's cgroups are. */
enum known_flags { KNOWN_START = 1, KNOWN_DELETE = 2, KNOWN_UNIFIED = 4, KNOWN_KILLABLE = 8 };

/* Strings are as in plans. */
struct known {
  uint32_t flags, directory_count, parent_count;
  const char *before_status, *before_pid, *after_pid; /* the state as `state` prints it, around these two */
  const char *freezer;                                /* the file that tells whether its processes are frozen */
  const uint8_t *directories;                         /* the container's cgroups, then the cgroups above them */
};

/* Returns NULL, or what is wrong. */
const char *known_read(struct known *known, const uint8_t *bytes, size_t size);

#endif
