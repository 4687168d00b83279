/* The command line, as far as it needs no interpreter. */
#ifndef TESTBED_FRONT_H
#define TESTBED_FRONT_H

#include "prepared.h"

/* front.c: perform a prepared run, or hand over to the interpreter. Returns the exit status. */
int command_line(int argc, const char **argv, const char **environment);

/* inputs.c */
/* Find the prepared run of the bundle at `bundle`, below the state's root. Returns whether it may be performed. */
int find_prepared(struct prepared *prepared, const char *root, const char *bundle);
/* At most `size` bytes of a file; their number, or a negative errno. */
long read_file(const char *path, uint8_t *to, size_t size);

/* main.c */
void *map(int fd, size_t size); /* anonymous, writable memory without a descriptor; NULL on failure */
int same(const char *a, const char *b);
void default_signals(void);

#endif
