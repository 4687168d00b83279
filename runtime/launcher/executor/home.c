/* Where a user is at home, as the container's own /etc/passwd says (passwd(5)). That file is the image's author's: it may
 * be anything, so it is read only if it is a regular file, below the root, and not beyond a limit. */
#include <fcntl.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"

enum { MOST_BYTES = 1 << 20, UID_FIELD = 2, HOME_FIELD = 5, FIELDS = 7 };
static const uint64_t LARGEST_UID = 0xffffffff;

static struct text home;
const char *home_variable(void) { return home.bytes; }

/* Where each field of the line at `at` begins, and the one after the last would; the line's end is that of those which it
 * does not have. Returns where the next line begins. */
static const char *split(const char *at, const char *end, const char *begin[FIELDS + 1]) {
  int n = 0;
  begin[n++] = at;
  for (; at < end && *at != '\n'; at++)
    if (*at == ':' && n < FIELDS) begin[n++] = at + 1;
  while (n <= FIELDS) begin[n++] = at + 1;
  return at + 1;
}

static int is_number(const char *digits, const char *end, uint64_t wanted) {
  uint64_t number = 0;
  if (digits >= end) return 0;
  for (; digits < end; digits++) {
    if (*digits < '0' || *digits > '9' || number > LARGEST_UID) return 0;
    number = number * 10 + (uint64_t)(*digits - '0');
  }
  return number == wanted;
}

/* The user's first line counts. A directory that no variable could hold, or none, is no answer. */
static void search(const char *at, const char *end, uint64_t uid) {
  const char *begin[FIELDS + 1];
  while (at < end) {
    at = split(at, end, begin);
    if (!is_number(begin[UID_FIELD], begin[UID_FIELD + 1] - 1, uid)) continue;
    const char *directory = begin[HOME_FIELD], *after = begin[HOME_FIELD + 1] - 1;
    if (directory >= after) return;
    home = joined("HOME=", NULL);
    add_bytes(&home, directory, (size_t)(after - directory));
    if (home.cut || strlen(home.bytes) != home.n) home.bytes[0] = 0;
    return;
  }
}

/* A file of /proc has no size; one that is longer than the limit is no list of users. */
static int is_list(int fd) {
  struct statx status;
  if (status_of(fd, "", &status) < 0) return 0;
  return (status.stx_mode & S_IFMT) == S_IFREG && status.stx_size > 0 && status.stx_size <= MOST_BYTES;
}

/* It is looked at before it is opened: opening a device, say, may do something. */
int perform_find_home(const struct step *s) {
  home = (struct text){.n = 0};
  OWNED int found = open_in_root("etc/passwd", O_PATH);
  if (found < 0 || !is_list(found)) return 0;
  OWNED int fd = open_in_root("etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY);
  char *bytes = fd >= 0 && is_list(fd) ? map(-1, MOST_BYTES) : NULL;
  long all = 0, n = 0;
  while (bytes && all < MOST_BYTES && (n = SYS(read, fd, bytes + all, MOST_BYTES - all)) > 0) all += n;
  if (bytes) search(bytes, bytes + all, s->find_home.uid);
  return 0;
}
