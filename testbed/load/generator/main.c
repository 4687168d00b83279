/* The load generator's process (generator.h): it reads loads from standard input, writes a line with CLOCK_MONOTONIC's nanoseconds
   when counting begins, and its report at the end. It does no statistics: it runs on the host that it measures. */
#include <errno.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "generator.h"

/* Time from "now" to the first arrival. */
#define LEAD_NS 20000000
/* Between two of so many events it is looked whether a request has come due. */
#define MOST_EVENTS 64
/* The user and group that own nothing. */
#define NOBODY 65534

static int64_t read_clock(clockid_t clock) {
  struct timespec at;
  (void)clock_gettime(clock, &at);
  return at.tv_sec * (int64_t)1000000000 + at.tv_nsec;
}

int64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }
int64_t cpu_ns(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

/* Give up root's rights where it has them: what it reads comes from servers that may be hostile, and sockets need none. */
static bool shed_rights(void) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  return geteuid() != 0 || (setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
}

/* Make this process punctual, and make it end with the one that started it. */
static void settle(void) {
  (void)signal(SIGINT, SIG_IGN); /* the parent decides what Ctrl-C means */
  (void)signal(SIGPIPE, SIG_IGN);
  (void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  /* The workload keeps the processors busy; a generator that queues for one would measure its own delay. A nice value is not enough:
     a fair scheduler lets a waking task wait for the end of the running one's slice (2 to 4 ms seen on two busy processors, 0.2 ms
     as a real-time task). Without the right to it, it does what it can. */
  (void)setpriority(PRIO_PROCESS, 0, -20);
  (void)sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1});
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
    files.rlim_cur = files.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &files);
  }
  (void)shed_rights();                             /* in a user namespace without that user it keeps the little that it has */
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0); /* last: another user means none again */
}

static void begin_counting(struct generator *generator) {
  char line[32];
  int size = snprintf(line, sizeof line, "%lld\n", (long long)generator->began_ns);
  generator->has_begun = true;
  generator->began_cpu_ns = cpu_ns();
  if (write(STDOUT_FILENO, line, (size_t)size) != size) _exit(1); /* nobody is there to read it */
}

/* Send what has come due; the clock is read again for each. Returns the time. */
static int64_t offer_due(struct generator *generator) {
  int64_t now = now_ns();
  for (;; now = now_ns()) {
    if (!generator->has_begun && now >= generator->began_ns) begin_counting(generator);
    if (next_due_ns(generator) > now) return now;
    uint32_t request;
    struct stream *stream = take_due(generator, &request);
    arrive(generator, stream, request);
  }
}

/* Wait for an event or for that time, and act on the events. */
static void wait_until(struct generator *generator, int64_t wake_ns, int64_t now) {
  int64_t left_ns = wake_ns > now ? wake_ns - now : 0;
  struct timespec timeout = {.tv_sec = left_ns / 1000000000, .tv_nsec = left_ns % 1000000000};
  struct epoll_event events[MOST_EVENTS];
  int n = epoll_pwait2(generator->epoll, events, MOST_EVENTS, &timeout, NULL);
  if (n < 0 && errno != EINTR) {
    (void)fprintf(stderr, "epoll_pwait2: %s\n", strerror(errno));
    _exit(1);
  }
  for (int i = 0; i < n; i++) {
    if (i) offer_due(generator);
    act(generator, events[i].data.u64, events[i].events);
  }
}

/* Send what is due, read what came, give up what is overdue, until nothing is left. */
static void run(struct generator *generator) {
  start_schedule(generator, now_ns() + LEAD_NS);
  for (;;) {
    int64_t now = offer_due(generator);
    if (now >= generator->expire_ns) expire(generator, now);
    refill(generator);
    if (!generator->unbooked && generator->has_begun) return;
    int64_t wake_ns = next_due_ns(generator);
    if (generator->expire_ns < wake_ns) wake_ns = generator->expire_ns;
    if (!generator->has_begun && generator->began_ns < wake_ns) wake_ns = generator->began_ns;
    wait_until(generator, wake_ns, now);
  }
}

int main(void) {
  static struct generator generator;
  settle();
  const char *wrong = read_loads(&generator);
  if (!wrong && !make_connections(&generator)) wrong = "no memory for the connections";
  if (wrong) {
    (void)fprintf(stderr, "%s\n", wrong);
    return 1;
  }
  run(&generator);
  return write_report(&generator) ? 0 : 1;
}
