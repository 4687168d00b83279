/* Performing the steps of a plan. Every function here returns 0, or a negative errno. */
#ifndef TESTBED_STEPS_H
#define TESTBED_STEPS_H

#include "plan.h"
#include "text.h"

/* What goes through SYNC_FD, a SOCK_SEQPACKET socket (runtime/launcher/__init__.py reads it). */
struct message {
  uint32_t kind;
  int32_t number;
  int64_t value;
};

/* A step's index, or -1: the clone, -2: the plan as a whole. */
struct failure { int32_t step, error; };

/* Where this process is in a plan. */
struct progress {
  const struct plan *plan;
  size_t offset;       /* of the next step */
  uint32_t index, end; /* its index, and that of the first step that is not performed */
  int forked;          /* the process ends with them */
};

/* Perform n steps from `offset`; the first has this index. Returns 0, or -1 with `failure` filled; also, with that, in a
 * process that a step has forked and of which a step failed. */
int perform(const struct plan *plan, size_t offset, uint32_t index, uint32_t n, struct failure *failure);

/* session.c */
/* Note that it is now, for step `index`, where the plan asked for that (note_times). */
void note_time(uint32_t index);
enum { MOST_RECEIVED = 12 };
int send_message(int channel, uint32_t kind, int32_t number, int64_t value, int descriptor);
/* Receive at most `size` bytes, and descriptors: as many as came, then -1. Returns the number of bytes, or a negative
 * errno. */
long receive(int channel, void *to, size_t size, int *descriptors, size_t most);
/* Whether whoever started this process has given it memory for its last word, and to leave that there. */
int has_last_word(void);
void leave_last_word(uint32_t kind, int32_t number, int64_t value);

/* privileges.c */
extern int has_listener; /* a filter asks a supervisor, who would hear of each call */

/* root.c: paths that never leave the directory at ROOT_FD */
int open_in_root(const char *path, uint64_t flags);
/* The same, by a way that follows no link, or else leads over no mount: for what is written, or does something when it
 * is opened. */
int open_strictly_in_root(const char *path, uint64_t flags);
/* Open `path` for a mount on it; what is missing of it is made, the last component as a directory or a file. */
int make_in_root(const char *path, int directory);
/* Open the file at `path` for a mount on it; it is made if it is missing, and no link is taken for one. */
int make_file_in_root(const char *path);
int replace_in_root(const char *path);
/* The directory that holds `path`, for something to be made in it, and the name of the last component. */
int parent_in_root(const char *path, const char **name);
/* statx of what has the name, without following a link; "": of the descriptor itself. */
struct statx;
int status_of(int directory, const char *name, struct statx *status);
int is_directory(int fd);
int close_with(int fd, int result);

/* mounts.c */
int attach(int tree, int target);

/* copyup.c */
int copy_tree(int from, int to, unsigned depth);

/* processes.c */
extern int64_t step_value; /* what a step yields that has a value */
void end_process(int status) __attribute__((noreturn));
long fork_process(uint64_t flags);
void sleep_1ms(void);
/* Wait for a child; its exit status, 128 + n for signal n, or a negative errno. */
int wait_for(long pid);
void default_signals(void);
void *map(int fd, size_t size); /* anonymous, writable memory without a descriptor; NULL on failure */
int64_t now_ns(void);           /* CLOCK_MONOTONIC */

/* files.c */
/* A standard stream that is closed is the null device, or what is opened next would become one of the workload's: the
 * lock of its state, a socket of ours. PID 1 has a console or nothing, and no devices yet. */
int open_streams(void);
/* A UNIX socket that is bound or connected (`call`: __NR_bind, __NR_connect) at `path`. */
int unix_socket(long call, int type, const char *path);
/* A name in a directory by its descriptor: short enough for a socket wherever the directory is. */
struct text path_in(int directory, const char *name);

/* launch.c */
/* Say on standard error which step failed. */
int report(const struct plan *plan, const struct failure *failure);
/* A plan that is to execute something; `extra` and `environment` (NULL: none) are what a wrapper adds to its program's.
 * Returns NULL, or what is wrong. */
const char *read_plan(struct plan *plan, const uint8_t *bytes, size_t size, const char **extra, const char **environment);
/* The one in a file, whose descriptor is closed. */
const char *load_plan(int fd, struct plan *plan, const char **extra, const char **environment);
/* Each returns an exit status. */
int perform_in_place(const struct plan *plan);
int start_and_wait(const struct plan *plan);
int start_plan(void);
int start_beside(const struct plan *plan);

/* home.c: what a step has found, for the exec step that asks for it: "HOME=..." or an empty text */
const char *home_variable(void);

/* steps.c */
/* Put `fd` at descriptor `wanted`, close-on-exec unless it is one of the standard three. */
int move_fd(int fd, int wanted);
/* Open a path of the host's. */
int open_path(const char *path, uint64_t flags);
/* Have all bytes read, written or sent (`call`: __NR_read, __NR_write, __NR_sendto), or it is an error: EPIPE at the end. */
int transfer(long call, int fd, const void *bytes, size_t size);
/* A status of wait4(2) as a shell has it: 128 + n for signal n. */
int exit_code(int status);

#endif
