// testbed-gauge ADDRESS PORT SECONDS
//
// Does at PORT, one connection at a time, what it is told in a line, and answers with that line when it is done: "calls N" makes N system
// calls, "forks N" forks and waits for N children that end at once, "ping" nothing. Whoever asks has the clock. It ends after SECONDS.
// ADDRESS is its own, for on some rungs several share the host's.
//
// getppid(2) is called past the C library, so that each is a call: it has the least to do of all that a filter of system calls looks at.
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE_BYTES = 64, LOOK_MS = 100, WAITING = 16, ARGUMENTS = 4 };
static const uint64_t MOST_PORT = 65535, MOST_SECONDS = 3600, MOST_CALLS = 100000000, MOST_FORKS = 100000;

static int64_t now_s(void) {
  struct timespec at;
  (void)clock_gettime(CLOCK_MONOTONIC, &at);
  return at.tv_sec;
}

static void fail(const char *what, const char *why) {
  (void)fprintf(stderr, "testbed-gauge: %s: %s\n", what, why);
  exit(1);
}

// The number of a text that is one, from 1 to `most`; 0 for any other.
static uint64_t parse(const char *text, uint64_t most) {
  char *end = NULL;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  return errno || end == text || *end || text[0] == '-' || value > most ? 0 : value;
}

static int call(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) (void)syscall(SYS_getppid);
  return count > 0;
}

static int make_children(uint64_t count) {
  for (uint64_t i = 0; i < count; i++) {
    pid_t child = fork();
    if (child == 0) _exit(0);
    if (child < 0 || waitpid(child, NULL, 0) != child) return 0;
  }
  return count > 0;
}

// Do what a line says; whether that was possible.
static int obey(const char *line) {
  if (strncmp(line, "calls ", 6) == 0) return call(parse(line + 6, MOST_CALLS));
  if (strncmp(line, "forks ", 6) == 0) return make_children(parse(line + 6, MOST_FORKS));
  return strcmp(line, "ping") == 0;
}

static int reply(int client, const char *line) {
  char text[LINE_BYTES + 2];
  int length = snprintf(text, sizeof text, "%s\n", line);
  return send(client, text, (size_t)length, MSG_NOSIGNAL) == length;
}

// Serve one connection until its other side closes it, says what is no command, or nothing for a while.
static void serve(int client, int64_t end_s) {
  struct timeval patience = {.tv_sec = 5};
  int on = 1;
  char line[LINE_BYTES];
  size_t have = 0;
  (void)setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  (void)setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  while (now_s() < end_s) {
    ssize_t n = recv(client, line + have, sizeof line - 1 - have, 0);
    if (n <= 0) return;
    have += (size_t)n;
    line[have] = 0;
    char *newline = strchr(line, '\n');
    if (!newline && have == sizeof line - 1) return; // longer than any command
    if (!newline) continue;
    *newline = 0;
    if (!reply(client, obey(line) ? line : "refused")) return;
    have = 0; // who asks waits for the answer
  }
}

static int listen_at(struct in_addr address, uint16_t port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = address};
  int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (listener < 0 || setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
    bind(listener, (struct sockaddr *)&at, sizeof at) != 0 || listen(listener, WAITING) != 0)
    fail("listen", strerror(errno));
  return listener;
}

int main(int count, char **given) {
  if (count != ARGUMENTS) fail("usage", "testbed-gauge ADDRESS PORT SECONDS");
  struct in_addr address;
  uint64_t port = parse(given[2], MOST_PORT), seconds = parse(given[3], MOST_SECONDS);
  if (inet_pton(AF_INET, given[1], &address) != 1 || !port || !seconds) fail("usage", "no address, or not a number in its range");
  int64_t end_s = now_s() + (int64_t)seconds;
  struct pollfd waiting = {.fd = listen_at(address, (uint16_t)port), .events = POLLIN};
  while (now_s() < end_s) {
    if (poll(&waiting, 1, LOOK_MS) <= 0) continue;
    int client = accept4(waiting.fd, NULL, NULL, SOCK_CLOEXEC);
    if (client < 0) continue;
    serve(client, end_s);
    (void)close(client);
  }
  return 0;
}
