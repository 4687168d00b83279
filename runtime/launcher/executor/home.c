/* Where a user is at home, as the container's own /etc/passwd says (passwd(5)). That file is the image's author's: it may
 * be anything, so it is read only if it is a regular file, below the root, and not beyond a limit. */
#include <fcntl.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { MOST_BYTES = 1 << 20, UID_FIELD = 2, HOME_FIELD = 5 };
static const uint64_t LARGEST_UID = 0xffffffff;

static struct text home;
const char *home_variable(void) { return home.bytes; }

/* The n-th field of the line at `at`, and its size; an empty one where the line has fewer. */
static const char *field(const char *at, const char *end, int n, size_t *size) {
  for (; n > 0 && at < end; at++) n -= *at == ':';
  const char *last = at;
  while (last < end && *last != ':') last++;
  *size = (size_t)(last - at);
  return at;
}

static int is_users(const char *line, const char *end, uint64_t uid) {
  size_t size;
  uint64_t number = 0;
  const char *digits = field(line, end, UID_FIELD, &size);
  for (size_t i = 0; i < size; i++) {
    if (digits[i] < '0' || digits[i] > '9' || number > LARGEST_UID) return 0;
    number = number * 10 + (uint64_t)(digits[i] - '0');
  }
  return size > 0 && number == uid;
}

/* The user's first line counts. A directory that no variable could hold, or none, is no answer. */
static void search(const char *at, const char *end, uint64_t uid) {
  for (const char *last; at < end; at = last + 1) {
    for (last = at; last < end && *last != '\n'; last++) continue;
    if (!is_users(at, last, uid)) continue;
    size_t size;
    const char *directory = field(at, last, HOME_FIELD, &size);
    add(&home, "HOME=");
    add_bytes(&home, directory, size);
    if (size == 0 || home.cut || strlen(home.bytes) != home.n) home.bytes[0] = 0;
    return;
  }
}

/* A file of /proc has no size; one that is longer than the limit is no list of users. */
static int is_list(int fd) {
  struct statx status = {.stx_mode = 0};
  if (SYS(statx, fd, ADDRESS(""), AT_EMPTY_PATH, STATX_TYPE | STATX_SIZE, ADDRESS(&status)) < 0) return 0;
  return (status.stx_mode & S_IFMT) == S_IFREG && status.stx_size > 0 && status.stx_size <= MOST_BYTES;
}

/* It is looked at before it is opened: opening a device, say, may do something. */
int perform_find_home(const struct step *s) {
  home = (struct text){.n = 0};
  int fd = open_in_root("etc/passwd", O_PATH);
  if (fd < 0 || !close_with(fd, is_list(fd))) return 0;
  fd = open_in_root("etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return 0;
  char *bytes = is_list(fd) ? map(-1, MOST_BYTES) : NULL;
  long all = 0, n = 0;
  while (bytes && all < MOST_BYTES && (n = SYS(read, fd, ADDRESS(bytes + all), MOST_BYTES - all)) > 0) all += n;
  if (bytes) search(bytes, bytes + all, s->find_home.uid);
  return close_with(fd, 0);
}
