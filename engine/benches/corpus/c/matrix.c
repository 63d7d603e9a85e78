/* Products of square matrices, of doubles and of integers, written the plain way. */
#include "corpus.h"

enum { N = 200 };
static double a[N][N], b[N][N], c[N][N];
static int32_t ia[N][N], ib[N][N], ic[N][N];

__attribute__((noinline)) static void multiply(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            double sum = 0;
            for (int k = 0; k < N; k++)
                sum += a[i][k] * b[k][j];
            c[i][j] = sum;
        }
}

__attribute__((noinline)) static void multiply_integers(void) {
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            uint32_t sum = 0;
            for (int k = 0; k < N; k++)
                sum += (uint32_t)ia[i][k] * (uint32_t)ib[k][j];
            ic[i][j] = (int32_t)sum;
        }
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 60);
    uint64_t sum = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (double)(random64() % 1000) / 8;
            b[i][j] = (double)(random64() % 1000) / 16;
            ia[i][j] = (int32_t)random64();
            ib[i][j] = (int32_t)random64();
        }
    while (count--) {
        multiply();
        multiply_integers();
        for (int i = 0; i < N; i++) {
            uint64_t bits;
            memcpy(&bits, &c[i][N - 1 - i], sizeof bits);
            sum = mix(mix(sum, bits), (uint32_t)ic[i][i]);
            a[i][i] += 1;
            ia[i][i] += 1;
        }
    }
    printf("%016llx\n", (unsigned long long)sum);
    return 0;
}
