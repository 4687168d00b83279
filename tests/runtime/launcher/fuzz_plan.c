/* libFuzzer's door to the reader of plans: whatever the bytes are, reading and walking must stay within them. */
#include <stdlib.h>
#include <string.h>

#include "plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *bytes = malloc(size ? size : 1); /* a block of its own, so that the sanitizer sees its end */
  memcpy(bytes, data, size);
  if (size >= 12) { /* the length that the header must have, or hardly any input would get past it */
    uint32_t length = (uint32_t)size;
    memcpy(bytes + 8, &length, sizeof length);
  }
  struct plan plan;
  if (plan_read(&plan, bytes, size) == NULL) {
    size_t offset = plan.first_step, total = 0;
    const char *extra[] = {"x", NULL};
    plan.extra = plan.environment = extra;
    plan.pointers = calloc(plan_pointers(&plan), sizeof *plan.pointers);
    for (uint32_t i = 0; i < plan_steps(&plan); i++) {
      struct step step;
      plan_step(&plan, &offset, &step);
      for (int n = 0; n < STEP_STRINGS; n++) total += strlen(step.string[n]);
      total += strlen(plan_subject(&step)) + strlen(operation_name(step.operation));
      if (step.operation != OP_EXEC) continue;
      const char **envp, **argv = plan_arguments(&plan, &step, &envp);
      for (; *argv; argv++) total += strlen(*argv);
      for (; *envp; envp++) total += strlen(*envp);
    }
    free(plan.pointers);
    if (total > (size_t)1 << 40) abort();
  }
  free(bytes);
  return 0;
}
