/* Reading the command line, as runtime/arguments.py does: the flags that engines pass, and nothing that is wrong. */
#include "request.h"

#include <asm/signal.h>

#include "front.h"
#include "sys.h"

enum { LAST_SIGNAL = 64, SHORTEST = 3, LONGEST_NAME = 9 };

static int is_one_of(const char *text, const char (*names)[12], unsigned n) {
  for (unsigned i = 0; i < n; i++)
    if (same(text, names[i])) return 1;
  return 0;
}

/* As check_id of runtime/config/validate.py, and not longer than a file's name. */
static int is_id(const char *text) {
  size_t n = 0;
  for (; text[n]; n++) {
    char c = text[n], lower = (char)(c | 32);
    if (!((lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '+' || c == '-' || c == '.')) return 0;
  }
  return n > 0 && n < 200 && !same(text, ".") && !same(text, "..") && *text != '-';
}

/* The value of a flag at *at, as "--flag VALUE" or "--flag=VALUE", behind which *at is then; or NULL. */
static const char *value(const char *flag, int argc, const char **argv, int *at) {
  size_t n = strlen(flag);
  const char *word = argv[*at], *found = NULL;
  int words = 1;
  if (same(word, flag) && *at + 1 < argc && argv[*at + 1][0] != '-') {
    found = argv[*at + 1];
    words = 2;
  } else if (strlen(word) > n && memcmp(word, flag, n) == 0 && word[n] == '=') {
    found = word + n + 1;
  }
  if (!found || !*found) return NULL;
  *at += words;
  return found;
}

/* One flag before the command. */
static int global_flag(struct request *request, int argc, const char **argv, int *at) {
  static const char formats[][12] = {"text", "json"}, managers[][12] = {"cgroupfs", "systemd", "disabled"}, answers[][12] = {"true", "false", "auto"};
  const char *found;
  if ((found = value("--root", argc, argv, at))) {
    request->root = found;
    return 1;
  }
  if ((found = value("--log", argc, argv, at))) {
    request->log = found;
    return 1;
  }
  if ((found = value("--log-format", argc, argv, at))) return is_one_of(found, formats, 2);
  if ((found = value("--rootless", argc, argv, at))) return is_one_of(found, answers, 3);
  if ((found = value("--cgroup-manager", argc, argv, at))) {
    request->by_default &= same(found, "cgroupfs");
    return is_one_of(found, managers, 3);
  }
  if (!same(argv[*at], "--systemd-cgroup")) return 0;
  request->by_default = 0;
  ++*at;
  return 1;
}

static char upper(char c) {
  if (c >= 'a' && c <= 'z') return (char)(c - 'a' + 'A');
  return c;
}

/* A signal's number, from a number or a name with or without SIG; -1 for what it takes more to read. */
static int signal_number(const char *text) {
  static const char names[][8] = {
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS"};
  char name[LONGEST_NAME + 1];
  size_t n = strlen(text), at = 0;
  if (n == 0 || n > LONGEST_NAME) return -1;
  if (text[0] >= '0' && text[0] <= '9') {
    int number = 0;
    for (; at < n && text[at] >= '0' && text[at] <= '9' && number <= LAST_SIGNAL; at++) number = number * 10 + text[at] - '0';
    return at == n && number <= LAST_SIGNAL && n <= SHORTEST ? number : -1;
  }
  for (; at <= n; at++) name[at] = upper(text[at]);
  const char *bare = n > SHORTEST && memcmp(name, "SIG", SHORTEST) == 0 ? name + SHORTEST : name;
  for (int i = 1; i < (int)(sizeof names / sizeof *names); i++)
    if (same(bare, names[i])) return i;
  return -1;
}

static enum command command_of(const char *word) {
  static const char names[][12] = {"", "run", "state", "start", "kill", "delete"};
  for (int i = COMMAND_RUN; i <= COMMAND_DELETE; i++)
    if (same(word, names[i])) return (enum command)i;
  return COMMAND_OTHER;
}

/* One flag behind the command. */
static int command_flag(struct request *request, int argc, const char **argv, int *at) {
  const char *word = argv[*at], *found;
  if (request->command == COMMAND_RUN && ((found = value("--bundle", argc, argv, at)) || (found = value("-b", argc, argv, at)))) {
    request->bundle = found;
    return 1;
  }
  ++*at;
  if (request->command == COMMAND_DELETE && (same(word, "--force") || same(word, "-f"))) return request->force = 1;
  if (request->command == COMMAND_KILL && (same(word, "--all") || same(word, "-a"))) return request->everything = 1;
  return 0;
}

int read_request(struct request *request, int argc, const char **argv) {
  *request = (struct request){.root = "/run/testbed-runtime", .signal = SIGTERM, .by_default = 1};
  int at = 1, words = 0;
  while (at < argc && argv[at][0] == '-')
    if (!global_flag(request, argc, argv, &at)) return 0;
  if (at >= argc) return 0;
  request->command = command_of(argv[at++]);
  if (request->command == COMMAND_OTHER) return 0;
  while (at < argc) {
    if (argv[at][0] == '-') {
      if (!command_flag(request, argc, argv, &at)) return 0;
      continue;
    }
    const char *word = argv[at++];
    if (words == 0) request->id = word;
    else if (words > 1 || request->command != COMMAND_KILL || (request->signal = signal_number(word)) < 0) return 0;
    words++;
  }
  return words > 0 && is_id(request->id);
}
