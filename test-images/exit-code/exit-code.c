// Exits with the number given as the first argument, 42 without one.
#include <stdlib.h>

int main(int argc, char **argv) {
    exit(argc > 1 ? atoi(argv[1]) : 42);
}
