/* libFuzzer's door to the readers of plans, of prepared runs, of what is known of a container, of what the kernel says of
 * a process and of a command line: whatever the bytes are, reading, walking and filling them in must stay within them. */
#include <stdlib.h>
#include <string.h>

#include "known.h"
#include "plan.h"
#include "front.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fill_exactly(const uint8_t *string, const char *id) {
  uint8_t *to = malloc(filled_size(string + 4, plan_string_length(string), id));
  fill(to, string, id);
  free(to);
}

static void fill_a_plan(const struct plan *plan, const char *id) {
  uint8_t *to = malloc(filled_size(plan->bytes, plan->size, id));
  struct plan filled;
  size_t size = fill_plan(to, plan, id);
  if (plan_read(&filled, to, size)) abort(); /* what was a plan is one afterwards */
  free(to);
}

static void read_prepared(const uint8_t *bytes, size_t size) {
  static const char id[] = "a-longer-id";
  struct prepared prepared;
  if (prepared_read(&prepared, bytes, size)) return;
  fill_exactly(prepared.record, id);
  const uint8_t *string = prepared.directories;
  for (uint32_t i = 0; i < prepared.directory_count + prepared.parent_count; i++, string = plan_next_string(string))
    fill_exactly(string, id);
  fill_a_plan(&prepared.host, id);
  fill_a_plan(&prepared.container, id);
}

static void read_known(const uint8_t *bytes, size_t size) {
  struct known known;
  if (known_read(&known, bytes, size)) return;
  size_t total = strlen(known.before_status) + strlen(known.before_pid) + strlen(known.after_pid) + strlen(known.freezer);
  const uint8_t *string = known.directories;
  for (uint32_t i = 0; i < known.directory_count + known.parent_count; i++, string = plan_next_string(string))
    total += strlen((const char *)string + 4);
  if (total > size) abort();
}

int same(const char *a, const char *b) { return strcmp(a, b) == 0; }

/* The bytes as words, each ended by a NUL, behind the command's name. */
static void read_words(const uint8_t *bytes, size_t size) {
  enum { MOST = 16 };
  char *words[MOST + 2] = {strdup("testbed-runtime")};
  int count = 1;
  for (size_t at = 0; at < size && count <= MOST; at += strlen(words[count++]) + 1)
    words[count] = strndup((const char *)bytes + at, size - at);
  struct request request;
  if (read_request(&request, count, (const char **)words)) {
    if (request.signal < 0 || request.signal > 64 || !*request.id || strchr(request.id, '/')) abort();
  }
  while (count > 0) free(words[--count]);
}

static void read_stat(const uint8_t *bytes, size_t size) {
  struct stat_line stat = {.start_time = -1};
  if (stat_read(&stat, bytes, size) && stat.start_time <= 0) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *bytes = malloc(size ? size : 1); /* a block of its own, so that the sanitizer sees its end */
  memcpy(bytes, data, size);
  read_stat(bytes, size);
  read_words(bytes, size);
  if (size >= 12) { /* the length that the header must have, or hardly any input would get past it */
    uint32_t length = (uint32_t)size;
    memcpy(bytes + 8, &length, sizeof length);
  }
  read_prepared(bytes, size);
  read_known(bytes, size);
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
