/* Performing the steps of a plan. Every function here returns 0, or a negative errno. */
#ifndef TESTBED_STEPS_H
#define TESTBED_STEPS_H

#include "plan.h"

/* Descriptors that the launcher is started with, or that steps leave for later ones (runtime/plan/steps.py). BESIDE_FD
 * is how the launcher and the process that it has cloned talk: each holds its end there. */
enum { SYNC_FD = 100, PLAN_FD = 101, ROOT_FD = 102, LISTEN_FD = 103, BESIDE_FD = 104 };
/* Those of the command line (runtime/oci/caller.py): the planner, the container's lock, the log, and from the last one on
 * what comes with an answer. */
enum { PLANNER_FD = 112, LOCK_FD = 113, LOG_FD = 114, RECEIVED_FD = 115 };

/* What goes through SYNC_FD, a SOCK_SEQPACKET socket (runtime/launcher/__init__.py reads it). */
enum message_kind { MESSAGE_PID = 1, MESSAGE_FAILED, MESSAGE_SYNC, MESSAGE_READY, MESSAGE_CONSOLE, MESSAGE_LISTENER, MESSAGE_GO, MESSAGE_HANDED, MESSAGE_ANNOUNCED };
struct message {
  uint32_t kind;
  int32_t number;
  int64_t value;
};

struct failure {
  int32_t step; /* its index; -1: the clone, -2: the plan as a whole */
  int32_t error;
};

/* Perform n steps from `offset`; the first has this index. Returns 0, or -1 with `failure` filled. */
int perform(const struct plan *plan, size_t offset, uint32_t index, uint32_t n, struct failure *failure);

/* session.c */
int send_message(int channel, uint32_t kind, int32_t number, int64_t value, int descriptor);
int take_over(const struct step *s);
int announce(void);
int await_announced(void);
int sync_with_starter(const struct step *s);
int await_start(void);
int admission(const struct step *s);
int terminal(const struct step *s);

/* below.c: paths that never leave the directory at ROOT_FD */
int below(const char *path, uint64_t flags);
/* The same, by a way that follows no link, or else leads over no mount: for what is written, or does something when it
 * is opened. */
int below_strictly(const char *path, uint64_t flags);
int below_made(const char *path, int directory);
/* Open the file at `path` for a mount on it; it is made if it is missing, and no link is taken for one. */
int below_file(const char *path);
int below_replaced(const char *path);
/* The directory in which a step makes the last component of its path, and that component's name. */
int parent_of(const char *path, int inside, const char **name);
int close_parent(int directory, int result);
int is_directory(int fd);
int close_with(int fd, int result);

/* mounts.c */
int mount_step(const struct step *s);
int hold_tree(const struct step *s);
int new_tree(const struct step *s);
int bind_step(const struct step *s);
int mount_attributes(const struct step *s);
int mask_path(const struct step *s);
int readonly_path(const char *path);
int attach(int tree, int target);

/* copyup.c */
int copy_tree(int from, int to, unsigned depth);

/* privileges.c */
int set_rlimit(const struct step *s);
int bounding_set(uint64_t keep);
int capabilities(const struct step *s);
int ambient(uint64_t mask);
int set_user(const struct step *s);
int scheduler(const struct step *s);
int seccomp_filter(const struct step *s);
int device_filter(const struct step *s);
int own_streams(const struct step *s);

/* namespaces.c */
int join_namespace(const struct step *s);
int new_user_namespace(const struct step *s);

/* fork.c: 0 in the process that goes on, after the forked one's steps; FORK_FAILED, with `failure` filled, in a forked
 * one of which a step failed. */
enum { FORK_FAILED = -4096 };
int fork_steps(const struct plan *plan, size_t *offset, uint32_t index, const struct step *s, struct failure *failure);
int await_end(const struct step *s);

/* serve.c */
int serve(const struct step *s);
int set_clock(const struct step *s);
int add_entropy(const struct step *s);

/* processes.c */
extern int64_t step_value; /* what a step of these yields */
void end_process(int status) __attribute__((noreturn));
long fork_process(void);
/* Wait for a child; its exit status, 128 + n for signal n, or a negative errno. */
int wait_for(long pid);
void default_signals(void);
int spawn(const struct step *s);
int reap(const struct step *s);
int signal_process(const struct step *s);
int hold_signals(void);
int accompany(const struct step *s);

/* files.c */
int take_lock(const struct step *s);
int replace_file(const struct step *s);
int remove_path(const struct step *s);
int listen_at(const struct step *s);

/* main.c */
void *map(int fd, size_t size); /* anonymous, writable memory without a descriptor; NULL on failure */
int same(const char *a, const char *b);
const char *variable(const char **environment, const char *name); /* a variable's value, or NULL */
/* Say on standard error which step failed. */
int report(const struct plan *plan, const struct failure *failure);

/* answer.c */
int answer(const struct step *s);

/* network.c */
int netlink_socket(const struct step *s);
int netlink_request(const struct step *s);

/* home.c: the home directory of a user, from /etc/passwd below the root, for the exec step that asks for it: "HOME=..." or
 * an empty text */
int find_home(const struct step *s);
const char *home_variable(void);

/* execute.c */
int execute(const struct plan *plan, const struct step *s);
int look_up(const struct step *s);

/* Put `fd` at descriptor `wanted`, close-on-exec unless it is one of the standard three. */
int move_fd(int fd, int wanted);
int write_all(int fd, const void *bytes, size_t n);

#endif
