/* Loops that a compiler turns into vector code by itself (wasm: -msimd128): sums, saturation,
 * conversions, comparison and selection, strides, reductions, on bytes to doubles. */
#include "corpus.h"

enum { N = 4096 };
static uint8_t u8a[N], u8b[N], u8c[N];
static int16_t i16a[N], i16b[N], i16c[N];
static int32_t i32a[N], i32b[N], i32c[N];
static uint32_t u32a[N];
static float f32a[N], f32b[N], f32c[N];
static double f64a[N], f64b[N], f64c[N];

#define KERNEL __attribute__((noinline)) static
#define EACH for (int i = 0; i < N; i++)

KERNEL void add_bytes(void) { EACH u8c[i] = (uint8_t)(u8a[i] + u8b[i]); }
KERNEL void average_bytes(void) { EACH u8c[i] = (uint8_t)((u8a[i] + u8b[i] + 1) / 2); }
KERNEL void saturate_bytes(void) { EACH u8c[i] = (uint8_t)(u8a[i] + u8b[i] > 255 ? 255 : u8a[i] + u8b[i]); }
KERNEL void greatest_bytes(void) { EACH u8c[i] = u8a[i] > u8b[i] ? u8a[i] : u8b[i]; }
KERNEL void multiply_shorts(void) { EACH i16c[i] = (int16_t)(i16a[i] * i16b[i]); }
KERNEL void widen_shorts(void) { EACH i32c[i] = i16a[i] * i16b[i] + i32a[i]; }
KERNEL void narrow_words(void) { EACH i16c[i] = (int16_t)(i32a[i] >> 7); }
KERNEL void multiply_words(void) { EACH i32c[i] = (int32_t)((uint32_t)i32a[i] * (uint32_t)i32b[i] + 7u); }
KERNEL void choose_words(void) { EACH i32c[i] = i32a[i] > i32b[i] ? i32a[i] : -i32b[i]; }
KERNEL void mask_words(void) { EACH i32c[i] = (i32a[i] & i32b[i]) ^ (i32a[i] << 3 | (int32_t)(u32a[i] >> 29)); }
KERNEL void convert(void) { EACH f32c[i] = (float)i32a[i] * 0.5f; }
KERNEL void blend_floats(void) { EACH f32c[i] = f32a[i] * 0.75f + f32b[i] * 0.25f; }
KERNEL void choose_floats(void) { EACH f32c[i] = f32a[i] < f32b[i] ? f32a[i] : f32b[i]; }
KERNEL void root_doubles(void) { EACH f64c[i] = __builtin_sqrt(f64a[i]) + f64b[i]; }
KERNEL void blend_doubles(void) { EACH f64c[i] = f64a[i] * f64b[i] + f64c[i] * 0.5; }
KERNEL void stencil(void) {
    for (int i = 1; i < N - 1; i++)
        f32c[i] = (f32a[i - 1] + f32a[i] + f32a[i + 1]) * 0.333f;
}
KERNEL void every_other(void) {
    for (int i = 0; i < N / 2; i++)
        i32c[i] = i32a[2 * i] + i32b[2 * i + 1];
}
KERNEL uint32_t sum_bytes(void) {
    uint32_t sum = 0;
    EACH sum += u8a[i];
    return sum;
}
KERNEL uint32_t sum_products(void) {
    uint32_t sum = 0;
    EACH sum += (uint32_t)(i16a[i] * i16b[i]);
    return sum;
}
KERNEL uint32_t sum_differences(void) {
    uint32_t sum = 0;
    EACH sum += (uint32_t)abs(u8a[i] - u8b[i]);
    return sum;
}
KERNEL int32_t greatest_word(void) {
    int32_t greatest = i32a[0];
    EACH greatest = i32a[i] > greatest ? i32a[i] : greatest;
    return greatest;
}

static uint64_t checksum(uint64_t sum) {
    for (int i = 0; i < N; i += 37) {
        uint32_t bits;
        uint64_t wide;
        memcpy(&bits, &f32c[i], sizeof bits);
        memcpy(&wide, &f64c[i], sizeof wide);
        sum = mix(mix(mix(mix(sum, u8c[i]), (uint16_t)i16c[i]), (uint32_t)i32c[i]), bits);
        sum = mix(sum, wide);
    }
    return sum;
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 10000);
    uint64_t sum = 0;
    EACH {
        uint64_t x = random64();
        u8a[i] = (uint8_t)x, u8b[i] = (uint8_t)(x >> 8);
        i16a[i] = (int16_t)(x >> 16), i16b[i] = (int16_t)(x >> 32);
        i32a[i] = (int32_t)(x >> 7), i32b[i] = (int32_t)(x >> 29), u32a[i] = (uint32_t)(x >> 3);
        f32a[i] = (float)(x % 1000), f32b[i] = (float)(x % 777);
        f64a[i] = (double)(x % 100003), f64b[i] = (double)(x % 997);
    }
    for (unsigned long n = 0; n < count; n++) {
        add_bytes(), average_bytes();
        sum = mix(sum, u8c[n % N]);
        saturate_bytes(), greatest_bytes();
        multiply_shorts(), widen_shorts(), narrow_words(), multiply_words();
        sum = mix(sum, (uint32_t)i32c[n % N]);
        choose_words(), mask_words(), convert(), blend_floats(), choose_floats();
        root_doubles(), blend_doubles(), stencil();
        sum = mix(sum, (uint32_t)i32c[n * 31 % N]);
        every_other();
        sum = mix(sum, sum_bytes() ^ sum_products() ^ sum_differences());
        sum = mix(sum, (uint32_t)greatest_word());
        u8a[n % N]++, i16a[n % N]++, i32a[n % N]++;
    }
    printf("%016llx\n", (unsigned long long)checksum(sum));
    return 0;
}
