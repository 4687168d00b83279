/* The end of a plan: finding the program and becoming it. */
#include <errno.h>
#include <fcntl.h>

#include "steps.h"
#include "sys.h"

/* What a program is given. */
struct given { const char **argv, **envp; };

/* Try `name` in each directory of `search`, as execvpe(3): EACCES is remembered, other errors than absence end it. */
static int in_search(const char *name, const char *search, int (*try)(const char *path, const struct given *), const struct given *given) {
  if (last_part(name) != name || !*search) return try(name, given);
  struct text path = {.n = 0};
  int error = -ENOENT;
  for (const char *at = search;; at++) {
    size_t n = 0;
    while (at[n] && at[n] != ':') n++;
    path.n = 0;
    path.cut = 0;
    add_bytes(&path, at, n);
    add_bytes(&path, "/", 1);
    add_bytes(&path, name, strlen(name));
    int result = n && !path.cut ? try(path.bytes, given) : -ENOENT;
    if (result >= 0) return result;
    if (result == -EACCES) error = result;
    else if (result != -ENOENT && result != -ENOTDIR) return result;
    at += n;
    if (!*at) return error;
  }
}

static int become(const char *path, const struct given *given) { return (int)SYS(execve, path, given->argv, given->envp); }

static int executable(const char *path, const struct given *given) {
  (void)given;
  OWNED int fd = open_path(path, O_PATH);
  int directory = fd < 0 ? fd : is_directory(fd);
  if (directory) return directory < 0 ? directory : -EACCES;
  return (int)SYS(faccessat, AT_FDCWD, path, 1 /* X_OK */);
}

/* From here on only execve can end the process. A filter that kills for that does so at a try that must fail, before the
 * last word is left; a supervisor is not asked twice. */
static void announce(const struct given *given) {
  if (!has_last_word()) return;
  if (!has_listener) SYS(execve, "", given->argv, given->envp);
  leave_last_word(MESSAGE_EXECUTING, 0, 0);
}

int perform_exec(const struct step *s) {
  struct given given = {.envp = NULL};
  given.argv = plan_arguments(s->progress->plan, s, &given.envp);
  if (s->exec.at_home && *home_variable()) given.envp[s->exec.env_count - 1] = home_variable();
  announce(&given);
  if (*s->exec.program) return become(s->exec.program, &given);
  return in_search(given.argv[0], s->exec.search, become, &given);
}

int perform_check_executable(const struct step *s) {
  return in_search(s->check_executable.program, s->check_executable.search, executable, NULL);
}
