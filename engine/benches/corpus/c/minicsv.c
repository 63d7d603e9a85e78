/* Reads a table of comma-separated values, made in memory, character by character: quotes, numbers,
 * sums by column, text to a small hash table. Branches and byte loads, and calls of small functions. */
#include "corpus.h"

enum { COLUMNS = 6, ROWS = 4000, NAMES = 1024 };

static char *text;
static size_t length;

static void put(const char *s) {
    size_t n = strlen(s);
    memcpy(text + length, s, n);
    length += n;
}

static void generate(void) {
    static const char *const words[] = {"alpha", "beta", "gamma \"ray\"", "delta, epsilon", "zeta", "eta"};
    char field[64];
    text = malloc((size_t)ROWS * COLUMNS * 32);
    if (!text)
        exit(1);
    for (int row = 0; row < ROWS; row++) {
        for (int column = 0; column < COLUMNS; column++) {
            uint64_t x = random64();
            if (column)
                put(",");
            if (column == 2) {
                put("\"");
                for (const char *s = words[x % 6]; *s; s++) {
                    char one[3] = {*s, *s == '"' ? '"' : 0, 0};
                    put(one);
                }
                put("\"");
            } else if (column == 4) {
                snprintf(field, sizeof field, "name%u", (unsigned)(x % 700));
                put(field);
            } else {
                snprintf(field, sizeof field, "%d.%02u", (int)(x % 20001) - 10000, (unsigned)(x >> 40) % 100);
                put(field);
            }
        }
        put("\r\n");
    }
}

struct reader {
    const char *at, *end;
    char field[128];
    size_t size;
};

__attribute__((noinline)) static void append(struct reader *r, char c) {
    if (r->size < sizeof r->field - 1)
        r->field[r->size++] = c;
}

/* Reads one field; whether it was the row's last. */
static int next_field(struct reader *r) {
    int quoted = 0;
    r->size = 0;
    while (r->at < r->end) {
        char c = *r->at++;
        if (quoted) {
            if (c != '"')
                append(r, c);
            else if (r->at < r->end && *r->at == '"')
                append(r, *r->at++);
            else
                quoted = 0;
        } else if (c == '"') {
            quoted = 1;
        } else if (c == ',') {
            r->field[r->size] = 0;
            return 0;
        } else if (c == '\n') {
            break;
        } else if (c != '\r') {
            append(r, c);
        }
    }
    r->field[r->size] = 0;
    return 1;
}

/* Hundredths. */
static int64_t number(const char *s) {
    int64_t value = 0;
    int negative = *s == '-', digits = -1;
    for (s += negative; *s; s++) {
        if (*s == '.') {
            digits = 0;
        } else if (*s >= '0' && *s <= '9' && digits < 2) {
            value = value * 10 + (*s - '0');
            digits += digits >= 0;
        }
    }
    return negative ? -value : value;
}

static uint32_t counts[NAMES];

static void count_name(const char *s, size_t n) {
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (uint8_t)s[i]) * 16777619u;
    counts[hash % NAMES]++;
}

int main(int argc, char **argv) {
    unsigned long count = work(argc, argv, 150);
    int64_t sums[COLUMNS] = {0};
    uint64_t rows = 0, sum = 0;
    generate();
    while (count--) {
        struct reader r = {.at = text, .end = text + length};
        while (r.at < r.end) {
            int column = 0;
            for (int last = 0; !last; column++) {
                last = next_field(&r);
                if (column == 2 || column == 4)
                    count_name(r.field, r.size);
                else if (column < COLUMNS)
                    sums[column] += number(r.field);
            }
            rows += column == COLUMNS;
        }
    }
    for (int i = 0; i < NAMES; i++)
        sum = mix(sum, counts[i]);
    printf("%llu rows, %lld %lld %lld %lld, %016llx\n", (unsigned long long)rows, (long long)sums[0],
           (long long)sums[1], (long long)sums[3], (long long)sums[5], (unsigned long long)sum);
    free(text);
    return 0;
}
