/* The command line, as far as it needs no interpreter. */
#ifndef TESTBED_FRONT_H
#define TESTBED_FRONT_H

#include <stddef.h>

/* front.c: perform a prepared run, or hand over to the interpreter. Returns the exit status. */
int command_line(int argc, const char **argv, const char **environment);

/* main.c */
void *map(int fd, size_t size); /* anonymous, writable memory without a descriptor; NULL on failure */
int same(const char *a, const char *b);
void default_signals(void);

#endif
