/* SPDX-FileCopyrightText: the forza authors
 * SPDX-License-Identifier: MIT
 *
 * Listen on a TCP port of IPv4 (the first argument) or on a unix socket (a path, or a
 * name that begins with `@`), in C and without a library's help; end with stdin. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_unix(const char *name)
{
    struct sockaddr_un place = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    memcpy(place.sun_path, name, length);
    if (place.sun_path[0] == '@')
        place.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    length += sizeof place - sizeof place.sun_path;
    return bind(fd, (struct sockaddr *)&place, (socklen_t)length) || listen(fd, 1);
}

static int listen_tcp(int port)
{
    struct sockaddr_in place = {.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return bind(fd, (struct sockaddr *)&place, sizeof place) || listen(fd, 1);
}

int main(int count, char **words)
{
    char byte;
    for (int at = 1; at < count; at++) {
        int is_unix = strchr("/@", words[at][0]) || strchr(words[at], '.');
        if (is_unix ? listen_unix(words[at]) : listen_tcp(atoi(words[at])))
            perror(words[at]);
        else
            printf("listening %s\n", words[at]), fflush(stdout);
    }
    while (read(0, &byte, 1) > 0)
        continue;
    return 0;
}
