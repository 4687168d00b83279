// testbed-probe run TOKEN LIMIT_MS EACH_MS HOLD_MS --|--alone NUMBER NAME OPERATION WORD... [--|--alone ...]...
// testbed-probe await HOSTNAME ADDRESS run ...
// testbed-probe stay NAME
// testbed-probe canary SECRET
// testbed-probe work SECONDS
// testbed-probe exhaust descriptors|watches SECONDS
//
// Makes each attempt in a process of its own, which stays where it got to until the host has looked: one that is alone for EACH_MS, any other
// until all are over and HOLD_MS have passed. Prints, on a line each, `begin NAME`, and `end NAME ERRNO GOT`, `hang NAME` or `crash NAME SIGNAL`; at the
// end, `done`. ERRNO and GOT are "-" where there is none. TOKEN is in the name of all that an attempt makes in the file system. With `await` it
// begins once its host has that name and address, as a copy of a saved machine has when it knows who it is.
//
// The canary is the host's: a process without capabilities that has a secret in its memory, and prints the signals that it gets.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "canary.h"
#include "pressure.h"
#include "probe.h"

enum { MOST_LIFE_S = 600, NAME_BYTES = 16, LINE_BYTES = 512, PATH_BYTES = 128, MOST_MS = 600000, REAP_MS = 500, AWAIT_MS = 20 };

struct result {
  int error; // 0 where it did what it tried
  char got[GOT_BYTES];
};

struct runner {
  const char *token;
  int limit_ms, each_ms, hold_ms;
};

static char own_directory[PATH_BYTES];
static const char *own_token = "";
const char *const own_places[OWN_PLACES] = {"", "/tmp"};
static const struct operation *const all_operations[] = {
  file_operations, process_operations, memory_operations, network_operations, kernel_operations, mount_operations, resource_operations};

static _Noreturn void fail(const char *what, const char *why) {
  (void)fprintf(stderr, "testbed-probe: %s: %s\n", what, why);
  exit(2);
}

uint64_t to_number(const char *word) { return strtoull(word, NULL, 0); }

void keep(char *got, const void *data, size_t size) {
  if (size > GOT_BYTES - 1) size = GOT_BYTES - 1;
  memcpy(got, data, size);
  got[size] = '\0';
}

static bool ends_line(char at) { return at == '\n' || at == '\0'; }

int keep_line(char *got, const char *text, size_t size, const char *word) {
  const char *found = memmem(text, size, word, strlen(word));
  if (!found) {
    errno = ENOMSG;
    return -1;
  }
  const char *begin = found, *end = found;
  while (begin > text && !ends_line(begin[-1]) && found - begin < GOT_BYTES / 2) begin--;
  while (end < text + size && !ends_line(*end)) end++;
  keep(got, begin, (size_t)(end - begin));
  return 0;
}

void bind_to_parent(void) {
  // The first process of a container may have been started by a program that ends once it has.
  if (getpid() != 1) (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  (void)alarm(MOST_LIFE_S);
}

void stay(const char *name) {
  if (name) (void)prctl(PR_SET_NAME, name, 0, 0, 0);
  bind_to_parent();
  while (true) (void)pause();
}

int enter_own_directory(void) {
  for (int place = 0; place < OWN_PLACES; place++) {
    (void)snprintf(own_directory, sizeof own_directory, "%s/.testbed-probe-%s-%d", own_places[place], own_token, (int)getpid());
    if (mkdir(own_directory, 0755) == 0 && chdir(own_directory) == 0) return 0;
  }
  own_directory[0] = '\0';
  return -1;
}

// An attempt leaves no more than one file, "own", and one directory, "inner", in its directory; the host removes what is left after a kill.
static void leave_own_directory(int at) {
  if (!own_directory[0]) return;
  (void)unlinkat(at, "own", 0);
  (void)unlinkat(at, "inner", AT_REMOVEDIR);
  (void)rmdir(own_directory);
}

static const struct operation *find_operation(const char *name) {
  for (size_t table = 0; table < sizeof all_operations / sizeof all_operations[0]; table++)
    for (const struct operation *one = all_operations[table]; one->name; one++)
      if (strcmp(one->name, name) == 0) return one;
  fail(name, "not an operation");
}

static int64_t now_ms(void) {
  struct timespec at;
  (void)clock_gettime(CLOCK_MONOTONIC, &at);
  return (int64_t)at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

// A line is written at once, so that what others print does not get into it.
static void print(const char *kind, const char *name, const char *error, const char *got) {
  char line[LINE_BYTES];
  int size = snprintf(line, sizeof line, "%s %s%s%s%s%s\n", kind, name, *error ? " " : "", error, *got ? " " : "", got);
  if (size > 0 && write(STDOUT_FILENO, line, (size_t)size < sizeof line ? (size_t)size : sizeof line - 1) < 0) _exit(1);
}

// Make one attempt and report it to the runner; then stay.
static _Noreturn void attempt(const struct operation *operation, char **words, const char *name, int report) {
  (void)setpgid(0, 0);
  (void)prctl(PR_SET_NAME, name, 0, 0, 0);
  bind_to_parent();
  for (int number = 1; number < NSIG; number++) (void)signal(number, SIG_DFL);
  struct result result = {0};
  errno = 0;
  if (operation->attempt(words, result.got) != 0) result.error = errno ? errno : EIO;
  int here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (here >= 0) leave_own_directory(here);
  (void)close(here);
  (void)!write(report, &result, sizeof result);
  (void)close(report);
  stay(NULL);
}

static void print_end(const char *name, const struct result *result) {
  char got[GOT_BYTES] = "-", number[16];
  for (unsigned i = 0; i + 1 < sizeof got && result->got[i]; i++) {
    char one = result->got[i];
    if (one <= ' ' || one >= 127) one = '_';
    got[i] = one;
    got[i + 1] = '\0';
  }
  const char *error = result->error ? strerrorname_np(result->error) : "-";
  if (!error) {
    (void)snprintf(number, sizeof number, "E%d", result->error);
    error = number;
  }
  print("end", name, error, got);
}

// Reap what an attempt has started, where that has become ours: it counts as a process until then.
static void reap_all(void) {
  for (int64_t end_ms = now_ms() + REAP_MS; now_ms() < end_ms;) {
    pid_t ended = waitpid(-1, NULL, WNOHANG);
    if (ended < 0) return;
    if (ended == 0) (void)poll(NULL, 0, 5);
  }
}

// Wait for one attempt's result, print it, and end the attempt where it must not stay.
static void follow(const struct runner *runner, const char *name, pid_t child, int report, bool is_alone) {
  struct result result = {0};
  struct pollfd waiting = {.fd = report, .events = POLLIN};
  bool is_in_time = poll(&waiting, 1, runner->limit_ms) > 0;
  int status = 0;
  if (is_in_time && read(report, &result, sizeof result) == (ssize_t)sizeof result) {
    result.got[GOT_BYTES - 1] = '\0';
    print_end(name, &result);
    if (!is_alone) return;
    (void)poll(NULL, 0, runner->each_ms);
    (void)kill(-child, SIGKILL);
    (void)kill(child, SIGKILL);
    (void)waitpid(child, &status, 0);
    reap_all();
    return;
  }
  (void)kill(-child, SIGKILL);
  (void)kill(child, SIGKILL);
  (void)waitpid(child, &status, 0);
  char number[16] = "";
  if (is_in_time) (void)snprintf(number, sizeof number, "%d", WIFSIGNALED(status) ? WTERMSIG(status) : 0);
  print(is_in_time ? "crash" : "hang", name, number, "");
}

static void make_attempt(const struct runner *runner, char **words, bool is_alone) {
  const char *number = words[0], *name = words[1];
  const struct operation *operation = find_operation(words[2]);
  int count = 0, ends[2];
  while (words[3 + count]) count++;
  if (count != operation->words) fail(words[2], "another number of words");
  char process[NAME_BYTES];
  (void)snprintf(process, sizeof process, "%.8s-%.4s", runner->token, number); // the host finds it by this name
  print("begin", name, "", "");
  struct result failed = {0};
  if (pipe2(ends, O_CLOEXEC) != 0) {
    failed.error = errno;
    print_end(name, &failed);
    return;
  }
  pid_t child = fork();
  if (child == 0) {
    (void)close(ends[0]);
    attempt(operation, words + 3, process, ends[1]);
  }
  (void)close(ends[1]);
  if (child < 0) {
    failed.error = errno;
    print_end(name, &failed);
  } else {
    (void)setpgid(child, child);
    follow(runner, name, child, ends[0], is_alone);
  }
  (void)close(ends[0]);
}

static int parse_ms(const char *word) {
  uint64_t value = to_number(word);
  if (value > MOST_MS) fail(word, "not a number of milliseconds up to 600000");
  return (int)value;
}

static bool begins_attempt(const char *word) { return strcmp(word, "--") == 0 || strcmp(word, "--alone") == 0; }

static int run(int count, char **given) {
  if (count < 5 || strlen(given[0]) > 32)
    fail("usage", "testbed-probe run TOKEN LIMIT_MS EACH_MS HOLD_MS --|--alone NUMBER NAME OPERATION WORD...");
  struct runner runner = {given[0], parse_ms(given[1]), parse_ms(given[2]), parse_ms(given[3])};
  own_token = runner.token;
  (void)alarm(MOST_LIFE_S);
  // Where it is not its instance's init: who has ended counts as a process until it is reaped.
  (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  for (int at = 4; at < count;) {
    bool is_alone = strcmp(given[at++], "--alone") == 0;
    char *words[MOST_WORDS + 4] = {0};
    int size = 0;
    for (; at < count && !begins_attempt(given[at]); at++)
      if (size < MOST_WORDS + 3) words[size++] = given[at];
    if (size < 3) fail("usage", "an attempt needs a number, a name and an operation");
    make_attempt(&runner, words, is_alone);
  }
  print("done", runner.token, "", "");
  for (int64_t end_ms = now_ms() + runner.hold_ms; now_ms() < end_ms;) {
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
    (void)poll(NULL, 0, 20);
  }
  return 0;
}

static bool is_own(const char *address) {
  struct sockaddr_in at = {.sin_family = AF_INET};
  int asked = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  bool is = inet_pton(AF_INET, address, &at.sin_addr) == 1 && bind(asked, (struct sockaddr *)&at, sizeof at) == 0;
  (void)close(asked);
  return is;
}

static void await_identity(const char *hostname, const char *address) {
  char own[HOST_NAME_MAX + 1] = "";
  while (gethostname(own, sizeof own) != 0 || strcmp(own, hostname) != 0 || !is_own(address)) (void)poll(NULL, 0, AWAIT_MS);
}

int main(int count, char **given) {
  if (count >= 5 && strcmp(given[1], "await") == 0) {
    await_identity(given[2], given[3]);
    count -= 3;
    given += 3;
  }
  if (count >= 2 && strcmp(given[1], "run") == 0) return run(count - 2, given + 2);
  if (count == 3 && strcmp(given[1], "stay") == 0) stay(given[2]);
  if (count == 3 && strcmp(given[1], "canary") == 0) return be_canary(given[2]);
  if (count == 3 && strcmp(given[1], "work") == 0) return work(to_number(given[2]));
  if (count == 4 && strcmp(given[1], "exhaust") == 0) return exhaust(given[2], to_number(given[3]));
  fail("usage", "testbed-probe run|stay|canary|work|exhaust ...");
}
