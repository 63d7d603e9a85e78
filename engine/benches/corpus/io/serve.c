/* A server on one thread: `serve echo|http PORT` at 127.0.0.1.
 *
 * As `echo` it sends back what it gets; as `http` it answers each request with the same 200 bytes of text and
 * keeps the connection. The guest's build has sockets in WasmEdge's dialect, second generation; waiting is
 * poll(2), which a guest's C library makes of poll_oneoff. It prints a line when it listens, and ends when
 * its standard input does. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST = 256, BUFFER = 16384 };

static void fail(const char *what) {
    perror(what);
    exit(1);
}

#ifdef __wasi__
#define IMPORT(name) __attribute__((import_module("wasi_snapshot_preview1"), import_name(name)))
struct place {
    void *bytes;
    uint32_t len;
};
IMPORT("sock_open") uint32_t wasm_open(uint32_t family, uint32_t type, int32_t *fd);
IMPORT("sock_bind_v2") uint32_t wasm_bind(int32_t fd, struct place *address, uint32_t port);
IMPORT("sock_listen_v2") uint32_t wasm_listen(int32_t fd, uint32_t backlog);
IMPORT("sock_accept_v2") uint32_t wasm_accept(int32_t fd, uint32_t flags, int32_t *accepted);

static int listen_at(uint16_t port) {
    uint8_t storage[128] = {1, 0, 127, 0, 0, 1};
    struct place place = {storage, sizeof storage};
    int32_t fd = -1;
    if (wasm_open(1, 2, &fd) || wasm_bind(fd, &place, port) || wasm_listen(fd, 128))
        fail("listening");
    return fd;
}

static int take(int listener) {
    int32_t fd = -1;
    errno = (int)wasm_accept(listener, 0, &fd);
    return errno ? -1 : fd;
}
#else
#include <netinet/in.h>
#include <netinet/tcp.h>

static int listen_at(uint16_t port) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 128))
        fail("listening");
    return fd;
}

static int take(int listener) { return accept(listener, NULL, NULL); }
#endif

static char answer[512];
static size_t answer_len;

static void make_answer(void) {
    char text[201];
    memset(text, 'w', 200);
    text[200] = 0;
    answer_len = (size_t)snprintf(answer, sizeof answer,
                                  "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 200\r\n\r\n%s", text);
}

static int send_all(int fd, const char *bytes, size_t len) {
    while (len > 0) {
        ssize_t n = send(fd, bytes, len, 0);
        if (n <= 0)
            return -1;
        bytes += n;
        len -= (size_t)n;
    }
    return 0;
}

/* Serves what has come; not 0 if the connection is over. A request comes in one piece: its sender waits
 * for each answer. */
static int serve(int fd, int http) {
    static char bytes[BUFFER];
    ssize_t n = recv(fd, bytes, sizeof bytes, 0);
    if (n <= 0)
        return -1;
    if (!http)
        return send_all(fd, bytes, (size_t)n);
    if (n < 4 || memcmp(bytes + n - 4, "\r\n\r\n", 4) != 0)
        return -1;
    return send_all(fd, answer, answer_len);
}

int main(int argc, char **argv) {
    static struct pollfd fds[MOST];
    nfds_t count = 2;
    if (argc != 3) {
        fprintf(stderr, "usage: serve echo|http PORT\n");
        return 2;
    }
    int http = strcmp(argv[1], "http") == 0;
    make_answer();
    fds[0] = (struct pollfd){.fd = 0, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = listen_at((uint16_t)atoi(argv[2])), .events = POLLIN};
    printf("serving\n");
    fflush(stdout);
    while (poll(fds, count, -1) > 0) {
        if (fds[0].revents)
            return 0;
        for (nfds_t n = count; n-- > 2;) {
            if (fds[n].revents && serve(fds[n].fd, http) != 0) {
                close(fds[n].fd);
                fds[n] = fds[--count];
            }
        }
        if (fds[1].revents && count < MOST) {
            int fd = take(fds[1].fd);
            if (fd >= 0)
                fds[count++] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
    }
    fail("poll");
}
