// Attempts on mounts, each in a mount namespace of its own that it asks for first: whatever it may do, no mount of anybody's changes.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "probe.h"

static int part_mounts(void) { return unshare(CLONE_NEWNS) != 0 ? -1 : mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL); }

// TYPE SOURCE: a new file system, whose source the host can tell.
static int mount_new(char **words, char *got) {
  (void)got;
  if (part_mounts() != 0 || enter_own_directory() != 0 || mkdir("inner", 0755) != 0) return -1;
  return mount(words[1], "inner", words[0], MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
}

// PATH: make a mount that is read-only writable.
static int remount(char **words, char *got) {
  (void)got;
  return part_mounts() != 0 ? -1 : mount(NULL, words[0], NULL, MS_BIND | MS_REMOUNT, NULL);
}

// PATH: take away what hides a file.
static int uncover(char **words, char *got) {
  (void)got;
  return part_mounts() != 0 ? -1 : umount2(words[0], MNT_DETACH);
}

// FROM: see a directory at another place.
static int bind_directory(char **words, char *got) {
  (void)got;
  if (part_mounts() != 0 || enter_own_directory() != 0 || mkdir("inner", 0755) != 0) return -1;
  return mount(words[0], "inner", NULL, MS_BIND, NULL);
}

static int pivot(char **words, char *got) {
  (void)words, (void)got;
  if (part_mounts() != 0 || enter_own_directory() != 0 || mkdir("inner", 0755) != 0) return -1;
  if (mount("testbed-probe", "inner", "tmpfs", 0, NULL) != 0 || chdir("inner") != 0) return -1;
  return (int)syscall(SYS_pivot_root, ".", ".");
}

// TYPE OPTIONS PATH: mount the control groups and put this process into one.
static int join_group(char **words, char *got) {
  (void)got;
  char path[512];
  if (part_mounts() != 0 || enter_own_directory() != 0 || mkdir("inner", 0755) != 0) return -1;
  if (mount("testbed-probe", "inner", words[0], 0, strcmp(words[1], "-") == 0 ? NULL : words[1]) != 0) return -1;
  (void)snprintf(path, sizeof path, "inner/%s/cgroup.procs", words[2]);
  int file = open(path, O_WRONLY);
  return file < 0 || write(file, "0", 1) != 1 ? -1 : close(file);
}

const struct operation mount_operations[] = {
  {"mount", 2, mount_new},
  {"remount", 1, remount},
  {"uncover", 1, uncover},
  {"bind_mount", 1, bind_directory},
  {"pivot", 0, pivot},
  {"group", 3, join_group},
  {NULL, 0, NULL},
};
