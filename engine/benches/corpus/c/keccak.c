/* The permutation Keccak-f[1600] (FIPS 202, section 3.3) over and over: 64-bit rotations and
 * exclusive-ors on 25 lanes, far more live values than registers. */
#include "corpus.h"

static const uint64_t ROUND[24] = {
    0x0000000000000001u, 0x0000000000008082u, 0x800000000000808au, 0x8000000080008000u,
    0x000000000000808bu, 0x0000000080000001u, 0x8000000080008081u, 0x8000000000008009u,
    0x000000000000008au, 0x0000000000000088u, 0x0000000080008009u, 0x000000008000000au,
    0x000000008000808bu, 0x800000000000008bu, 0x8000000000008089u, 0x8000000000008003u,
    0x8000000000008002u, 0x8000000000000080u, 0x000000000000800au, 0x800000008000000au,
    0x8000000080008081u, 0x8000000000008080u, 0x0000000080000001u, 0x8000000080008008u,
};

/* Rotation of the lane at 5 * y + x. */
static const unsigned ROTATION[25] = {
    0, 1, 62, 28, 27, 36, 44, 6, 55, 20, 3, 10, 43, 25, 39, 41, 45, 15, 21, 8, 18, 2, 61, 56, 14,
};

static inline uint64_t rotate(uint64_t x, unsigned n) { return n ? x << n | x >> (64 - n) : x; }

static void permute(uint64_t a[25]) {
    for (int round = 0; round < 24; round++) {
        uint64_t c[5], b[25];
        for (int x = 0; x < 5; x++)
            c[x] = a[x] ^ a[x + 5] ^ a[x + 10] ^ a[x + 15] ^ a[x + 20];
        for (int x = 0; x < 5; x++) {
            uint64_t d = c[(x + 4) % 5] ^ rotate(c[(x + 1) % 5], 1);
            for (int y = 0; y < 25; y += 5)
                a[y + x] ^= d;
        }
        for (int y = 0; y < 5; y++)
            for (int x = 0; x < 5; x++)
                b[5 * ((2 * x + 3 * y) % 5) + y] = rotate(a[5 * y + x], ROTATION[5 * y + x]);
        for (int y = 0; y < 25; y += 5)
            for (int x = 0; x < 5; x++)
                a[y + x] = b[y + x] ^ (~b[y + (x + 1) % 5] & b[y + (x + 2) % 5]);
        a[0] ^= ROUND[round];
    }
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 1000000);
    uint64_t state[25] = {0};
    permute(state);
    /* The standard's example: the first lane of the permuted zero state. */
    printf("%016llx\n", (unsigned long long)state[0]);
    while (count--)
        permute(state);
    uint64_t sum = 0;
    for (int i = 0; i < 25; i++)
        sum = mix(sum, state[i]);
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
