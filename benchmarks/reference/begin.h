/* The entry point of programs without a C library, whose own start takes half a millisecond in a virtual machine: it
 * asks the processor what it is, and each such question is an exit to the hypervisor. */
#include "sys.h"

__attribute__((noreturn, used)) void begin(char **stack);

#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tbl begin\n");
#endif
