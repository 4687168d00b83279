#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "generator.h"

/* The time between two looks for overdue requests when none is known to become overdue earlier. */
#define EXPIRY_NS 1000000000
/* As much is read at once, so that a server that never stops sending keeps no other request waiting for long. */
#define PIECE_BYTES 65536

bool make_connections(struct generator *generator) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return false;
  uint64_t wanted = 0, most = files.rlim_cur;
  for (uint32_t i = 0; i < generator->n_streams; i++) wanted += generator->streams[i].limit;
  if (most > wanted) most = wanted; /* fewer than is wanted: sockets will fail, and say so */
  if (most >= NONE) most = NONE - 1;
  generator->connections = calloc(most + 1, sizeof *generator->connections);
  generator->free = calloc(most + 1, sizeof *generator->free);
  generator->epoll = epoll_create1(EPOLL_CLOEXEC);
  if (!generator->connections || !generator->free || generator->epoll < 0) return false;
  while (generator->n_free < most) {
    generator->free[generator->n_free] = (uint32_t)most - 1 - generator->n_free;
    generator->n_free++;
  }
  return true;
}

static uint32_t place_of(const struct generator *generator, const struct connection *connection) {
  return (uint32_t)(connection - generator->connections);
}

static void add_idle(const struct generator *generator, struct connection *connection) {
  struct stream *stream = connection->stream;
  connection->request = NONE;
  connection->before = NONE;
  connection->after = stream->idle;
  stream->idle = place_of(generator, connection);
  if (connection->after != NONE) generator->connections[connection->after].before = stream->idle;
}

static void remove_idle(const struct generator *generator, const struct connection *connection) {
  if (connection->before == NONE) connection->stream->idle = connection->after;
  else generator->connections[connection->before].after = connection->after;
  if (connection->after != NONE) generator->connections[connection->after].before = connection->before;
}

/* Close a connection; a queued request may get a new one in its place. */
static void drop(struct generator *generator, struct connection *connection) {
  close(connection->fd);
  connection->turn++;
  connection->fd = -1;
  connection->stream->open--;
  generator->has_room = connection->stream->has_room = true;
  generator->free[generator->n_free++] = place_of(generator, connection);
}

/* Give up a connection that is of no more use: its request, if it carries one, has failed. */
static void fail(struct generator *generator, struct connection *connection, enum failure failure, int detail) {
  if (connection->request == NONE) remove_idle(generator, connection);
  else finish(generator, connection->stream, connection->request, failure, detail);
  drop(generator, connection);
}

static const struct kind *kind_of(const struct connection *connection) {
  return &connection->stream->kinds[connection->stream->requests[connection->request].kind];
}

static uint32_t unsent(const struct connection *connection) {
  return connection->request == NONE ? 0 : kind_of(connection)->size - connection->sent;
}

static uint64_t tag_of(const struct generator *generator, const struct connection *connection) {
  return (uint64_t)connection->turn << 32 | place_of(generator, connection);
}

/* Watch for room to send only as long as something remains. */
static void watch(struct generator *generator, struct connection *connection) {
  uint32_t wanted = EPOLLIN | (unsent(connection) ? EPOLLOUT : 0u);
  if (wanted == connection->watched) return;
  struct epoll_event event = {.events = wanted, .data.u64 = tag_of(generator, connection)};
  if (epoll_ctl(generator->epoll, EPOLL_CTL_MOD, connection->fd, &event) != 0) abort();
  connection->watched = wanted;
}

static void send_rest(struct generator *generator, struct connection *connection) {
  const struct kind *kind = kind_of(connection);
  ssize_t sent = send(connection->fd, kind->message + connection->sent, kind->size - connection->sent, MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN && errno != EINTR) {
    fail(generator, connection, connection->is_connected ? FAILED_SEND : FAILED_CONNECT, errno);
    return;
  }
  if (sent > 0) {
    connection->is_connected = true;
    connection->sent += (uint32_t)sent;
  }
  watch(generator, connection);
}

/* Give a request to a connection that carries none. */
static void carry(const struct generator *generator, struct connection *connection, uint32_t request) {
  connection->request = request;
  connection->sent = 0;
  connection->stream->requests[request].connection = place_of(generator, connection);
  reader_reset(&connection->reader, kind_of(connection)->bodiless);
}

static void begin(struct generator *generator, struct connection *connection, uint32_t request) {
  carry(generator, connection, request);
  send_rest(generator, connection);
}

/* Open a connection for a request, whose latency includes that. */
static void open_connection(struct generator *generator, struct stream *stream, uint32_t request) {
  int fd = generator->n_free ? socket(stream->address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) : -1;
  if (fd < 0) {
    finish(generator, stream, request, FAILED_SOCKET, generator->n_free ? errno : EMFILE);
    return;
  }
  (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
  struct connection *connection = &generator->connections[generator->free[--generator->n_free]];
  *connection = (struct connection){.stream = stream, .fd = fd, .turn = connection->turn, .watched = EPOLLIN | EPOLLOUT};
  stream->open++;
  stream->opened++;
  carry(generator, connection, request);
  struct epoll_event event = {.events = connection->watched, .data.u64 = tag_of(generator, connection)};
  if (epoll_ctl(generator->epoll, EPOLL_CTL_ADD, fd, &event) != 0) {
    fail(generator, connection, FAILED_SOCKET, errno);
    return;
  }
  if (connect(fd, (struct sockaddr *)&stream->address, stream->address_size) != 0 && errno != EINPROGRESS)
    fail(generator, connection, FAILED_CONNECT, errno);
}

void arrive(struct generator *generator, struct stream *stream, uint32_t index) {
  struct request *request = &stream->requests[index];
  if (request->due_ns >= generator->began_ns) {
    int64_t lag_usec = (now_ns() - request->due_ns) / 1000;
    generator->lags_usec[generator->n_lags++] = lag_usec < UINT32_MAX ? (uint32_t)lag_usec : UINT32_MAX;
  }
  if (request->due_ns + stream->timeout_ns < generator->expire_ns) generator->expire_ns = request->due_ns + stream->timeout_ns;
  if (stream->idle != NONE) {
    struct connection *connection = &generator->connections[stream->idle];
    remove_idle(generator, connection);
    begin(generator, connection, index);
  } else if (stream->open < stream->limit) {
    open_connection(generator, stream, index);
  } else {
    if (stream->queue_head == NONE) stream->queue_head = index;
    else stream->requests[stream->queue_tail].next = index;
    stream->queue_tail = index;
  }
}

/* Take the oldest queued request that has not timed out; NONE when there is none. */
static uint32_t next_queued(struct stream *stream) {
  while (stream->queue_head != NONE) {
    uint32_t index = stream->queue_head;
    stream->queue_head = stream->requests[index].next;
    if (!stream->requests[index].is_over) return index;
  }
  return NONE;
}

void refill(struct generator *generator) {
  while (generator->has_room) {
    generator->has_room = false;
    for (uint32_t i = 0; i < generator->n_streams; i++) {
      struct stream *stream = &generator->streams[i];
      if (!stream->has_room) continue;
      stream->has_room = false;
      for (uint32_t request; stream->open < stream->limit && (request = next_queued(stream)) != NONE;)
        open_connection(generator, stream, request);
    }
  }
}

void expire(struct generator *generator, int64_t now) {
  generator->expire_ns = now + EXPIRY_NS;
  for (uint32_t i = 0; i < generator->n_streams; i++) {
    struct stream *stream = &generator->streams[i];
    for (; stream->oldest < stream->next; stream->oldest++) {
      const struct request *request = &stream->requests[stream->oldest];
      int64_t deadline_ns = request->due_ns + stream->timeout_ns;
      if (!request->is_over && deadline_ns > now) {
        if (deadline_ns < generator->expire_ns) generator->expire_ns = deadline_ns;
        break;
      }
      if (request->connection != NONE) fail(generator, &generator->connections[request->connection], FAILED_TIMEOUT, 0);
      else if (!request->is_over) finish(generator, stream, stream->oldest, FAILED_TIMEOUT, 0);
    }
  }
}

/* Status 0 in a kind stands for any but a server's failure (testbed/load/requests.py). */
static bool is_expected(uint16_t status, uint16_t expected) { return expected == 0 ? status < 500 : status == expected; }

/* Book a response that is in, and give the connection to the next request or keep it. */
static void complete(struct generator *generator, struct connection *connection) {
  const struct reader *reader = &connection->reader;
  struct stream *stream = connection->stream;
  enum failure failure = reader->surplus                       ? FAILED_SURPLUS
    : is_expected(reader->status, kind_of(connection)->status) ? SUCCESS
                                                               : FAILED_STATUS;
  bool may_go_on = reader->keep_alive && !unsent(connection);
  finish(generator, stream, connection->request, failure, failure == FAILED_STATUS ? reader->status : 0);
  if (!may_go_on) {
    drop(generator, connection);
    return;
  }
  uint32_t following = next_queued(stream);
  if (following != NONE) {
    begin(generator, connection, following);
  } else {
    add_idle(generator, connection);
    reader_reset(&connection->reader, false);
  }
}

/* An idle connection has news: nothing but empty lines may come. */
static void receive_idle(struct generator *generator, struct connection *connection, const uint8_t *data, size_t size) {
  if (size && reader_feed(&connection->reader, data, size) == READ_MORE && !connection->reader.touched) return;
  if (size) book_surplus(generator, connection->stream);
  fail(generator, connection, FAILED_CLOSED, 0);
}

static void receive(struct generator *generator, struct connection *connection) {
  static uint8_t data[PIECE_BYTES];
  ssize_t size = recv(connection->fd, data, sizeof data, 0);
  if (size < 0) {
    if (errno != EAGAIN && errno != EINTR) fail(generator, connection, FAILED_RECEIVE, errno);
    return;
  }
  if (connection->request == NONE) {
    receive_idle(generator, connection, data, (size_t)size);
    return;
  }
  struct reader *reader = &connection->reader;
  enum outcome outcome = size ? reader_feed(reader, data, (size_t)size) : reader_close(reader) ? READ_COMPLETE : READ_MORE;
  if (outcome == READ_COMPLETE) complete(generator, connection);
  else if (outcome == READ_MALFORMED) fail(generator, connection, FAILED_MALFORMED, 0);
  else if (!size) fail(generator, connection, reader->touched ? FAILED_CUT_SHORT : FAILED_CLOSED, 0);
}

void act(struct generator *generator, uint64_t tag, uint32_t events) {
  struct connection *connection = &generator->connections[(uint32_t)tag];
  if (connection->fd < 0 || tag_of(generator, connection) != tag) return; /* it was given up meanwhile */
  if (unsent(connection) && events & ~(uint32_t)EPOLLIN) send_rest(generator, connection);
  else if (events & ~(uint32_t)EPOLLOUT) receive(generator, connection);
}
