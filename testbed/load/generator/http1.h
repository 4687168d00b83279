/* Reads HTTP/1.1 responses as they arrive (RFC 9112): enough to know the status and where one ends. Nothing of a response is stored.
   testbed/load/http1.py reads the same in Python, for those who ask seldom; a test holds the two to the same answers. */
#ifndef TESTBED_HTTP1_H
#define TESTBED_HTTP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of the headers, of the line before a chunk, and of what may follow the last one. */
#define MAXIMUM_HEAD_BYTES 65536

enum outcome { READ_MORE, READ_COMPLETE, READ_MALFORMED };

/* One connection's reader. The first five are for its user: what the response said once it is complete, whether more came than
   belongs to it (`surplus`; empty lines are no answer), and whether a byte of it has arrived. */
struct reader {
  uint16_t status;
  bool keep_alive, surplus, touched, bodiless;
  bool is_old, closes, keeps, has_length, has_coding, is_chunked, in_trailers;
  uint8_t state, header, n;
  uint32_t unended; /* bytes since the last one of a body */
  uint64_t left;    /* bytes of the body, or of the chunk, that are still to come */
  char word[20];    /* a header's name, then a word of its value: as much of it as tells the ones that matter from the rest */
};

/* Make ready for a response; `bodiless` is for answers to HEAD, which carry the headers of a body and none of it. */
void reader_reset(struct reader *reader, bool bodiless);

/* Take bytes of the response in. Once it is complete or malformed, a reset is due. */
enum outcome reader_feed(struct reader *reader, const uint8_t *data, size_t size);

/* The server closed the connection: whether that is how this response ends (RFC 9112, 6.3). */
bool reader_close(struct reader *reader);

#endif
