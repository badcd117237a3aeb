// SPDX-FileCopyrightText: the forza authors
// SPDX-License-Identifier: MIT
//
// Sleep in the keeper's place, which as Python would take thirty times the memory, and
// become Python again when there is something to decide.
//
// The keeper execs this program with its signals blocked, so that none is lost in
// between, and tells it in the environment:
//   _FORZA_SLEEP  CHILD DEADLINE: the pid whose end matters (or 0), and milliseconds of
//                 the monotonic clock (or -1)
//   _FORZA_WAKE   what to exec then: words separated by newlines, before our own
// It tells, in _FORZA_WOKEN, SIGNAL CODE: 0 if it was the deadline, SIGCHLD if the child
// has ended (and waits to be reaped), else what has come. Orphans are reaped here.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SETUP_FAILED = 125, MOST_WAKE_WORDS = 16, RETRY_MS = 1000 };

static pid_t child;
static sigset_t watched;
extern char **environ;

static long long now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

// Take the next signal; 0 if none has come by then.
static int take_signal(long long deadline, int *code) {
    siginfo_t info;
    struct timespec left = {0, 0};
    if (deadline > 0) {
        long long ms = deadline - now_ms();
        if (ms > 0) {
            left.tv_sec = ms / 1000;
            left.tv_nsec = ms % 1000 * 1000000;
        }
    }
    int signum = sigtimedwait(&watched, &info, deadline < 0 ? NULL : &left);
    *code = signum > 0 ? info.si_code : 0;
    return signum > 0 ? signum : 0;
}

// Reap whoever is not the child; say whether that one waits to be reaped.
static int child_has_ended(void) {
    siginfo_t info;
    for (;;) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
            return child != 0; // if it is nobody's any more, the keeper has to know
        if (info.si_pid == 0)
            return 0;
        if (info.si_pid == child)
            return 1;
        waitpid(info.si_pid, NULL, WNOHANG);
    }
}

// Return what to wake up for. Signals come first: a ^C that has ended the child, too,
// is no reason to start it again.
static int sleep_until(long long deadline, int *code) {
    for (;;) {
        int signum = take_signal(0, code);
        if (signum == 0) {
            if (child_has_ended())
                return SIGCHLD;
            signum = take_signal(deadline, code);
            if (signum == 0 && deadline >= 0 && now_ms() >= deadline)
                return 0;
        }
        if (signum != 0 && signum != SIGCHLD && signum != SIGHUP)
            return signum;
    }
}

// Say whether the keeper would come up: an upgrade may be half written.
static int is_sound(char **command) {
    pid_t pid;
    int status = -1;
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    setenv("_FORZA_WOKEN", "trial", 1);
    int error = posix_spawn(&pid, command[0], &actions, NULL, command, environ);
    posix_spawn_file_actions_destroy(&actions);
    if (error) // no room for a trial: to wake up takes no further process
        return error == EAGAIN || error == ENOMEM;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status == 0;
}

static void wake_up(char **command, int signum, int code) {
    char woken[32];
    snprintf(woken, sizeof woken, "%d %d", signum, code);
    setenv("_FORZA_WOKEN", woken, 1);
    execv(command[0], command);
}

static int is_end(int signum) {
    return signum == SIGTERM || signum == SIGINT;
}

// Wait for a keeper that comes up. What must not wait for it is to be told to end.
static void wait_for_better(int *signum, int *code) {
    static int passed_on;
    int later, got = take_signal(now_ms() + RETRY_MS, &later);
    if (got == SIGCHLD || got == SIGHUP)
        got = 0;
    if (got && (is_end(got) || !is_end(*signum))) {
        *signum = got;
        *code = later;
    }
    if (!is_end(*signum))
        return;
    if (child == 0 || child_has_ended())
        _exit(0);
    if (got || !passed_on)
        passed_on = kill(child, SIGTERM) == 0;
}

int main(int argc, char **argv) {
    const char *sleep = getenv("_FORZA_SLEEP"), *wake = getenv("_FORZA_WAKE");
    long long deadline;
    int pid;
    if (!sleep || !wake || sscanf(sleep, "%d %lld", &pid, &deadline) != 2) {
        fprintf(stderr, "sleeper: a part of forza's keeper, which alone can start it\n");
        return SETUP_FAILED;
    }
    child = pid;
    char **command = calloc(MOST_WAKE_WORDS + argc, sizeof *command);
    char *words = strdup(wake);
    if (!command || !words)
        return SETUP_FAILED;
    int count = 0;
    for (char *word; count < MOST_WAKE_WORDS && (word = strsep(&words, "\n"));)
        command[count++] = word;
    for (int i = 1; i < argc; i++)
        command[count++] = argv[i];

    prctl(PR_SET_NAME, "aeternum");
    const int signals[] = {SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    sigemptyset(&watched);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&watched, signals[i]);
    sigprocmask(SIG_BLOCK, &watched, NULL);

    int code, signum = sleep_until(deadline, &code);
    for (int told = 0;; told = 1) {
        if (is_sound(command))
            wake_up(command, signum, code);
        if (!told)
            dprintf(2, "The installed version of forza does not start, waiting.\n");
        wait_for_better(&signum, &code);
    }
}
