/* The sieve of Eratosthenes, one byte a number: strided stores in tight loops. */
#include "corpus.h"

enum { LIMIT = 1 << 17 };
static uint8_t composite[LIMIT];

__attribute__((noinline)) static unsigned sieve(void) {
    unsigned primes = 0;
    memset(composite, 0, sizeof composite);
    for (unsigned i = 2; i < LIMIT; i++) {
        if (composite[i])
            continue;
        primes++;
        for (unsigned j = 2 * i; j < LIMIT; j += i)
            composite[j] = 1;
    }
    return primes;
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 1500);
    unsigned primes = 0;
    while (count--)
        primes = sieve();
    printf("%u primes below %d\n", primes, LIMIT);
    return 0;
}
