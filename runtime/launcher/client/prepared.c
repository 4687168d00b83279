#include "prepared.h"

#include "sys.h"

static const char MAGIC[8] = "TBRUN\x01\n";
static const uint8_t MARK[3] = {0xee, 0x80, 0x80}; /* U+E000, of the private use area */
enum { HEADER_SIZE = 40, MAX_SIZE = 64 << 20 };

/* Numbers after the magic: total size, inputs, directories, parents, claim, offsets of the two plans, zero. */
const char *prepared_read(struct prepared *prepared, const uint8_t *bytes, size_t size) {
  memset(prepared, 0, sizeof *prepared);
  if (size < HEADER_SIZE || size > MAX_SIZE || memcmp(bytes, MAGIC, sizeof MAGIC) != 0) return "not a prepared run";
  if (u32(bytes + 8) != size) return "cut short";
  prepared->input_count = u32(bytes + 12);
  prepared->directory_count = u32(bytes + 16);
  prepared->parent_count = u32(bytes + 20);
  prepared->claim = u32(bytes + 24);
  size_t host = u32(bytes + 28), container = u32(bytes + 32), at = HEADER_SIZE;
  if (host < at || host % 8 || container < host || container % 8 || container > size) return "malformed offsets";
  uint64_t inputs = 1 + 2 * (uint64_t)prepared->input_count;
  uint64_t strings = inputs + prepared->directory_count + prepared->parent_count;
  for (uint64_t i = 0; i < strings; i++) {
    if (i == 1) prepared->inputs = bytes + at;
    if (i == inputs) prepared->directories = bytes + at;
    size_t n = plan_string_size(bytes, host, at);
    if (n == 0) return "malformed string";
    at += n;
  }
  if (at != host) return "bytes after the last string";
  prepared->record = bytes + HEADER_SIZE;
  const char *wrong = plan_read(&prepared->host, bytes + host, container - host);
  if (!wrong && prepared->claim >= prepared->host.parent_count) wrong = "the host's plan has no such step";
  return wrong ? wrong : plan_read(&prepared->container, bytes + container, size - container);
}

static int is_mark(const uint8_t *bytes, size_t n) { return n >= sizeof MARK && memcmp(bytes, MARK, sizeof MARK) == 0; }

size_t filled_size(const uint8_t *bytes, size_t n, const char *id) {
  size_t all = n + 8;
  for (size_t i = 0; i < n; i++)
    if (is_mark(bytes + i, n - i)) all += strlen(id) + 8;
  return all;
}

size_t fill(uint8_t *to, const uint8_t *string, const char *id) {
  size_t n = plan_string_length(string), length = strlen(id), at = 0;
  const uint8_t *from = string + 4;
  for (size_t i = 0; i < n;) {
    if (is_mark(from + i, n - i)) {
      memcpy(to + at, id, length);
      at += length;
      i += sizeof MARK;
    } else {
      to[at++] = from[i++];
    }
  }
  to[at] = 0;
  return at;
}

static uint8_t *fill_string(uint8_t *to, const uint8_t *string, const char *id) {
  uint32_t n = (uint32_t)fill(to + 4, string, id);
  memcpy(to, &n, sizeof n);
  size_t all = padded(4 + (size_t)n + 1);
  memset(to + 4 + n, 0, all - 4 - n);
  return to + all;
}

size_t fill_plan(uint8_t *to, const struct plan *plan, const char *id) {
  const uint8_t *into_cgroup = (const uint8_t *)plan->into_cgroup - 4;
  size_t header = (size_t)(into_cgroup - plan->bytes), offset = plan->first_step;
  memcpy(to, plan->bytes, header);
  uint8_t *at = fill_string(to + header, into_cgroup, id);
  for (uint32_t i = 0; i < plan_steps(plan); i++) {
    struct step step;
    const uint8_t *begin = plan->bytes + offset;
    plan_step(plan, &offset, &step);
    size_t head = (size_t)(step.strings - begin);
    memcpy(at, begin, head);
    at += head;
    const uint8_t *string = step.strings;
    for (uint32_t n = 0; n < step.string_count; n++, string = plan_next_string(string)) at = fill_string(at, string, id);
  }
  uint32_t total = (uint32_t)(at - to);
  memcpy(to + 8, &total, sizeof total);
  return total;
}
