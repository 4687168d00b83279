/* The command line. What is asked for goes to a planner, which answers with plans; they are performed here, in the
 * caller's own process tree, and their outcome goes back. runtime/oci/caller.py is the other side. */
#include "client.h"

#include <asm/socket.h>
#include <errno.h>
#include <fcntl.h>

#include "steps.h"
#include "sys.h"

enum { MOST_RECEIVED = 12, LARGEST_REQUEST = 16 << 20, LARGEST_ANSWER = 16 << 20 };
enum { FIRST_ANSWER_S = 3, ANSWER_S = 30, NO_SIGNAL = 0x4000, CLOSE_ON_EXEC = 0x40000000, RIGHTS = 1, FAILED = 1 };

/* Before a request: its arguments' number and the caller's file mode mask; then come the arguments and the environment, each with its end. */
struct request_header { char magic[8]; uint32_t size, argc, umask, zero; };
/* Before an answer: the sizes of the plan to perform, and of the arguments to ask again with: after the last answer, and
 * should the planner be lost after this one. Both zero: it is still at work. After the last answer nothing is heard of the
 * planner: the exit status is the plan's value, or else `status`. */
struct answer_header { uint32_t plan_size, more_size, last, status; };
struct outcome { int32_t step, error; int64_t value; };

/* struct msghdr and its parts as the kernel has them (include/linux/socket.h). */
struct vector { void *base; size_t size; };
struct message_header { void *name; long name_size; struct vector *vectors; size_t vector_count; void *control; size_t control_size; unsigned flags; };
struct received { size_t size; int level, type, descriptors[MOST_RECEIVED]; };

static int complain(const char *words, int status) {
  SYS(write, 2, ADDRESS(words), strlen(words));
  return status;
}

static size_t size_of(const char **list) {
  size_t n = 0;
  for (; *list; list++) n += strlen(*list) + 1;
  return n;
}

static uint8_t *put(uint8_t *at, const char **list) {
  for (; *list; list++) {
    size_t n = strlen(*list) + 1;
    memcpy(at, *list, n);
    at += n;
  }
  return at;
}

static int send_all(int fd, const void *bytes, size_t n) {
  for (const uint8_t *at = bytes; n > 0;) {
    long sent = SYS(sendto, fd, ADDRESS(at), n, NO_SIGNAL, 0, 0);
    if (sent == -EINTR) continue;
    if (sent <= 0) return sent < 0 ? (int)sent : -EPIPE;
    at += sent;
    n -= (size_t)sent;
  }
  return 0;
}

static int receive_all(int fd, void *bytes, size_t n) {
  for (uint8_t *at = bytes; n > 0;) {
    long got = SYS(read, fd, ADDRESS(at), n);
    if (got == -EINTR) continue;
    if (got <= 0) return got < 0 ? (int)got : -EPIPE;
    at += got;
    n -= (size_t)got;
  }
  return 0;
}

static int ask(int fd, const char **argv, const char **environment, uint32_t umask) {
  struct request_header header = {.magic = "TBASK\x01\n", .umask = umask};
  size_t size = sizeof header + size_of(argv) + size_of(environment);
  uint8_t *bytes = size <= LARGEST_REQUEST ? map(-1, size) : NULL;
  if (!bytes) return -E2BIG;
  header.size = (uint32_t)size;
  while (argv[header.argc]) header.argc++;
  memcpy(bytes, &header, sizeof header);
  put(put(bytes + sizeof header, argv), environment);
  int result = send_all(fd, bytes, size);
  SYS(munmap, bytes, size);
  return result;
}

/* The header of an answer; the descriptors that come with it take their places from RECEIVED_FD on. */
static int receive_header(int fd, struct answer_header *answer) {
  struct received received = {.size = 0};
  struct vector vector = {answer, sizeof *answer};
  struct message_header header = {.vectors = &vector, .vector_count = 1, .control = &received, .control_size = sizeof received};
  long n;
  while ((n = SYS(recvmsg, fd, ADDRESS(&header), CLOSE_ON_EXEC)) == -EINTR) continue;
  if (n <= 0) return n < 0 ? (int)n : -EPIPE;
  size_t count = header.control_size > 16 && received.type == RIGHTS ? (received.size - 16) / sizeof(int) : 0;
  for (size_t i = 0; i < count; i++) {
    int result = move_fd(received.descriptors[i], RECEIVED_FD + (int)i);
    if (result < 0) return result;
  }
  return receive_all(fd, (uint8_t *)answer + n, sizeof *answer - (size_t)n);
}

struct answer { struct plan plan; const char **more; int last, status; };

/* Arguments, each with its end, as a list; NULL for none. */
static const char **split(const uint8_t *bytes, size_t size) {
  size_t count = 0, n = 0;
  for (size_t i = 0; i < size; i++) count += bytes[i] == 0;
  const char **list = size && !bytes[size - 1] ? map(-1, (count + 1) * sizeof *list) : NULL;
  for (size_t begin = 0; list && n < count; begin += strlen(list[n++]) + 1) list[n] = (const char *)bytes + begin;
  return list;
}

/* The next answer that holds a plan, all of whose steps are the parent's: they are performed in this process. */
static int receive_answer(int fd, struct answer *answer) {
  struct answer_header header;
  int result;
  do result = receive_header(fd, &header);
  while (result == 0 && header.plan_size + header.more_size == 0);
  size_t size = (size_t)header.plan_size + header.more_size;
  uint8_t *bytes = result == 0 && size <= LARGEST_ANSWER ? map(-1, size) : NULL;
  if (result == 0) result = bytes ? receive_all(fd, bytes, size) : -ENOMEM;
  if (result < 0) return result;
  if (plan_read(&answer->plan, bytes, header.plan_size) || answer->plan.parent_count != plan_steps(&answer->plan)) return -EPROTO;
  answer->plan.pointers = map(-1, plan_pointers(&answer->plan) * sizeof *answer->plan.pointers);
  answer->more = split(bytes + header.plan_size, header.more_size);
  answer->last = header.last != 0;
  answer->status = (int)header.status;
  return answer->plan.pointers ? 0 : -ENOMEM;
}

static void limit_silence(int fd, long seconds) {
  struct { long s, us; } limit = {seconds, 0};
  SYS(setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO_OLD, ADDRESS(&limit), sizeof limit);
  SYS(setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO_OLD, ADDRESS(&limit), sizeof limit);
}

/* Perform answers until the last one, and end with its status. Returns a negative errno when the planner is lost before
 * there was any; when it is lost later, another one undoes what was begun. */
static int obey(int fd, const char **environment) {
  const char **undo = NULL;
  for (int any = 0;; any = 1) {
    struct answer answer;
    int result = receive_answer(fd, &answer);
    if (result < 0 && !any) return result;
    if (result < 0) break;
    if (!any) limit_silence(fd, ANSWER_S);
    if (answer.last) SYS(close, fd);
    step_value = -1;
    struct failure failure = {-1, 0};
    int failed = perform(&answer.plan, answer.plan.first_step, 0, answer.plan.parent_count, &failure) != 0;
    struct outcome outcome = {failed ? failure.step : -1, failed ? failure.error : 0, step_value};
    SYS(close_range, RECEIVED_FD, RECEIVED_FD + MOST_RECEIVED - 1, 0); /* one may be an end of somebody's socket */
    if (answer.last) {
      if (failed) report(&answer.plan, &failure);
      int status = failed ? FAILED : step_value >= 0 ? (int)step_value : answer.status;
      if (answer.more) (void)command_line(answer.more, environment);
      return status;
    }
    if (!failed) undo = answer.more;
    if (send_all(fd, &outcome, sizeof outcome) < 0) break;
  }
  complain("error: the planner ended, or was stopped, in the middle of it; try again\n", FAILED);
  SYS(close, fd);
  if (undo) (void)command_line(undo, environment);
  return FAILED;
}

/* Ask whoever is there, and if that comes to nothing, before anything was done, somebody new. */
static int ask_planner(int fd, const char **argv, const char **environment, uint32_t umask) {
  if (fd < 0) return fd;
  if (move_fd(fd, PLANNER_FD) < 0) return -EMFILE;
  int result = ask(PLANNER_FD, argv, environment, umask);
  return result < 0 ? result : obey(PLANNER_FD, environment);
}

int command_line(const char **argv, const char **environment) {
  uint32_t umask = (uint32_t)SYS(umask, 0); /* steps give modes as they are to be */
  int fd = resident_planner(environment);
  if (fd >= 0) limit_silence(fd, FIRST_ANSWER_S);
  int status = ask_planner(fd, argv, environment, umask);
  if (status < 0) status = ask_planner(new_planner(environment), argv, environment, umask);
  if (status >= 0) return status;
  if (status == -E2BIG) return complain("error: the arguments and the environment are longer than 16 MiB\n", FAILED);
  return complain("error: testbed-runtime: its planner cannot be started; run ./invoke to set it up\n", 5);
}
