/* Processes of the command line: looking at them, waiting for them, and becoming the interpreter. */
#include <asm/signal.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>

#include "front.h"
#include "steps.h"
#include "sys.h"
#include "text.h"

#ifndef PYTHON
#define PYTHON "/usr/bin/python3"
#define PACKAGES "/usr/lib/python3/dist-packages"
#endif

int stat_of(struct stat_line *found, long pid) {
  struct text path = {.n = 0};
  add(&path, "/proc/");
  add_number(&path, pid);
  add(&path, "/stat");
  uint8_t line[2048];
  long n = read_file(path.bytes, line, sizeof line);
  return n > 0 && stat_read(found, line, (size_t)n);
}

/* A filter may forbid even that, with an error: then it is an instruction that nothing can go on after. */
void end_process(int status) {
  SYS(exit_group, status);
  for (;;) __builtin_trap();
}

long fork_process(void) {
  struct clone_args args = {.exit_signal = SIGCHLD};
  return SYS(clone3, ADDRESS(&args), sizeof args);
}

int wait_for(long pid) {
  int status = 0;
  while (SYS(wait4, pid, ADDRESS(&status), 0, 0) == -EINTR) continue;
  return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff;
}

/* Where this file is runtime/launcher/..., the command beside it; else an empty text. */
static struct text command(void) {
  struct text path = {.n = 0};
  long n = SYS(readlinkat, AT_FDCWD, ADDRESS("/proc/self/exe"), ADDRESS(path.bytes), sizeof path.bytes - 1);
  for (int slashes = 0; n > 0 && slashes < 2; slashes += path.bytes[n] == '/') n--;
  path.n = n > 0 ? (size_t)n : 0;
  path.bytes[path.n] = 0;
  add(&path, "/command.py");
  return path;
}

void interpreter(const char **arguments, size_t count, const char **environment) {
  const char **argv = map(-1, (5 + count + 1) * sizeof *argv);
  struct text script = command();
  if (argv) {
    argv[0] = PYTHON;
    argv[1] = "-I"; /* the working directory is a bundle's, and no place to import from */
    argv[2] = "-S";
    argv[3] = script.bytes;
    argv[4] = PACKAGES;
    memcpy(argv + 5, arguments, count * sizeof *argv);
    SYS(execve, ADDRESS(PYTHON), ADDRESS(argv), ADDRESS(environment));
  }
  static const char words[] = "error: testbed-runtime: " PYTHON " cannot be executed; run ./invoke to set it up\n";
  SYS(write, 2, ADDRESS(words), sizeof words - 1);
  end_process(5);
}
