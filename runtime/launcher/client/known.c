#include "known.h"

#include "sys.h"

static const char MAGIC[8] = "TBKNOW\x01\n";
enum { HEADER_SIZE = 24, MAX_SIZE = 16 << 20, TEXTS = 4 };

/* Numbers after the magic: total size, flags, directories, parents. */
const char *known_read(struct known *known, const uint8_t *bytes, size_t size) {
  memset(known, 0, sizeof *known);
  if (size < HEADER_SIZE || size > MAX_SIZE || memcmp(bytes, MAGIC, sizeof MAGIC) != 0) return "not what is known of a container";
  if (u32(bytes + 8) != size) return "cut short";
  known->flags = u32(bytes + 12);
  known->directory_count = u32(bytes + 16);
  known->parent_count = u32(bytes + 20);
  const char **texts[TEXTS] = {&known->before_status, &known->before_pid, &known->after_pid, &known->freezer};
  uint64_t strings = (uint64_t)TEXTS + known->directory_count + known->parent_count;
  size_t at = HEADER_SIZE;
  known->directories = bytes + size;
  for (uint64_t i = 0; i < strings; i++) {
    size_t n = plan_string_size(bytes, size, at);
    if (n == 0) return "malformed string";
    if (i < TEXTS) *texts[i] = (const char *)bytes + at + 4;
    if (i == TEXTS) known->directories = bytes + at;
    at += n;
  }
  return at == size ? NULL : "bytes after the last string";
}
