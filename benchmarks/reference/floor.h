// What both floors do: time, and a child that gets its root and executes a program, with as few system calls as it takes.
#define _GNU_SOURCE
#include <sched.h>
#include <linux/sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <fcntl.h>
#include <signal.h>
#include <time.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static double now() {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int cmp(const void *a, const void *b) {
  double x = *(double *)a, y = *(double *)b;
  return x < y ? -1 : x > y;
}

static const char *rootfs, *workdir;
static char upper[200], work[200], merged[200], opt[800];
static int mode; // 1: a root of its own; 4: which is an overlay

static void make_workdir() {
  char b[300];
  for (int i = 0; i < 3; i++) {
    snprintf(b, 300, "%s/%c", workdir, "uwm"[i]);
    mkdir(b, 0755);
  }
}

static void name_overlay(const char *number) {
  snprintf(upper, 200, "%s/u/%s", workdir, number);
  snprintf(work, 200, "%s/w/%s", workdir, number);
  snprintf(merged, 200, "%s/m/%s", workdir, number);
  snprintf(opt, 800, "lowerdir=%s,upperdir=%s,workdir=%s", rootfs, upper, work);
}

static void enter_cgroup(const char *directory) {
  char f[250];
  snprintf(f, 250, "%s/cgroup.procs", directory);
  int fd = open(f, O_WRONLY);
  write(fd, "0", 1);
  close(fd);
}

static void begin(char **argv) {
  if (mode & 1) {
    mount(0, "/", 0, MS_REC | MS_PRIVATE, 0);
    if (mode & 4) {
      if (mount("overlay", merged, "overlay", 0, opt)) _exit(10);
    } else if (mount(rootfs, merged, 0, MS_BIND | MS_REC, 0)) _exit(10);
    if (chdir(merged)) _exit(11);
    if (mount("proc", "proc", "proc", 0, 0)) _exit(12);
    if (mount("tmpfs", "dev", "tmpfs", 0, "size=64k")) _exit(15);
    if (syscall(SYS_pivot_root, ".", ".")) _exit(13);
    umount2(".", MNT_DETACH);
    if (chdir("/")) _exit(14);
  }
  char *envp[] = {0};
  execve(argv[0], argv, envp);
  _exit(20);
}
