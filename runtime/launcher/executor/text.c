#include "text.h"

#include <stdarg.h>

#include "sys.h"

void add_bytes(struct text *text, const char *more, size_t size) {
  size_t room = sizeof text->bytes - 1 - text->n, n = size < room ? size : room;
  memcpy(text->bytes + text->n, more, n);
  text->n += n;
  text->bytes[text->n] = 0;
  text->cut |= n < size;
}

void add(struct text *text, const char *more) { add_bytes(text, more, strlen(more)); }

void add_number(struct text *text, long value) {
  char digits[24];
  int at = sizeof digits - 1;
  digits[at] = 0;
  unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
  do digits[--at] = (char)('0' + rest % 10); while (rest /= 10);
  if (value < 0) digits[--at] = '-';
  add(text, digits + at);
}

void add_all(struct text *text, ...) {
  va_list parts;
  va_start(parts, text);
  for (const char *part; (part = va_arg(parts, const char *));) add(text, part);
  va_end(parts);
}

void say(const struct text *text) { SYS(write, 2, ADDRESS(text->bytes), text->n); }

int same(const char *a, const char *b) {
  size_t n = strlen(b) + 1;
  return strlen(a) + 1 == n && memcmp(a, b, n) == 0;
}

const char *last_part(const char *path) {
  const char *part = path;
  for (; *path; path++)
    if (*path == '/') part = path + 1;
  return part;
}

const char *variable(const char **environment, const char *name) {
  size_t n = strlen(name);
  for (; *environment; environment++)
    if (strlen(*environment) > n && memcmp(*environment, name, n) == 0 && (*environment)[n] == '=') return *environment + n + 1;
  return NULL;
}
