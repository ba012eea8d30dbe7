// A child process waits until nobody holds the other end of a pipe any more, and then removes the
// folder: we hold it, and so do the tools we start, so that nothing is written behind its back.
#include "scratch.h"
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f) {
    (void)st, (void)type, (void)f;
    return remove(path);
}

static void remove_all(const char *dir) { (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

// What stops us by way of the terminal or its group must not stop the keeper.
static void keep(const char *dir, int end) {
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE};
    char byte;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_IGN);
    while (read(end, &byte, 1) < 0 && errno == EINTR) {
    }
    remove_all(dir);
    _exit(0);
}

bool scratch_open(Scratch *s, char *path) {
    int ends[2] = {-1, -1};
    *s = (Scratch){.dir = path, .hold = -1};
    if (!mkdtemp(path)) return false;
    pid_t pid = pipe(ends) == 0 ? fork() : -1;
    if (pid == 0) {
        close(ends[1]);
        keep(path, ends[0]);
    }
    if (ends[0] >= 0) close(ends[0]);
    if (pid > 0) {
        s->keeper = pid;
        s->hold = ends[1];
    } else if (ends[1] >= 0) {
        close(ends[1]);
    }
    return true;
}

void scratch_close(Scratch *s) {
    if (s->hold >= 0) close(s->hold);
    if (s->keeper)
        while (waitpid(s->keeper, NULL, 0) < 0 && errno == EINTR) {
        }
    else if (s->dir)
        remove_all(s->dir);
    *s = (Scratch){.hold = -1};
}
