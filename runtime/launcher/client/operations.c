/* `state`, `start`, `kill` and `delete` of a container of which all is known that they need (runtime/known.py). What is
 * not plain, and whatever fails, is the interpreter's: before anything was changed, or where doing it anew does no harm. */
#include <asm/signal.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <linux/time_types.h>

#include "front.h"
#include "known.h"
#include "steps.h"
#include "sys.h"
#include "text.h"

enum { UNIX = 1, SEQPACKET = 5 | O_CLOEXEC, EXCLUSIVE = 2, AT_ONCE = 4 /* LOCK_NB */, REMOVE_DIRECTORY = 0x200, READABLE = 1 };
enum { MOST_PIDS = 4096, PIDS_BYTES = 1 << 16, NAMES_BYTES = 1 << 13, EXIT_S = 10, BUSY_TRIES = 200, BUSY_NS = 500000, NO_SIGNAL = 0x4000 };
enum { LAST_PID = 1 << 22 }; /* PID_MAX_LIMIT of linux/threads.h */
enum status { UNCLEAR, CREATED, RUNNING, PAUSED, STOPPED };

struct container {
  const struct request *request;
  int directory, lock; /* of its state */
  struct known known;
  long pid, start_time;
};

/* --- the container's state, as runtime/state.py has it ---------------------------------------------------- */

static int is_there(const struct container *c, const char *name) { return SYS(faccessat, c->directory, ADDRESS(name), 0) == 0; }

static int find(struct container *c) {
  struct text path = {.n = 0};
  add(&path, c->request->root);
  add(&path, "/");
  add(&path, c->request->id);
  c->directory = path.cut ? -1 : (int)SYS(openat, AT_FDCWD, ADDRESS(path.bytes), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  return c->directory >= 0;
}

/* Nobody else works on the container from here on. Whoever had the lock before may have deleted it, and another may have
 * made one of the same name. */
static int locked(struct container *c) {
  struct statx ours, present;
  int how = c->request->force ? EXCLUSIVE | AT_ONCE : EXCLUSIVE; /* the interpreter does not wait for ever either */
  c->lock = (int)SYS(openat, c->directory, ADDRESS("lock"), O_RDWR | O_CLOEXEC);
  return c->lock >= 0 && SYS(flock, c->lock, how) == 0 &&
         SYS(statx, c->lock, ADDRESS(""), AT_EMPTY_PATH, STATX_INO, ADDRESS(&ours)) == 0 &&
         SYS(statx, c->directory, ADDRESS("lock"), AT_SYMLINK_NOFOLLOW, STATX_INO, ADDRESS(&present)) == 0 && ours.stx_ino == present.stx_ino;
}

static int read_process(struct container *c) {
  uint8_t line[64];
  long n = read_below(c->directory, "process", line, sizeof line);
  const uint8_t *end = line + (n > 0 ? n : 0), *at = read_number(line, end, &c->pid);
  if (at == end || *at != ' ') return 0;
  at = read_number(at + 1, end, &c->start_time);
  return at + 1 == end && *at == '\n' && c->pid > 0 && c->pid <= LAST_PID;
}

static int read_known(struct container *c) {
  struct statx status;
  int fd = (int)SYS(openat, c->directory, ADDRESS("known"), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return 0;
  long result = SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_SIZE | STATX_UID, ADDRESS(&status));
  const uint8_t *bytes = result == 0 && status.stx_size && status.stx_uid == 0 ? map(fd, status.stx_size) : NULL;
  SYS(close, fd);
  return bytes && !known_read(&c->known, bytes, status.stx_size);
}

static int contains(const uint8_t *text, long n, const char *words) {
  long size = (long)strlen(words);
  for (long i = 0; i + size <= n; i++)
    if (memcmp(text + i, words, (size_t)size) == 0) return 1;
  return 0;
}

static enum status running_or_paused(const struct container *c) {
  uint8_t text[256];
  if (!*c->known.freezer) return RUNNING;
  long n = read_below(AT_FDCWD, c->known.freezer, text, sizeof text);
  if (n <= 0) return UNCLEAR; /* the host's cgroups are not as they were */
  if (!(c->known.flags & KNOWN_UNIFIED)) return contains(text, n, "FROZEN") ? PAUSED : contains(text, n, "THAWED") ? RUNNING : UNCLEAR;
  return contains(text, n, "frozen 1") ? PAUSED : RUNNING;
}

static int alive(const struct container *c) {
  struct stat_line stat;
  return stat_of(&stat, c->pid) && stat.start_time == c->start_time && stat.state != 'Z' && stat.state != 'X' && stat.state != 'x';
}

static enum status status_of(const struct container *c) {
  if (!alive(c)) return STOPPED;
  enum status status = running_or_paused(c);
  return status == RUNNING && is_there(c, "start") ? CREATED : status;
}

/* --- state ------------------------------------------------------------------------------------------------ */

static int print(const struct container *c) {
  static const char words[][8] = {"", "created", "running", "paused", "stopped"};
  enum status status = status_of(c);
  struct text pid = {.n = 0};
  if (status == UNCLEAR) return HAND_OVER;
  add_number(&pid, status == STOPPED ? 0 : c->pid);
  const char *parts[] = {c->known.before_status, words[status], c->known.before_pid, pid.bytes, c->known.after_pid};
  size_t n = 0, count = sizeof parts / sizeof *parts;
  for (size_t i = 0; i < count; i++) n += strlen(parts[i]);
  uint8_t *line = map(-1, n + 1), *at = line;
  if (!line) return HAND_OVER;
  for (size_t i = 0; i < count; at += strlen(parts[i++])) memcpy(at, parts[i], strlen(parts[i]));
  for (at = line; n > 0;) {
    long written = SYS(write, 1, ADDRESS(at), n);
    if (written == -EINTR) continue;
    if (written <= 0) return at == line ? HAND_OVER : 1;
    at += written;
    n -= (size_t)written;
  }
  return 0;
}

/* --- start ------------------------------------------------------------------------------------------------ */

static int connected(const struct container *c) {
  struct { unsigned short family; char path[108]; } address = {.family = UNIX};
  struct text path = {.n = 0}; /* short enough for a socket address wherever the state lies */
  add(&path, "/proc/self/fd/");
  add_number(&path, c->directory);
  add(&path, "/start");
  memcpy(address.path, path.bytes, path.n + 1);
  int channel = (int)SYS(socket, UNIX, SEQPACKET, 0);
  if (channel < 0) return channel;
  int result = (int)SYS(connect, channel, ADDRESS(&address), sizeof address.family + path.n + 1);
  /* nobody can reach it after that: its process goes on with us or not at all */
  if (result == 0) result = (int)SYS(unlinkat, c->directory, ADDRESS("start"), 0);
  return result < 0 ? close_with(channel, result) : channel;
}

/* Let it execute its program. What the launcher says of a step that fails is in `failure`; the interpreter explains. */
static int start(struct container *c, struct failure *failure) {
  if (!(c->known.flags & KNOWN_START) || status_of(c) != CREATED) return HAND_OVER;
  int channel = connected(c), result = 0;
  if (channel < 0) return HAND_OVER;
  struct message message = {MESSAGE_GO, 0, 0};
  long n = SYS(sendto, channel, ADDRESS(&message), sizeof message, NO_SIGNAL, 0, 0);
  if (n < 0) return close_with(channel, HAND_OVER); /* it has ended meanwhile */
  while ((n = SYS(read, channel, ADDRESS(&message), sizeof message)) == (long)sizeof message || n == -EINTR) {
    if (n < 0 || result == EXPLAIN) continue;
    *failure = message.kind == MESSAGE_FAILED ? (struct failure){message.number, (int32_t)message.value} : (struct failure){-1, EPROTO};
    result = EXPLAIN;
    if (message.kind != MESSAGE_FAILED) break;
  }
  struct stat_line stat;
  if (result == 0 && stat_of(&stat, c->pid) && stat.start_time == c->start_time && !stat.executed) {
    *failure = (struct failure){-1, ECANCELED}; /* it was killed before, and could tell nothing */
    result = EXPLAIN;
  }
  return close_with(channel, result);
}

/* --- kill ------------------------------------------------------------------------------------------------- */

/* A pidfd of that very process. The start time is compared after it is open: the number cannot pass to another unnoticed. */
static int process_of(const struct container *c) {
  int pidfd = (int)SYS(pidfd_open, c->pid, 0);
  return pidfd < 0 || alive(c) ? pidfd : close_with(pidfd, -ESRCH);
}

/* The cgroup's file of this name, opened; negative also where the cgroup has others below it. */
static int open_in(const char *cgroup, const char *name, uint64_t flags) {
  struct statx status;
  int directory = (int)SYS(openat, AT_FDCWD, ADDRESS(cgroup), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return directory;
  int result = (int)SYS(statx, directory, ADDRESS(""), AT_EMPTY_PATH, STATX_NLINK, ADDRESS(&status));
  if (result == 0) result = status.stx_nlink > 2 ? -ENOTEMPTY : (int)SYS(openat, directory, ADDRESS(name), flags | O_CLOEXEC);
  return close_with(directory, result);
}

/* Add a cgroup's processes to `pids`, in order and each once. Returns their number, or a negative errno. */
static int gather(const char *cgroup, long *pids, int count) {
  uint8_t *text = map(-1, PIDS_BYTES);
  int fd = text ? open_in(cgroup, "cgroup.procs", O_RDONLY) : -ENOMEM;
  if (fd < 0) return fd;
  long n, all = 0;
  while (all < PIDS_BYTES && (n = SYS(read, fd, ADDRESS(text + all), PIDS_BYTES - (size_t)all)) > 0) all += n;
  SYS(close, fd);
  const uint8_t *end = text + all;
  for (const uint8_t *at = text; at < end; at++) {
    long pid;
    int place = 0;
    at = read_number(at, end, &pid);
    while (place < count && pids[place] < pid) place++;
    if (pid == 0 || (place < count && pids[place] == pid)) continue; /* 0: of another pid namespace */
    if (count == MOST_PIDS) return -E2BIG;
    for (int i = count++; i > place; i--) pids[i] = pids[i - 1];
    pids[place] = pid;
  }
  SYS(munmap, text, PIDS_BYTES);
  return all == PIDS_BYTES ? -E2BIG : count;
}

static int kill_all(const struct container *c) {
  const uint8_t *cgroup = c->known.directories;
  if (c->request->signal == SIGKILL && c->known.flags & KNOWN_KILLABLE && c->known.directory_count) {
    int fd = open_in((const char *)cgroup + 4, "cgroup.kill", O_WRONLY);
    return fd >= 0 && close_with(fd, (int)SYS(write, fd, ADDRESS("1"), 1)) == 1 ? 0 : HAND_OVER;
  }
  long *pids = map(-1, MOST_PIDS * sizeof *pids);
  int count = pids ? 0 : -ENOMEM;
  for (uint32_t i = 0; i < c->known.directory_count && count >= 0; i++, cgroup = plan_next_string(cgroup))
    count = gather((const char *)cgroup + 4, pids, count);
  for (int i = 0; i < count; i++) SYS(kill, pids[i], c->request->signal);
  return count < 0 ? HAND_OVER : 0;
}

static int kill_one(const struct container *c) {
  int pidfd = process_of(c);
  if (pidfd < 0) return HAND_OVER;
  return close_with(pidfd, (int)SYS(pidfd_send_signal, pidfd, c->request->signal, 0, 0)) == 0 ? 0 : HAND_OVER;
}

/* --- delete ----------------------------------------------------------------------------------------------- */

static int end_container(const struct container *c) {
  int pidfd = process_of(c);
  if (pidfd < 0) return pidfd == -ESRCH ? 0 : pidfd;
  struct { int fd; short events, seen; } poll = {pidfd, READABLE, 0};
  struct __kernel_timespec limit = {EXIT_S, 0};
  long result = SYS(pidfd_send_signal, pidfd, SIGKILL, 0, 0);
  if (result == 0) result = SYS(ppoll, ADDRESS(&poll), 1, ADDRESS(&limit), 0, 0) == 1 ? 0 : -ETIMEDOUT;
  return close_with(pidfd, result == -ESRCH ? 0 : (int)result);
}

static int is_empty(const char *cgroup) {
  char byte;
  int fd = open_in(cgroup, "cgroup.procs", O_RDONLY);
  return fd >= 0 && close_with(fd, (int)SYS(read, fd, ADDRESS(&byte), 1)) == 0;
}

/* One that somebody is in, or that has cgroups below it, is the interpreter's to empty. */
static int remove_cgroup(const char *cgroup) {
  struct __kernel_timespec pause = {0, BUSY_NS};
  for (int tries = BUSY_TRIES;; tries--) {
    long result = SYS(unlinkat, AT_FDCWD, ADDRESS(cgroup), REMOVE_DIRECTORY);
    if (result != -EBUSY || tries == 0 || !is_empty(cgroup)) return (int)result;
    SYS(nanosleep, ADDRESS(&pause), 0);
  }
}

static int remove_cgroups(const struct container *c) {
  const uint8_t *cgroup = c->known.directories;
  for (uint32_t i = 0; i < c->known.directory_count; i++, cgroup = plan_next_string(cgroup)) {
    int result = remove_cgroup((const char *)cgroup + 4);
    if (result < 0) return result; /* absent ones too: the host's cgroups may not be as they were */
  }
  for (uint32_t i = 0; i < c->known.parent_count; i++, cgroup = plan_next_string(cgroup))
    SYS(unlinkat, AT_FDCWD, ADDRESS(cgroup + 4), REMOVE_DIRECTORY); /* it may be others' too */
  return 0;
}

struct entry { uint64_t inode; int64_t next; uint16_t size; uint8_t type; char name[]; };

/* The names in the state's directory. Returns their bytes, or a negative errno where there is more than files. */
static long names_of(const struct container *c, uint8_t *names) {
  enum { REGULAR = 8, SOCKET = 12 };
  long n = SYS(getdents64, c->directory, ADDRESS(names), NAMES_BYTES);
  for (long at = 0; at < n;) {
    struct entry *entry = (struct entry *)(names + at);
    if (entry->name[0] != '.' && entry->type != REGULAR && entry->type != SOCKET) return -EISDIR;
    at += entry->size;
  }
  return n > NAMES_BYTES / 2 ? -E2BIG : n; /* there may be more than fitted */
}

static void forget(const struct container *c, const uint8_t *names, long n) {
  for (long at = 0; at < n;) {
    const struct entry *entry = (const struct entry *)(names + at);
    SYS(unlinkat, c->directory, ADDRESS(entry->name), 0); /* for . and .. it only fails */
    at += entry->size;
  }
  struct text path = {.n = 0};
  add(&path, c->request->root);
  add(&path, "/");
  add(&path, c->request->id);
  SYS(unlinkat, AT_FDCWD, ADDRESS(path.bytes), REMOVE_DIRECTORY);
}

static int delete(const struct container *c) {
  _Alignas(8) uint8_t names[NAMES_BYTES];
  enum status status = status_of(c);
  long n = c->known.flags & KNOWN_DELETE ? names_of(c, names) : -EPERM;
  if (n < 0 || status == UNCLEAR || status == PAUSED || (status != STOPPED && !c->request->force)) return HAND_OVER;
  if (status != STOPPED && end_container(c) < 0) return HAND_OVER;
  if (remove_cgroups(c) < 0) return HAND_OVER;
  forget(c, names, n);
  return 0;
}

int operate(const struct request *request, struct failure *failure) {
  struct container c = {.request = request, .directory = -1, .lock = -1};
  int changes = request->command == COMMAND_START || request->command == COMMAND_DELETE;
  if (!find(&c) || (changes && !locked(&c)) || !read_known(&c) || !read_process(&c)) return HAND_OVER;
  switch (request->command) {
  case COMMAND_STATE: return print(&c);
  case COMMAND_KILL:
    if (request->signal == SIGKILL && running_or_paused(&c) != RUNNING) return HAND_OVER; /* it thaws what is paused */
    return request->everything ? kill_all(&c) : kill_one(&c);
  case COMMAND_DELETE: return delete(&c);
  case COMMAND_START: break;
  default: return HAND_OVER;
  }
  int result = start(&c, failure);
  if (result == EXPLAIN) SYS(fcntl, c.lock, 2 /* F_SETFD */, 0); /* the interpreter still has the lock */
  return result;
}
