/* SPDX-FileCopyrightText: the forza authors
 * SPDX-License-Identifier: MIT
 *
 * Take so many MiB of memory, first thing.
 */
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    size_t size = (size_t)atol(argv[argc - 1]) << 20;
    char *taken = malloc(size);

    if (!taken)
        return 1;
    memset(taken, 1, size);
    return taken[size / 2] - 1;
}
