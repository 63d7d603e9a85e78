/*
 * Says who it runs as: in its image it is root's and has the set-user-ID bit, which no_new_privs makes void.
 */
#include <stdio.h>
#include <unistd.h>

int main(void) {
    printf("Effective uid: %d\n", (int)geteuid());
    return 0;
}
