/* The least that any command costs its caller: a static program is executed and ends. */
#include "begin.h"

void begin(char **stack) {
  (void)stack;
  for (;;) SYS(exit_group, 0);
}
