// Invariants of a schedule: what code generation and the runtime may rely on. Everything is checked
// that would otherwise read or write outside a buffer, or let one live buffer overwrite another.
#include "schedule.h"

enum { ALIGN = 64 };

static bool spec_has(const KernelInfo *k, AttrId id) {
    for (int i = 0; i < k->nattrs; i++)
        if (k->attrs[i] == id) return true;
    return false;
}

// A pair such as kernel=[7,7]: absent (when that is allowed) or two values of at least lo.
static bool pair_ok(const KernelSpec *s, AttrId id, int64_t lo, bool needed) {
    for (int i = 0; i < s->nattrs; i++)
        if (s->attrs[i].id == id)
            return s->attrs[i].ints.n == 2 && s->attrs[i].ints.v[0] >= lo &&
                   s->attrs[i].ints.v[1] >= lo;
    return !needed;
}

static const char *verify_spec(Arena *a, const KernelSpec *s) {
    static const AttrId sizes[] = {A_n, A_h, A_w, A_c, A_k, A_mr, A_nr, A_tile};
    const KernelInfo *k = &kernel_info[s->kind];
    for (int i = 0; i < s->nattrs; i++) {
        if (!spec_has(k, s->attrs[i].id))
            return arena_printf(a, "%s has no attribute %s", k->name,
                                attr_info[s->attrs[i].id].name);
        if (i > 0 && s->attrs[i - 1].id >= s->attrs[i].id)
            return arena_printf(a, "%s: attributes are not sorted", k->name);
        if (attr_info[s->attrs[i].id].kind == AK_INT && s->attrs[i].i < 0)
            return arena_printf(a, "%s: %s is negative", k->name, attr_info[s->attrs[i].id].name);
    }
    for (int i = 0; i < (int)(sizeof sizes / sizeof sizes[0]); i++)
        if (spec_has(k, sizes[i]) && spec_int(s, sizes[i]) < 1 &&
            !(s->kind == K_GRN_SCALE && sizes[i] == A_k))
            return arena_printf(a, "%s needs %s >= 1", k->name, attr_info[sizes[i]].name);
    if (spec_has(k, A_kernel) && !pair_ok(s, A_kernel, 1, true))
        return arena_printf(a, "%s needs kernel=[kh,kw]", k->name);
    if (!pair_ok(s, A_stride, 1, spec_has(k, A_stride)))
        return arena_printf(a, "%s needs stride=[sh,sw]", k->name);
    if (!pair_ok(s, A_pad, 0, false)) return arena_printf(a, "%s: bad pad", k->name);
    return NULL;
}

// The index of operand "out" of a kernel.
static int out_operand(const KernelSpec *s) {
    int i = 0;
    for (const char *p = kernel_info[s->kind].operands; *p; p++) {
        if (strcmp(p, "out") == 0) return i;
        i += *p == ' ';
    }
    return i;
}

static const char *verify_operand(Arena *a, const Schedule *s, const Operand *o, int step,
                                  bool written) {
    if (o->buffer < 0 || o->buffer >= s->buffers.n)
        return arena_printf(a, "operand buffer b%d does not exist", o->buffer);
    const Buffer *b = &s->buffers.v[o->buffer];
    if (o->offset < 0 || o->row_bytes < 0 || o->block_bytes < 0)
        return arena_printf(a, "operand b%d has a negative offset", o->buffer);
    if (o->offset >= b->bytes && b->bytes > 0)
        return arena_printf(a, "operand b%d+%lld lies outside its %lld bytes", o->buffer,
                            (long long)o->offset, (long long)b->bytes);
    if (o->row_bytes && b->region != REGION_SCRATCH)
        return arena_printf(a, "operand b%d has a row bias but is not scratch", o->buffer);
    if (written && (b->region == REGION_INPUT || b->region == REGION_PARAM))
        return arena_printf(a, "b%d (%s) is written", o->buffer, region_name(b->region));
    if (!region_has_life(b->region) || b->first < 0 || b->offset < 0) return NULL;
    int first = step, last = step;
    if (b->region == REGION_IMAGE || b->region == REGION_FIXED) step_span(s, step, &first, &last);
    if (first >= b->first && last <= b->last) return NULL;
    return arena_printf(a, "b%d is used in step %d but lives %d..%d", o->buffer, step, b->first,
                        b->last);
}

static const char *verify_call(Arena *a, const Schedule *s, const Call *c, int step) {
    if ((unsigned)c->spec.kind >= K_COUNT) return "unknown kernel";
    const char *why = verify_spec(a, &c->spec);
    if (why) return why;
    int want = spec_operands(&c->spec), out = out_operand(&c->spec);
    if (c->nops != want)
        return arena_printf(a, "%s takes %d operands, has %d", kernel_info[c->spec.kind].name, want,
                            c->nops);
    for (int i = 0; i < c->nops; i++) {
        why = verify_operand(a, s, &c->ops[i], step, i == out);
        if (why) return why;
    }
    return c->macs < 0 ? "negative MACs" : NULL;
}

// Parts of the same kernels on whole buffers that have no batch.
static const char *verify_list(Arena *a, const Schedule *s, const Step *st) {
    int calls = st->calls.n % st->rows ? 0 : list_calls(st);
    int64_t elems = 0;
    if (!calls) return arena_printf(a, "%d calls in %lld parts", st->calls.n, (long long)st->rows);
    for (int i = 0; i < st->calls.n; i++) {
        const Call *c = &st->calls.v[i], *first = &st->calls.v[i % calls];
        if (strcmp(spec_print(a, &c->spec), spec_print(a, &first->spec)) != 0)
            return arena_printf(a, "call %d differs from that of the first part", i);
        for (int k = 0; k < c->nops; k++) {
            Region r = s->buffers.v[c->ops[k].buffer].region;
            if (r != s->buffers.v[first->ops[k].buffer].region)
                return arena_printf(a, "call %d: operand %d of region %s, in the first part not", i,
                                    k, region_name(r));
            if (r == REGION_IMAGE || r == REGION_SCRATCH)
                return arena_printf(a, "call %d: operand %d of region %s", i, k, region_name(r));
        }
    }
    for (int part = 0; part < st->rows; part++)
        elems += (list_elems(s, st, part) + LIST_QUANTUM - 1) / LIST_QUANTUM * LIST_QUANTUM;
    if (elems == st->cols && st->col_block % LIST_QUANTUM == 0) return NULL;
    return arena_printf(a, "parts of %lld elements in all; blocks are multiples of %d",
                        (long long)elems, LIST_QUANTUM);
}

// Operands in slots are used in one span; *span: the first step of that of each buffer, -1: none
// yet.
static const char *verify_slots(Arena *a, const Schedule *s, int index, int *span) {
    const Step *step = &s->steps.v[index];
    int first, last;
    step_span(s, index, &first, &last);
    for (int i = 0; i < step->calls.n; i++)
        for (int k = 0; k < step->calls.v[i].nops; k++) {
            int b = step->calls.v[i].ops[k].buffer;
            if (s->buffers.v[b].region != REGION_SLOT) continue;
            if (step->over != OVER_IMAGE || (span[b] >= 0 && span[b] != first))
                return arena_printf(a, "call %d: b%d, a slot, is used outside of its span", i, b);
            span[b] = first;
        }
    if (!step->then) return NULL;
    bool joined = step->over == OVER_IMAGE && last > index && step[1].over == OVER_IMAGE;
    return joined ? NULL : "a span has steps over images only";
}

static const char *verify_step(Arena *a, const Schedule *s, int index) {
    const Step *step = &s->steps.v[index];
    if (step->rows < 1 || step->row_block < 1 || step->cols < 1 || step->col_block < 1)
        return "rows, cols and their blocks must be at least 1";
    for (int i = 0; i < step->calls.n; i++) {
        const char *why = verify_call(a, s, &step->calls.v[i], index);
        if (why) return arena_printf(a, "call %d: %s", i, why);
    }
    return step->over == OVER_LIST ? verify_list(a, s, step) : NULL;
}

// The bytes of a region, or -1 when it has no bound here.
static int64_t region_bytes(const Schedule *s, Region r) {
    switch (r) {
    case REGION_FIXED: return s->fixed_bytes;
    case REGION_IMAGE: return s->image_bytes;
    case REGION_SLOT: return s->slot_bytes;
    case REGION_SCRATCH: return s->scratch_bytes;
    case REGION_WEIGHT: return s->weight_bytes;
    case REGION_STATE:
    case REGION_PARAM: return s->param_bytes;
    default: return -1;
    }
}

static const char *verify_buffer(Arena *a, const Schedule *s, const Buffer *b) {
    if (!b->name) return "no name";
    if (b->bytes < 0) return "negative size";
    bool batch = type_has_batch(b->type);
    if (batch && b->region != REGION_INPUT && b->region != REGION_OUTPUT &&
        b->region != REGION_IMAGE && b->region != REGION_SLOT)
        return arena_printf(a, "region %s cannot hold a batch (%s)", region_name(b->region),
                            type_print(a, b->type));
    if (!batch && (b->region == REGION_IMAGE || b->region == REGION_SLOT))
        return arena_printf(a, "region %s needs a type with a batch, has %s",
                            region_name(b->region), type_print(a, b->type));
    if (b->region == REGION_STATE && (b->port < 0 || b->port >= STATE_COUNT))
        return arena_printf(a, "there is no state %d", b->port);
    if (b->offset < 0) return b->offset == -1 ? NULL : "negative offset";
    if (b->region == REGION_INPUT || b->region == REGION_OUTPUT) return NULL;
    if (b->offset % ALIGN)
        return arena_printf(a, "offset %lld is no multiple of %d", (long long)b->offset, ALIGN);
    if (b->offset + b->bytes > region_bytes(s, b->region))
        return arena_printf(a, "bytes %lld..%lld lie outside the %lld of region %s",
                            (long long)b->offset, (long long)(b->offset + b->bytes),
                            (long long)region_bytes(s, b->region), region_name(b->region));
    return b->first > b->last ? "lives backwards" : NULL;
}

// Live at the same time at overlapping addresses. A buffer may take the very place of one that dies
// in the step it is born in: kernels that work in place.
static bool buffers_clash(const Buffer *x, const Buffer *y) {
    if (x->region != y->region || x->offset < 0 || y->offset < 0) return false;
    if (!region_has_life(x->region)) return false;
    if (x->offset + x->bytes <= y->offset || y->offset + y->bytes <= x->offset) return false;
    if (x->first < 0 || y->first < 0 || x->last < y->first || y->last < x->first) return false;
    bool in_place = x->offset == y->offset && (x->last == y->first || y->last == x->first);
    return !in_place;
}

static const char *verify_buffers(Arena *a, const Schedule *s) {
    for (int i = 0; i < s->buffers.n; i++) {
        const Buffer *b = &s->buffers.v[i];
        const char *why = verify_buffer(a, s, b);
        if (why) return arena_printf(a, "buffer b%d: %s", i, why);
        for (int j = 0; j < i; j++) {
            const Buffer *o = &s->buffers.v[j];
            bool ports = b->region == o->region && b->port == o->port &&
                         (b->region == REGION_INPUT || b->region == REGION_OUTPUT);
            if (ports)
                return arena_printf(a, "buffers b%d and b%d are both %s port %d", j, i,
                                    region_name(b->region), b->port);
            if (buffers_clash(b, o))
                return arena_printf(a, "buffers b%d and b%d overlap while both live", j, i);
        }
    }
    return NULL;
}

const char *schedule_verify(const Schedule *s) {
    Arena *a = s->arena;
    if (!s->name || !s->target) return "no name or no target";
    const char *why = verify_buffers(a, s);
    int *span = NEWN(a, int, s->buffers.n + 1);
    for (int i = 0; i < s->buffers.n; i++) span[i] = -1;
    for (int i = 0; i < s->steps.n && !why; i++) {
        why = verify_step(a, s, i);
        if (!why) why = verify_slots(a, s, i, span);
        if (why) why = arena_printf(a, "step \"%s\": %s", s->steps.v[i].name, why);
    }
    return why;
}
