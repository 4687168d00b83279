/* Executes a program with more arguments before those it is given, and more in its environment: a command line of
 * several words under one path, which is all that an engine takes. -DWORDS='"/bin/sh","-c"' -DSETTINGS='"NAME=value",' */
#include "begin.h"

enum { MOST = 4096 };

static char *const words[] = {WORDS, 0};
static char *const settings[] = {SETTINGS 0};
static char *arguments[MOST], *environment[MOST];

static int append(char **list, int count, char *const *more) {
  while (*more && count < MOST - 1) list[count++] = *more++;
  return count;
}

void begin(char **stack) {
  long count = *(long *)stack;
  append(arguments, append(arguments, 0, words), stack + 2);
  append(environment, append(environment, 0, settings), stack + count + 2);
  SYS(execve, words[0], arguments, environment);
  for (;;) SYS(exit_group, 127);
}
