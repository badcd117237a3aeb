// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// The child that the benchmarks put under every monitor.
//
//   app idle  PIDDIR                  sleep for ever
//   app stamp PIDDIR FIFO             write the monotonic clock to FIFO, sleep
//   app flood PIDDIR GO CHUNK TIMES RATE PROBE_MS RESULT
//       wait for a byte on the fifo GO, then write the file CHUNK to stdout
//       TIMES times, at RATE bytes a second (0: as fast as it can); with
//       PROBE_MS, send the time of day as a metric on descriptor 3 that often;
//       write the nanoseconds that it took to RESULT, sleep.
//
// Each leaves a file named after its pid in PIDDIR, so that the harness can
// tell the app from its monitors whatever those have done to argv.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static long long now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void sleep_for_ever(void) {
    for (;;) pause();
}

static void put_number(const char *path, long long number, int flags) {
    char text[32];
    int size = snprintf(text, sizeof text, "%lld\n", number);
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0644);
    if (fd < 0 || write(fd, text, (size_t)size) != size) die(path);
    close(fd);
}

// Written under another name first: a file that is there is whole.
static void put_result(const char *path, long long number) {
    char draft[4096];
    snprintf(draft, sizeof draft, "%s.draft", path);
    put_number(draft, number, O_CREAT | O_TRUNC);
    if (rename(draft, path) < 0) die(path);
}

static void leave_pid(const char *dir) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%d", dir, getpid());
    put_number(path, getpid(), O_CREAT | O_TRUNC);
}

static char *load(const char *path, size_t *size) {
    struct stat s;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &s) < 0) die(path);
    char *data = malloc((size_t)s.st_size);
    if (!data || read(fd, data, (size_t)s.st_size) != s.st_size) die(path);
    close(fd);
    *size = (size_t)s.st_size;
    return data;
}

static void write_all(const char *data, size_t size) {
    while (size) {
        ssize_t n = write(1, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) die("stdout");
        data += n;
        size -= (size_t)n;
    }
}

static void wait_for_go(const char *fifo) {
    char byte;
    int fd = open(fifo, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, &byte, 1) != 1) die(fifo);
    close(fd);
}

static void sleep_until(long long when) {
    struct timespec t = {when / 1000000000, when % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

// A process of its own, since the flood spends its time blocked in write().
static pid_t start_probe(int every_ms) {
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) die("fork");
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(0);
    long long due = now(CLOCK_MONOTONIC);
    for (;;) {
        char text[128];
        int size = snprintf(text, sizeof text,
                            "{\"service\":\"bench/probe\",\"metric\":%.6f}\n",
                            (double)now(CLOCK_REALTIME) / 1e9);
        if (write(3, text, (size_t)size) != size) _exit(1);
        due += every_ms * 1000000LL;
        sleep_until(due);
    }
}

static void flood(char **arg) {
    size_t size;
    char *chunk = load(arg[1], &size);
    long times = atol(arg[2]), rate = atol(arg[3]);
    int probe_ms = atoi(arg[4]);
    wait_for_go(arg[0]);
    pid_t probe = probe_ms ? start_probe(probe_ms) : 0;
    long long start = now(CLOCK_MONOTONIC);
    for (long i = 0; i < times; i++) {
        if (rate) sleep_until(start + (long long)((double)i * (double)size / (double)rate * 1e9));
        write_all(chunk, size);
    }
    long long took = now(CLOCK_MONOTONIC) - start;
    if (probe) kill(probe, SIGKILL);
    put_result(arg[5], took);
}

int main(int argc, char **argv) {
    long long begun = now(CLOCK_MONOTONIC);
    if (argc < 3) return 2;
    const char *slash = strrchr(argv[1], '/');  // forever makes a path of it
    const char *mode = slash ? slash + 1 : argv[1];
    if (!strcmp(mode, "stamp") && argc == 4) {
        put_number(argv[3], begun, 0);
        leave_pid(argv[2]);
    } else if (!strcmp(mode, "flood") && argc == 9) {
        leave_pid(argv[2]);
        flood(argv + 3);
    } else if (!strcmp(mode, "idle") && argc == 3) {
        leave_pid(argv[2]);
    } else {
        return 2;
    }
    sleep_for_ever();
}
