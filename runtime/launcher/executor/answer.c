/* A process that tells what a file says, again each time that it is asked. */
#include <fcntl.h>

#include "steps.h"
#include "sys.h"

enum { BLOCK_SIZE = 4096 };

/* A file of the kernel's is read in one piece, so what is written is of one moment. */
static int copy_out(const char *path, int fd) {
  char block[BLOCK_SIZE];
  int file = open_path(path, O_RDONLY);
  if (file < 0) return file;
  long n;
  do {
    n = SYS(read, file, ADDRESS(block), sizeof block);
    if (n > 0) n = SYS(write, fd, ADDRESS(block), n);
  } while (n > 0);
  return close_with(file, (int)n);
}

/* Ends when the other side does. */
int perform_serve_file(const struct step *s) {
  char asked[BLOCK_SIZE];
  int fd = (int)s->serve_file.fd;
  for (;;) {
    long n = SYS(read, fd, ADDRESS(asked), sizeof asked);
    if (n <= 0) return (int)n;
    int result = copy_out(s->serve_file.path, fd);
    if (result < 0) return result;
    n = SYS(write, fd, ADDRESS(s->serve_file.end), s->serve_file.end_size);
    if (n < 0) return (int)n;
  }
}
