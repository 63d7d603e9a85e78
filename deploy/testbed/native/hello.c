/*
 * The guest of the test bed's own check: a native Linux program, so that what fails with it is the bed's fault and not the
 * shim's.
 *
 *   hello               prints a greeting
 *   hello args ...      prints its arguments, one a line
 *   hello cat           copies standard input to standard output
 *   hello exit N        ends with status N
 *   hello sleep         says "sleeping" and waits for a signal
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int cat(void) {
    char buffer[4096];
    ssize_t got;
    while ((got = read(0, buffer, sizeof buffer)) > 0)
        if (write(1, buffer, (size_t)got) != got)
            return 1;
    return got < 0;
}

int main(int argc, char **argv) {
    const char *verb = argc > 1 ? argv[1] : "";
    if (strcmp(verb, "args") == 0) {
        for (int i = 2; i < argc; i++)
            puts(argv[i]);
        return 0;
    }
    if (strcmp(verb, "cat") == 0)
        return cat();
    if (strcmp(verb, "exit") == 0 && argc > 2)
        return atoi(argv[2]);
    if (strcmp(verb, "sleep") == 0) {
        puts("sleeping");
        fflush(stdout);
        pause();
        return 0;
    }
    puts("hello from the test bed");
    return 0;
}
