#include "generator.h"

static int64_t due_of(const struct generator *generator, uint32_t place) {
  const struct stream *stream = &generator->streams[generator->heap[place]];
  return stream->requests[stream->next].due_ns;
}

/* Let what is at `place` of the heap sink below those that are due before it. */
static void sink(struct generator *generator, uint32_t place) {
  for (;;) {
    uint32_t first = place;
    for (uint32_t child = 2 * place + 1; child <= 2 * place + 2 && child < generator->n_heap; child++)
      if (due_of(generator, child) < due_of(generator, first)) first = child;
    if (first == place) return;
    uint32_t moved = generator->heap[place];
    generator->heap[place] = generator->heap[first];
    generator->heap[first] = moved;
    place = first;
  }
}

void start_schedule(struct generator *generator, int64_t start_ns) {
  int64_t warmup_ns = 0;
  for (uint32_t i = 0; i < generator->n_streams; i++)
    if (generator->streams[i].warmup_ns > warmup_ns) warmup_ns = generator->streams[i].warmup_ns;
  generator->began_ns = start_ns + warmup_ns;
  for (uint32_t i = 0; i < generator->n_streams; i++) {
    struct stream *stream = &generator->streams[i];
    stream->end_ns = generator->began_ns + stream->duration_ns;
    /* Streams whose warm-up is shorter start later, so that all are counted from the same moment. */
    for (uint32_t n = 0; n < stream->n_requests; n++) stream->requests[n].due_ns += generator->began_ns - stream->warmup_ns;
    if (stream->n_requests) generator->heap[generator->n_heap++] = i;
  }
  for (uint32_t place = generator->n_heap / 2; place-- > 0;) sink(generator, place);
}

int64_t next_due_ns(const struct generator *generator) { return generator->n_heap ? due_of(generator, 0) : INT64_MAX; }

struct stream *take_due(struct generator *generator, uint32_t *request) {
  struct stream *stream = &generator->streams[generator->heap[0]];
  *request = stream->next++;
  if (stream->next == stream->n_requests) generator->heap[0] = generator->heap[--generator->n_heap];
  sink(generator, 0);
  return stream;
}
