// Attempts to take more than the limits let: each stays below its own ceiling, whatever holds it.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

enum { MOST_TASKS = 1024, PAGE = 4096, PIECE = 1 << 20, THREADS = 2 };
static const uint64_t MOST_BYTES = (uint64_t)512 << 20, MOST_MS = 5000;

static uint64_t bound(const char *word, uint64_t most) {
  uint64_t value = to_number(word);
  return value < most ? value : most;
}

// BYTES: touch so much memory, and be the first to go where it is too much.
static int take_memory(char **words, char *got) {
  (void)got;
  int score = open("/proc/self/oom_score_adj", O_WRONLY);
  if (score >= 0) (void)!write(score, "1000", 4);
  size_t size = (size_t)bound(words[0], MOST_BYTES);
  volatile char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return -1;
  for (size_t at = 0; at < size; at += PAGE) memory[at] = (char)(at / PAGE | 1);
  return 0;
}

// BYTES: write so much to a file of its own, and keep it open. It goes with the attempt.
static int take_disk(char **words, char *got) {
  static char piece[PIECE];
  (void)got;
  if (enter_own_directory() != 0) return -1;
  int file = open("own", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) return -1;
  memset(piece, 1, sizeof piece);
  for (uint64_t left = bound(words[0], MOST_BYTES); left > 0;) {
    ssize_t written = write(file, piece, left < PIECE ? (size_t)left : PIECE);
    if (written <= 0) return -1;
    left -= (uint64_t)written;
  }
  return 0;
}

static int take_tasks(char **words, char *got) {
  (void)got;
  for (uint64_t count = bound(words[0], MOST_TASKS); count > 0; count--) {
    pid_t child = fork();
    if (child == 0) stay(NULL);
    if (child < 0) return -1;
  }
  return 0;
}

// MS: work on so many processors at once for a while.
static int take_processors(char **words, char *got) {
  (void)got;
  struct timespec begin, now;
  uint64_t length_ms = bound(words[0], MOST_MS);
  for (int more = 1; more < THREADS; more++) {
    pid_t child = fork();
    if (child < 0) return -1;
    if (child == 0) break;
  }
  (void)clock_gettime(CLOCK_MONOTONIC, &begin);
  do {
    for (volatile int i = 0; i < 100000; i++) continue;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
  } while ((uint64_t)(now.tv_sec - begin.tv_sec) * 1000 + (uint64_t)((now.tv_nsec - begin.tv_nsec) / 1000000) < length_ms);
  return 0;
}

// BYTES: keep memory from being swapped.
static int lock_memory(char **words, char *got) {
  (void)got;
  size_t size = (size_t)bound(words[0], MOST_BYTES);
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? -1 : mlock(memory, size);
}

static int hurry(char **words, char *got) {
  (void)words, (void)got;
  return setpriority(PRIO_PROCESS, 0, -5);
}

static int be_real_time(char **words, char *got) {
  (void)words, (void)got;
  struct sched_param first = {.sched_priority = 1};
  return sched_setscheduler(0, SCHED_FIFO, &first);
}

// What may become of an attempt that goes wrong: the runner goes on, and the host tells.

static int hang(char **words, char *got) {
  (void)words, (void)got;
  stay(NULL);
}

static int crash(char **words, char *got) {
  (void)words, (void)got;
  return raise(SIGSEGV);
}

static int end_runner(char **words, char *got) {
  (void)words, (void)got;
  return kill(getppid(), SIGKILL);
}

const struct operation resource_operations[] = {
  {"memory", 1, take_memory},
  {"tasks", 1, take_tasks},
  {"disk", 1, take_disk},
  {"processors", 1, take_processors},
  {"mlock", 1, lock_memory},
  {"nice", 0, hurry},
  {"realtime", 0, be_real_time},
  {"hang", 0, hang},
  {"crash", 0, crash},
  {"end_runner", 0, end_runner},
  {NULL, 0, NULL},
};
