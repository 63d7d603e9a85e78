/* Compresses text made here at several levels, decompresses it and compares. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "zstd.h"

enum { SIZE = 2 << 20 };

/* Sentences of words whose frequency falls with their length, some repeated from before. */
static void make_text(char *text) {
    unsigned long long state = 0x9e3779b97f4a7c15u;
    size_t at = 0;
    while (at < SIZE) {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        unsigned x = (unsigned)(state * 0x2545f4914f6cdd1du >> 33);
        if (at > 4096 && x % 29 == 0) {
            size_t n = 20 + x % 200, from = x / 256 % (at - 300);
            for (; n-- && at < SIZE; at++)
                text[at] = text[from++];
        }
        for (unsigned n = 2 + (x >> 8) % 3 * ((x >> 12) % 4); n-- && at < SIZE; x = x * 1103515245u + 12345u)
            text[at++] = "etaoinshrdlucmfwypvbgkjqxz"[(x >> 16) % 26 * ((x >> 24) % 8) / 8];
        if (at < SIZE)
            text[at++] = ' ';
    }
}

int main(int argc, char **argv) {
    int rounds = argc > 1 ? atoi(argv[1]) : 3;
    size_t bound = ZSTD_compressBound(SIZE);
    char *text = malloc(SIZE), *packed = malloc(bound), *back = malloc(SIZE);
    if (!text || !packed || !back)
        return 1;
    make_text(text);
    for (int round = 0; round < rounds; round++) {
        static const int levels[] = {1, 3, 7, 12};
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
            size_t n = ZSTD_compress(packed, bound, text, SIZE, levels[i]);
            if (ZSTD_isError(n) || ZSTD_decompress(back, SIZE, packed, n) != SIZE || memcmp(text, back, SIZE))
                return 1;
            printf("level %d: %zu bytes\n", levels[i], n);
        }
        text[round * 4099]++;
    }
    return 0;
}
