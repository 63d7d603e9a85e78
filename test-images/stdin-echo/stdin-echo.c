// Copies stdin to stdout until end of file, then says on stderr how many bytes that were.
#include <stdio.h>
#include <unistd.h>

int main(void) {
    static char buffer[64 * 1024];
    unsigned long long total = 0;
    for (;;) {
        ssize_t got = read(0, buffer, sizeof buffer);
        if (got < 0) {
            perror("read");
            return 1;
        }
        if (got == 0) break;
        // Written through at once, so that an interactive reader sees its own line back.
        for (ssize_t at = 0; at < got;) {
            ssize_t put = write(1, buffer + at, (size_t)(got - at));
            if (put < 0) {
                perror("write");
                return 1;
            }
            at += put;
        }
        total += (unsigned long long)got;
    }
    fprintf(stderr, "%llu bytes\n", total);
    return 0;
}
