/* What the kernels share: the amount of work from the command line, and a small generator of
 * pseudo-random numbers (xorshift64*, Vigna 2016), the same on every platform. */
#ifndef CORPUS_H
#define CORPUS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How often to repeat the work: the first argument, or the given number. */
static inline unsigned long work(int argc, char **argv, unsigned long otherwise) {
    return argc > 1 ? strtoul(argv[1], NULL, 10) : otherwise;
}

static uint64_t random_state = 0x9e3779b97f4a7c15u;

static inline uint64_t random64(void) {
    uint64_t x = random_state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    random_state = x;
    return x * 0x2545f4914f6cdd1du;
}

/* Mixes a number into a running checksum (FNV-1a over 64-bit words). */
static inline uint64_t mix(uint64_t sum, uint64_t word) { return (sum ^ word) * 0x100000001b3u; }

#endif
