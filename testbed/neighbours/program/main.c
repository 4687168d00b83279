// testbed-neighbour KIND PORT SECONDS BYTES TASKS ADDRESS
//
// Answers at PORT over HTTP: GET / that it is there, GET /go turns it bad, GET /state says what it has done, GET /end ends it, as its time
// does, SECONDS after its start.
// It stays calm itself: workers misbehave, and one that the kernel kills is replaced, as whoever runs a service would do.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "neighbour.h"

enum { MOST_WORKERS = 64, LOOK_MS = 50, REQUEST_BYTES = 512, ANSWER_BYTES = 512, ARGUMENTS = 7, WAITING = 16 };
// No limit may be larger than these, however it is asked for.
static const uint64_t MOST_SECONDS = 3600, MOST_BYTES = (uint64_t)64 << 30, MOST_TASKS = 32768, MOST_PORT = 65535;
static const int64_t SECOND_NS = 1000000000;
// What a worker's address space holds besides what it was given.
static const uint64_t OWN_BYTES = 64 << 20;

struct neighbour {
  const struct kind *kind;
  struct limits limits;
  struct state *state;
  pid_t workers[MOST_WORKERS];
  unsigned count;
};

int64_t now_ns(void) {
  struct timespec at;
  (void)clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec * SECOND_NS + at.tv_nsec;
}

static void fail(const char *what, const char *why) {
  (void)fprintf(stderr, "testbed-neighbour: %s: %s\n", what, why);
  exit(1);
}

static uint64_t parse(const char *what, const char *text, uint64_t most) {
  char *end = NULL;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  if (errno || end == text || *end || text[0] == '-' || value == 0 || value > most) fail(what, "not a number in its range");
  return value;
}

void bind_to_parent(pid_t parent, const struct limits *limits) {
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  int64_t left_ns = limits->end_ns - now_ns();
  if (getppid() != parent || left_ns <= 0) _exit(0);
  struct itimerval timer = {.it_value = {.tv_sec = left_ns / SECOND_NS + 1}}; // for one that does not look at the clock
  (void)setitimer(ITIMER_REAL, &timer, NULL);
}

static void bind_resources(const struct limits *limits) {
  struct rlimit memory = {limits->bytes + OWN_BYTES, limits->bytes + OWN_BYTES}, file = {limits->bytes, limits->bytes}, core = {0, 0};
  (void)setrlimit(RLIMIT_AS, &memory);
  (void)setrlimit(RLIMIT_FSIZE, &file);
  (void)setrlimit(RLIMIT_CORE, &core);
  (void)signal(SIGXFSZ, SIG_IGN);
}

// Where memory is at its end, workers are killed, and not who replaces them; nor anybody else, where that is the host's.
static void offer_to_be_killed(void) {
  int file = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return; // a rung without /proc: the kernel chooses
  bool is_offered = write(file, "1000", 4) == 4;
  (void)is_offered;
  (void)close(file);
}

static pid_t start_worker(const struct neighbour *neighbour) {
  pid_t parent = getpid(), child = fork();
  if (child < 0) neighbour->state->refused++;
  if (child != 0) return child;
  bind_to_parent(parent, &neighbour->limits);
  bind_resources(&neighbour->limits);
  offer_to_be_killed();
  neighbour->kind->misbehave(neighbour->state, &neighbour->limits);
  _exit(0);
}

static unsigned count_processors(void) {
  cpu_set_t set;
  int count = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
  return count < 1 ? 1 : count > MOST_WORKERS ? MOST_WORKERS : (unsigned)count;
}

static void go(struct neighbour *neighbour) {
  if (neighbour->count) return;
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); // not before: a container runtime that started it may have ended since
  neighbour->count = neighbour->kind->alone ? 1 : count_processors();
  for (unsigned i = 0; i < neighbour->count; i++) neighbour->workers[i] = start_worker(neighbour);
}

// Take note of processes that have ended; a worker that was killed, or could not be started, is replaced.
static void reap(struct neighbour *neighbour) {
  int status = 0;
  for (pid_t ended; (ended = waitpid(-1, &status, WNOHANG)) > 0;)
    for (unsigned i = 0; i < neighbour->count; i++)
      if (neighbour->workers[i] == ended && WIFSIGNALED(status)) {
        neighbour->state->killed++;
        neighbour->workers[i] = -1;
      }
  for (unsigned i = 0; i < neighbour->count; i++)
    if (neighbour->workers[i] < 0) neighbour->workers[i] = start_worker(neighbour);
}

// Files are written where they may be: a sandbox keeps its root as it is, and one that may write nowhere stays there and is refused.
static void enter_writable(void) {
  static const char *const places[] = {"/", "/tmp"};
  static const char own[] = "testbed-neighbour-own";
  for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
    if (chdir(places[i]) == 0 && mkdir(own, 0700) == 0) {
      (void)rmdir(own);
      return;
    }
}

static int listen_at(uint16_t port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_ANY)};
  int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
    bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, WAITING) != 0)
    fail("listen", strerror(errno));
  return listener;
}

static void answer(int to, const char *status, const char *body) {
  char text[ANSWER_BYTES];
  int length = snprintf(text, sizeof text, "HTTP/1.0 %s\r\nContent-Length: %zu\r\n\r\n%s", status, strlen(body), body);
  if (length > 0 && length < (int)sizeof text) (void)send(to, text, (size_t)length, MSG_NOSIGNAL);
}

static void serve(struct neighbour *neighbour, int listener) {
  int client = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
  if (client < 0) return;
  struct timeval patience = {.tv_sec = 1};
  char request[REQUEST_BYTES] = "", body[ANSWER_BYTES / 2] = "ok\n";
  (void)setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  (void)recv(client, request, sizeof request - 1, 0); // its first line comes in one piece
  bool is_going = strncmp(request, "GET /go ", 8) == 0;
  if (strncmp(request, "GET /state ", 11) == 0)
    (void)snprintf(body, sizeof body, "work=%llu refused=%llu killed=%llu\n", (unsigned long long)neighbour->state->work,
      (unsigned long long)neighbour->state->refused, (unsigned long long)neighbour->state->killed);
  else if (strncmp(request, "GET /end ", 9) == 0) neighbour->limits.end_ns = now_ns();
  else if (!is_going && strncmp(request, "GET / ", 6) != 0) {
    answer(client, "404 Not Found", "");
    (void)close(client);
    return;
  }
  answer(client, "200 OK", body);
  (void)close(client);
  if (is_going) go(neighbour); // after the answer, which its own workers would keep waiting
}

static const struct kind *find_kind(const char *name) {
  for (unsigned i = 0; i < kind_count; i++)
    if (strcmp(kinds[i].name, name) == 0) return &kinds[i];
  fail(name, "not a kind of neighbour");
  return NULL;
}

int main(int count, char **given) {
  if (count != ARGUMENTS) fail("usage", "testbed-neighbour KIND PORT SECONDS BYTES TASKS ADDRESS");
  uint64_t port = parse("PORT", given[2], MOST_PORT), seconds = parse("SECONDS", given[3], MOST_SECONDS);
  struct neighbour neighbour = {
    .kind = find_kind(given[1]),
    .limits = {.end_ns = now_ns() + (int64_t)seconds * SECOND_NS,
      .bytes = parse("BYTES", given[4], MOST_BYTES),
      .tasks = parse("TASKS", given[5], MOST_TASKS),
      .address = given[6]},
    .state = mmap(NULL, sizeof(struct state), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0),
  };
  if (neighbour.state == MAP_FAILED) fail("memory", strerror(errno));
  enter_writable();
  struct pollfd waiting = {.fd = listen_at((uint16_t)port), .events = POLLIN};
  while (now_ns() < neighbour.limits.end_ns) {
    reap(&neighbour);
    if (poll(&waiting, 1, LOOK_MS) > 0) serve(&neighbour, waiting.fd);
  }
  return 0;
}
