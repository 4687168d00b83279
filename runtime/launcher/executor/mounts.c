/* Mounts. A target below the root is reached by descriptor: the working directory is moved to it and "." is mounted
 * on, or a mount is attached to the descriptor itself. Afterwards the working directory is the root. */
#include <asm/statfs.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

static const char *or_none(const char *text) { return *text ? text : NULL; }

/* Mount a new file system on the directory `target`. */
static int mount_on(int target, const char *source, const char *fstype, uint64_t flags, const char *data) {
  int result = (int)SYS(fchdir, target);
  if (result < 0) return result;
  result = (int)SYS(mount, source, ".", fstype, flags, or_none(data));
  int back = (int)SYS(fchdir, ROOT_FD);
  return result < 0 ? result : back;
}

/* As tmpcopyup: what the mount hides at `path` is copied into it. */
static int copy_up(int hidden, const char *path) {
  OWNED int mounted = open_in_root(path, O_RDONLY | O_DIRECTORY);
  return mounted < 0 ? mounted : copy_tree(hidden, mounted, 0);
}

int perform_mount(const struct step *s) {
  const char *source = s->mount.source, *path = s->mount.target, *fstype = s->mount.fstype, *data = s->mount.data;
  if (!s->mount.inside) return (int)SYS(mount, or_none(source), path, or_none(fstype), s->mount.flags, or_none(data));
  OWNED int target = make_in_root(path, 1);
  if (target < 0) return target;
  OWNED int hidden = s->mount.copy_up ? open_in_root(path, O_RDONLY | O_DIRECTORY) : -1;
  if (s->mount.copy_up && hidden < 0) return hidden;
  int result = mount_on(target, source, fstype, s->mount.flags, data);
  return result < 0 || !s->mount.copy_up ? result : copy_up(hidden, path);
}

int attach(int tree, int target) { return (int)SYS(move_mount, tree, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH); }

static int set_attributes(int fd, unsigned recursive, uint64_t set, uint64_t clear, uint64_t propagation, int userns) {
  struct mount_attr attributes = {.attr_set = set, .attr_clr = clear, .propagation = propagation};
  if (userns >= 0) {
    attributes.attr_set |= MOUNT_ATTR_IDMAP;
    attributes.userns_fd = (uint64_t)userns;
  }
  if (!attributes.attr_set && !clear && !propagation) return 0;
  return (int)SYS(mount_setattr, fd, "", AT_EMPTY_PATH | recursive, &attributes, sizeof attributes);
}

/* A copy of the mount at `source`, not attached anywhere; with `userns`, its ids mapped as that namespace's are. */
static int copy_mount(const char *source, int recursive, const char *userns, int map_all) {
  unsigned whole = recursive ? AT_RECURSIVE : 0;
  int tree = (int)SYS(open_tree, AT_FDCWD, source, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | whole);
  if (tree < 0 || !*userns) return tree;
  OWNED int map = open_path(userns, O_RDONLY);
  int result = map < 0 ? map : set_attributes(tree, map_all ? AT_RECURSIVE : 0, 0, 0, 0, map);
  return result < 0 ? close_with(tree, result) : tree;
}

int perform_open_tree(const struct step *s) {
  int tree = copy_mount(s->open_tree.source, s->open_tree.recursive != 0, s->open_tree.userns, s->open_tree.map_all != 0);
  if (tree < 0) return tree;
  int result = set_attributes(tree, AT_RECURSIVE, 0, 0, s->open_tree.propagation, -1);
  return result < 0 ? close_with(tree, result) : move_fd(tree, (int)s->open_tree.fd);
}

int perform_bind(const struct step *s) {
  int held = (int)s->bind.held;
  OWNED int tree = held ? held : copy_mount(s->bind.source, s->bind.recursive != 0, s->bind.userns, s->bind.map_all != 0);
  if (tree < 0) return tree;
  int directory = is_directory(tree), result = directory;
  if (result >= 0) result = set_attributes(tree, 0, s->bind.set, s->bind.clear, 0, -1);
  if (result >= 0) result = set_attributes(tree, AT_RECURSIVE, s->bind.set_all, s->bind.clear_all, 0, -1);
  OWNED int target = result < 0 ? result : make_in_root(s->bind.target, directory);
  result = target < 0 ? target : attach(tree, target);
  if (result < 0) return result; /* propagation on the attached mount: a peer group is joined where it lies */
  return set_attributes(tree, s->bind.propagate_all ? AT_RECURSIVE : 0, 0, 0, s->bind.propagation, -1);
}

int perform_mount_attributes(const struct step *s) {
  const char *path = s->mount_attributes.path;
  unsigned recursive = s->mount_attributes.recursive ? AT_RECURSIVE : 0;
  uint64_t set = s->mount_attributes.set, clear = s->mount_attributes.clear;
  OWNED int fd = s->mount_attributes.inside ? open_in_root(path, O_PATH) : open_path(path, O_PATH);
  return fd < 0 ? fd : set_attributes(fd, recursive, set, clear, s->mount_attributes.propagation, -1);
}

/* The container's own null device, made sure of: an image or a mount could have put something else in its place. */
static int null_device(void) {
  int fd = open_in_root("dev/null", O_PATH | O_NOFOLLOW);
  if (fd < 0) return fd;
  struct statx status;
  int result = status_of(fd, "", &status);
  if (result < 0) return close_with(fd, result);
  int is_null = (status.stx_mode & S_IFMT) == S_IFCHR && status.stx_rdev_major == 1 && status.stx_rdev_minor == 3;
  return is_null ? fd : close_with(fd, -ENODEV);
}

/* Hide the first directory: behind the tree at `held`, or behind a tmpfs without one. */
static int mask_first(int held, int target) {
  uint64_t attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
  if (!held) return mount_on(target, "tmpfs", "tmpfs", 1 | 2 | 4 | 8 /* MS_RDONLY, NOSUID, NODEV, NOEXEC */, "size=0k");
  int result = set_attributes(held, 0, attributes, 0, 0, -1);
  return result < 0 ? result : attach(held, target);
}

/* Attach a copy of the mount at `source`, which may be `target` itself, there, with all that is below it where attributes
 * are to be set on it. A copy keeps the flags it had (nosuid, noexec). */
static int cover(int target, int source, uint64_t attributes) {
  unsigned flags = AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (attributes ? AT_RECURSIVE : 0);
  OWNED int tree = (int)SYS(open_tree, source, "", flags);
  int result = tree < 0 ? tree : set_attributes(tree, AT_RECURSIVE, attributes, 0, 0, -1);
  return result < 0 ? result : attach(tree, target);
}

/* What a plan would hide or protect may be absent. */
static int absent(int error) { return error == -ENOENT || error == -ENOTDIR ? 0 : error; }

/* As the runtime-spec's maskedPaths: a file is hidden by the null device, a directory by an empty one, which is the
 * same for all of them: a superblock is dear where there are many containers (runtime/plan/root.py). */
int perform_mask_path(const struct step *s) {
  static int empty = -1;
  const char *path = s->mask_path.path;
  OWNED int target = open_in_root(path, O_PATH);
  if (target < 0) return absent(target);
  int directory = is_directory(target);
  if (directory < 0) return directory;
  if (directory && empty >= 0) return cover(target, empty, 0);
  if (directory) {
    int result = mask_first((int)s->mask_path.held, target);
    if (result == 0) empty = open_in_root(path, O_PATH | O_DIRECTORY);
    return result;
  }
  OWNED int device = null_device();
  return device < 0 ? device : cover(target, device, 0);
}

/* As the runtime-spec's readonlyPaths. */
int perform_readonly_path(const struct step *s) {
  OWNED int target = open_in_root(s->readonly_path.path, O_PATH);
  return target < 0 ? absent(target) : cover(target, target, MOUNT_ATTR_RDONLY);
}
