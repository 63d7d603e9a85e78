// Traps in the way named by the first argument ("unreachable" without one), three named calls
// below main, so that a backtrace can be checked: main, outer, middle, inner_<way>.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CALL __attribute__((noinline))

// Volatile, so that no trap is decided, and no call removed, at compile time.
static volatile int zero = 0;
static volatile uintptr_t beyond = 0xfffffff0u;
static volatile int sink;

static CALL int inner_unreachable(void) {
    if (zero == 0) __builtin_trap();
    return 1;
}

static CALL int inner_divide(void) {
    volatile int seven = 7;
    return seven / zero;
}

static CALL int inner_overflow(void) {
    // INT_MIN / -1 is undefined in C and a trap of its own in WebAssembly.
    volatile int minus_one = -1, min = (-2147483647 - 1);
    return min / minus_one;
}

static CALL int inner_memory(void) {
    return *(volatile int *)beyond;
}

static CALL int inner_stack(int depth) {
    // The addition after the call keeps it from becoming a loop.
    return inner_stack(depth + 1) + zero;
}

static CALL int inner_signature(void) {
    // A call through a pointer of another type: an indirect call type mismatch.
    int (*volatile wrong)(double) = (int (*)(double))(uintptr_t)inner_unreachable;
    return wrong(1.0);
}

static CALL int inner_null(void) {
    int (*volatile null)(void) = 0;
    return null();
}

static CALL int inner_abort(void) {
    if (zero == 0) abort();
    return 1;
}

static CALL int middle(const char *way) {
    if (!strcmp(way, "unreachable")) return inner_unreachable() + 1;
    if (!strcmp(way, "divide")) return inner_divide() + 1;
    if (!strcmp(way, "overflow")) return inner_overflow() + 1;
    if (!strcmp(way, "memory")) return inner_memory() + 1;
    if (!strcmp(way, "stack")) return inner_stack(0) + 1;
    if (!strcmp(way, "signature")) return inner_signature() + 1;
    if (!strcmp(way, "null")) return inner_null() + 1;
    if (!strcmp(way, "abort")) return inner_abort() + 1;
    fprintf(stderr, "trap: unknown way: %s\n", way);
    exit(125);
}

static CALL int outer(const char *way) {
    return middle(way) + 1;
}

int main(int argc, char **argv) {
    const char *way = argc > 1 ? argv[1] : "unreachable";
    // Flushed before the trap: whatever a guest wrote must reach its reader.
    printf("about to trap: %s\n", way);
    fflush(stdout);
    sink = outer(way) + 1;
    printf("still alive: %d\n", sink);
    return 1;
}
