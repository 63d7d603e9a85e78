// Says that it runs, then uses the processor for ever without a call or a memory access of its
// own: nothing but a signal ends it.
#include <stdio.h>

int main(void) {
    puts("spinning");
    fflush(stdout);
    for (;;) __asm__ volatile("");
}
