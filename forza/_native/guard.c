/* SPDX-FileCopyrightText: the forza authors
 * SPDX-License-Identifier: MIT
 *
 * Stand between the monitor and its app, so that nothing of the app outlives either.
 *
 *     guard MONITOR JOB CWD UID GID LIMITS GROUP FILE ARG0 ARG...
 *
 * The guard is a subreaper: whatever the app starts, however often it forks or begins
 * a session of its own, stays below the guard, and is killed when the guard is told to
 * end (SIGTERM) or the monitor has died, whatever it died of. SIGUSR1 kills the same
 * processes, but leaves the guard to report it. It signals its own children only: as
 * long as it has not reaped them, nobody else can have their pids.
 *
 * LIMITS are words such as `nofile=64`, in whose names forza/_limits.py reports what
 * cannot be set. GROUP is the folder of a cgroup v2 that is to be the app's, or empty.
 *
 * Descriptors 0 to 3 are the app's, 4 (a socket) takes the guard's reports, of 16 bytes:
 * `spawned PID`, or `fork|cwd|group|user|exec|LIMIT ERRNO`; `stopped SIGNAL`; and at
 * last `exited STATUS`, `killed SIGNAL` or `dumped SIGNAL`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { REPORTS = 4, SIGNALS = 64 };

static pid_t app;
static int app_ended;
static char group[PATH_MAX];

/* Where the app's side of the vfork was when it failed: both share their memory. */
static const char *volatile step;
static volatile int reason;

static void report(const char *what, int value)
{
    char text[32];

    snprintf(text, sizeof text, "%-7s %8d", what, value);
    /* If nobody reads it, the monitor is dead: the next look finds out. */
    if (write(REPORTS, text, 16) < 0)
        return;
}

static void close_strangers(void)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, REPORTS + 1, ~0U, 0) == 0)
        return;
#endif
    long most = sysconf(_SC_OPEN_MAX);
    for (int fd = REPORTS + 1; fd < (most > 65536 ? 65536 : most); fd++)
        close(fd);
}

static int become(const char *uid, const char *gid)
{
    if (*uid && geteuid() == 0 && setgroups(0, NULL) < 0)
        return -1;
    if (*gid) {
        gid_t group = (gid_t)strtoul(gid, NULL, 10);
        if (setresgid(group, group, group) < 0)
            return -1;
    }
    if (*uid) {
        uid_t user = (uid_t)strtoul(uid, NULL, 10);
        if (setresuid(user, user, user) < 0)
            return -1;
    }
    return 0;
}

/* Write to a file of the app's cgroup. */
static int tell_group(const char *name, const char *text)
{
    char path[PATH_MAX];
    int result = -1;

    if (snprintf(path, sizeof path, "%s/%s", group, name) >= (int)sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        result = write(fd, text, strlen(text)) < 0 ? -1 : 0;
        close(fd);
    }
    return result;
}

static int run_on(const char *list)
{
    cpu_set_t wanted, got;

    CPU_ZERO(&wanted);
    for (char *next = (char *)list; *next; next += *next == ',') {
        unsigned long cpu = strtoul(next, &next, 10);
        if (cpu >= CPU_SETSIZE) {
            errno = EINVAL;
            return -1;
        }
        CPU_SET(cpu, &wanted);
    }
    if (sched_setaffinity(0, sizeof wanted, &wanted) < 0 ||
        sched_getaffinity(0, sizeof got, &got) < 0)
        return -1;
    /* The kernel leaves out what is not there, as long as one is. */
    errno = EINVAL;
    return CPU_EQUAL(&wanted, &got) ? 0 : -1;
}

static int limit(const char *name, const char *value)
{
    rlim_t most = (rlim_t)strtoll(value, NULL, 10); /* -1: unlimited */
    struct rlimit both = {most, most};

    if (strcmp(name, "cpus") == 0)
        return run_on(value);
    if (strcmp(name, "nice") == 0)
        return setpriority(PRIO_PROCESS, 0, (int)strtol(value, NULL, 10));
    return setrlimit(strcmp(name, "nofile") == 0 ? RLIMIT_NOFILE
                     : strcmp(name, "core") == 0 ? RLIMIT_CORE
                                                 : RLIMIT_DATA,
                     &both);
}

/* Take on all the limits; if one cannot be had, it is the step. */
static int limit_all(char *words)
{
    for (char *word; (word = strsep(&words, " "));) {
        char *value = strchr(word, '=');
        if (!value)
            continue;
        *value = 0;
        step = word;
        if (limit(word, value + 1) < 0)
            return -1;
    }
    return 0;
}

/* Turn into the app; return only if that can't be. */
static void be_app(pid_t guard, char **argv)
{
    sigset_t none;

    step = "cwd";
    if (*argv[3] && chdir(argv[3]) < 0)
        return;
    if (*argv[2]) { /* a job of the terminal's session, in its foreground */
        setpgid(0, 0);
        tcsetpgrp(0, getpid()); /* may we not, we read no input, and run */
    } else {
        setsid();
    }
    step = "group";
    if (*group && tell_group("cgroup.procs", "0") < 0)
        return;
    if (limit_all(argv[6]) < 0) /* before the app is somebody who may not */
        return;
    step = "user";
    if (become(argv[4], argv[5]) < 0)
        return;
    /* A change of user forgets this, so it comes last. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard)
        _exit(127);
    step = "exec";
    for (int number = 1; number <= SIGNALS; number++)
        signal(number, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(argv[8], argv + 9);
}

/* The app's words and environment may hold secrets, and are not for `ps` to show of a
 * second process. A last byte that is not 0 tells the kernel of a title. */
static void forget(int argc, char **argv)
{
    char *begin = argv[0], *end = argv[argc - 1] + strlen(argv[argc - 1]) + 1;
    char *words_end = end;

    for (char **variable = environ; *variable; variable++)
        if (*variable == end)
            end += strlen(end) + 1;
    memset(begin, 0, (size_t)(end - begin));
    words_end[-1] = '.';
    strcpy(begin, "forza-guard");
    prctl(PR_SET_NAME, "forza-guard");
}

/* Most of what the start has run is not needed again; a page that is comes back from
 * the page cache, and what surrounds it. */
static void let_go_of_code(void)
{
    extern char __executable_start, etext;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = ((uintptr_t)&__executable_start + page - 1) / page * page;

    madvise((void *)begin, (uintptr_t)&etext / page * page - begin, MADV_DONTNEED);
}

/* Call for each child of ours; return how many it says are still to be waited for. */
static int each_child(int (*call)(pid_t child))
{
    static char text[65536];
    size_t length = 0;
    ssize_t got = 0;
    int waiting = 0;
    int fd = open("/proc/thread-self/children", O_RDONLY | O_CLOEXEC);

    if (fd >= 0) {
        while (length < sizeof text - 1 &&
               (got = read(fd, text + length, sizeof text - 1 - length)) > 0)
            length += (size_t)got;
        close(fd);
    }
    text[length] = 0;
    for (char *next = text;;) {
        char *number = next;
        long child = strtol(number, &next, 10);
        siginfo_t info;
        if (next == number || !*next) /* none, or one that is cut off */
            return waiting;
        /* Is it, in our PID namespace? /proc may be that of another. */
        if (waitid(P_PID, (id_t)child, &info, WEXITED | WNOHANG | WNOWAIT) == 0)
            waiting += call((pid_t)child);
    }
}

static int reap_one(pid_t child)
{
    return child != app && waitpid(child, NULL, WNOHANG) == 0;
}

static int kill_one(pid_t child)
{
    if (kill(child, SIGKILL) < 0) /* another user's, by a setuid program */
        return 0;
    return reap_one(child);
}

/* Reap orphans, and report the app's end. The app itself stays a zombie, so that the
 * monitor may signal its pid until it has read the report. */
static void look(void)
{
    siginfo_t info;

    info.si_pid = 0;
    if (waitid(P_PID, (id_t)app, &info, WSTOPPED | WNOHANG) == 0 && info.si_pid)
        report("stopped", info.si_status);
    for (;;) {
        info.si_pid = 0;
        if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || !info.si_pid)
            return;
        if (info.si_pid == app)
            break;
        waitpid(info.si_pid, NULL, WNOHANG);
    }
    if (!app_ended) {
        app_ended = 1;
        report(info.si_code == CLD_EXITED   ? "exited"
               : info.si_code == CLD_DUMPED ? "dumped"
                                            : "killed",
               info.si_status);
    }
    each_child(reap_one); /* those that the app now hides */
}

/* Kill until nobody is left but the app's zombie, or those that we may not kill.
 * Whoever has lost its parent to us comes up in the next turn. The cgroup goes first,
 * then the process group, each at once: they may be forking. */
static void kill_all(const sigset_t *child_ended)
{
    static const struct timespec a_moment = {0, 10 * 1000 * 1000};

    for (;;) {
        if (*group)
            tell_group("cgroup.kill", "1");
        kill(-app, SIGKILL);
        int left = each_child(kill_one);
        look();
        int gone = app_ended || kill(app, SIGKILL) < 0;
        if (!left && gone && !each_child(kill_one))
            return;
        sigtimedwait(child_ended, NULL, &a_moment);
    }
}

int main(int argc, char **argv)
{
    sigset_t all, child_ended;
    pid_t guard = getpid();

    if (argc < 10 || strlen(argv[7]) >= sizeof group)
        return 125;
    strcpy(group, argv[7]);
    pid_t monitor = (pid_t)atol(argv[1]);
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    signal(SIGCHLD, SIG_DFL); /* ignored, our children would vanish untold */
    /* When the monitor dies; this one also wakes a guard that somebody has stopped. */
    prctl(PR_SET_PDEATHSIG, SIGCONT);
    if (getppid() != monitor)
        return 125;
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    close_strangers();
    fcntl(REPORTS, F_SETFD, FD_CLOEXEC);

    step = "fork";
    app = vfork();
    if (app == 0) {
        be_app(guard, argv);
        reason = errno;
        _exit(127);
    }
    if (app < 0 || reason) {
        int error = app < 0 ? errno : reason;
        if (app > 0)
            waitpid(app, NULL, 0);
        report(step, error);
        return 125;
    }
    report("spawned", app);
    forget(argc, argv);
    for (int fd = 0; fd < REPORTS; fd++)
        close(fd); /* or the app's pipes would never come to their end */
    let_go_of_code();

    sigemptyset(&child_ended);
    sigaddset(&child_ended, SIGCHLD);
    for (;;) {
        int number = sigwaitinfo(&all, NULL);
        int over = number == SIGTERM || getppid() != monitor;
        if (over || number == SIGUSR1)
            kill_all(&child_ended);
        else
            look();
        if (over) {
            waitpid(app, NULL, WNOHANG);
            if (*group && getppid() != monitor) /* else the monitor does it */
                rmdir(group);
            return 0;
        }
    }
}
