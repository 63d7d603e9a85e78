/* Writes and reads a file in calls of one size: `files FILE CALL SIZE PASSES`, sizes in bytes.
 *
 * Prints two numbers of MB a second, of writing and of reading; the file is written once before, so that
 * its pages are there. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* MB a second of going through the file some times. */
static double work(int fd, char *buffer, size_t call, size_t size, unsigned long passes, int writes) {
    double begin = now();
    for (unsigned long pass = 0; pass < passes; pass++) {
        if (lseek(fd, 0, SEEK_SET) != 0)
            fail("lseek");
        for (size_t done = 0; done < size; done += call) {
            ssize_t n = writes ? write(fd, buffer, call) : read(fd, buffer, call);
            if (n != (ssize_t)call)
                fail(writes ? "write" : "read");
        }
    }
    return (double)size * (double)passes / 1e6 / (now() - begin);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "usage: files FILE CALL SIZE PASSES\n");
        return 2;
    }
    size_t call = strtoul(argv[2], NULL, 10), size = strtoul(argv[3], NULL, 10);
    unsigned long passes = strtoul(argv[4], NULL, 10);
    char *buffer = malloc(call);
    int fd = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || buffer == NULL)
        fail(argv[1]);
    memset(buffer, 'x', call);
    work(fd, buffer, call, size, 1, 1);
    double written = work(fd, buffer, call, size, passes, 1);
    double read = work(fd, buffer, call, size, passes, 0);
    printf("%.1f %.1f\n", written, read);
    close(fd);
    unlink(argv[1]);
    return 0;
}
