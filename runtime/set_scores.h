// How well independent scores of classes tell which of them a picture has (multi-label
// classification).
#ifndef SET_SCORES_H
#define SET_SCORES_H
#include "cnxrt_model.h"
#include "dataset.h"

typedef struct {
    float score;
    unsigned char truth;
} SetScore;

// Logits of n pictures with their truth, of each class together.
typedef struct {
    SetScore *values; // [classes][room]
    SetScore *order;  // [room], for sorting
    int64_t n, room;
    int classes;
} SetScores;

int64_t set_scores_bytes(int64_t room, int classes);
bool set_scores_open(SetScores *s, int64_t room, int classes); // false: no memory
void set_scores_close(SetScores *s);
// Unlabelled pictures are left out.
void set_scores_add(SetScores *s, const float *logits, LabelSet labels);

// Mean over the classes that occur of the average precision, the sum over the distinct scores from
// the highest of (R_i - R_(i-1)) P_i with precision P_i and recall R_i of all scores at least as
// high (scikit-learn's average_precision_score). NaN: no class occurs.
double set_scores_map(const SetScores *s);

// Of all pictures and classes together, where a class is found when its probability is at least
// `threshold`.
typedef struct {
    double precision, recall, f1; // 0 where nothing is found or right
} SetRates;
SetRates set_scores_rates(const SetScores *s, double threshold);

// Whether a classifier's loss takes the labels of a data set: softmax takes exactly one a sample.
CnxrtStatus sets_check(const CnxrtModel *classifier, const Dataset *d, CnxrtError *err);

// Mean over the classes of log(1 + e^x) - y x.
double set_loss(const float *x, int classes, LabelSet labels);

#endif
