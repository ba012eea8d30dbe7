// A child process makes the folder, waits until nobody holds the other end of a pair of sockets any
// more, and then removes it: we hold that end, and so do the tools we start, so that nothing is
// written behind its back.
#include "scratch.h"
#include <errno.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *f) {
    (void)st, (void)type, (void)f;
    return remove(path);
}

static void remove_all(const char *dir) { (void)nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS); }

// What stops us by way of the terminal or its group must not stop the keeper. It makes the folder
// itself: from then on there is somebody to remove it. Tells 0 and the path, or errno.
static void keep(char *path, int end) {
    static const int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE};
    char byte;
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_IGN);
    int error = mkdtemp(path) ? 0 : errno;
    struct iovec parts[] = {{&error, sizeof error}, {path, strlen(path)}};
    (void)!writev(end, parts, 2);
    while (!error && read(end, &byte, 1) < 0 && errno == EINTR) {
    }
    if (!error) remove_all(path);
    _exit(0);
}

// What the keeper tells, into path. False with errno: it made no folder, or it died.
static bool told(int end, char *path) {
    int error = ECHILD;
    struct iovec parts[] = {{&error, sizeof error}, {path, strlen(path)}};
    ssize_t n;
    while ((n = readv(end, parts, 2)) < 0 && errno == EINTR) {
    }
    if (n > 0 && !error) return true;
    errno = error;
    return false;
}

bool scratch_open(Scratch *s, char *path) {
    int ends[2] = {-1, -1};
    *s = (Scratch){.dir = path, .hold = -1};
    pid_t pid = socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0 ? fork() : -1;
    if (pid == 0) {
        close(ends[1]);
        keep(path, ends[0]);
    }
    if (ends[0] >= 0) close(ends[0]);
    if (pid < 0) {
        if (ends[1] >= 0) close(ends[1]);
        return mkdtemp(path);
    }
    s->keeper = pid;
    s->hold = ends[1];
    if (told(s->hold, path)) return true;
    int error = errno;
    scratch_close(s);
    errno = error;
    return false;
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
