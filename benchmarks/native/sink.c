// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// A TCP receiver cheap enough not to be what is measured.
//
//   sink PORT TARGET PROBE      PORT 0: any, on 127.0.0.1
//
// Prints "port N"; "marks ..." once TARGET marks have come (0: never); and
// the same line again on SIGUSR2 and when SIGTERM ends it. A mark is the byte Q, of which
// each benchmark line has exactly one. With PROBE 1 it also looks for metrics
// between the log lines and prints how old each was on arrival, in
// milliseconds: "probe ..." for the app's own and "age ..." for the monitor's.
// SIGUSR1 stops it from reading, and makes it read again.

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 256 * 1024, CONNECTIONS = 4096, LINE = 4096 };

static char buffer[BUFFER];
static long long bytes, marks, connections, target;
static int stalled, probing;
static int open_sockets[CONNECTIONS];

// In probe mode a line cut by the end of a read waits here for its other half.
static char cut[CONNECTIONS][LINE];
static size_t cut_size[CONNECTIONS];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void report(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    printf("marks %lld bytes %lld connections %lld at %lld\n", marks, bytes,
           connections, t.tv_sec * 1000000000LL + t.tv_nsec);
}

static void count_marks(const char *at, size_t size) {
    const char *end = at + size;
    long long before = marks;
    while (at < end && (at = memchr(at, 'Q', (size_t)(end - at)))) {
        marks++;
        at++;
    }
    if (target && before < target && marks >= target) report();
}

static double field(const char *line, size_t size, const char *name) {
    char text[64];
    const char *at = memmem(line, size, name, strlen(name));
    if (!at) return 0;
    at += strlen(name);
    size_t left = (size_t)(line + size - at);
    size_t take = left < sizeof text - 1 ? left : sizeof text - 1;
    memcpy(text, at, take);
    text[take] = 0;
    return strtod(text, NULL);
}

static void look_at_line(const char *line, size_t size) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    double now = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    if (memmem(line, size, "\"bench/probe\"", 13))
        printf("probe %.3f\n", (now - field(line, size, "\"metric\":")) * 1e3);
    else if (memmem(line, size, "\"service\":\"health/", 18))
        printf("age %.3f\n", (now - field(line, size, "\"time\":")) * 1e3);
}

// A log line has a mark and no other event does, so only lines without one
// are searched.
static void look_for_metrics(int fd, const char *at, size_t size) {
    const char *end = at + size;
    while (at < end) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        if (cut_size[fd] + length > LINE) cut_size[fd] = length = 0;
        if (!newline || cut_size[fd]) {
            memcpy(cut[fd] + cut_size[fd], at, length);
            cut_size[fd] += length;
            if (!newline) return;
            if (!memchr(cut[fd], 'Q', cut_size[fd]))
                look_at_line(cut[fd], cut_size[fd]);
            cut_size[fd] = 0;
        } else if (!memchr(at, 'Q', length)) {
            look_at_line(at, length);
        }
        at = newline + 1;
    }
}

static int watch(int epoll, int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &e);
}

static void accept_one(int epoll, int server) {
    int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    if (fd >= CONNECTIONS) {
        close(fd);
        return;
    }
    connections++;
    open_sockets[fd] = 1;
    cut_size[fd] = 0;
    if (!stalled && watch(epoll, fd) < 0) die("epoll_ctl");
}

static void read_one(int fd) {
    ssize_t n = recv(fd, buffer, BUFFER, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
        open_sockets[fd] = 0;
        close(fd);
        return;
    }
    bytes += n;
    count_marks(buffer, (size_t)n);
    if (probing) look_for_metrics(fd, buffer, (size_t)n);
}

static void toggle_stall(int epoll) {
    stalled = !stalled;
    for (int fd = 0; fd < CONNECTIONS; fd++) {
        if (!open_sockets[fd]) continue;
        if (stalled) epoll_ctl(epoll, EPOLL_CTL_DEL, fd, NULL);
        else watch(epoll, fd);
    }
}

static int listen_on(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    socklen_t size = sizeof a;
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(fd, (struct sockaddr *)&a, sizeof a) < 0) die("bind");
    if (listen(fd, 1024) < 0) die("listen");
    getsockname(fd, (struct sockaddr *)&a, &size);
    printf("port %d\n", ntohs(a.sin_port));
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    target = atoll(argv[2]);
    probing = atoi(argv[3]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC);
    int epoll = epoll_create1(EPOLL_CLOEXEC), server = listen_on(atoi(argv[1]));
    if (watch(epoll, signals) < 0 || watch(epoll, server) < 0) die("epoll_ctl");
    for (;;) {
        struct epoll_event e[64];
        int n = epoll_wait(epoll, e, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = e[i].data.fd;
            if (fd == server) {
                accept_one(epoll, server);
            } else if (fd == signals) {
                struct signalfd_siginfo s;
                if (read(signals, &s, sizeof s) != sizeof s) continue;
                if (s.ssi_signo == SIGUSR1) {
                    toggle_stall(epoll);
                    continue;
                }
                report();
                if (s.ssi_signo == SIGTERM) return 0;
            } else if (!stalled) {
                read_one(fd);
            }
        }
    }
}
