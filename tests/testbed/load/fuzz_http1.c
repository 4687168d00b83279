/* libFuzzer's door to the generator's reader: it stays within its bytes, and an answer means the same however it is cut. The first
   byte says where to cut, and whether the answer is one to HEAD. */
#include <stdlib.h>
#include <string.h>

#include "http1.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
  enum outcome outcome;
  bool ends, keep_alive, surplus, touched;
  uint16_t status;
};

/* A block of its own for each piece, so that the sanitizer sees its end. */
static enum outcome feed(struct reader *reader, const uint8_t *data, size_t size) {
  uint8_t *piece = malloc(size ? size : 1);
  if (!piece) abort();
  memcpy(piece, data, size);
  enum outcome outcome = reader_feed(reader, piece, size);
  free(piece);
  return outcome;
}

/* Read in pieces of `step` bytes, to the end or until the reader has seen enough; of what is left, all in one. */
static struct seen read_cut(const uint8_t *data, size_t size, size_t step, bool bodiless) {
  struct reader reader;
  reader_reset(&reader, bodiless);
  struct seen seen = {.outcome = READ_MORE};
  size_t at = 0;
  for (; at < size && seen.outcome == READ_MORE; at += step) {
    size_t piece = size - at < step ? size - at : step;
    seen.outcome = feed(&reader, data + at, piece);
  }
  if (seen.outcome == READ_COMPLETE)
    for (; at < size; at++) reader.surplus |= data[at] != '\r' && data[at] != '\n';
  seen.keep_alive = reader.keep_alive && !reader.surplus;
  seen.surplus = reader.surplus;
  seen.touched = reader.touched;
  seen.status = reader.status;
  seen.ends = seen.outcome == READ_MORE && reader_close(&reader);
  return seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (!size) return 0;
  bool bodiless = data[0] & 1;
  size_t step = (size_t)(data[0] >> 1) + 1;
  struct seen whole = read_cut(data + 1, size - 1, size, bodiless), cut = read_cut(data + 1, size - 1, step, bodiless);
  if (whole.outcome != cut.outcome || whole.ends != cut.ends || whole.touched != cut.touched) abort();
  if (whole.outcome != READ_COMPLETE) return 0;
  if (whole.status != cut.status || whole.surplus != cut.surplus || whole.keep_alive != cut.keep_alive) abort();
  if (whole.status > 999 || (whole.status >= 100 && whole.status < 200)) abort();
  return 0;
}
