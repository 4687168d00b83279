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

struct text joined(const char *first, ...) {
  struct text text = {.n = 0};
  add_bytes(&text, first, strlen(first));
  va_list rest;
  va_start(rest, first);
  for (const char *part; (part = va_arg(rest, const char *));) add_bytes(&text, part, strlen(part));
  va_end(rest);
  return text;
}

int complain(int status, struct text words) {
  add_bytes(&words, "\n", 1);
  SYS(write, 2, words.bytes, words.n);
  return status;
}

const char *decimal(long value, char room[24]) {
  char *at = room + 23;
  unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
  do *--at = (char)('0' + rest % 10);
  while (rest /= 10);
  if (value < 0) *--at = '-';
  return at;
}

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
