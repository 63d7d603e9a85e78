/* Base64 (RFC 4648, section 4) there and back: table look-ups, shifts, byte stores. */
#include "corpus.h"

static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static int8_t value[256];

enum { SIZE = 3 << 16 };
static uint8_t plain[SIZE], decoded[SIZE];
static char coded[SIZE / 3 * 4];

__attribute__((noinline)) static void encode(const uint8_t *in, size_t n, char *out) {
    for (size_t i = 0; i < n; i += 3) {
        uint32_t bits = (uint32_t)in[i] << 16 | (uint32_t)in[i + 1] << 8 | in[i + 2];
        *out++ = ALPHABET[bits >> 18];
        *out++ = ALPHABET[bits >> 12 & 63];
        *out++ = ALPHABET[bits >> 6 & 63];
        *out++ = ALPHABET[bits & 63];
    }
}

__attribute__((noinline)) static int decode(const char *in, size_t n, uint8_t *out) {
    int bad = 0;
    for (size_t i = 0; i < n; i += 4) {
        int a = value[(uint8_t)in[i]], b = value[(uint8_t)in[i + 1]];
        int c = value[(uint8_t)in[i + 2]], d = value[(uint8_t)in[i + 3]];
        bad |= a | b | c | d;
        *out++ = (uint8_t)(a << 2 | b >> 4);
        *out++ = (uint8_t)(b << 4 | c >> 2);
        *out++ = (uint8_t)(c << 6 | d);
    }
    return bad >= 0;
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 800);
    uint64_t sum = 0;
    memset(value, -1, sizeof value);
    for (int i = 0; i < 64; i++)
        value[(uint8_t)ALPHABET[i]] = (int8_t)i;
    for (int i = 0; i < SIZE; i++)
        plain[i] = (uint8_t)(random64() >> 56);
    for (unsigned long i = 0; i < count; i++) {
        encode(plain, SIZE, coded);
        sum = mix(sum, (uint8_t)coded[i * 7919 % sizeof coded]);
        if (!decode(coded, sizeof coded, decoded) || memcmp(plain, decoded, SIZE))
            return 1;
        plain[i * 31 % SIZE] ^= (uint8_t)i;
    }
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
