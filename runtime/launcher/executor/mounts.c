/* Mounts. A target below the root is reached by descriptor: the working directory is moved to it and "." is mounted
 * on, or a mount is attached to the descriptor itself. Afterwards the working directory is the root. */
#include <asm/statfs.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

static int at_root(int result) {
  int back = (int)SYS(fchdir, ROOT_FD);
  return result < 0 ? result : back;
}

/* Mount a new file system on the directory `target`, which is closed. */
static int mount_on(int target, const char *source, const char *fstype, uint64_t flags, const char *data) {
  int result = (int)SYS(fchdir, target);
  SYS(close, target);
  if (result < 0) return result;
  return at_root((int)SYS(mount, ADDRESS(source), ADDRESS("."), ADDRESS(fstype), flags, *data ? ADDRESS(data) : 0));
}

/* As tmpcopyup: what the mount would hide is copied into it. */
static int mount_copy_up(const struct step *s) {
  int old = below(s->string[1], O_RDONLY | O_DIRECTORY);
  if (old < 0) return old;
  int target = below(s->string[1], O_PATH | O_DIRECTORY);
  int result = target < 0 ? target : mount_on(target, s->string[0], s->string[2], s->number[0], s->string[3]);
  if (result < 0) return close_with(old, result);
  int new = below(s->string[1], O_RDONLY | O_DIRECTORY);
  if (new < 0) return close_with(old, new);
  return close_with(old, close_with(new, copy_tree(old, new, 0)));
}

int mount_step(const struct step *s) {
  const char *source = s->string[0], *path = s->string[1], *fstype = s->string[2], *data = s->string[3];
  int inside = s->number[1] != 0, copy_up = s->number[2] != 0;
  if (!inside)
    return (int)SYS(mount, *source ? ADDRESS(source) : 0, ADDRESS(path), *fstype ? ADDRESS(fstype) : 0, s->number[0],
                    *data ? ADDRESS(data) : 0);
  int target = below_made(path, 1);
  if (target < 0) return target;
  if (copy_up) return close_with(target, mount_copy_up(s));
  return mount_on(target, source, fstype, s->number[0], data);
}

int attach(int tree, int target) {
  return (int)SYS(move_mount, tree, ADDRESS(""), target, ADDRESS(""), MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH);
}

static int set_attributes(int fd, unsigned recursive, uint64_t set, uint64_t clear, uint64_t propagation, int userns) {
  struct mount_attr attributes = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
  if (userns >= 0) {
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd = (uint64_t)userns;
  }
  if (!attributes.attr_set && !clear && !propagation) return 0;
  return (int)SYS(mount_setattr, fd, ADDRESS(""), AT_EMPTY_PATH | recursive, ADDRESS(&attributes), sizeof attributes);
}

/* A copy of the mount at `source`, not attached anywhere; with `userns`, its ids mapped as that namespace's are. */
static int copy_mount(const char *source, int recursive, const char *userns, int map_all) {
  unsigned whole = recursive ? AT_RECURSIVE : 0;
  int tree = (int)SYS(open_tree, AT_FDCWD, ADDRESS(source), OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | whole);
  if (tree < 0 || !*userns) return tree;
  int map = (int)SYS(openat, AT_FDCWD, ADDRESS(userns), O_RDONLY | O_CLOEXEC);
  if (map < 0) return close_with(tree, map);
  int result = close_with(map, set_attributes(tree, map_all ? AT_RECURSIVE : 0, 0, 0, 0, map));
  return result < 0 ? close_with(tree, result) : tree;
}

/* Numbers: descriptor, recursive, map all, propagation of the whole tree. Strings: source, user namespace. */
int hold_tree(const struct step *s) {
  int tree = copy_mount(s->string[0], s->number[1] != 0, s->string[1], s->number[2] != 0);
  if (tree < 0) return tree;
  int result = set_attributes(tree, AT_RECURSIVE, 0, 0, s->number[3], -1);
  return result < 0 ? close_with(tree, result) : move_fd(tree, (int)s->number[0]);
}

/* A file system of this process's own namespaces, attached nowhere. Numbers: descriptor, attributes. */
int new_tree(const struct step *s) {
  int context = (int)SYS(fsopen, ADDRESS(s->string[0]), FSOPEN_CLOEXEC);
  if (context < 0) return context;
  long result = SYS(fsconfig, context, FSCONFIG_SET_STRING, ADDRESS("source"), ADDRESS(s->string[0]), 0);
  if (result == 0 && s->number[1] & MOUNT_ATTR_RDONLY) result = SYS(fsconfig, context, FSCONFIG_SET_FLAG, ADDRESS("ro"), 0, 0);
  if (result == 0) result = SYS(fsconfig, context, FSCONFIG_CMD_CREATE, 0, 0, 0);
  if (result == 0) result = SYS(fsmount, context, FSMOUNT_CLOEXEC, s->number[1]);
  SYS(close, context);
  return move_fd((int)result, (int)s->number[0]);
}

/* Numbers: bits (1 the whole tree, 2 map all) with the descriptor of a held tree from bit 8 up, set, clear, set and
 * clear on the whole tree, propagation. Strings: source, target, user namespace. */
int bind_step(const struct step *s) {
  int held = (int)(s->number[0] >> 8);
  int tree = held ? held : copy_mount(s->string[0], (s->number[0] & 1) != 0, s->string[2], (s->number[0] & 2) != 0);
  if (tree < 0) return tree;
  int directory = is_directory(tree), result = directory;
  if (result >= 0) result = set_attributes(tree, 0, s->number[1], s->number[2], 0, -1);
  if (result >= 0) result = set_attributes(tree, AT_RECURSIVE, s->number[3], s->number[4], 0, -1);
  if (result < 0) return close_with(tree, result);
  int target = below_made(s->string[1], directory);
  if (target < 0) return close_with(tree, target);
  result = close_with(target, attach(tree, target));
  if (result >= 0) /* on the attached mount: a peer group is joined where it lies */
    result = set_attributes(tree, s->number[5] >> 32 ? AT_RECURSIVE : 0, 0, 0, s->number[5] & 0xffffffff, -1);
  return close_with(tree, result);
}

/* Numbers: inside, recursive, set, clear, propagation. */
int mount_attributes(const struct step *s) {
  int fd = s->number[0] ? below(s->string[0], O_PATH)
                        : (int)SYS(openat, AT_FDCWD, ADDRESS(s->string[0]), O_PATH | O_CLOEXEC);
  if (fd < 0) return fd;
  return close_with(fd, set_attributes(fd, s->number[1] ? AT_RECURSIVE : 0, s->number[2], s->number[3], s->number[4], -1));
}

/* The container's own null device, made sure of: an image or a mount could have put something else in its place. */
static int null_device(void) {
  int fd = below("dev/null", O_PATH | O_NOFOLLOW);
  if (fd < 0) return fd;
  struct statx status;
  int result = (int)SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_TYPE, ADDRESS(&status));
  if (result == 0 && ((status.stx_mode & S_IFMT) != S_IFCHR || status.stx_rdev_major != 1 || status.stx_rdev_minor != 3))
    result = -ENODEV;
  return result < 0 ? close_with(fd, result) : fd;
}

/* The first directory that is hidden: behind the tree at `held`, or behind a tmpfs without one. `target` is closed. */
static int mask_first(int held, int target) {
  uint64_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  if (!held) return mount_on(target, "tmpfs", "tmpfs", 1 | 2 | 4 | 8 /* MS_RDONLY, NOSUID, NODEV, NOEXEC */, "size=0k");
  int result = set_attributes(held, 0, attributes, 0, 0, -1);
  return close_with(target, result < 0 ? result : attach(held, target));
}

/* As the runtime-spec's maskedPaths: a file is hidden by the null device, a directory by an empty one, which is the
 * same for all of them: a superblock is dear where there are many containers (runtime/plan/root.py). Numbers: the
 * descriptor of a held tree, or 0. */
int mask_path(const struct step *s) {
  static int empty = -1;
  const char *path = s->string[0];
  int target = below(path, O_PATH);
  if (target < 0) return target == -ENOENT || target == -ENOTDIR ? 0 : target;
  int directory = is_directory(target);
  if (directory < 0) return close_with(target, directory);
  if (directory && empty < 0) {
    int result = mask_first((int)s->number[0], target);
    if (result == 0) empty = below(path, O_PATH | O_DIRECTORY);
    return result;
  }
  int cover = directory ? empty : null_device();
  if (cover < 0) return close_with(target, cover);
  int tree = (int)SYS(open_tree, cover, ADDRESS(""), AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (!directory) SYS(close, cover);
  if (tree < 0) return close_with(target, tree);
  return close_with(target, close_with(tree, attach(tree, target)));
}

/* As the runtime-spec's readonlyPaths. A cloned tree keeps the flags it had (nosuid, noexec). */
int readonly_path(const char *path) {
  int target = below(path, O_PATH);
  if (target < 0) return target == -ENOENT || target == -ENOTDIR ? 0 : target;
  int tree = (int)SYS(open_tree, target, ADDRESS(""), AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
  if (tree < 0) return close_with(target, tree);
  int result = set_attributes(tree, AT_RECURSIVE, MOUNT_ATTR_RDONLY, 0, 0, -1);
  if (result == 0) result = attach(tree, target);
  return close_with(target, close_with(tree, result));
}
