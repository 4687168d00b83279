#include <stdlib.h>
#include <unistd.h>

#include "generator.h"

/* "TBR1", ahead of the report (testbed/load/messages.py reads it). */
#define MAGIC 0x31524254u
/* A server may invent statuses; what no longer fits is counted as FAILED_OTHERWISE. */
#define MOST_COUNTS 1024

struct report_head {
  uint32_t magic, streams;
  int64_t began_ns, cpu_ns;
  uint32_t lags, unused;
};

struct stream_head {
  int64_t last_ns;
  uint32_t ok, timeouts, counts, opened, backlog, unused;
};

static void count(struct stream *stream, uint8_t kind, enum failure failure, int detail) {
  for (uint32_t i = stream->n_counts; i-- > 0;) {
    struct count *one = &stream->counts[i];
    if (one->failure == failure && one->kind == kind && one->detail == detail) {
      one->times++;
      return;
    }
  }
  if (!stream->counts) stream->counts = calloc(MOST_COUNTS, sizeof *stream->counts);
  if (!stream->counts) abort();
  if (stream->n_counts >= MOST_COUNTS - 1 && failure != FAILED_OTHERWISE) {
    count(stream, 0, FAILED_OTHERWISE, 0);
    return;
  }
  stream->counts[stream->n_counts++] = (struct count){(uint8_t)failure, kind, (uint16_t)detail, 1};
}

void finish(struct generator *generator, struct stream *stream, uint32_t index, enum failure failure, int detail) {
  struct request *request = &stream->requests[index];
  request->is_over = true;
  request->connection = NONE;
  generator->unbooked--;
  if (request->due_ns < generator->began_ns) return;
  int64_t now = now_ns(), usec = (now - request->due_ns) / 1000;
  uint32_t latency_usec = usec < UINT32_MAX ? (uint32_t)usec : UINT32_MAX;
  if (now > stream->last_ns) stream->last_ns = now;
  stream->backlog += now > stream->end_ns;
  if (failure == SUCCESS) stream->usec[stream->ok++] = latency_usec;
  else count(stream, request->kind, failure, detail);
  if (failure == FAILED_TIMEOUT) stream->usec[stream->n_requests - ++stream->timeouts] = latency_usec;
}

void book_surplus(struct generator *generator, struct stream *stream) {
  if (now_ns() >= generator->began_ns) count(stream, 0, FAILED_SURPLUS, 0);
}

static bool put(const void *bytes, size_t size) {
  for (size_t at = 0; at < size;) {
    ssize_t written = write(STDOUT_FILENO, (const char *)bytes + at, size - at);
    if (written <= 0) return false;
    at += (size_t)written;
  }
  return true;
}

bool write_report(const struct generator *generator) {
  struct report_head head = {MAGIC, generator->n_streams, generator->began_ns, cpu_ns() - generator->began_cpu_ns, generator->n_lags, 0};
  bool is_written = put(&head, sizeof head) && put(generator->lags_usec, generator->n_lags * sizeof *generator->lags_usec);
  for (uint32_t i = 0; i < generator->n_streams && is_written; i++) {
    const struct stream *stream = &generator->streams[i];
    struct stream_head own = {stream->last_ns, stream->ok, stream->timeouts, stream->n_counts, stream->opened, stream->backlog, 0};
    is_written = put(&own, sizeof own) && put(stream->usec, stream->ok * sizeof *stream->usec) &&
      put(stream->usec + stream->n_requests - stream->timeouts, stream->timeouts * sizeof *stream->usec) &&
      put(stream->counts, stream->n_counts * sizeof *stream->counts);
  }
  return is_written;
}
