// Lifetimes from the steps, then offsets: largest buffer first, each at the lowest offset where no
// buffer that lives at the same time lies (best fit by size order). Regions are planned apart:
// IMAGE (bytes per image), FIXED, SLOT (per image in work), SCRATCH (per thread), WEIGHT and PARAM
// (everything lives). Threads are anywhere in a span of steps, so what it touches of IMAGE and
// FIXED lives from its first step to its last.
//
// STATE buffers have the offsets of their parameters in PARAM; a parameter that prepare does not
// read gets a place there all the same. WEIGHT offsets are decided by prepare's schedule and shared
// by all programs, by name.
#include "sched.h"

enum { ALIGN = 64 };

static int64_t align_up(int64_t x) { return (x + ALIGN - 1) / ALIGN * ALIGN; }

static void find_lifetimes(Schedule *s) {
    for (int i = 0; i < s->steps.n; i++)
        for (int c = 0; c < s->steps.v[i].calls.n; c++) {
            const Call *call = &s->steps.v[i].calls.v[c];
            for (int k = 0; k < call->nops; k++) {
                Buffer *b = &s->buffers.v[call->ops[k].buffer];
                if (b->first < 0) b->first = i;
                b->last = i;
            }
        }
    for (int i = 0; i < s->buffers.n; i++) {
        Buffer *b = &s->buffers.v[i];
        int other;
        if (b->first < 0) b->first = b->last = 0;
        if (b->region != REGION_IMAGE && b->region != REGION_FIXED) continue;
        if (s->steps.n) step_span(s, b->first, &b->first, &other);
        if (s->steps.n) step_span(s, b->last, &other, &b->last);
    }
}

static bool overlap_in_time(const Buffer *x, const Buffer *y) {
    return x->first <= y->last && y->first <= x->last;
}

// The lowest offset at which `b` meets no placed buffer of its region and time.
static int64_t place(const Schedule *s, const Buffer *b, const int *order, int placed) {
    int64_t at = 0;
    for (bool moved = true; moved;) {
        moved = false;
        for (int i = 0; i < placed; i++) {
            const Buffer *o = &s->buffers.v[order[i]];
            if (!overlap_in_time(o, b)) continue;
            int64_t end = align_up(o->offset + o->bytes);
            if (at < end && o->offset < at + b->bytes) {
                at = end;
                moved = true;
            }
        }
    }
    return at;
}

static int64_t plan_region(Schedule *s, Region region) {
    int *order = NEWN(s->arena, int, s->buffers.n + 1), n = 0;
    for (int i = 0; i < s->buffers.n; i++) {
        if (s->buffers.v[i].region != region) continue;
        int k = n++;
        for (; k > 0 && s->buffers.v[order[k - 1]].bytes < s->buffers.v[i].bytes; k--)
            order[k] = order[k - 1];
        order[k] = i;
    }
    int64_t size = 0;
    for (int i = 0; i < n; i++) {
        Buffer *b = &s->buffers.v[order[i]];
        b->offset = place(s, b, order, i);
        int64_t end = align_up(b->offset + b->bytes);
        if (end > size) size = end;
    }
    return size;
}

// One after the other, in order of appearance.
static int64_t lay_out(Schedule *s, Region region) {
    int64_t at = 0;
    for (int i = 0; i < s->buffers.n; i++) {
        Buffer *b = &s->buffers.v[i];
        if (b->region != region) continue;
        b->offset = at;
        at += align_up(b->bytes);
    }
    return at;
}

// The buffer of that name, looked for from *from on, where it is left: -1, *from stays. Programs
// name parameters in about one order, so that a search is short.
static int find_buffer(const Schedule *s, Region region, const char *name, int *from) {
    int n = s->buffers.n;
    for (int i = 0; i < n; i++) {
        int k = *from + i < n ? *from + i : *from + i - n;
        if (s->buffers.v[k].region == region && strcmp(s->buffers.v[k].name, name) == 0)
            return *from = k;
    }
    return -1;
}

// What another program reads is what prepare writes, name by name. False after an error: the text
// of a schedule may disagree with its prepare.
static bool share_weights(Pipeline *p, Schedule *s, const Schedule *prepare) {
    int from = 0;
    s->weight_bytes = prepare->weight_bytes;
    for (int i = 0; i < s->buffers.n; i++) {
        Buffer *b = &s->buffers.v[i];
        if (b->region != REGION_WEIGHT) continue;
        int found = find_buffer(prepare, REGION_WEIGHT, b->name, &from);
        const Buffer *w = found < 0 ? NULL : &prepare->buffers.v[found];
        if (!w || w->bytes != b->bytes) {
            diag_error(p->diag, (Loc){0}, "weight %s of schedule %s has %lld bytes, but %s",
                       b->name, s->name, (long long)b->bytes,
                       w ? arena_printf(p->arena, "prepare makes %lld", (long long)w->bytes)
                         : "schedule prepare does not make it");
            return false;
        }
        b->offset = w->offset;
    }
    return true;
}

// Raw parameters of all programs, those of prepare first: one place for each in every blob.
static Schedule *list_params(Pipeline *p, Schedule *prepare) {
    Schedule *all = prepare;
    for (int i = 0; i < p->schedules.n; i++) {
        const Schedule *s = p->schedules.v[i];
        int from = 0;
        for (int k = 0; k < s->buffers.n; k++) {
            Buffer b = s->buffers.v[k];
            const char *param;
            if (b.region != REGION_STATE || state_of_name(b.name, &param) < 0) continue;
            if (!all) {
                all = NEW(p->arena, Schedule);
                all->arena = p->arena;
            }
            if (find_buffer(all, REGION_PARAM, param, &from) >= 0) continue;
            b.region = REGION_PARAM;
            b.name = param;
            b.port = 0;
            vec_push(p->arena, &all->buffers, b);
        }
    }
    if (all) all->param_bytes = lay_out(all, REGION_PARAM);
    return all;
}

static void share_states(Schedule *s, const Schedule *params) {
    int from = 0;
    for (int i = 0; i < s->buffers.n; i++) {
        Buffer *b = &s->buffers.v[i];
        const char *param;
        if (b->region != REGION_STATE || state_of_name(b->name, &param) < 0) continue;
        b->offset = params->buffers.v[find_buffer(params, REGION_PARAM, param, &from)].offset;
        s->param_bytes = params->param_bytes;
    }
}

void pass_plan_memory(Pipeline *p) {
    Schedule *prepare = NULL;
    for (int i = 0; i < p->schedules.n; i++)
        if (strcmp(p->schedules.v[i]->name, "prepare") == 0) prepare = p->schedules.v[i];
    Schedule *params = list_params(p, prepare);
    if (prepare) prepare->weight_bytes = lay_out(prepare, REGION_WEIGHT);
    for (int i = 0; i < p->schedules.n; i++) {
        Schedule *s = p->schedules.v[i];
        ice_context.program = s->name;
        find_lifetimes(s);
        s->image_bytes = plan_region(s, REGION_IMAGE);
        s->fixed_bytes = plan_region(s, REGION_FIXED);
        s->slot_bytes = plan_region(s, REGION_SLOT);
        s->scratch_bytes = plan_region(s, REGION_SCRATCH);
        if (s != prepare) s->param_bytes = lay_out(s, REGION_PARAM);
        share_states(s, params);
        if (s == prepare) continue;
        if (!prepare)
            s->weight_bytes = lay_out(s, REGION_WEIGHT);
        else if (!share_weights(p, s, prepare))
            return;
    }
}
