#include "http1.h"

#include <string.h>

enum state {
  START, /* before the status line, where empty lines are skipped */
  VERSION,
  BEFORE_STATUS,
  STATUS,
  AFTER_STATUS,
  REASON,
  STATUS_LF,
  NAME,
  BEFORE_VALUE,
  VALUE,
  VALUE_LF,
  HEADERS_LF,
  BODY,
  BODY_UNTIL_CLOSE,
  SIZE, /* of a chunk: at least one digit */
  SIZE_DIGITS,
  EXTENSION_NAME, /* at least one character */
  EXTENSION_NAME_REST,
  EXTENSION_VALUE,
  QUOTED,
  QUOTED_PAIR,
  QUOTED_END,
  SIZE_LF,
  CHUNK,
  CHUNK_CR,
  CHUNK_LF,
  MALFORMED,
  COMPLETE,
};

enum header { OTHER, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING };

static const char PROTOCOL[] = "HTTP/1.";

/* RFC 9110, 5.6.2. */
static bool is_token(uint8_t byte) {
  return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
    (byte && strchr("!#$%&'*+-.^_`|~", byte) != NULL);
}

/* What a value may hold (RFC 9110, 5.5). */
static bool is_field_byte(uint8_t byte) { return byte == '\t' || (byte >= ' ' && byte != 0x7f); }

static uint8_t lower(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? (uint8_t)(byte + ('a' - 'A')) : byte; }

static void clear_message(struct reader *reader) {
  reader->status = 0;
  reader->closes = reader->keeps = reader->has_length = reader->has_coding = reader->is_chunked = reader->in_trailers = false;
  reader->left = 0;
  reader->n = 0;
  reader->state = START;
}

void reader_reset(struct reader *reader, bool bodiless) {
  clear_message(reader);
  reader->bodiless = bodiless;
  reader->keep_alive = true;
  reader->surplus = reader->touched = reader->is_old = false;
  reader->unended = 0;
}

static bool is_blank(uint8_t byte) { return byte == ' ' || byte == '\t'; }

/* Words longer than `word` are none that matter; their length is kept one too long. Of blanks in a row one is kept. */
static void add_to_word(struct reader *reader, uint8_t byte) {
  if (byte == '\t') byte = ' ';
  if (byte == ' ' && (!reader->n || (reader->n <= sizeof reader->word && reader->word[reader->n - 1] == ' '))) return;
  if (reader->n < sizeof reader->word) reader->word[reader->n] = (char)lower(byte);
  if (reader->n <= sizeof reader->word) reader->n++;
}

static bool is_word(const struct reader *reader, const char *word) {
  return reader->n == strlen(word) && memcmp(reader->word, word, reader->n) == 0;
}

/* A header's name is complete. Returns the next state. */
static enum state end_name(struct reader *reader) {
  reader->header = is_word(reader, "connection") ? CONNECTION
    : is_word(reader, "content-length")          ? CONTENT_LENGTH
    : is_word(reader, "transfer-encoding")       ? TRANSFER_ENCODING
                                                 : OTHER;
  reader->n = 0;
  if (reader->header == CONTENT_LENGTH) {
    /* Twice, or beside a coding: two servers could each take another end for the right one (RFC 9112, 6.3). */
    if (reader->has_length || reader->has_coding) return MALFORMED;
    reader->has_length = true;
    reader->left = 0;
  } else if (reader->header == TRANSFER_ENCODING && !reader->in_trailers) {
    if (reader->has_length) return MALFORMED;
    reader->has_coding = true;
    reader->is_chunked = false;
  } else if (reader->in_trailers) {
    reader->header = OTHER;
  }
  return BEFORE_VALUE;
}

/* A word of a list is complete. */
static void end_word(struct reader *reader) {
  if (reader->n && reader->n <= sizeof reader->word && reader->word[reader->n - 1] == ' ') reader->n--;
  if (reader->header == CONNECTION) {
    reader->closes |= is_word(reader, "close");
    reader->keeps |= is_word(reader, "keep-alive");
  } else if (reader->header == TRANSFER_ENCODING && reader->n) {
    reader->is_chunked = is_word(reader, "chunked");
  }
  reader->n = 0;
}

static enum state read_digit(struct reader *reader, uint8_t byte) {
  /* Blanks may follow the number; `n` says that one has. */
  if (is_blank(byte)) {
    reader->n = 2;
    return VALUE;
  }
  uint64_t digit = byte - (uint64_t)'0';
  if (byte < '0' || byte > '9' || reader->n == 2 || reader->left > (UINT64_MAX - digit) / 10) return MALFORMED;
  reader->left = reader->left * 10 + digit;
  reader->n = 1;
  return VALUE;
}

static enum state read_value(struct reader *reader, uint8_t byte) {
  if (byte == '\r') {
    if (reader->state == BEFORE_VALUE && (reader->header == CONTENT_LENGTH || reader->header == TRANSFER_ENCODING)) return MALFORMED;
    if (reader->header == CONNECTION || reader->header == TRANSFER_ENCODING) end_word(reader);
    return VALUE_LF;
  }
  if (!is_field_byte(byte)) return MALFORMED;
  if (reader->state == BEFORE_VALUE && is_blank(byte)) return BEFORE_VALUE;
  if (reader->header == CONTENT_LENGTH) return read_digit(reader, byte);
  if (reader->header == OTHER) return VALUE;
  if (byte == ',') end_word(reader);
  else add_to_word(reader, byte);
  return VALUE;
}

static enum state complete(struct reader *reader, bool needs_close) {
  reader->keep_alive = (reader->is_old ? reader->keeps : !reader->closes) && !needs_close;
  return COMPLETE;
}

/* The empty line after the headers, or after what follows the last chunk. */
static enum state end_headers(struct reader *reader) {
  if (reader->in_trailers) return complete(reader, false);
  if (reader->status == 101) return MALFORMED; /* a change of the protocol that nobody asked for */
  if (reader->status >= 100 && reader->status < 200) {
    clear_message(reader); /* the final one follows (RFC 9110, 15.2) */
    return START;
  }
  if (reader->bodiless || reader->status == 204 || reader->status == 304) return complete(reader, false);
  if (reader->is_chunked) return SIZE;
  if (!reader->has_length) return BODY_UNTIL_CLOSE;
  return reader->left ? BODY : complete(reader, false);
}

static enum state read_size(struct reader *reader, uint8_t byte) {
  uint8_t small = lower(byte);
  bool is_letter = small >= 'a' && small <= 'f';
  if (is_letter || (byte >= '0' && byte <= '9')) {
    if (reader->left > UINT64_MAX >> 4) return MALFORMED;
    reader->left = reader->left << 4 | (uint64_t)(is_letter ? small - 'a' + 10 : byte - '0');
    return SIZE_DIGITS;
  }
  if (reader->state == SIZE) return MALFORMED;
  return byte == ';' ? EXTENSION_NAME : byte == '\r' ? SIZE_LF : MALFORMED;
}

/* What may follow a chunk's size (RFC 9112, 7.1.1). */
static enum state read_extension(const struct reader *reader, uint8_t byte) {
  switch (reader->state) {
  case QUOTED: return byte == '"' ? QUOTED_END : byte == '\\' ? QUOTED_PAIR : is_field_byte(byte) ? QUOTED : MALFORMED;
  case QUOTED_PAIR: return is_field_byte(byte) ? QUOTED : MALFORMED;
  case QUOTED_END: break;
  case EXTENSION_VALUE:
    if (byte == '"') return QUOTED;
    if (is_token(byte)) return EXTENSION_VALUE;
    break;
  default:
    if (is_token(byte)) return EXTENSION_NAME_REST;
    if (reader->state == EXTENSION_NAME) return MALFORMED;
    if (byte == '=') return EXTENSION_VALUE;
  }
  return byte == ';' ? EXTENSION_NAME : byte == '\r' ? SIZE_LF : MALFORMED;
}

static enum state read_version(struct reader *reader, uint8_t byte) {
  if (reader->n < sizeof PROTOCOL - 1) return byte == (uint8_t)PROTOCOL[reader->n++] ? VERSION : MALFORMED;
  reader->is_old = byte == '0';
  return byte == '0' || byte == '1' ? BEFORE_STATUS : MALFORMED;
}

static enum state read_status(struct reader *reader, uint8_t byte) {
  if (byte < '0' || byte > '9') return MALFORMED;
  reader->status = (uint16_t)(reader->status * 10 + (byte - '0'));
  return ++reader->n < 3 ? STATUS : AFTER_STATUS;
}

static enum state read_name(struct reader *reader, uint8_t byte) {
  if (byte == '\r' && !reader->n) return HEADERS_LF;
  if (byte == ':' && reader->n) return end_name(reader);
  if (!is_token(byte)) return MALFORMED;
  add_to_word(reader, byte);
  return NAME;
}

/* One byte of what frames a body. Returns the next state. */
static enum state read_byte(struct reader *reader, uint8_t byte) {
  switch (reader->state) {
  case START:
    if (byte == '\r' || byte == '\n') return START;
    reader->touched = true;
    reader->n = 0;
    return read_version(reader, byte);
  case VERSION: return read_version(reader, byte);
  case BEFORE_STATUS: reader->n = 0; return byte == ' ' ? STATUS : MALFORMED;
  case STATUS: return read_status(reader, byte);
  case AFTER_STATUS: return byte == ' ' ? REASON : byte == '\r' ? STATUS_LF : MALFORMED;
  case REASON: return byte == '\r' ? STATUS_LF : byte == '\n' ? MALFORMED : REASON;
  case STATUS_LF:
  case VALUE_LF: reader->n = 0; return byte == '\n' ? NAME : MALFORMED;
  case NAME: return read_name(reader, byte);
  case BEFORE_VALUE:
  case VALUE: return read_value(reader, byte);
  case HEADERS_LF: return byte == '\n' ? end_headers(reader) : MALFORMED;
  case SIZE:
  case SIZE_DIGITS: return read_size(reader, byte);
  case SIZE_LF:
    if (byte != '\n') return MALFORMED;
    if (reader->left) return CHUNK;
    reader->in_trailers = true;
    reader->n = 0;
    return NAME;
  case CHUNK_CR: return byte == '\r' ? CHUNK_LF : MALFORMED;
  case CHUNK_LF: return byte == '\n' ? SIZE : MALFORMED;
  default: return read_extension(reader, byte);
  }
}

/* Skip what is body of `size` bytes. Returns how many of them that are. */
static size_t skip_body(struct reader *reader, size_t size) {
  reader->unended = 0;
  if (reader->state == BODY_UNTIL_CLOSE) return size;
  size_t skipped = size < reader->left ? size : (size_t)reader->left;
  reader->left -= skipped;
  if (!reader->left) reader->state = reader->state == CHUNK ? CHUNK_CR : complete(reader, false);
  return skipped;
}

enum outcome reader_feed(struct reader *reader, const uint8_t *data, size_t size) {
  size_t at = 0;
  while (at < size && reader->state != COMPLETE && reader->state != MALFORMED) {
    if (reader->state == BODY || reader->state == BODY_UNTIL_CLOSE || reader->state == CHUNK) {
      at += skip_body(reader, size - at);
      continue;
    }
    reader->state = reader->unended++ < MAXIMUM_HEAD_BYTES ? read_byte(reader, data[at++]) : MALFORMED;
  }
  if (reader->state == MALFORMED) return READ_MALFORMED;
  if (reader->state != COMPLETE) return READ_MORE;
  for (; at < size; at++) reader->surplus |= data[at] != '\r' && data[at] != '\n';
  reader->keep_alive &= !reader->surplus;
  return READ_COMPLETE;
}

bool reader_close(struct reader *reader) {
  reader->keep_alive = false;
  return reader->state == BODY_UNTIL_CLOSE;
}
