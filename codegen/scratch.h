// Temporary folders that do not outlive the process, however it ends.
#ifndef CNX_CODEGEN_SCRATCH_H
#define CNX_CODEGEN_SCRATCH_H
#include <stdbool.h>
#include <sys/types.h>

typedef struct {
    const char *dir;
    int hold;     // an end of a pair of sockets, closed when we and all we run have ended
    pid_t keeper; // the process that waits for it; 0: none could be started
} Scratch;

// Makes a folder from a path that ends in XXXXXX, which is changed and must live on. False with
// errno when it cannot.
bool scratch_open(Scratch *s, char *path);
// Removes the folder with all that is in it, if it is still there.
void scratch_close(Scratch *s);

#endif
