// Attempts on the kernel itself: what it lets a process ask for. Each is made in the form that changes nothing.
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/kcmp.h>
#include <linux/perf_event.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/klog.h>
#include <sys/personality.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "probe.h"

enum { READ_ALL = 3, LOG_BYTES = 1 << 20, PORT_LEVEL = 3, EVENT_BYTES = 8 };

// Of an answer that the kernel only gives to who may ask: `error` says that the request, and not the caller, was wrong.
static int expect(long result, int error, int other) {
  if (result >= 0 || errno == error || errno == other) return 0;
  return -1;
}

static int make_map(char **words, char *got) {
  (void)words, (void)got;
  union bpf_attr map = {.map_type = BPF_MAP_TYPE_ARRAY, .key_size = sizeof(uint32_t), .value_size = sizeof(uint64_t), .max_entries = 1};
  return syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof map) < 0 ? -1 : 0;
}

// A counter of this process's own, without the kernel's part.
static int open_counter(char **words, char *got) {
  (void)words, (void)got;
  struct perf_event_attr event = {.type = PERF_TYPE_SOFTWARE,
    .size = sizeof event,
    .config = PERF_COUNT_SW_TASK_CLOCK,
    .disabled = 1,
    .exclude_kernel = 1,
    .exclude_hv = 1};
  return syscall(SYS_perf_event_open, &event, 0, -1, -1, 0) < 0 ? -1 : 0;
}

static int open_userfault(char **words, char *got) {
  (void)words, (void)got;
  return syscall(SYS_userfaultfd, UFFD_USER_MODE_ONLY | O_CLOEXEC) < 0 ? -1 : 0;
}

static int open_ring(char **words, char *got) {
  (void)words, (void)got;
  struct io_uring_params parameters = {0};
  return syscall(SYS_io_uring_setup, 2, &parameters) < 0 ? -1 : 0;
}

static int open_fanotify(char **words, char *got) {
  (void)words, (void)got;
  return syscall(SYS_fanotify_init, FAN_CLASS_NOTIF | FAN_REPORT_FID, O_RDONLY) < 0 ? -1 : 0;
}

// WORD: the line of the kernel's log that has a word in it.
static int read_log(char **words, char *got) {
  char *text = malloc(LOG_BYTES);
  if (!text) return -1;
  int size = klogctl(READ_ALL, text, LOG_BYTES);
  int result = size < 0 ? -1 : keep_line(got, text, (size_t)size, words[0]), error = errno;
  free(text);
  errno = error;
  return result;
}

// PATH WORD: the same from the device, a record at a time.
static int read_log_device(char **words, char *got) {
  int device = open(words[0], O_RDONLY | O_NONBLOCK);
  char record[8192];
  if (device < 0) return -1;
  for (ssize_t size; (size = read(device, record, sizeof record)) > 0 || errno == EPIPE;)
    if (size > 0 && keep_line(got, record, (size_t)size, words[1]) == 0) return 0;
  return -1;
}

// The magic numbers are none: who may restart the machine is told so, and it goes on.
static int restart(char **words, char *got) {
  (void)words, (void)got;
  return expect(syscall(SYS_reboot, 0, 0, 0, NULL), EINVAL, EINVAL);
}

static int load_module(char **words, char *got) {
  (void)words, (void)got;
  static const char none[] = "";
  return expect(syscall(SYS_init_module, none, 0UL, ""), ENOEXEC, EINVAL);
}

static int load_kernel(char **words, char *got) {
  (void)words, (void)got;
  return expect(syscall(SYS_kexec_load, 0UL, ~0UL, NULL, 0UL), EINVAL, EINVAL);
}

static int add_swap(char **words, char *got) {
  (void)words, (void)got;
  return expect(syscall(SYS_swapon, "/.testbed-none", 0), ENOENT, EINVAL);
}

static int account(char **words, char *got) {
  (void)words, (void)got;
  return expect(syscall(SYS_acct, "/.testbed-none"), ENOENT, ENOENT);
}

static int reach_ports(char **words, char *got) {
  (void)words, (void)got;
#ifdef SYS_iopl
  return syscall(SYS_iopl, PORT_LEVEL) < 0 ? -1 : 0;
#else
  errno = ENOSYS;
  return -1;
#endif
}

static int change_persona(char **words, char *got) {
  (void)words, (void)got;
  return personality(READ_IMPLIES_EXEC) < 0 ? -1 : 0;
}

static int splice_pages(char **words, char *got) {
  (void)words, (void)got;
  int ends[2];
  static char page[64] = "page";
  struct iovec one = {page, sizeof page};
  return pipe(ends) != 0 || vmsplice(ends[1], &one, 1, 0) < 0 ? -1 : 0;
}

static int compare_self(char **words, char *got) {
  (void)words, (void)got;
  return syscall(SYS_kcmp, getpid(), getpid(), KCMP_VM, 0UL, 0UL) < 0 ? -1 : 0;
}

// Ask where this process's own page is; nothing moves.
static int find_pages(char **words, char *got) {
  (void)words, (void)got;
  static int value = 1;
  void *page = (void *)((uintptr_t)&value & ~4095UL);
  int node = -1;
  return syscall(SYS_move_pages, 0, 1UL, &page, NULL, &node, 0) < 0 ? -1 : 0;
}

// Set the clock's frequency to what it is.
static int adjust_clock(char **words, char *got) {
  (void)words, (void)got;
  struct timex known = {0};
  if (adjtimex(&known) < 0) return -1;
  struct timex same = {.modes = ADJ_FREQUENCY, .freq = known.freq};
  return adjtimex(&same) < 0 ? -1 : 0;
}

// Set the kernel's time zone to what it is.
static int set_zone(char **words, char *got) {
  (void)words, (void)got;
  struct timezone zone = {0};
  if (syscall(SYS_gettimeofday, NULL, &zone) != 0) return -1;
  return (int)syscall(SYS_settimeofday, NULL, &zone);
}

// CLOCK: what a clock says, in seconds.
static int read_clock(char **words, char *got) {
  struct timespec at;
  if (clock_gettime((clockid_t)to_number(words[0]), &at) != 0) return -1;
  (void)snprintf(got, GOT_BYTES, "%lld.%03ld", (long long)at.tv_sec, at.tv_nsec / 1000000);
  return 0;
}

static int read_name(char **words, char *got) {
  (void)words;
  struct utsname names;
  if (uname(&names) != 0) return -1;
  keep(got, names.nodename, strlen(names.nodename));
  return 0;
}

// Set the host's name to what it is.
static int set_name(char **words, char *got) { return read_name(words, got) != 0 ? -1 : sethostname(got, strlen(got)); }

const struct operation kernel_operations[] = {
  {"map", 0, make_map},
  {"counter", 0, open_counter},
  {"userfault", 0, open_userfault},
  {"ring", 0, open_ring},
  {"fanotify", 0, open_fanotify},
  {"log", 1, read_log},
  {"log_device", 2, read_log_device},
  {"restart", 0, restart},
  {"module", 0, load_module},
  {"kernel", 0, load_kernel},
  {"swap", 0, add_swap},
  {"account", 0, account},
  {"ports", 0, reach_ports},
  {"persona", 0, change_persona},
  {"vmsplice", 0, splice_pages},
  {"kcmp", 0, compare_self},
  {"pages", 0, find_pages},
  {"adjust", 0, adjust_clock},
  {"zone", 0, set_zone},
  {"clock", 1, read_clock},
  {"name", 0, read_name},
  {"set_name", 0, set_name},
  {NULL, 0, NULL},
};
