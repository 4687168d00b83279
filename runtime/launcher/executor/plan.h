/* The binary form of a plan (runtime/plan/encode.py describes it) and the operations it may hold. */
#ifndef TESTBED_PLAN_H
#define TESTBED_PLAN_H

#include <stddef.h>
#include <stdint.h>

enum operation {
  OP_MKDIR = 1,
  OP_MOUNT,
  OP_UNMOUNT,
  OP_PIVOT_ROOT,
  OP_CHROOT,
  OP_CHDIR,
  OP_SYMLINK,
  OP_MKNOD,
  OP_WRITE,
  OP_SET_HOSTNAME,
  OP_SET_RLIMIT,
  OP_UNSHARE,
  OP_BOUNDING_SET,
  OP_CAPABILITIES,
  OP_NO_NEW_PRIVILEGES,
  OP_SET_USER,
  OP_UMASK,
  OP_SETSID,
  OP_OPEN,
  OP_CLOSE_ON_EXEC,
  OP_NETLINK_SOCKET,
  OP_NETLINK,
  OP_LOAD_MODULE,
  OP_WAIT_PATH,
  OP_MESSAGE,
  OP_MASK_PATH,
  OP_READONLY_PATH,
  OP_EXEC,
  OP_BIND,
  OP_MOUNT_ATTRIBUTES,
  OP_WRITE_DESCRIPTOR,
  OP_JOIN_NAMESPACE,
  OP_AMBIENT,
  OP_KEEP_CAPABILITIES,
  OP_SCHEDULER,
  OP_AFFINITY,
  OP_IO_PRIORITY,
  OP_PERSONALITY,
  OP_SESSION_KEYRING,
  OP_SET_DOMAINNAME,
  OP_SECCOMP,
  OP_TERMINAL,
  OP_SYNC,
  OP_AWAIT_START,
  OP_LOOK_UP,
  OP_DEVICE_FILTER,
  OP_UNDUMPABLE,
  OP_OWN_STREAMS,
  OP_HOLD_TREE,
  OP_NEW_USER_NAMESPACE,
  OP_FORK,
  OP_NEW_TREE,
  OP_HAND_OVER,
  OP_TAKE_OVER,
  OP_AWAIT_END,
  OP_SERVE,
  OP_SET_CLOCK,
  OP_ADD_ENTROPY,
  OP_ADMISSION,
  OP_ANSWER,
  OP_ANNOUNCE,
  OP_AWAIT_ANNOUNCED,
  OP_HOME,
  OP_DEATH_SIGNAL,
  OP_MEMORY_POLICY,
  OP_LOCK,
  OP_REPLACE,
  OP_REMOVE,
  OP_LISTEN,
  OP_SPAWN,
  OP_REAP,
  OP_SIGNAL_PROCESS,
  OP_HOLD_SIGNALS,
  OP_ACCOMPANY,
  OP_CLOSE,
  OP_END
};

enum { STEP_STRINGS = 4, STEP_NUMBERS = 6 };

/* Bits of an exec step's fourth number: its last variable is the home directory's, which OP_HOME may have found; and its
 * first string is the program itself, not where to look for it. */
enum { EXEC_HOME = 1, EXEC_PROGRAM = 2 };

/* A step as the executor sees it; every pointer points into the plan's own bytes. */
struct step {
  uint16_t operation;
  uint16_t tolerated_count;
  uint32_t string_count;
  uint64_t number[STEP_NUMBERS];
  const uint8_t *tolerated;           /* tolerated_count little-endian u32 */
  const char *string[STEP_STRINGS];   /* the first strings, NUL-terminated; an empty one where there is none */
  uint32_t length[STEP_STRINGS];
  const uint8_t *strings;             /* all of them, as encoded */
};

/* A checked plan. */
struct plan {
  const uint8_t *bytes;
  size_t size;
  uint32_t parent_count, beside_count, child_count;
  uint64_t clone_flags;
  const char *into_cgroup;
  size_t first_step;                  /* offset of the first step */
  size_t first_beside_step, first_child_step;
  size_t exec_step;                   /* offset of the first exec step, 0 without one */
  uint32_t exec_count;
  const char **pointers;              /* filled by plan_arguments: argv and envp of each exec step, in turn */
  size_t extra_count;                 /* of them, how many a wrapper's exec step adds to its own */
};

/* A little-endian number, and the size that a record or a string of n bytes is padded to. */
static inline uint32_t u32(const uint8_t *p) { return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24; }
static inline size_t padded(size_t n) { return (n + 7) & ~(size_t)7; }

/* Check every length and offset of `bytes` and fill `plan`. Returns NULL, or what is wrong. */
const char *plan_read(struct plan *plan, const uint8_t *bytes, size_t size);

/* How many steps there are in all. */
uint32_t plan_steps(const struct plan *plan);

/* How many pointers plan_arguments needs; `extra` and `environment` (NULL: none) are what an exec step that asks for
 * the launcher's own arguments and environment adds. */
size_t plan_pointers(const struct plan *plan, const char **extra, const char **environment);
/* Point argv and envp of each exec step, in `pointers`, at its strings. */
void plan_arguments(struct plan *plan, const char **pointers, const char **extra, const char **environment);
/* The argv and, when asked for, the envp of an exec step of the plan. */
const char **plan_argv(const struct plan *plan, const struct step *step, const char ***envp);

/* Decode the step at *offset of a checked plan and move *offset to the next. */
void plan_step(const struct plan *plan, size_t *offset, struct step *step);

/* The size of the encoded string at `offset`, or 0 when it does not fit or is not terminated. */
size_t plan_string_size(const uint8_t *bytes, size_t size, size_t offset);
/* The encoded string after the one at `string`, and a string's length. */
const uint8_t *plan_next_string(const uint8_t *string);
uint32_t plan_string_length(const uint8_t *string);

const char *operation_name(unsigned operation);

#endif
