/* The command line, as far as it needs no interpreter. */
#ifndef TESTBED_FRONT_H
#define TESTBED_FRONT_H

#include "prepared.h"
#include "request.h"
#include "stat.h"

/* front.c: perform a prepared run, or hand over to the interpreter. Returns the exit status. */
int command_line(int argc, const char **argv, const char **environment);

/* operations.c: an operation on one container. Returns the exit status; or HAND_OVER, then the interpreter does it; or
 * EXPLAIN, then it tells why the step in `failure` failed. */
enum { HAND_OVER = -1, EXPLAIN = -2 };
struct failure;
int operate(const struct request *request, struct failure *failure);

/* processes.c */
/* Look at the process of this number; 0 when there is none. */
int stat_of(struct stat_line *found, long pid);
long fork_process(void);
/* Wait for a child; its exit status, 128 + n for signal n. */
int wait_for(long pid);
/* Become the interpreter, with these arguments of the command line. */
void interpreter(const char **arguments, size_t count, const char **environment) __attribute__((noreturn));

/* inputs.c */
/* Find the prepared run of the bundle at `bundle`, below the state's root. Returns whether it may be performed. */
int find_prepared(struct prepared *prepared, const char *root, const char *bundle);
/* At most `size` bytes of a file; their number, or a negative errno. */
long read_file(const char *path, uint8_t *to, size_t size);
long read_below(int directory, const char *path, uint8_t *to, size_t size);

/* main.c */
void *map(int fd, size_t size); /* anonymous, writable memory without a descriptor; NULL on failure */
int same(const char *a, const char *b);
const char *error_name(int error);
void default_signals(void);

#endif
