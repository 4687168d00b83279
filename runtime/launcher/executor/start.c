/* What a C library would bring: the entry point, the stack protector's secret, and the memory functions that
 * the compiler calls by itself. Left out of builds that are linked with a C library (sanitizers, the fuzzer). */
#include <linux/auxvec.h>

#include "steps.h"
#include "sys.h"

uintptr_t __stack_chk_guard = 0;
int main(int argc, char **argv, char **environment);

__attribute__((noreturn)) void __stack_chk_fail(void) {
  static const char words[] = "testbed: the launcher's stack is damaged\n";
  SYS(write, 2, words, sizeof words - 1);
  end_process(134);
}

__attribute__((noreturn, used, optimize("no-stack-protector"))) void start(long *stack) {
  int argc = (int)stack[0];
  char **argv = (char **)(stack + 1), **environment = argv + argc + 1;
  char **end = environment;
  while (*end) end++;
  for (long *entry = (long *)(end + 1); entry[0] != AT_NULL; entry += 2)
    if (entry[0] == AT_RANDOM) __stack_chk_guard = *(uintptr_t *)entry[1] & ~(uintptr_t)0xff;
  end_process(main(argc, argv, environment));
}

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall start\n\thlt\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x29, xzr\n\tmov x30, xzr\n\tmov x0, sp\n\tbl start\n\tbrk 0\n");
#endif

void *memcpy(void *to, const void *from, size_t n) {
  unsigned char *t = to;
  const unsigned char *f = from;
  while (n--) *t++ = *f++;
  return to;
}

void *memset(void *to, int value, size_t n) {
  unsigned char *t = to;
  while (n--) *t++ = (unsigned char)value;
  return to;
}

int memcmp(const void *a, const void *b, size_t n) {
  const unsigned char *x = a, *y = b;
  for (; n; n--, x++, y++)
    if (*x != *y) return *x - *y;
  return 0;
}

size_t strlen(const char *text) {
  size_t n = 0;
  while (text[n]) n++;
  return n;
}
