/* The load generator: one thread and one epoll loop that send every request when it is due, and note what became of it. */
#ifndef TESTBED_GENERATOR_H
#define TESTBED_GENERATOR_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http1.h"

/* No index of a request or a connection. */
#define NONE UINT32_MAX

/* Why a request failed; testbed/load/messages.py gives them their words in this order. `detail` beside it is an errno or a status. */
enum failure {
  SUCCESS,
  FAILED_SOCKET,
  FAILED_CONNECT,
  FAILED_SEND,
  FAILED_RECEIVE,
  FAILED_STATUS,
  FAILED_TIMEOUT,
  FAILED_MALFORMED,
  FAILED_CLOSED,
  FAILED_CUT_SHORT,
  FAILED_SURPLUS,
  FAILED_OTHERWISE,
};

/* One kind of request of a mix: its bytes, and what is expected of the answer. */
struct kind {
  const uint8_t *message;
  uint32_t size;
  uint16_t status;
  bool bodiless;
};

/* One request: when it is due, the connection it is on, and the one behind it in its stream's queue. */
struct request {
  int64_t due_ns;
  uint32_t connection, next;
  uint8_t kind;
  bool is_over;
};

struct count {
  uint8_t failure, kind;
  uint16_t detail;
  uint32_t times;
};

/* One load: its requests in the order in which they are due, its connections, its queue, and what became of its requests. The
   latencies of the successes are at the front of `usec`, in the order of their answers, those of the timeouts at its end. */
struct stream {
  struct sockaddr_storage address;
  socklen_t address_size;
  int64_t timeout_ns, warmup_ns, duration_ns, end_ns, last_ns;
  struct kind *kinds;
  struct request *requests;
  uint32_t *usec;
  struct count *counts;
  uint32_t n_kinds, n_requests, n_counts, limit;
  uint32_t next, oldest; /* the first request that has not come due, and the first that is not over */
  uint32_t queue_head, queue_tail;
  uint32_t idle; /* connections, the one that was used last first */
  uint32_t open, opened, ok, timeouts, backlog;
  bool has_room; /* it lost a connection while requests may be queued */
};

/* One keep-alive connection: the request that it carries, or NONE when it is idle, with its neighbours among the idle. `sent` is of
   the request's message. `turn` tells it from those that had its place before. */
struct connection {
  struct stream *stream;
  int fd;
  uint32_t turn, request, sent, before, after, watched;
  bool is_connected;
  struct reader reader;
};

struct generator {
  const uint8_t *input; /* what was read; messages lie in it */
  struct stream *streams;
  struct connection *connections;
  uint32_t *heap; /* streams that have requests left, the one whose next is due first at the top */
  uint32_t *free; /* places for connections */
  uint32_t *lags_usec;
  uint32_t n_streams, n_heap, n_free, n_lags;
  uint64_t unbooked;
  int64_t began_ns, began_cpu_ns, expire_ns; /* no request times out before `expire_ns` */
  int epoll;
  bool has_begun, has_room;
};

/* main.c */
int64_t now_ns(void);
int64_t cpu_ns(void);

/* input.c: read the loads from standard input. Returns NULL, or what is wrong. */
const char *read_loads(struct generator *generator);

/* schedule.c: requests in the order in which they are due, over all streams. */
void start_schedule(struct generator *generator, int64_t start_ns);
int64_t next_due_ns(const struct generator *generator); /* INT64_MAX when none is left */
struct stream *take_due(struct generator *generator, uint32_t *request);

/* booking.c: what became of requests. */
void finish(struct generator *generator, struct stream *stream, uint32_t request, enum failure failure, int detail);
void book_surplus(struct generator *generator, struct stream *stream);
bool write_report(const struct generator *generator);

/* connections.c */
bool make_connections(struct generator *generator);
void arrive(struct generator *generator, struct stream *stream, uint32_t request);
void expire(struct generator *generator, int64_t now);
void refill(struct generator *generator);
void act(struct generator *generator, uint64_t tag, uint32_t events); /* on an event of epoll */

#endif
