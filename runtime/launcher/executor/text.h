/* Text of bounded length: paths, and words for a person. */
#ifndef TESTBED_TEXT_H
#define TESTBED_TEXT_H

#include <stddef.h>

struct text { char bytes[4096]; size_t n; int cut; }; /* NUL-terminated; `cut` when something did not fit */

void add(struct text *text, const char *more);
void add_bytes(struct text *text, const char *more, size_t size);
void add_number(struct text *text, long value);
/* Add several, up to a NULL. */
void add_all(struct text *text, ...) __attribute__((sentinel));
/* Write it to standard error. */
void say(const struct text *text);

int same(const char *a, const char *b);
const char *last_part(const char *path);
const char *variable(const char **environment, const char *name); /* a variable's value, or NULL */

#endif
