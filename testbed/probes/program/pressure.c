#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pressure.h"
#include "probe.h"

enum {
  MOST_SECONDS = 600,
  PRINT_MS = 100,
  MEMORY_BYTES = 256 << 10,
  PAGE = 4096,
  PATH_BYTES = 64,
  FILE_BYTES = 64 << 10,
  DESCRIPTORS = 32,
  WATCHES = 16,
  RESERVE = 8, // watches that are left for the host: fewer than the worker takes at once
  MOST_DESCRIPTORS = 4096,
  MOST_WATCHES = 1024,
};
static const char own_file[] = "/.testbed-probe-work";

static uint64_t now_ms(void) {
  struct timespec at;
  (void)clock_gettime(CLOCK_MONOTONIC, &at);
  return (uint64_t)at.tv_sec * 1000 + (uint64_t)(at.tv_nsec / 1000000);
}

static bool use_process(void) {
  pid_t child = fork();
  if (child == 0) _exit(0);
  return child > 0 && waitpid(child, NULL, 0) == child;
}

static bool use_memory(void) {
  volatile char *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return false;
  for (size_t at = 0; at < MEMORY_BYTES; at += PAGE) memory[at] = 1;
  return munmap((void *)memory, MEMORY_BYTES) == 0;
}

static bool use_file(void) {
  static const char text[FILE_BYTES];
  char path[PATH_BYTES];
  int file = -1;
  for (int place = 0; place < OWN_PLACES && file < 0; place++) {
    (void)snprintf(path, sizeof path, "%s%s", own_places[place], own_file);
    file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  }
  if (file < 0) return false;
  bool is_written = write(file, text, sizeof text) == (ssize_t)sizeof text;
  (void)close(file);
  (void)unlink(path);
  return is_written;
}

static int open_null(void) { return open("/dev/null", O_RDONLY | O_CLOEXEC); }

static int open_watch(void) { return inotify_init1(IN_CLOEXEC); }

static bool use_descriptors(int (*make)(void), int count) {
  int made[DESCRIPTORS], have = 0;
  while (have < count && (made[have] = make()) >= 0) have++;
  for (int i = 0; i < have; i++) (void)close(made[i]);
  return have == count;
}

int work(uint64_t seconds) {
  uint64_t done = 0, failed = 0, printed_ms = now_ms(), end_ms = printed_ms + (seconds < MOST_SECONDS ? seconds : MOST_SECONDS) * 1000;
  for (uint64_t now; (now = now_ms()) < end_ms;) {
    bool is_done =
      use_process() && use_memory() && use_file() && use_descriptors(open_null, DESCRIPTORS) && use_descriptors(open_watch, WATCHES);
    if (is_done) done++;
    else failed++;
    (void)usleep(1000);
    if (now < printed_ms + PRINT_MS) continue;
    printed_ms = now;
    (void)printf("work %llu %llu\n", (unsigned long long)done, (unsigned long long)failed);
    if (fflush(stdout) != 0) return 1;
  }
  return 0;
}

static uint64_t read_number(const char *path) {
  char text[32] = "";
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0 || read(file, text, sizeof text - 1) < 0) return 0;
  (void)close(file);
  return to_number(text);
}

// All watches that there are for this user, without the reserve, which is given back where others have some already.
static unsigned take_watches(void) {
  static int made[MOST_WATCHES];
  uint64_t most = read_number("/proc/sys/fs/inotify/max_user_instances");
  unsigned have = 0;
  while (have < MOST_WATCHES && have + RESERVE < most && (made[have] = open_watch()) >= 0) have++;
  bool is_refused = have < MOST_WATCHES && have + RESERVE < most;
  for (unsigned back = 0; is_refused && back < RESERVE && have > 0; back++) (void)close(made[--have]);
  return have;
}

static unsigned take_descriptors(void) {
  unsigned have = 0;
  while (have < MOST_DESCRIPTORS && open_null() >= 0) have++;
  return have;
}

int exhaust(const char *kind, uint64_t seconds) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
  (void)printf("took %u\n", strcmp(kind, "watches") == 0 ? take_watches() : take_descriptors());
  (void)fflush(stdout);
  (void)sleep((unsigned)(seconds < MOST_SECONDS ? seconds : MOST_SECONDS));
  return 0;
}
