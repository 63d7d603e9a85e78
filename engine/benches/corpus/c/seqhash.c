/* A memory-hard sequential hash: each step reads a place that the one before decides, and mixes it by
 * a 64-bit multiplication. Latency of loads and of multiplication. */
#include "corpus.h"

enum { WORDS = 1 << 15 };
static uint64_t memory[WORDS];

__attribute__((noinline)) static uint64_t pass(uint64_t state) {
    for (unsigned i = 0; i < WORDS; i++) {
        uint64_t *place = &memory[(state ^ i) % WORDS];
        state = (state ^ *place) * 0xff51afd7ed558ccdu;
        state ^= state >> 29 | i;
        *place = state + memory[i];
        state = (state << 17 | state >> 47) + 0xc4ceb9fe1a85ec53u;
    }
    return state;
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 3000);
    uint64_t state = 1;
    for (unsigned i = 0; i < WORDS; i++)
        memory[i] = random64();
    while (count--)
        state = pass(state);
    printf("%016llx\n", (unsigned long long)state);
    return 0;
}
