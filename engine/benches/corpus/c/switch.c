/* A loop around one switch with many cases, taken in an order that looks random: jump tables and
 * mispredicted branches, as in the main loop of an interpreter. */
#include "corpus.h"

enum { PROGRAM = 1 << 16 };
static uint8_t program[PROGRAM];

__attribute__((noinline)) static uint64_t interpret(uint64_t acc) {
    uint64_t other = ~acc;
    for (unsigned pc = 0; pc < PROGRAM; pc++) {
        switch (program[pc]) {
        case 0: acc += 17; break;
        case 1: acc -= other; break;
        case 2: acc ^= other << 3; break;
        case 3: acc *= 5; break;
        case 4: other += acc; break;
        case 5: other ^= acc >> 7; break;
        case 6: acc = acc << 11 | acc >> 53; break;
        case 7: other = other << 29 | other >> 35; break;
        case 8: if (acc & 1) other += 3; break;
        case 9: if (other & 4) acc -= 9; break;
        case 10: { uint64_t t = acc; acc = other; other = t; break; }
        case 11: acc |= other & 0xff; break;
        case 12: acc &= ~(other & 0xf0f); break;
        case 13: other = other * 3 + 1; break;
        case 14: acc += other & 0x7f; break;
        case 15: acc ^= acc >> 33; break;
        case 16: other ^= other << 21; break;
        case 17: acc += 0x1234567; break;
        case 18: pc += acc & 1; break;
        case 19: other -= 77; break;
        case 20: acc = acc > other ? acc - other : other - acc; break;
        case 21: other = acc < other ? other ^ 0x5555 : other + 0x3333; break;
        case 22: acc = (acc >> 1) + (other >> 1); break;
        case 23: acc += __builtin_popcountll(other); break;
        default: other += program[(pc + (acc & 0xff)) % PROGRAM]; break;
        }
    }
    return acc ^ other;
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 2000);
    for (unsigned i = 0; i < PROGRAM; i++)
        program[i] = (uint8_t)(random64() % 28);
    uint64_t acc = 1;
    while (count--)
        acc = interpret(acc);
    printf("%016llx\n", (unsigned long long)acc);
    return 0;
}
