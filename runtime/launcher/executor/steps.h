/* Performing the steps of a plan. Every function here returns 0, or a negative errno. */
#ifndef TESTBED_STEPS_H
#define TESTBED_STEPS_H

#include "plan.h"

/* What goes through SYNC_FD, a SOCK_SEQPACKET socket (runtime/launcher/__init__.py reads it). */
struct message {
  uint32_t kind;
  int32_t number;
  int64_t value;
};

struct failure {
  int32_t step; /* its index; -1: the clone, -2: the plan as a whole */
  int32_t error;
};

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
int send_message(int channel, uint32_t kind, int32_t number, int64_t value, int descriptor);

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
/* The directory in which a step makes the last component of its path, and that component's name. */
int parent_of(const char *path, int inside, const char **name);
int close_parent(int directory, int result);
int is_directory(int fd);
int close_with(int fd, int result);

/* mounts.c */
int attach(int tree, int target);

/* copyup.c */
int copy_tree(int from, int to, unsigned depth);

/* processes.c */
extern int64_t step_value; /* what a step yields that has a value */
void end_process(int status) __attribute__((noreturn));
long fork_process(void);
/* Wait for a child; its exit status, 128 + n for signal n, or a negative errno. */
int wait_for(long pid);
void default_signals(void);
void *map(int fd, size_t size); /* anonymous, writable memory without a descriptor; NULL on failure */

/* files.c: the address of a UNIX socket in a directory, by the directory's descriptor */
struct unix_address { unsigned short family; char path[108]; };
int unix_address(struct unix_address *address, int directory, const char *name);

/* launch.c */
const char *error_name(int error);
/* Say on standard error which step failed. */
int report(const struct plan *plan, const struct failure *failure);
/* The plan in a file, which is closed; `extra` and `environment` (NULL: none) are what a wrapper adds to its program's.
 * Returns NULL, or what is wrong. */
const char *load_plan(int fd, struct plan *plan, const char **extra, const char **environment);
/* Each returns an exit status. */
int perform_in_place(const struct plan *plan);
int start_and_wait(const struct plan *plan);
int start_plan(void);

/* home.c: what a step has found, for the exec step that asks for it: "HOME=..." or an empty text */
const char *home_variable(void);

/* steps.c */
/* Put `fd` at descriptor `wanted`, close-on-exec unless it is one of the standard three. */
int move_fd(int fd, int wanted);
/* Open a path of the host's. */
int open_path(const char *path, uint64_t flags);
/* All of it, or it is an error. */
int write_whole(int fd, const void *bytes, uint64_t size);
/* A status of wait4(2) as a shell has it: 128 + n for signal n. */
int exit_code(int status);

#endif
