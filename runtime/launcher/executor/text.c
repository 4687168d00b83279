#include "text.h"

void add(struct text *text, const char *more) {
  for (; *more && text->n + 1 < sizeof text->bytes; more++) text->bytes[text->n++] = *more;
  text->bytes[text->n] = 0;
  text->cut |= *more != 0;
}

void add_number(struct text *text, long value) {
  char digits[24];
  int at = sizeof digits - 1;
  digits[at] = 0;
  unsigned long rest = value < 0 ? -(unsigned long)value : (unsigned long)value;
  do digits[--at] = (char)('0' + rest % 10); while (rest /= 10);
  if (value < 0) digits[--at] = '-';
  add(text, digits + at);
}
