/* What the kernel says of a process in /proc/PID/stat, as proc_pid_stat(5) has it. */
#include "stat.h"

#include "plan.h"

/* Fields counted from the first behind the command, which may hold anything: what is behind its last parenthesis. */
enum { FLAGS = 9 - 3, START_TIME = 22 - 3, FORKED_ONLY = 0x40 /* PF_FORKNOEXEC of linux/sched.h */ };

const uint8_t *read_number(const uint8_t *at, const uint8_t *end, long *value) {
  *value = 0;
  for (; at < end && *at >= '0' && *at <= '9' && *value < 1L << 58; at++) *value = *value * 10 + *at - '0';
  return at;
}

int stat_read(struct stat_line *found, const uint8_t *line, size_t n) {
  const uint8_t *end = line + n, *at = end;
  long number = 0;
  while (at > line && at[-1] != ')') at--;
  if (at == line || end - at < 2) return 0;
  found->state = (char)at[1];
  at++;
  for (int field = 0; field < START_TIME; field++) {
    while (at < end && *at != ' ') at++;
    if (at == end) return 0;
    at = read_number(at + 1, end, &number);
    if (field + 1 == FLAGS) found->executed = !(number & FORKED_ONLY);
  }
  found->start_time = number;
  return number > 0;
}
