/* The command line. What is asked for goes to a planner, which answers with plans; they are performed here, in the
 * caller's own process tree, and their outcome goes back. runtime/oci/caller.py is the other side. */
#include "client.h"

#include <sys/socket.h>
#include <errno.h>

#include "steps.h"
#include "sys.h"

enum { LARGEST_REQUEST = 16 << 20, LARGEST_ANSWER = 16 << 20, FIRST_ANSWER_S = 3, ANSWER_S = 30, FAILED = 1, NO_PLANNER = 5 };

/* Before a request: its arguments' number and the caller's file mode mask; then come the arguments and the environment,
 * each with its end. */
struct request_header {
  char magic[8];
  uint32_t size, argc, umask, zero;
};
/* Before an answer: the sizes of the plan to perform, and of the arguments to ask again with: after the last answer, and
 * should the planner be lost after this one. Both zero: it is still at work. After the last answer nothing is heard of the
 * planner: the exit status is `status`, or, if that is 0, the plan's value. */
struct answer_header { uint32_t plan_size, more_size, last, status; };
struct outcome {
  int32_t step, error;
  int64_t value;
};

/* Put the strings, each with its end, at `at`, unless that is NULL. Returns their size. */
static size_t put(uint8_t *at, const char **list) {
  size_t size = 0;
  for (size_t n; *list; list++, size += n) {
    n = strlen(*list) + 1;
    if (at) memcpy(at + size, *list, n);
  }
  return size;
}

static int ask(int fd, const char **argv, const char **environment, uint32_t umask) {
  struct request_header header = {.magic = "TBASK\x01\n", .umask = umask};
  size_t size = sizeof header + put(NULL, argv) + put(NULL, environment);
  uint8_t *bytes = size <= LARGEST_REQUEST ? map(-1, size) : NULL;
  if (!bytes) return -E2BIG;
  header.size = (uint32_t)size;
  while (argv[header.argc]) header.argc++;
  memcpy(bytes, &header, sizeof header);
  size_t arguments = put(bytes + sizeof header, argv);
  put(bytes + sizeof header + arguments, environment);
  int result = transfer(__NR_sendto, fd, bytes, size);
  SYS(munmap, bytes, size);
  return result;
}

/* The header of an answer; the descriptors that come with it take their places from RECEIVED_FD on. */
static int receive_header(int fd, struct answer_header *answer) {
  int descriptors[MOST_RECEIVED], result = 0;
  long n = receive(fd, answer, sizeof *answer, descriptors, MOST_RECEIVED);
  if (n <= 0) return n < 0 ? (int)n : -EPIPE;
  for (int i = 0; i < MOST_RECEIVED && descriptors[i] >= 0 && result == 0; i++) result = move_fd(descriptors[i], RECEIVED_FD + i);
  return result < 0 ? result : transfer(__NR_read, fd, (uint8_t *)answer + n, sizeof *answer - (size_t)n);
}

struct answer {
  struct answer_header header;
  struct plan plan;
  const char **more;
};

/* Arguments, each with its end, as a list; NULL for none. */
static const char **split(const uint8_t *bytes, size_t size) {
  size_t count = 0, n = 0;
  for (size_t i = 0; i < size; i++) count += bytes[i] == 0;
  const char **list = size && !bytes[size - 1] ? (const char **)map(-1, (count + 1) * sizeof *list) : NULL;
  for (size_t begin = 0; list && n < count; begin += strlen(list[n++]) + 1) list[n] = (const char *)bytes + begin;
  return list;
}

/* The next answer that holds a plan, all of whose steps are the parent's: they are performed in this process. */
static int receive_answer(int fd, struct answer *answer) {
  struct answer_header *header = &answer->header;
  int result;
  do result = receive_header(fd, header);
  while (result == 0 && header->plan_size + header->more_size == 0);
  size_t size = (size_t)header->plan_size + header->more_size;
  uint8_t *bytes = result == 0 && size <= LARGEST_ANSWER ? map(-1, size) : NULL;
  if (!bytes) return result < 0 ? result : -ENOMEM;
  result = transfer(__NR_read, fd, bytes, size);
  if (result < 0) return result;
  answer->more = split(bytes + header->plan_size, header->more_size);
  const char *wrong = read_plan(&answer->plan, bytes, header->plan_size, NULL, NULL);
  return wrong || answer->plan.parent_count != plan_steps(&answer->plan) ? -EPROTO : 0;
}

static void limit_silence(int fd, long seconds) {
  long limit[2] = {seconds, 0}; /* struct timeval */
  SYS(setsockopt, fd, SOL_SOCKET, SO_RCVTIMEO, limit, sizeof limit);
  SYS(setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, limit, sizeof limit);
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
    if (answer.header.last) SYS(close, fd);
    step_value = -1;
    struct failure failure = {-1, 0};
    int failed = perform(&answer.plan, answer.plan.first_step, 0, answer.plan.parent_count, &failure) != 0;
    struct outcome outcome = {failed ? failure.step : -1, failed ? failure.error : 0, step_value};
    SYS(close_range, RECEIVED_FD, RECEIVED_FD + MOST_RECEIVED - 1, 0); /* one may be an end of somebody's socket */
    if (answer.header.last) {
      if (failed) report(&answer.plan, &failure);
      int status = failed ? FAILED : (int)answer.header.status;
      if (status == 0 && step_value > 0) status = (int)step_value;
      if (answer.more) (void)command_line(answer.more, environment);
      return status;
    }
    if (!failed) undo = answer.more;
    if (transfer(__NR_sendto, fd, &outcome, sizeof outcome) < 0) break;
  }
  complain(FAILED, joined("error: the planner ended, or was stopped, in the middle of it; try again", NULL));
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
  if (status == -E2BIG) return complain(FAILED, joined("error: the arguments and the environment are longer than 16 MiB", NULL));
  return complain(NO_PLANNER, joined("error: testbed-runtime: its planner cannot be started; run ./invoke to set it up", NULL));
}
