// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// What a C program needs to do what forza does to a log line: stdin to lines
// to one JSON event a line to a TCP connection. The yardstick, not a product.
//
//   pump PORT

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { READ = 256 * 1024, HEAD = 512, ROOM = 64 * 1024, BLOCK = 16 };

static char head[HEAD], tail[HEAD];
static size_t head_size, tail_size;
static char *out;
static size_t out_size, out_room;
static unsigned char plain[256];

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void need(size_t more) {
    if (out_size + more <= out_room) return;
    out_room = (out_size + more) * 2;
    out = realloc(out, out_room);
    if (!out) die("realloc");
}

static void put(const char *data, size_t size) {
    memcpy(out + out_size, data, size);
    out_size += size;
}

static void put_escaped(unsigned char c) {
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    for (const char *s = short_forms; *s; s += 2)
        if ((unsigned char)*s == c) {
            out[out_size++] = '\\';
            out[out_size++] = s[1];
            return;
        }
    out_size += (size_t)sprintf(out + out_size, "\\u%04x", c);
}

// The trip count is fixed so that the compiler makes vector instructions of it.
static int all_plain(const unsigned char *block) {
    int bad = 0;
    for (int i = 0; i < BLOCK; i++)
        bad |= (block[i] < 0x20) | (block[i] == '"') | (block[i] == '\\');
    return !bad;
}

static void put_line(const unsigned char *line, size_t size) {
    need(head_size + tail_size + size * 6);
    put(head, head_size);
    for (size_t i = 0, from = 0; i <= size; i++) {
        while (i + BLOCK <= size && all_plain(line + i)) i += BLOCK;
        if (i < size && plain[line[i]]) continue;
        put((const char *)line + from, i - from);
        if (i < size) put_escaped(line[i]);
        from = i + 1;
    }
    put(tail, tail_size);
}

static void stamp(unsigned long long seq) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    head_size = (size_t)snprintf(
        head, HEAD, "{\"metric\":1.0,\"time\":%lld.%03ld,\"host\":\"bench\",\"description\":\"",
        (long long)t.tv_sec, t.tv_nsec / 1000000);
    tail_size = (size_t)snprintf(
        tail, HEAD,
        "\",\"service\":\"logs/stdout\",\"meta\":{\"boot\":\"00000000\",\"seq\":%llu,\"pid\":%d}}\n",
        seq, getpid());
}

static void send_all(int fd) {
    for (size_t at = 0; at < out_size;) {
        ssize_t n = write(fd, out + at, out_size - at);
        if (n < 0) die("write");
        at += (size_t)n;
    }
    out_size = 0;
}

static int dial(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&a, sizeof a) < 0) die("connect");
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    int fd = dial(atoi(argv[1]));
    unsigned char *in = malloc(READ + ROOM);
    size_t have = 0;
    unsigned long long seq = 0;
    for (int c = 0; c < 256; c++) plain[c] = c >= 0x20 && c != '"' && c != '\\';
    need(4 * READ);
    for (;;) {
        ssize_t n = read(0, in + have, READ + ROOM - have);
        if (n <= 0) break;
        have += (size_t)n;
        unsigned char *line = in, *newline;
        stamp(++seq);
        while ((newline = memchr(line, '\n', have - (size_t)(line - in)))) {
            put_line(line, (size_t)(newline + 1 - line));
            line = newline + 1;
        }
        have -= (size_t)(line - in);
        if (have >= READ) {  // a line longer than the buffer goes out in parts
            put_line(line, have);
            have = 0;
        }
        memmove(in, line, have);
        send_all(fd);
    }
    if (have) put_line(in, have);
    send_all(fd);
    return 0;
}
