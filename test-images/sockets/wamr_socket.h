/* WAMR's socket extension as a program imports it: types and functions that sockets.c uses. */
#ifndef WAMR_SOCKET_H
#define WAMR_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { INET4 = 0, INET6 = 1, ANY_FAMILY = 2 };
enum { DATAGRAM = 0, STREAM = 1 };

/* Groups and ports are in the host's byte order. */
struct address {
    uint32_t kind;
    union {
        struct {
            uint8_t octets[4];
            uint16_t port;
        } inet4;
        struct {
            uint16_t groups[8];
            uint16_t port;
        } inet6;
    } of;
};
_Static_assert(sizeof(struct address) == 24, "as the host has it");

struct address_info {
    struct address address;
    uint32_t type;
};

struct hints {
    uint32_t type;
    uint32_t family;
    uint8_t enabled;
};
_Static_assert(sizeof(struct hints) == 12, "as the host has it");

struct buffer {
    void *bytes;
    size_t len;
};

#define FROM_HOST(name) \
    __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name)))

FROM_HOST(sock_open) uint32_t sock_open(int32_t pool, uint32_t family, uint32_t type, int32_t *fd);
FROM_HOST(sock_bind) uint32_t sock_bind(int32_t fd, struct address *at);
FROM_HOST(sock_listen) uint32_t sock_listen(int32_t fd, uint32_t backlog);
FROM_HOST(sock_accept) uint32_t sock_accept(int32_t fd, uint32_t flags, int32_t *accepted);
FROM_HOST(sock_connect) uint32_t sock_connect(int32_t fd, struct address *to);
FROM_HOST(sock_recv_from)
uint32_t sock_recv_from(int32_t fd, struct buffer *to, uint32_t count, uint32_t flags,
                        struct address *from, uint32_t *len);
FROM_HOST(sock_send_to)
uint32_t sock_send_to(int32_t fd, const struct buffer *from, uint32_t count, uint32_t flags,
                      const struct address *to, uint32_t *len);
FROM_HOST(sock_addr_local) uint32_t sock_addr_local(int32_t fd, struct address *local);
FROM_HOST(sock_addr_remote) uint32_t sock_addr_remote(int32_t fd, struct address *peer);
FROM_HOST(sock_addr_resolve)
uint32_t sock_addr_resolve(const char *host, const char *service, const struct hints *hints,
                           struct address_info *list, uint32_t most, uint32_t *found);
FROM_HOST(sock_close) uint32_t sock_close(int32_t fd);
FROM_HOST(sock_set_reuse_addr) uint32_t sock_set_reuse_addr(int32_t fd, bool on);
FROM_HOST(sock_get_reuse_addr) uint32_t sock_get_reuse_addr(int32_t fd, bool *on);
FROM_HOST(sock_set_recv_timeout) uint32_t sock_set_recv_timeout(int32_t fd, uint64_t micros);
FROM_HOST(sock_get_recv_timeout) uint32_t sock_get_recv_timeout(int32_t fd, uint64_t *micros);

#endif
