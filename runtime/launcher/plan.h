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
  OP_END
};

enum { STEP_STRINGS = 4 };

/* A step as the executor sees it; every pointer points into the plan's own bytes. */
struct step {
  uint16_t operation;
  uint16_t tolerated_count;
  uint32_t string_count;
  uint64_t number[3];
  const uint8_t *tolerated;           /* tolerated_count little-endian u32 */
  const char *string[STEP_STRINGS];   /* the first strings, NUL-terminated */
  uint32_t length[STEP_STRINGS];
  const uint8_t *strings;             /* all of them, as encoded */
};

/* A checked plan. argv and envp are filled for its exec step before anything is cloned. */
struct plan {
  const uint8_t *bytes;
  size_t size;
  uint32_t parent_count, child_count;
  uint64_t clone_flags;
  const char *into_cgroup;
  size_t first_step;                  /* offset of the first step */
  size_t first_child_step;
  char **argv, **envp;                /* one allocation, at argv */
};

/* Check every length and offset of `bytes` and fill `plan`. Returns NULL, or what is wrong.
 * `extra` are further arguments (NULL: none) for an exec step that asks for the launcher's own, and
 * `environment` what such a step keeps. */
const char *plan_read(struct plan *plan, const uint8_t *bytes, size_t size, char **extra, char **environment);
void plan_free(struct plan *plan);

/* Decode the step at *offset of a checked plan and move *offset to the next. */
void plan_step(const struct plan *plan, size_t *offset, struct step *step);

/* The encoded string after the one at `string`. */
const uint8_t *plan_next_string(const uint8_t *string);

const char *operation_name(unsigned operation);

#endif
