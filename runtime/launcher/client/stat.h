/* A process, as far as it must be told from others. */
#ifndef TESTBED_STAT_H
#define TESTBED_STAT_H

#include <stddef.h>
#include <stdint.h>

struct stat_line {
  char state;      /* the letter: Z for a zombie, X for one that is gone */
  int executed;    /* it has executed a program since it was cloned */
  long start_time; /* in clock ticks after boot */
};

/* Read a line of /proc/PID/stat; 0 for one that is not whole. */
int stat_read(struct stat_line *found, const uint8_t *line, size_t n);

/* The decimal number at `at`, which 0 is where there is none; returns what follows it. */
const uint8_t *read_number(const uint8_t *at, const uint8_t *end, long *value);

#endif
