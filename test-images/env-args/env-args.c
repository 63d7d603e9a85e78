// Prints the arguments in order and the environment sorted by bytes.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern char **environ;

static int by_bytes(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) printf("arg %d: %s\n", i, argv[i]);
    size_t count = 0;
    while (environ[count]) count++;
    qsort(environ, count, sizeof *environ, by_bytes);
    for (size_t i = 0; i < count; i++) printf("env %s\n", environ[i]);
    return 0;
}
