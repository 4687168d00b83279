// What the kinds of neighbours do, each until its time is over. Nothing here is undone: what it made goes with its root and its memory.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "neighbour.h"

enum {
  PAGE = 4096,
  LINE = 64,
  ROUNDS = 1 << 16,
  CACHE_BYTES = 64 << 20, // more than most caches of a processor hold
  PIECE = 1 << 20,        // written at a time
  SYNC_BYTES = 4 << 20,   // written between two waits for the disk
  MAPPING = 1 << 20,
  THREADS = 2,      // that share an address space
  DATAGRAM = 64,    // small: packets cost more than bytes
  DISCARD_PORT = 9, // RFC 863
  BATCH = 64,
};

static bool is_over(const struct limits *limits) { return now_ns() >= limits->end_ns; }

// Xorshift (G. Marsaglia, Xorshift RNGs, Journal of Statistical Software 8(14), 2003).
static uint64_t draw(uint64_t *seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 7;
  *seed ^= *seed << 17;
  return *seed;
}

static void spin(struct state *state, const struct limits *limits) {
  volatile uint64_t sink = 0;
  uint64_t seed = 1;
  while (!is_over(limits)) {
    for (int i = 0; i < ROUNDS; i++) sink += draw(&seed);
    state->work++;
  }
}

static void fork_bomb(struct state *state, const struct limits *limits) {
  (void)signal(SIGCHLD, SIG_IGN);
  while (!is_over(limits)) {
    if (state->tasks++ >= limits->tasks) {
      state->tasks--;
      continue;
    }
    pid_t parent = getpid(), child = fork();
    if (child == 0) bind_to_parent(parent, limits);
    if (child > 0) state->work++;
    if (child < 0) {
      state->tasks--;
      state->refused++;
    }
  }
}

// A part of memory that counts only when it is touched; NULL when it is refused.
static char *map(uint64_t bytes) {
  char *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return mapped == MAP_FAILED ? NULL : mapped;
}

static void hog_memory(struct state *state, const struct limits *limits) {
  char *memory = map(limits->bytes);
  if (!memory) state->refused++;
  while (memory && !is_over(limits))
    for (uint64_t at = 0; at < limits->bytes; at += PAGE) {
      memory[at]++;
      state->work++;
      if (at % PIECE == 0 && is_over(limits)) return;
    }
}

static void write_disk(struct state *state, const struct limits *limits) {
  static char piece[PIECE];
  uint64_t seed = 1, at = 0;
  for (size_t i = 0; i + sizeof seed <= sizeof piece; i += sizeof seed) {
    uint64_t drawn = draw(&seed);
    memcpy(piece + i, &drawn, sizeof drawn);
  }
  int file = open("spill", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (file < 0) state->refused++;
  while (file >= 0 && !is_over(limits)) {
    if (at + PIECE > limits->bytes) at = 0;
    ssize_t written = pwrite(file, piece, PIECE, (off_t)at);
    if (written > 0) {
      at += (uint64_t)written;
      state->work += (uint64_t)written;
    } else {
      state->refused++;
      at = 0;
    }
    if (at % SYNC_BYTES == 0) (void)fdatasync(file);
  }
  if (file >= 0) (void)close(file);
}

static void flood(struct state *state, const struct limits *limits) {
  static const char datagram[DATAGRAM];
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(DISCARD_PORT)};
  int out = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bool ready = out >= 0 && inet_pton(AF_INET, limits->address, &to.sin_addr) == 1;
  if (!ready) state->refused++;
  while (ready && !is_over(limits))
    for (int i = 0; i < BATCH; i++) {
      if (sendto(out, datagram, sizeof datagram, 0, (struct sockaddr *)&to, sizeof to) == sizeof datagram) state->work++;
      else state->refused++;
    }
  if (out >= 0) (void)close(out);
}

static void thrash_cache(struct state *state, const struct limits *limits) {
  uint64_t bytes = limits->bytes < CACHE_BYTES ? limits->bytes : CACHE_BYTES, seed = (uint64_t)getpid(), lines = bytes / LINE;
  char *memory = map(bytes);
  if (!memory) state->refused++;
  while (memory && !is_over(limits)) {
    for (int i = 0; i < ROUNDS; i++) memory[draw(&seed) % lines * LINE]++;
    state->work++;
  }
}

// Between two directories a rename takes the file system's own lock besides those of both (Documentation/filesystems/directory-locking.rst).
static void storm_renames(struct state *state, const struct limits *limits) {
  char here[64], there[64], folder[64];
  for (int i = 0; i < 2; i++) {
    (void)snprintf(folder, sizeof folder, "renames-%d-%d", (int)getpid(), i);
    if (mkdir(folder, 0700) != 0) state->refused++;
  }
  (void)snprintf(here, sizeof here, "renames-%d-0/file", (int)getpid());
  (void)snprintf(there, sizeof there, "renames-%d-1/file", (int)getpid());
  int file = open(here, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  if (file >= 0) (void)close(file);
  while (!is_over(limits))
    for (int i = 0; i < BATCH; i++) {
      if (rename(i % 2 ? there : here, i % 2 ? here : there) == 0) state->work++;
      else state->refused++;
    }
}

struct mapping {
  struct state *state;
  const struct limits *limits;
};

static void *map_and_unmap(void *given) {
  const struct mapping *of = given;
  while (!is_over(of->limits)) {
    char *memory = map(MAPPING);
    if (!memory) {
      of->state->refused++;
      continue;
    }
    for (int at = 0; at < MAPPING; at += PAGE) memory[at] = 1;
    (void)munmap(memory, MAPPING);
    of->state->work++;
  }
  return NULL;
}

// Threads of one address space contend for its lock, and each unmapping interrupts the other's processor to forget its translations.
static void storm_mappings(struct state *state, const struct limits *limits) {
  struct mapping of = {state, limits};
  pthread_t threads[THREADS];
  int started = 0;
  while (started < THREADS && pthread_create(&threads[started], NULL, map_and_unmap, &of) == 0) started++;
  if (started < THREADS) state->refused++;
  for (int i = 0; i < started; i++) (void)pthread_join(threads[i], NULL);
}

const struct kind kinds[] = {
  {"spin", spin, false},
  {"fork", fork_bomb, true},
  {"memory", hog_memory, true},
  {"disk", write_disk, true},
  {"network", flood, false},
  {"cache", thrash_cache, false},
  {"rename", storm_renames, false},
  {"mmap", storm_mappings, false},
};
const unsigned kind_count = sizeof kinds / sizeof *kinds;
