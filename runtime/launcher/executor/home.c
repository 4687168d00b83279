/* Where a user is at home, as the container's own /etc/passwd says (passwd(5)). That file is the image's author's: it may
 * be anything, so it is read only if it is a regular file, below the root, and not beyond a limit. */
#include <fcntl.h>
#include <linux/stat.h>

#include "steps.h"
#include "sys.h"
#include "text.h"

enum { MOST_BYTES = 1 << 20, CHUNK_BYTES = 4096, UID_FIELD = 2, HOME_FIELD = 5, INTERRUPTED = -4 };
static const uint64_t LARGEST_UID = 0xffffffff;

static struct text home;
const char *home_variable(void) { return home.bytes; }

struct line {
  unsigned field;
  uint64_t uid;
  int digits; /* of the uid; -1: it is not a number */
  struct text home;
};

static void begin(struct line *line) { /* not all of it anew: there may be very many lines */
  line->field = 0;
  line->uid = 0;
  line->digits = line->home.cut = 0;
  line->home.n = 0;
}

static void take(struct line *line, char byte) {
  char text[2];
  if (byte == ':') {
    line->field++;
  } else if (line->field == UID_FIELD) {
    int is_digit = byte >= '0' && byte <= '9' && line->uid <= LARGEST_UID;
    line->uid = line->uid * 10 + (uint64_t)(byte - '0');
    line->digits = is_digit && line->digits >= 0 ? line->digits + 1 : -1;
  } else if (line->field == HOME_FIELD) {
    text[0] = byte;
    text[1] = 0;
    add(&line->home, text);
    line->home.cut |= byte == 0; /* nothing that a variable could hold */
  }
}

/* Whether the line that has ended is this user's; then its directory is the answer, if it names one. */
static int is_users(const struct line *line, uint64_t uid) {
  if (line->digits <= 0 || line->uid != uid) return 0;
  if (line->home.n == 0 || line->home.cut) return 1;
  add(&home, "HOME=");
  add(&home, line->home.bytes);
  if (home.cut) home.bytes[0] = 0;
  return 1;
}

static void search(int fd, uint64_t uid) {
  char bytes[CHUNK_BYTES] = {0};
  struct line line = {.field = 0};
  for (long all = 0, n; all < MOST_BYTES; all += n) {
    while ((n = SYS(read, fd, ADDRESS(bytes), sizeof bytes)) == INTERRUPTED) continue;
    if (n <= 0) break;
    for (long i = 0; i < n; i++) {
      if (bytes[i] != '\n') {
        take(&line, bytes[i]);
        continue;
      }
      if (is_users(&line, uid)) return;
      begin(&line);
    }
  }
  is_users(&line, uid); /* the last may have no end */
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
  if (fd < 0) return 0;
  if (!close_with(fd, is_list(fd))) return 0;
  fd = open_in_root("etc/passwd", O_RDONLY | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return 0;
  if (is_list(fd)) search(fd, s->find_home.uid);
  return close_with(fd, 0);
}
