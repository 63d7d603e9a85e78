/* Sockets of its own, in WAMR's dialect:
 *
 *   serve PORT COUNT   answers COUNT requests of HTTP at every address of the machine
 *   get HOST PORT      requests / and prints the answer
 *   echo PORT COUNT    sends COUNT datagrams back to where they came from
 *   resolve NAME       prints the addresses of NAME, one a line
 *
 * A call that fails prints its name and error number, and ends the program with 1. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "wamr_socket.h"

static void check(const char *what, uint32_t error) {
    if (error == 0) {
        return;
    }
    fprintf(stderr, "%s: error %u\n", what, error);
    exit(1);
}

static int32_t open_at(uint32_t type, uint8_t first, const char *port) {
    uint8_t last = first == 127;
    struct address at = {.kind = INET4, .of.inet4 = {{first, 0, 0, last}, (uint16_t)atoi(port)}};
    int32_t fd = -1;
    bool on = false;
    check("sock_open", sock_open(-1, INET4, type, &fd));
    check("sock_set_reuse_addr", sock_set_reuse_addr(fd, true));
    check("sock_get_reuse_addr", sock_get_reuse_addr(fd, &on));
    check("sock_bind", on ? sock_bind(fd, &at) : 1);
    return fd;
}

/* Reads up to the empty line that ends a request. */
static void read_request(int32_t fd) {
    char request[4096] = {0};
    size_t len = 0;
    while (len < sizeof request - 1 && strstr(request, "\r\n\r\n") == NULL) {
        ssize_t more = read(fd, request + len, sizeof request - 1 - len);
        if (more <= 0) {
            break;
        }
        len += (size_t)more;
    }
}

static void serve(const char *port, int count) {
    static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-length: 13\r\nconnection: close\r\n\r\n"
                                 "hello from C\n";
    int32_t listener = open_at(STREAM, 0, port);
    check("sock_listen", sock_listen(listener, 16));
    printf("serving\n");
    fflush(stdout);
    while (count-- > 0) {
        int32_t fd = -1;
        struct address peer;
        check("sock_accept", sock_accept(listener, 0, &fd));
        check("sock_addr_remote", sock_addr_remote(fd, &peer));
        read_request(fd);
        if (write(fd, answer, sizeof answer - 1) != (ssize_t)(sizeof answer - 1)) {
            check("write", 1);
        }
        check("sock_close", sock_close(fd));
    }
}

static uint32_t look_up(const char *host, const char *service, struct address_info *list) {
    struct hints hints = {.type = STREAM, .family = ANY_FAMILY, .enabled = 1};
    uint32_t found = 0;
    check("sock_addr_resolve", sock_addr_resolve(host, service, &hints, list, 8, &found));
    return found < 8 ? found : 8;
}

static void get(const char *host, const char *port) {
    static const char request[] = "GET / HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n";
    struct address_info list[8];
    char bytes[4096];
    int32_t fd = -1;
    ssize_t len;
    look_up(host, port, list);
    check("sock_open", sock_open(-1, list[0].address.kind, STREAM, &fd));
    check("sock_connect", sock_connect(fd, &list[0].address));
    if (write(fd, request, sizeof request - 1) < 0) {
        check("write", 1);
    }
    while ((len = read(fd, bytes, sizeof bytes)) > 0) {
        fwrite(bytes, 1, (size_t)len, stdout);
    }
}

static void echo(const char *port, int count) {
    char bytes[2048];
    uint64_t micros = 0;
    int32_t fd = open_at(DATAGRAM, 127, port);
    check("sock_set_recv_timeout", sock_set_recv_timeout(fd, 30000000));
    check("sock_get_recv_timeout", sock_get_recv_timeout(fd, &micros));
    check("time limit", micros != 30000000);
    printf("echoing\n");
    fflush(stdout);
    while (count-- > 0) {
        struct buffer buffer = {bytes, sizeof bytes};
        struct address from;
        uint32_t len = 0;
        check("sock_recv_from", sock_recv_from(fd, &buffer, 1, 0, &from, &len));
        buffer.len = len;
        check("sock_send_to", sock_send_to(fd, &buffer, 1, 0, &from, &len));
    }
}

static void resolve(const char *name) {
    struct address_info list[8];
    uint32_t count = look_up(name, "http", list);
    for (uint32_t n = 0; n < count; n++) {
        const struct address *address = &list[n].address;
        if (address->kind == INET4) {
            const uint8_t *octets = address->of.inet4.octets;
            printf("%u.%u.%u.%u port %u\n", octets[0], octets[1], octets[2], octets[3],
                   address->of.inet4.port);
        } else {
            for (int group = 0; group < 8; group++) {
                printf("%x%c", address->of.inet6.groups[group], group < 7 ? ':' : ' ');
            }
            printf("port %u\n", address->of.inet6.port);
        }
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (strcmp(what, "serve") == 0 && argc == 4) {
        serve(argv[2], atoi(argv[3]));
    } else if (strcmp(what, "get") == 0 && argc == 4) {
        get(argv[2], argv[3]);
    } else if (strcmp(what, "echo") == 0 && argc == 4) {
        echo(argv[2], atoi(argv[3]));
    } else if (strcmp(what, "resolve") == 0 && argc == 3) {
        resolve(argv[2]);
    } else {
        fprintf(stderr, "usage: serve PORT COUNT | get HOST PORT | echo PORT COUNT | resolve NAME\n");
        return 2;
    }
    return 0;
}
