#include <errno.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "canary.h"

enum { SECRET_BYTES = 64, CANARY_DESCRIPTOR = 9 };

static char secret_text[SECRET_BYTES], flag_text[SECRET_BYTES] = "untouched";

// One with fewer capabilities may only look at one that has no more than it (cap_ptrace_access_check in security/commoncap.c).
static int drop_capabilities(void) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct none[2] = {{0}};
  return (int)syscall(SYS_capset, &header, none);
}

static int hold_on_descriptor(void) {
  int made = memfd_create("canary", 0);
  if (made < 0 || write(made, secret_text, strlen(secret_text)) < 0 || dup2(made, CANARY_DESCRIPTOR) < 0) return -1;
  return close(made);
}

int be_canary(const char *secret) {
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (strlen(secret) >= SECRET_BYTES) return 2;
  memcpy(secret_text, secret, strlen(secret) + 1);
  sigset_t all;
  (void)sigfillset(&all);
  (void)sigprocmask(SIG_BLOCK, &all, NULL);
  if (hold_on_descriptor() != 0 || drop_capabilities() != 0) {
    (void)fprintf(stderr, "testbed-probe: canary: %s\n", strerror(errno));
    return 1;
  }
  (void)printf("at %llu %llu\n", (unsigned long long)(uintptr_t)secret_text, (unsigned long long)(uintptr_t)flag_text);
  (void)fflush(stdout);
  const struct timespec look = {.tv_nsec = 20000000};
  for (char known[SECRET_BYTES] = "untouched";;) {
    int number = sigtimedwait(&all, NULL, &look);
    if (number > 0) (void)printf("signal %d\n", number);
    if (memcmp(known, flag_text, sizeof known) != 0) {
      memcpy(known, flag_text, sizeof known);
      known[SECRET_BYTES - 1] = '\0';
      (void)printf("flag %s\n", known);
    }
    if (fflush(stdout) != 0) return 1;
  }
}
