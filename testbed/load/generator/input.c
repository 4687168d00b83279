#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "generator.h"

/* "TBL1": what testbed/load/messages.py writes, in this order, with the machine's own bytes:
     magic, streams
     for each: timeout, warm-up and duration in ns, the address (0 after an IPv4 one), its family (4 or 6), its port, connections,
       kinds, requests
       for each kind: the status that is expected, whether answers have no body, the message's size, the message
       for each request: ns after the start at which it is due, ascending
       for each request: its kind */
#define MAGIC 0x314c4254u

struct input {
  const uint8_t *bytes;
  size_t size, at;
  bool is_short;
};

struct head {
  int64_t timeout_ns, warmup_ns, duration_ns;
  uint8_t address[16];
  uint32_t family, port, connections, kinds, requests;
} __attribute__((packed));

struct kind_head { uint32_t status, bodiless, size; } __attribute__((packed));

static const uint8_t *take(struct input *input, size_t size) {
  if (input->is_short || size > input->size - input->at) {
    input->is_short = true;
    return NULL;
  }
  input->at += size;
  return input->bytes + input->at - size;
}

static bool take_into(struct input *input, void *target, size_t size) {
  const uint8_t *bytes = take(input, size);
  if (bytes) memcpy(target, bytes, size);
  return bytes != NULL;
}

/* Read standard input to its end; NULL when it cannot be kept or read. */
static uint8_t *read_all(size_t *size) {
  size_t room = 1 << 20, n = 0;
  uint8_t *bytes = malloc(room);
  while (bytes) {
    if (n == room) {
      uint8_t *more = realloc(bytes, room *= 2);
      if (!more) break;
      bytes = more;
    }
    ssize_t got = read(STDIN_FILENO, bytes + n, room - n);
    if (got == 0) {
      *size = n;
      return bytes;
    }
    if (got < 0 && errno != EINTR) break;
    if (got > 0) n += (size_t)got;
  }
  free(bytes);
  return NULL;
}

static void set_address(struct stream *stream, const struct head *head) {
  if (head->family == 6) {
    struct sockaddr_in6 *six = (struct sockaddr_in6 *)&stream->address;
    six->sin6_family = AF_INET6;
    six->sin6_port = htons((uint16_t)head->port);
    memcpy(&six->sin6_addr, head->address, sizeof six->sin6_addr);
    stream->address_size = sizeof *six;
  } else {
    struct sockaddr_in *four = (struct sockaddr_in *)&stream->address;
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)head->port);
    memcpy(&four->sin_addr, head->address, sizeof four->sin_addr);
    stream->address_size = sizeof *four;
  }
}

static const char *read_kinds(struct input *input, struct stream *stream) {
  for (uint32_t i = 0; i < stream->n_kinds; i++) {
    struct kind_head head = {0};
    take_into(input, &head, sizeof head);
    stream->kinds[i] = (struct kind){take(input, head.size), head.size, (uint16_t)head.status, head.bodiless != 0};
    if (input->is_short || !head.size) return "a kind of request is cut short";
  }
  return NULL;
}

static const char *read_requests(struct input *input, struct stream *stream) {
  const uint8_t *due = take(input, (size_t)stream->n_requests * sizeof(int64_t));
  const uint8_t *kinds = take(input, stream->n_requests);
  if (!due || !kinds) return "the schedule is cut short";
  int64_t last_ns = 0;
  for (uint32_t i = 0; i < stream->n_requests; i++) {
    int64_t at_ns;
    memcpy(&at_ns, due + (size_t)i * sizeof at_ns, sizeof at_ns);
    if (at_ns < last_ns || kinds[i] >= stream->n_kinds) return "the schedule is not in order";
    stream->requests[i] = (struct request){.due_ns = last_ns = at_ns, .connection = NONE, .next = NONE, .kind = kinds[i]};
  }
  return NULL;
}

static const char *read_stream(struct input *input, struct stream *stream) {
  struct head head = {0};
  if (!take_into(input, &head, sizeof head)) return "a load is cut short";
  set_address(stream, &head);
  stream->timeout_ns = head.timeout_ns;
  stream->warmup_ns = head.warmup_ns;
  stream->duration_ns = head.duration_ns;
  stream->limit = head.connections;
  stream->n_kinds = head.kinds;
  stream->n_requests = head.requests;
  stream->queue_head = stream->queue_tail = stream->idle = NONE;
  if (!head.kinds || head.kinds > UINT8_MAX) return "a load has no kind of request, or too many";
  stream->kinds = calloc(head.kinds, sizeof *stream->kinds);
  stream->requests = calloc((size_t)head.requests + 1, sizeof *stream->requests);
  stream->usec = malloc(((size_t)head.requests + 1) * sizeof *stream->usec);
  if (!stream->kinds || !stream->requests || !stream->usec) return "no memory";
  memset(stream->usec, 0xff, ((size_t)head.requests + 1) * sizeof *stream->usec); /* page faults come now, not while requests are due */
  const char *wrong = read_kinds(input, stream);
  return wrong ? wrong : read_requests(input, stream);
}

const char *read_loads(struct generator *generator) {
  struct input input = {0};
  input.bytes = generator->input = read_all(&input.size);
  if (!input.bytes) return "standard input cannot be read";
  uint32_t head[2];
  if (!take_into(&input, head, sizeof head) || head[0] != MAGIC) return "standard input has no loads";
  if (head[1] > input.size / sizeof(struct head)) return "there are fewer loads than said";
  generator->n_streams = head[1];
  generator->streams = calloc((size_t)head[1] + 1, sizeof *generator->streams);
  generator->heap = calloc((size_t)head[1] + 1, sizeof *generator->heap);
  if (!generator->streams || !generator->heap) return "no memory";
  for (uint32_t i = 0; i < generator->n_streams; i++) {
    const char *wrong = read_stream(&input, &generator->streams[i]);
    if (wrong) return wrong;
    generator->unbooked += generator->streams[i].n_requests;
  }
  if (generator->unbooked >= NONE) return "there are too many requests";
  generator->lags_usec = malloc((generator->unbooked + 1) * sizeof *generator->lags_usec);
  if (!generator->lags_usec) return "no memory";
  memset(generator->lags_usec, 0xff, (generator->unbooked + 1) * sizeof *generator->lags_usec);
  return input.at == input.size ? NULL : "more follows the last load";
}
