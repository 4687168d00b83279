// Reads files of numbers again and again, at fixed times and at little cost, and writes down what they held. It decides nothing: which
// files, how often and which of their numbers is said by lines on its standard input (testbed/sampler/plan.py makes them):
//
//   interval NS            the time between two ticks
//   limit MILLIONTHS       the part of a processor that it may take in all
//   group EVERY BUDGET     of the files that follow each is read every EVERY ticks, as long as all of them together take less than BUDGET
//                          millionths of a processor, or less than the limit is taken in all. Else each is read less often. 0: no budget
//   number PATH            a file that is one number
//   keys PATH KEY...       numbers behind words: WORD[|WORD][@N][+], the last word's number, or the Nth (from 0) behind it; + adds up all
//   long PATH KEY...       the same in a file that the kernel gives a page at a time. PATH and the KEYs have tabs between them
//   each FILE DIRECTORY KEY...   the sum of the numbers in /proc/PID/FILE over the processes of a cgroup, and of those below it. It is
//                          left out of the first reading of all, for it takes long
//   go                     read all once, answer `begun`, and go on until standard input ends; then read all once more
//
// The first argument is the descriptor that takes the records: a header and as many numbers as the file has keys (testbed/sampler/records.py
// reads them). Standard output has the account of what it took, and which files could not be read. Files stay open: to look a path up
// costs more than to read it.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 2, KEYS_OF_EACH = 4, DEEPEST = 16, PAGE_BYTES = 1 << 14, TEXT_BYTES = 1 << 20, BATCH_BYTES = 1 << 18, STRIDE = 16 };
static const int64_t ABSENT = INT64_MIN;
// The source of a record that says when a tick came and how late it was.
static const uint32_t TICK = UINT32_MAX;
static const uint64_t SECOND_NS = 1000000000;

struct key {
  char *words[WORDS];
  unsigned count, skipped;
  bool added;
};

struct source {
  enum { NUMBER, KEYS, LONG, EACH } kind;
  char *path, *file;
  struct key *keys;
  unsigned count;
  int fd, error;
};

struct group {
  size_t first, count, cursor;
  double every, owed;
  uint64_t budget, spent_ns, readings;
  bool slow;
};

struct header {
  uint32_t source, tick;
  uint64_t t_ns;
};

static struct source *sources;
static struct group *groups;
static size_t source_count, group_count;
static uint64_t interval_ns = SECOND_NS, limit, begun_cpu_ns;
static char text[TEXT_BYTES + 2]; // a blank before what was read, so that each word has one, and a zero behind it
static char batch[BATCH_BYTES];
static size_t batched;
static int records;

static void fail(const char *what) {
  (void)fprintf(stderr, "%s: %s\n", what, strerror(errno));
  exit(1);
}

static void *grow(void *array, size_t count, size_t size) {
  void *grown = (count & (count - 1)) == 0 ? realloc(array, (count ? 2 * count : 1) * size) : array;
  if (!grown) fail("sampler: memory");
  return grown;
}

static uint64_t read_clock(clockid_t clock) {
  struct timespec now;
  (void)clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

static uint64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }
static uint64_t cpu_ns(void) { return read_clock(CLOCK_THREAD_CPUTIME_ID); }

static void flush(void) {
  for (size_t written = 0; written < batched;) {
    ssize_t some = write(records, batch + written, batched - written);
    if (some < 0 && errno != EINTR) fail("sampler: write its records");
    if (some > 0) written += (size_t)some;
  }
  batched = 0;
}

static void put(const void *bytes, size_t count) {
  if (batched + count > sizeof batch) flush();
  memcpy(batch + batched, bytes, count);
  batched += count;
}

static bool is_digit(char letter) { return letter >= '0' && letter <= '9'; }
static bool is_blank(char letter) { return letter == ' ' || letter == '\n' || letter == '\t'; }

// The number at *at, which is moved behind it; ABSENT where there is none, the largest where it is too large.
static int64_t parse_number(const char **at) {
  const char *here = *at;
  while (*here == ' ' || *here == '\t') here++;
  if (!is_digit(*here)) return ABSENT;
  int64_t value = 0;
  for (; is_digit(*here); here++)
    if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, *here - '0', &value)) value = INT64_MAX / 10;
  *at = here;
  return value;
}

// Just behind a word that begins at `from` or later; NULL without one.
static const char *find_word(const char *from, const char *word) {
  for (const char *found = from; (found = strstr(found, word)); found++)
    if (is_blank(found[-1])) return found + strlen(word);
  return NULL;
}

static const char *find_key(const char *from, const struct key *key) {
  for (unsigned i = 0; from && i < key->count; i++) from = find_word(from, key->words[i]);
  return from;
}

// The number of a key, sought from *at on and then from the beginning; *at is moved behind it, for keys mostly stand in their order.
static int64_t parse_key(const struct key *key, const char **at) {
  const char *found = find_key(key->added ? text + 1 : *at, key);
  if (!found && !key->added) found = find_key(text + 1, key);
  int64_t total = key->added ? 0 : ABSENT;
  for (; found; found = find_key(found, key)) {
    int64_t value = ABSENT;
    for (unsigned i = 0; i <= key->skipped; i++)
      if ((value = parse_number(&found)) == ABSENT) break;
    *at = found;
    if (!key->added) return value;
    if (value != ABSENT && __builtin_add_overflow(total, value, &total)) total = INT64_MAX;
  }
  return total;
}

// What a file holds into `text`; false when it cannot be read.
static bool read_text(int fd, bool pages) {
  size_t size = 0;
  do {
    // No more than a page or four: the kernel makes room for all that some files are asked for.
    ssize_t some = pread(fd, text + 1 + size, TEXT_BYTES - size < PAGE_BYTES ? TEXT_BYTES - size : PAGE_BYTES, (off_t)size);
    if (some < 0 && errno == EINTR) continue;
    if (some < 0) return false;
    if (some == 0) break;
    size += (size_t)some;
  } while (pages && size < TEXT_BYTES);
  text[1 + size] = 0;
  return true;
}

static void add_process(long pid, const struct source *source, int64_t *totals) {
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/%ld/%s", pid, source->file);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return;
  bool read = read_text(fd, false); // fails when the process has just ended
  (void)close(fd);
  const char *at = text + 1;
  for (unsigned i = 0; read && i < source->count; i++) {
    int64_t value = parse_key(&source->keys[i], &at);
    if (value != ABSENT && __builtin_add_overflow(totals[i], value, &totals[i])) totals[i] = INT64_MAX;
  }
}

// Adds up the processes in a cgroup and in those below it; false when the cgroup cannot be read.
static bool add_processes(int parent, const char *path, int depth, const struct source *source, int64_t *totals) {
  int directory = openat(parent, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) return false;
  // Not kept open: cgroup v1 shows who reads the same open file again the processes of a second ago.
  int fd = openat(directory, "cgroup.procs", O_RDONLY | O_CLOEXEC);
  FILE *processes = fd < 0 ? NULL : fdopen(fd, "r");
  if (!processes) {
    if (fd >= 0) (void)close(fd);
    (void)close(directory);
    return false;
  }
  char line[32];
  while (fgets(line, sizeof line, processes)) {
    long pid = strtol(line, NULL, 10);
    if (pid > 0) add_process(pid, source, totals);
  }
  (void)fclose(processes);
  struct stat status;
  if (depth < DEEPEST && fstat(directory, &status) == 0 && status.st_nlink > 2) {
    int listed = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = listed < 0 ? NULL : fdopendir(listed);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
      if (entry->d_type == DT_DIR && entry->d_name[0] != '.') (void)add_processes(directory, entry->d_name, depth + 1, source, totals);
    if (entries) (void)closedir(entries);
    else if (listed >= 0) (void)close(listed);
  }
  (void)close(directory);
  return true;
}

// Reads one file and writes its record. One that fails is read no more: the cgroup is gone, or the kernel does not tell.
static void read_source(uint32_t index, uint32_t tick, uint64_t t_ns) {
  struct source *source = &sources[index];
  if (source->error) return;
  int64_t values[KEYS_OF_EACH] = {0};
  errno = 0;
  if (source->kind == EACH ? !add_processes(AT_FDCWD, source->path, 0, source, values) : !read_text(source->fd, source->kind == LONG)) {
    source->error = errno ? errno : EIO;
    if (source->fd >= 0) (void)close(source->fd);
    source->fd = -1;
    return;
  }
  struct header header = {index, tick, t_ns};
  put(&header, sizeof header);
  const char *at = text + 1;
  if (source->kind == EACH) put(values, source->count * sizeof *values);
  if (source->kind == NUMBER) values[0] = parse_number(&at);
  if (source->kind == NUMBER) put(values, sizeof *values);
  if (source->kind == NUMBER || source->kind == EACH) return;
  for (unsigned i = 0; i < source->count; i++) {
    values[0] = parse_key(&source->keys[i], &at);
    put(values, sizeof *values);
  }
}

// Reads what is owed of a group: its share of a tick, and what the budget kept it from in ticks before.
static void read_group(struct group *group, uint32_t tick, uint64_t elapsed_ns) {
  group->owed += (double)group->count / group->every;
  if (group->owed > (double)group->count) group->owed = (double)group->count;
  double part_ns = (double)elapsed_ns / 1e6 * (double)group->budget, whole_ns = (double)elapsed_ns / 1e6 * (double)limit;
  uint64_t begun_ns = cpu_ns(), t_ns = 0, stride = group->slow ? 1 : STRIDE;
  for (uint64_t i = 0; group->owed >= 1; i++) {
    if (i % stride == 0) {
      uint64_t taken_ns = cpu_ns();
      bool over = (double)(group->spent_ns + taken_ns - begun_ns) > part_ns && (double)(taken_ns - begun_cpu_ns) > whole_ns;
      if (group->budget && over) break;
      t_ns = now_ns();
    }
    read_source((uint32_t)(group->first + group->cursor), tick, t_ns);
    group->cursor = (group->cursor + 1) % group->count;
    group->owed -= 1;
    group->readings++;
  }
  group->spent_ns += cpu_ns() - begun_ns;
}

static void read_all(uint32_t tick, bool slow_too) {
  for (struct group *group = groups; group < groups + group_count; group++) {
    if (group->slow && !slow_too) continue;
    uint64_t begun_ns = cpu_ns();
    for (size_t i = 0; i < group->count; i++) read_source((uint32_t)(group->first + i), tick, now_ns());
    group->spent_ns += cpu_ns() - begun_ns;
    group->readings += group->count;
  }
}

static void note_tick(uint32_t tick, uint64_t due_ns) {
  struct header header = {TICK, tick, now_ns()};
  int64_t late_ns = (int64_t)(header.t_ns - due_ns);
  put(&header, sizeof header);
  put(&late_ns, sizeof late_ns);
}

// Whether standard input has ended by then, for which it waits.
static bool wait_until(uint64_t due_ns) {
  for (;;) {
    uint64_t now = now_ns();
    if (now >= due_ns) return false;
    struct timespec left = {(time_t)((due_ns - now) / SECOND_NS), (long)((due_ns - now) % SECOND_NS)};
    struct pollfd input = {STDIN_FILENO, POLLIN, 0};
    char ignored[64];
    if (ppoll(&input, 1, &left, NULL) > 0 && read(STDIN_FILENO, ignored, sizeof ignored) <= 0) return true;
  }
}

static void sample(void) {
  uint64_t begun_ns = now_ns();
  begun_cpu_ns = cpu_ns();
  uint32_t tick = 0;
  note_tick(0, begun_ns);
  read_all(0, false);
  flush();
  (void)printf("begun\n");
  (void)fflush(stdout);
  uint64_t opening_ns = cpu_ns() - begun_cpu_ns;
  for (;;) {
    uint64_t passed = (now_ns() - begun_ns) / interval_ns; // a tick that has passed while another took too long is left out
    tick = passed > tick ? (uint32_t)passed : tick;
    uint64_t due_ns = begun_ns + (uint64_t)(tick + 1) * interval_ns;
    if (wait_until(due_ns)) break;
    note_tick(++tick, due_ns);
    for (struct group *group = groups; group < groups + group_count; group++) read_group(group, tick, now_ns() - begun_ns);
    flush();
  }
  uint64_t ended_ns = now_ns(), ended_cpu_ns = cpu_ns();
  note_tick(++tick, ended_ns);
  read_all(tick, true);
  flush();
  (void)printf("took %llu %llu %llu %llu\n", (unsigned long long)(ended_ns - begun_ns), (unsigned long long)(ended_cpu_ns - begun_cpu_ns),
    (unsigned long long)opening_ns, (unsigned long long)(cpu_ns() - ended_cpu_ns));
}

static void report(void) {
  for (size_t i = 0; i < group_count; i++)
    (void)printf("group %zu %llu %llu\n", i, (unsigned long long)groups[i].readings, (unsigned long long)groups[i].spent_ns);
  for (size_t i = 0; i < source_count; i++)
    if (sources[i].error) (void)printf("unread %zu %d\n", i, sources[i].error);
  (void)printf("end\n");
  (void)fflush(stdout);
}

static struct key make_key(char *word) {
  struct key key = {.count = 0};
  char *end = word + strlen(word), *rest = NULL;
  if (end > word && end[-1] == '+') {
    key.added = true;
    end[-1] = 0;
  }
  char *at = strrchr(word, '@');
  if (at) {
    key.skipped = (unsigned)strtoul(at + 1, NULL, 10);
    *at = 0;
  }
  for (char *part = strtok_r(word, "|", &rest); part && key.count < WORDS; part = strtok_r(NULL, "|", &rest)) key.words[key.count++] = part;
  return key;
}

static void add_source(int kind, char *arguments) {
  if (!group_count) return;
  struct source source = {.kind = (typeof(source.kind))kind, .fd = -1};
  char *rest = NULL;
  if (kind == EACH) source.file = strsep(&arguments, " ");
  source.path = arguments ? strtok_r(arguments, "\t", &rest) : NULL;
  if (!source.path) return;
  for (char *word; (word = strtok_r(NULL, "\t", &rest));) {
    source.keys = grow(source.keys, source.count, sizeof *source.keys);
    source.keys[source.count++] = make_key(word);
    if (kind == EACH && source.count == KEYS_OF_EACH) break;
  }
  if (kind != EACH) {
    source.fd = open(source.path, O_RDONLY | O_CLOEXEC);
    source.error = source.fd < 0 ? errno : 0;
  }
  sources = grow(sources, source_count, sizeof *sources);
  sources[source_count++] = source;
  struct group *group = &groups[group_count - 1];
  group->count++;
  group->slow = kind == EACH;
  if (group->slow) group->owed = (double)group->count;
}

static void add_group(char *arguments) {
  char *rest = NULL;
  struct group group = {.first = source_count};
  group.every = (double)strtoul(arguments, &rest, 10);
  group.budget = strtoul(rest, NULL, 10);
  if (group.every < 1) group.every = 1;
  groups = grow(groups, group_count, sizeof *groups);
  groups[group_count++] = group;
}

int main(int count, char **arguments) {
  static const char *const KINDS[] = {"number ", "keys ", "long ", "each "};
  if (count != 2) {
    (void)fprintf(stderr, "usage: sampler DESCRIPTOR (see sampler.c)\n");
    return 2;
  }
  records = (int)strtol(arguments[1], NULL, 10);
  text[0] = '\n';
  (void)signal(SIGINT, SIG_IGN);           // its parent's business, and then standard input ends
  (void)setpriority(PRIO_PROCESS, 0, -20); // on time beside a busy workload, where it may; the generator still comes before
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  char *line = NULL;
  size_t room = 0;
  for (ssize_t length; (length = getline(&line, &room, stdin)) > 0;) {
    line[length - 1] = 0;
    if (strcmp(line, "go") == 0) {
      sample();
      report();
      return 0;
    }
    char *kept = strdup(line); // for paths and keys
    if (!kept) fail("sampler: memory");
    if (strncmp(line, "interval ", 9) == 0) interval_ns = strtoull(line + 9, NULL, 10);
    if (strncmp(line, "limit ", 6) == 0) limit = strtoull(line + 6, NULL, 10);
    if (strncmp(line, "group ", 6) == 0) add_group(kept + 6);
    for (int kind = NUMBER; kind <= EACH; kind++)
      if (strncmp(line, KINDS[kind], strlen(KINDS[kind])) == 0) add_source(kind, kept + strlen(KINDS[kind]));
  }
  return 0; // nobody wants a sample any more
}
