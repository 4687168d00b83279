/* System calls, made directly: the launcher is linked with no C library. Each returns what the kernel returned:
 * a negative number is -errno. */
#ifndef TESTBED_SYS_H
#define TESTBED_SYS_H

#include <asm/unistd.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__clang_analyzer__) /* it does not see that a call writes where it is told to */
long sys6(long number, long a, long b, long c, long d, long e, long f);
#else
static inline long sys6(long number, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  long result = number;
  __asm__ volatile("syscall" : "+a"(result) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  register long x4 __asm__("x4") = e;
  register long x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
#else
#error "no system call convention for this processor"
#endif
}
#endif

#define SYS_6(number, a, b, c, d, e, f, ...) sys6(number, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* SYS(openat, directory, path, flags): the call by its name; numbers and pointers alike, and what is left out is 0. */
#define SYS(name, ...) SYS_6(__NR_##name __VA_OPT__(, ) __VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)
/* The same, again for as long as a signal interrupts it. */
#define SYS_AGAIN(name, ...) \
  ({ \
    long result_; \
    do result_ = SYS(name, __VA_ARGS__); \
    while (result_ == -EINTR); \
    result_; \
  })

/* A descriptor that is closed at the end of its block, if it is one. */
#define OWNED __attribute__((cleanup(close_owned)))
static inline void close_owned(const int *fd) {
  if (*fd >= 0) SYS(close, *fd);
}

/* The few functions of a C library that are used, or that the compiler calls by itself (start.c). */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int value, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *text);

#endif
