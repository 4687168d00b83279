/* Text of bounded length: paths, and words for a person. */
#ifndef TESTBED_TEXT_H
#define TESTBED_TEXT_H

#include <stddef.h>

/* NUL-terminated; `cut` when something did not fit. */
struct text {
  char bytes[4096];
  size_t n;
  int cut;
};

void add_bytes(struct text *text, const char *more, size_t size);
/* Several strings, up to a NULL, as one. */
struct text joined(const char *first, ...) __attribute__((sentinel));
/* A number as one of them. */
#define DECIMAL(value) decimal(value, (char[24]){0})
const char *decimal(long value, char room[24]);

/* Write it and a newline to standard error; returns `status`. */
int complain(int status, struct text words);

int same(const char *a, const char *b);
const char *last_part(const char *path);
const char *variable(const char **environment, const char *name); /* a variable's value, or NULL */

#endif
