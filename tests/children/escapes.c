/* SPDX-FileCopyrightText: the forza authors
 * SPDX-License-Identifier: MIT
 *
 * Leave an orphan in a session of its own that ignores SIGTERM; say `ready`, and stay.
 */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    pid_t child = fork();

    if (child == 0) {
        setsid();
        signal(SIGTERM, SIG_IGN);
        if (fork())
            _exit(0);
        for (;;)
            pause();
    }
    waitpid(child, NULL, 0);
    if (write(1, "ready\n", 6) != 6)
        return 1;
    for (;;)
        pause();
}
