/* SPDX-FileCopyrightText: the forza authors
 * SPDX-License-Identifier: MIT
 *
 * Linked together with the bind hook, and run under sanitizers: threads that bind ports
 * in use, while a signal handler does the same, and all sorts of odd arguments. Print
 * how many sockets were moved. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 100 };

static in_port_t taken;
static int count;

/* Bind to the port that is taken, and return whether another was given. */
static int move_one(int family)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage all;
    } place;
    memset(&place, 0, sizeof place);
    place.any.sa_family = (sa_family_t)family;
    place.v4.sin_port = taken; /* in v6 it is at the same place */
    int fd = socket(family, SOCK_STREAM, 0), saved = errno = 12345;
    int one = 1, moved = 0;
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
    errno = saved;
    if (bind(fd, &place.any, sizeof place) == 0 && errno == saved && listen(fd, 1) == 0) {
        socklen_t length = sizeof place;
        moved = !getsockname(fd, &place.any, &length) && place.v4.sin_port != taken;
    }
    close(fd);
    return moved;
}

static void *work(void *family)
{
    for (int round = 0; round < ROUNDS; round++)
        __atomic_add_fetch(&count, move_one(*(int *)family), __ATOMIC_RELAXED);
    return NULL;
}

static void handle(int signal)
{
    int saved = errno;
    __atomic_add_fetch(&count, move_one(signal == SIGUSR1 ? AF_INET : AF_INET6),
        __ATOMIC_RELAXED);
    errno = saved;
}

static void be_odd(void)
{
    struct sockaddr_un named = {.sun_family = AF_UNIX};
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = taken};
    struct sockaddr *nowhere = NULL;
    int fd = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t length = 1;
    if (bind(-1, (struct sockaddr *)&place, sizeof place) == 0 || errno != EBADF)
        abort();
    if (bind(fd, nowhere, sizeof place) == 0 || errno != EFAULT)
        abort();
    if (bind(fd, (struct sockaddr *)&place, 3) == 0 || errno != EINVAL)
        abort();
    if (bind(local, (struct sockaddr *)&named, sizeof(sa_family_t)) || listen(local, 1))
        abort();
    if (bind(udp, (struct sockaddr *)&place, sizeof place))
        abort(); /* the port is taken in TCP only */
    if (getsockname(udp, (struct sockaddr *)&place, &length) || length < 2)
        abort();
    if (listen(-1, 1) == 0 || listen(udp, 1) == 0 || errno != EOPNOTSUPP)
        abort();
    close(fd), close(udp), close(local);
}

int main(void)
{
    struct sockaddr_in6 place = {.sin6_family = AF_INET6};
    socklen_t length = sizeof place;
    int fd = socket(AF_INET6, SOCK_STREAM, 0), families[] = {AF_INET, AF_INET6};
    if (bind(fd, (struct sockaddr *)&place, sizeof place) || listen(fd, 1)
        || getsockname(fd, (struct sockaddr *)&place, &length))
        return 1;
    taken = place.sin6_port;
    be_odd();
    signal(SIGUSR1, handle);
    signal(SIGUSR2, handle);
    pthread_t threads[THREADS];
    for (int n = 0; n < THREADS; n++)
        pthread_create(&threads[n], NULL, work, &families[n % 2]);
    for (int round = 0; round < ROUNDS; round++) {
        raise(SIGUSR1);
        raise(SIGUSR2);
    }
    for (int n = 0; n < THREADS; n++)
        pthread_join(threads[n], NULL);
    printf("%d\n", count);
    return count == (THREADS + 2) * ROUNDS ? 0 : 2;
}
