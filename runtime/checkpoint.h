// Files of a training run: weights for others to load, the state from which a run is resumed, and
// the record of its steps. All are written to a temporary file, synced and renamed.
#ifndef CHECKPOINT_H
#define CHECKPOINT_H
#include "training.h"
#include <stdio.h>

// ---- weights ------------------------------------------------------------------------------------

// Parameters of a slot as safetensors that PyTorch and timm load: official names and shapes; of a
// pre-training model the encoder's under `encoder.`. metadata: key, value, ..., NULL.
CnxrtStatus checkpoint_write(const char *path, const Training *t, int slot,
                             const char *const *metadata, CnxrtError *err);
// Parameters from a checkpoint of any known scheme. For train: norm and head that are not in it, or
// a head of another number of classes, keep the values they have, and a decoder is left out. For
// pretrain: the decoder keeps its values when the file has none. note: what was left, a line each.
CnxrtStatus checkpoint_load(Training *t, const char *path, CnxrtError *note, CnxrtError *err);

// ---- state --------------------------------------------------------------------------------------

// A row of DIR/metrics.jsonl and metrics.csv: what a step gave. NaN: not there.
typedef struct {
    int64_t step; // from 1
    double epoch, lr, loss, grad_norm, val_loss, val_top1, val_top5, val_map;
} MetricsRow;

// Where a run stands, beside the blobs of the engine.
typedef struct {
    int64_t step;   // done
    int64_t micro;  // images of a micro-batch: sums are rounded by it
    double best;    // of the validations so far; NaN: there was none
    MetricsRow row; // of the step
    bool pending;   // its validation was interrupted, and the row is not in the metrics
    char *config;   // what must be the same when it is resumed, "key=value" lines; malloc'ed
} RunState;

// A state file that was found whole.
typedef struct {
    CnxrtWeights *file;
    RunState state;
} StateFile;

// Writes DIR/state-STEP.safetensors and removes all but the newest three.
CnxrtStatus state_write(const char *dir, const Training *t, const RunState *s, CnxrtError *err);
// Opens the newest state file of DIR that is whole; damaged ones are listed in note. file is NULL
// when there is none at all; an error when there are but damaged ones.
CnxrtStatus state_open(const char *dir, StateFile *out, CnxrtError *note, CnxrtError *err);
bool state_exists(const char *dir);
// Fills the blobs of the engine.
CnxrtStatus state_load(const StateFile *s, Training *t, CnxrtError *err);
void state_close(StateFile *s);

// ---- metrics ------------------------------------------------------------------------------------

typedef struct {
    FILE *json, *csv;
} Metrics;

// Opens both files to append, cut back to the rows of the first `step` steps.
CnxrtStatus metrics_open(Metrics *m, const char *dir, int64_t step, CnxrtError *err);
CnxrtStatus metrics_add(Metrics *m, const MetricsRow *row, CnxrtError *err);
void metrics_sync(Metrics *m);
void metrics_close(Metrics *m);

// Creates a folder and those above it, and removes temporary files that a killed run left in it.
CnxrtStatus run_folder(const char *dir, CnxrtError *err);

#endif
