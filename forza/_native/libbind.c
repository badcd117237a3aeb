/* SPDX-FileCopyrightText: the forza authors
 * SPDX-License-Identifier: MIT
 *
 * Preloaded into the app: a TCP port that it may not have becomes the next it may.
 *
 * FORZA_BIND=FLAGS:SOCKET in the environment says how. A bind() that is refused with
 * EACCES, as that of port 80 for an ordinary user, is tried again with the port after
 * it, and so on. Flag `u`: so is one refused with EADDRINUSE. Flag `a`: whatever the
 * address, the socket is bound to all of them. Each listen() is told to the monitor by
 * a datagram to SOCKET, a name of the abstract namespace (`@...`) or a path, which no
 * descriptor of the app's own can be taken for. All but TCP is left alone.
 *
 * Nothing here allocates, locks or waits, so it may be called from any thread and any
 * signal handler. The environment stays as it is: behind `npm start` it is a
 * grandchild that binds.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

enum { MOVED = 64, LINE = 160 };

typedef int address_call(int, const struct sockaddr *, socklen_t);
typedef int listen_call(int, int);
typedef int name_call(int, struct sockaddr *, socklen_t *);

static address_call *next_bind;
static listen_call *next_listen;
static name_call *next_getsockname;
static int in_use_too, any_address, in_node;
static struct sockaddr_un monitor;
static socklen_t monitor_length;

/* The last sockets that were moved: inode << 16 | port asked for. By inode, since that
 * holds across dup() and fork(); in one word, so that it is read and written whole. */
static uint64_t moved[MOVED];
static unsigned moved_count;

union address {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
};

static int is_node(void)
{
    char path[256];
    ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    const char *name = strrchr(path, '/');
    return name && strncmp(name, "/node", 5) == 0;
}

__attribute__((constructor)) static void set_up(void)
{
    int saved = errno;
    /* The next in line, not the kernel: another preloaded library may have its say. */
    *(void **)&next_bind = dlsym(RTLD_NEXT, "bind");
    *(void **)&next_listen = dlsym(RTLD_NEXT, "listen");
    *(void **)&next_getsockname = dlsym(RTLD_NEXT, "getsockname");
    const char *told = getenv("FORZA_BIND");
    for (; told && *told && *told != ':'; told++) {
        in_use_too |= *told == 'u';
        any_address |= *told == 'a';
    }
    size_t length = told && *told ? strlen(told + 1) : 0;
    if (length > 1 && length < sizeof monitor.sun_path) {
        monitor.sun_family = AF_UNIX;
        memcpy(monitor.sun_path, told + 1, length);
        if (monitor.sun_path[0] == '@')
            monitor.sun_path[0] = 0;
        monitor_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    }
    in_node = is_node();
    errno = saved;
}

/* Other libraries' constructors may come first; then there is nothing to ask but the
 * kernel. */
static int bind_next(int fd, const struct sockaddr *address, socklen_t length)
{
    if (next_bind)
        return next_bind(fd, address, length);
    return (int)syscall(SYS_bind, fd, address, length);
}

static int getsockname_next(int fd, struct sockaddr *address, socklen_t *length)
{
    if (next_getsockname)
        return next_getsockname(fd, address, length);
    return (int)syscall(SYS_getsockname, fd, address, length);
}

static int listen_next(int fd, int backlog)
{
    if (next_listen)
        return next_listen(fd, backlog);
    return (int)syscall(SYS_listen, fd, backlog);
}

static in_port_t *port_of(union address *address)
{
    if (address->any.sa_family == AF_INET)
        return &address->v4.sin_port;
    return address->any.sa_family == AF_INET6 ? &address->v6.sin6_port : NULL;
}

static int is_v4(const union address *address)
{
    return address->any.sa_family == AF_INET;
}

static int is_stream(int fd)
{
    int kind = 0;
    socklen_t length = sizeof kind;
    return !getsockopt(fd, SOL_SOCKET, SO_TYPE, &kind, &length) && kind == SOCK_STREAM;
}

static uint64_t inode_of(int fd)
{
    struct stat status;
    return fstat(fd, &status) ? 0 : (uint64_t)status.st_ino;
}

static void remember(int fd, in_port_t asked)
{
    unsigned at = __atomic_fetch_add(&moved_count, 1, __ATOMIC_RELAXED) % MOVED;
    uint64_t entry = inode_of(fd) << 16 | asked;
    __atomic_store_n(&moved[at], entry, __ATOMIC_RELEASE);
}

/* The port that the socket was to have (in network order), or 0 if it was not moved. */
static in_port_t asked_for(int fd)
{
    unsigned count = __atomic_load_n(&moved_count, __ATOMIC_RELAXED);
    if (!count)
        return 0;
    uint64_t inode = inode_of(fd);
    for (unsigned back = 1; back <= MOVED; back++) { /* the newest first */
        uint64_t *at = &moved[(count - back) % MOVED];
        uint64_t entry = __atomic_load_n(at, __ATOMIC_ACQUIRE);
        if (entry && entry >> 16 == (inode & UINT64_MAX >> 16))
            return (in_port_t)entry;
    }
    return 0;
}

static int is_refusal(int error)
{
    return error == EACCES || (error == EADDRINUSE && in_use_too);
}

__attribute__((visibility("default"))) int bind(
    int fd, const struct sockaddr *wanted, socklen_t length)
{
    union address address;
    int saved = errno;
    if (!wanted || length < sizeof address.v4 || !is_stream(fd)) {
        errno = saved;
        return bind_next(fd, wanted, length);
    }
    if (length > sizeof address) /* of a whole sockaddr_storage the rest is nothing */
        length = sizeof address;
    memset(&address, 0, sizeof address);
    memcpy(&address, wanted, length);
    in_port_t *port = port_of(&address);
    if (!port || (!is_v4(&address) && length < sizeof address.v6)) {
        errno = saved;
        return bind_next(fd, wanted, length);
    }
    if (any_address && is_v4(&address))
        address.v4.sin_addr.s_addr = htonl(INADDR_ANY);
    else if (any_address)
        address.v6.sin6_addr = (struct in6_addr)IN6ADDR_ANY_INIT;
    if (bind_next(fd, &address.any, length) == 0) {
        errno = saved;
        return 0;
    }
    int error = errno;
    if (!*port || !is_refusal(error))
        return -1;
    in_port_t asked = *port;
    for (unsigned next = ntohs(asked) + 1u; next < 65536; next++) {
        *port = htons((uint16_t)next);
        if (bind_next(fd, &address.any, length) == 0) {
            remember(fd, asked);
            errno = saved;
            return 0;
        }
        /* On the way up from a port that was forbidden, one in use is passed over. */
        if (errno != EACCES && errno != EADDRINUSE)
            break;
    }
    errno = error;
    return -1;
}

static char *put(char *at, const char *text)
{
    while (*text)
        *at++ = *text++;
    return at;
}

static char *put_port(char *at, in_port_t port)
{
    char digits[6];
    int count = 0;
    unsigned number = ntohs(port);
    do
        digits[count++] = (char)('0' + number % 10);
    while (number /= 10);
    while (count)
        *at++ = digits[--count];
    return at;
}

static char *put_hex(char *at, const void *data, size_t length)
{
    const unsigned char *bytes = data;
    for (size_t each = 0; each < length; each++) {
        *at++ = "0123456789abcdef"[bytes[each] >> 4];
        *at++ = "0123456789abcdef"[bytes[each] & 15];
    }
    return at;
}

static void report(int fd)
{
    union address address;
    socklen_t length = sizeof address;
    if (!monitor_length || getsockname_next(fd, &address.any, &length))
        return;
    in_port_t *port = port_of(&address), asked = asked_for(fd);
    if (!port || !is_stream(fd))
        return;
    char line[LINE];
    char *at = put_port(put(line, "X_FORZA_PORT="), *port);
    at = put(at, "\nX_FORZA_ADDRESS=");
    if (is_v4(&address))
        at = put_hex(at, &address.v4.sin_addr, sizeof address.v4.sin_addr);
    else
        at = put_hex(at, &address.v6.sin6_addr, sizeof address.v6.sin6_addr);
    if (asked)
        at = put_port(put(at, "\nX_FORZA_ASKED="), asked);
    int to = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (to < 0)
        return;
    sendto(to, line, (size_t)(at - line), MSG_DONTWAIT | MSG_NOSIGNAL,
        (struct sockaddr *)&monitor, monitor_length);
    close(to);
}

__attribute__((visibility("default"))) int listen(int fd, int backlog)
{
    if (listen_next(fd, backlog))
        return -1;
    int saved = errno;
    report(fd);
    errno = saved;
    return 0;
}

/* node's cluster looks whether the socket has the port that it has asked for, and takes
 * any other for EADDRINUSE. So node is shown the port it wanted; the monitor knows. */
__attribute__((visibility("default"))) int getsockname(
    int fd, struct sockaddr *address, socklen_t *length)
{
    int result = getsockname_next(fd, address, length);
    if (result || !in_node || !address || *length < sizeof(struct sockaddr_in))
        return result;
    int saved = errno;
    union address *shown = (union address *)(void *)address;
    in_port_t *port = port_of(shown), asked = port ? asked_for(fd) : 0;
    if (asked)
        memcpy(port, &asked, sizeof asked);
    errno = saved;
    return result;
}
