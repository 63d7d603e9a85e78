/* Calls one function of WASI preview 1 over and over: NAME COUNT. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wasi/api.h>

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "";
    unsigned long count = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    uint64_t sum = 0;
    if (!strcmp(name, "args_sizes_get")) {
        while (count--) {
            __wasi_size_t a, b;
            sum += __wasi_args_sizes_get(&a, &b) + a;
        }
    } else if (!strcmp(name, "clock_time_get")) {
        while (count--) {
            __wasi_timestamp_t now;
            sum += __wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, &now);
        }
    } else if (!strcmp(name, "sched_yield")) {
        while (count--)
            sum += __wasi_sched_yield();
    } else if (!strcmp(name, "random_get")) {
        while (count--) {
            uint8_t bytes[8];
            sum += __wasi_random_get(bytes, sizeof bytes);
        }
    } else if (!strcmp(name, "fd_fdstat_get")) {
        while (count--) {
            __wasi_fdstat_t stat;
            sum += __wasi_fd_fdstat_get(1, &stat);
        }
    } else if (!strcmp(name, "fd_write")) {
        uint8_t byte = '\n';
        __wasi_ciovec_t one = {&byte, 1};
        while (count--) {
            __wasi_size_t written;
            sum += __wasi_fd_write(1, &one, 1, &written);
        }
    } else {
        return 2;
    }
    return sum && strcmp(name, "args_sizes_get") ? 1 : 0;
}
