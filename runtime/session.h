// What a session holds. Created and destroyed in session.c, used by engine.c.
#ifndef CNXRT_SESSION_H
#define CNXRT_SESSION_H
#include "cnxrt.h"
#include "memory.h"
#include "parallel.h"
#include "profile.h"

// Prepared weights and what came with them; read-only and counted, so that sessions may share them.
typedef struct {
    atomic_int users;
    void *owned; // NULL: embedded in the artifact
    const void *data;
    char *class_names; // of the checkpoint, or NULL
} CnxrtPrepared;

struct CnxrtSession {
    CnxrtTeam team;
    const CnxrtModel *model;
    char *programs; // as in CnxrtOptions, or NULL
    int threads;
    int64_t max_batch;
    CnxrtPrepared *prepared;
    char *arena, *scratch, *spare;
    void **outputs; // as many as any program has
    const void **inputs;
    double *profile_rows;
};

// Prepares other raw parameters (of the session's model) in the place of the session's own weights,
// which it must not share. The session's programs must include prepare.
CnxrtStatus cnxrt_session_params(CnxrtSession *s, const void *params, CnxrtError *err);

// The ABI, that every program of a comma-separated list is there (NULL: none), and the CPU.
CnxrtStatus cnxrt_model_check(const CnxrtModel *m, const char *programs, CnxrtError *err);
// Runs one program once on `threads` threads; returns how many there were. frame: all but team.
int64_t cnxrt_frame_run(CnxrtTeam *team, const CnxrtProgram *p, int threads, CnxrtFrame *frame);

#endif
