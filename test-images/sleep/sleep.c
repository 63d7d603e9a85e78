// Says that it runs, sleeps for the seconds given as the first argument (an hour without one)
// and says that it is done. Uses no processor time: for kill, stop, pause and long-lived guests.
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 3600;
    struct timespec wish = {(time_t)seconds, (long)((seconds - (long)seconds) * 1e9)};
    puts("sleeping");
    fflush(stdout);
    if (nanosleep(&wish, NULL) != 0) {
        perror("nanosleep");
        return 1;
    }
    puts("awake");
    return 0;
}
