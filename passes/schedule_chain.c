// Chains of elementwise ops as one step: what is read once, by an elementwise op, is a word of that
// op's program and never written. Sums of the result (sum_rows, grn_stat, a product's image_sum)
// ride along as partial sums. Kernels with an epilogue take over the links that follow them and the
// sums likewise.
//
//   gelu_dx(add(scale(dz, s), grn_stat_dx(dG, h, G)), p), sum_rows of it
//     -> eltwise [scale s, fma_scale h dG/G, gelu_dx p, stat_mean]
#include "sched.h"

enum { MAX_CHAIN = 6 }; // links of one: words, operands and sums fit an epilogue
enum { NEAR = 4 };      // nodes ahead for which a value is made early

// How the result of a link reaches its reader: through memory, as the value under construction, or
// as a product with a vector that is added.
typedef enum { IN_MEMORY, AS_VALUE, AS_PRODUCT } Role;

static bool is_grn_l2(const Node *n) {
    return n->op == OP_GRN_STAT_DX && node_int(n, A_aggregate) == AGG_L2;
}

// x [B,...] times s [B].
static bool scales_images(const Sched *sc, const Node *n) {
    return n->op == OP_SCALE_ROWS && type_has_batch(graph_type(sc->g, n->first)) &&
           graph_type(sc->g, n->first).d[0].c == 1;
}

static bool is_link(const Sched *sc, const Node *n) {
    switch (n->op) {
    case OP_SCALE_ROWS: return graph_type(sc->g, n->first).rank >= 2 && scales_images(sc, n);
    case OP_MASK: return sc->factors[n->first] >= 0;
    case OP_ADD:
    case OP_MUL:
    case OP_SCALE:
    case OP_GELU:
    case OP_GELU_DX: return graph_type(sc->g, n->first).rank >= 2;
    default: return is_grn_l2(n);
    }
}

// v is made by a link for its one reader.
static bool is_made_for_one(const Sched *sc, Value v) {
    return sc->uses[v] == 1 && is_link(sc, graph_def(sc->g, v)) && !is_done(sc, v);
}

// The same, and not just a product of what is there with a vector, which can be added.
static bool is_under_construction(const Sched *sc, Value v) {
    const Node *n = graph_def(sc->g, v);
    if (!is_made_for_one(sc, v)) return false;
    return !(n->op == OP_SCALE || is_grn_l2(n)) || is_made_for_one(sc, n->args[is_grn_l2(n)]);
}

// The operand whose elements become the result's. Of a sum it is the second where that one alone is
// under construction.
static Value primary(const Sched *sc, const Node *n) {
    if (n->op == OP_GRN_STAT_DX) return n->args[1];
    if (n->op != OP_ADD) return n->args[0];
    bool swap = type_eq(graph_type(sc->g, n->args[0]), graph_type(sc->g, n->args[1])) &&
                is_under_construction(sc, n->args[1]) && !is_under_construction(sc, n->args[0]);
    return n->args[swap];
}

// The other one of two.
static Value secondary(const Sched *sc, const Node *n) {
    return n->args[n->args[0] == primary(sc, n)];
}

// The one node that reads v, NULL where several do or it is a result of the program.
static const Node *only_reader(const Sched *sc, Value v) {
    if (sc->uses[v] != 1) return NULL;
    for (const Node *u = graph_def(sc->g, v) + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++)
        for (int k = 0; k < u->nargs; k++)
            if (u->args[k] == v) return u;
    return NULL;
}

// What the reader of link n allows.
static Role role_for_reader(const Sched *sc, const Node *n) {
    if (!is_link(sc, n) || is_done(sc, n->first)) return IN_MEMORY;
    const Node *u = only_reader(sc, n->first);
    if (!u || !is_link(sc, u) || (u->op == OP_MUL && mul_defers(sc, u))) return IN_MEMORY;
    if (!type_eq(graph_type(sc->g, u->first), graph_type(sc->g, n->first))) return IN_MEMORY;
    if (primary(sc, u) == n->first) return AS_VALUE;
    bool product = n->op == OP_SCALE || is_grn_l2(n);
    return u->op == OP_ADD && product ? AS_PRODUCT : IN_MEMORY;
}

static Role role(const Sched *sc, const Node *n);

static int chain_length(const Sched *sc, const Node *n) {
    const Node *from = graph_def(sc->g, primary(sc, n));
    return 1 + (role(sc, from) == AS_VALUE ? chain_length(sc, from) : 0);
}

static Role role(const Sched *sc, const Node *n) {
    Role r = role_for_reader(sc, n);
    if (r != AS_VALUE) return r;
    if (role_for_reader(sc, only_reader(sc, n->first)) == AS_PRODUCT) return IN_MEMORY;
    return chain_length(sc, n) < MAX_CHAIN ? AS_VALUE : IN_MEMORY;
}

// ---- words -------------------------------------------------------------------------------------
typedef struct {
    SpecAttrs attrs;
    Operands first, rest; // x and out; those of the words
} Chain;

static void add_product(Sched *sc, Chain *c, const Node *n) {
    bool scale = n->op == OP_SCALE;
    spec_word(&c->attrs, EPI_FMA_SCALE);
    operand_value(sc, &c->rest, n->args[scale ? 0 : 1]);
    if (scale)
        operand_value(sc, &c->rest, n->args[1]);
    else
        operand_add(&c->rest, grn_stat_factor(sc, n));
}

// The word of a link of two operands, `other` being the one that is not the value.
static Epilogue link_word(const Sched *sc, const Node *n, Value other) {
    switch (n->op) {
    case OP_GELU_DX: return node_int(n, A_approx) ? EPI_GELU_TANH_DX : EPI_GELU_DX;
    case OP_SCALE: return EPI_SCALE;
    case OP_SCALE_ROWS: return EPI_SCALE_IMAGE;
    case OP_MASK: return EPI_SCALE_ROWS;
    case OP_MUL: return EPI_MUL;
    default:
        return type_eq(graph_type(sc->g, n->first), graph_type(sc->g, other)) ? EPI_ADD : EPI_BIAS;
    }
}

static void add_word(Sched *sc, const Node *n, Value other, SpecAttrs *s, Operands *o) {
    spec_word(s, link_word(sc, n, other));
    if (n->op == OP_MASK)
        operand_add(o, sc->factors[n->first]);
    else
        operand_value(sc, o, other);
}

static void add_link(Sched *sc, Chain *c, const Node *n) {
    if (n->op == OP_GRN_STAT_DX) {
        spec_word(&c->attrs, EPI_SCALE);
        operand_add(&c->rest, grn_stat_factor(sc, n));
    } else if (n->op == OP_GELU) {
        spec_word(&c->attrs, node_int(n, A_approx) ? EPI_GELU_TANH : EPI_GELU);
    } else if (n->op == OP_ADD && role(sc, graph_def(sc->g, secondary(sc, n))) == AS_PRODUCT) {
        add_product(sc, c, graph_def(sc->g, secondary(sc, n)));
    } else {
        add_word(sc, n, secondary(sc, n), &c->attrs, &c->rest);
    }
}

// The words of n and of the links below it; the value the chain starts from.
static Value add_links(Sched *sc, Chain *c, const Node *n) {
    const Node *from = graph_def(sc->g, primary(sc, n));
    Value start = primary(sc, n);
    if (role(sc, from) == AS_VALUE) start = add_links(sc, c, from);
    add_link(sc, c, n);
    return start;
}

// The statistic that alone reads mask n, NULL where there is none or it needs two passes.
static const Node *masks_stat(const Sched *sc, const Node *n) {
    const Node *u = sc->factors[n->first] < 0 ? NULL : only_reader(sc, n->first);
    bool streams = u && u->op == OP_GRN_STAT && node_int(u, A_aggregate) != AGG_STD;
    return streams ? u : NULL;
}

// ---- links that follow a kernel ----------------------------------------------------------------
bool is_there(const Sched *sc, const Node *n, Value v) {
    const Node *def = graph_def(sc->g, sc->root[v]);
    if (def->op == OP_INPUT || def->op == OP_PARAM) return true;
    return def < n && role(sc, def) == IN_MEMORY && sc->deferred[sc->root[v]] < 0;
}

// The other operand of link u on v when u can follow at once: NO_VALUE when it cannot. Of a sum v
// may be either operand.
static Value follows_with(const Sched *sc, const Node *n, const Node *u, Value v) {
    if (!is_link(sc, u) || is_grn_l2(u) || u->nargs != 2 || is_done(sc, u->first)) return NO_VALUE;
    if (!type_eq(graph_type(sc->g, u->first), graph_type(sc->g, v))) return NO_VALUE;
    bool sum =
        u->op == OP_ADD && type_eq(graph_type(sc->g, u->args[0]), graph_type(sc->g, u->args[1]));
    if (u->args[0] != v && !sum) return NO_VALUE;
    Value other = u->args[u->args[0] == v];
    if (u->op == OP_MUL && mul_defers(sc, u)) return NO_VALUE;
    return is_there(sc, n, other) ? other : NO_VALUE;
}

// Appends u, which reads v, to a kernel that runs when n is scheduled. False when it cannot follow.
static bool take_link(Sched *sc, const Node *n, const Node *u, Value v, SpecAttrs *s, Operands *o) {
    Value other = s->nepilogue < MAX_CHAIN ? follows_with(sc, n, u, v) : NO_VALUE;
    if (other == NO_VALUE) return false;
    add_word(sc, u, other, s, o);
    vec_push(sc->a, &sc->done, u->first);
    return true;
}

static Value chain_follow(Sched *sc, const Node *n, Value v, SpecAttrs *s, Operands *o) {
    for (const Node *u; sc->p->fuse_steps && (u = only_reader(sc, v)); v = u->first)
        if (!take_link(sc, n, u, v, s, o)) break;
    return v;
}

// Readers of v that come after and are not scheduled along.
static int readers_left(const Sched *sc, const Node *n, Value v) {
    int readers = 0;
    for (int i = 0; i < sc->g->outputs.n; i++) readers += sc->g->outputs.v[i].value == v;
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++)
        for (int k = 0; k < u->nargs; k++) readers += u->args[k] == v && !is_done(sc, u->first);
    return readers;
}

// Where several nodes read v, the result of chain n, and one of the next is a link: v is stored,
// unless the others are done, on the way to what that one's chain ends in. Returns what the kernel
// writes last.
static Value store_and_follow(Sched *sc, const Node *n, SpecAttrs *s, Operands *o) {
    const Node *end = sc->g->nodes.v + sc->g->nodes.n;
    if (sc->uses[n->first] < 2 || s->nepilogue + 2 > MAX_CHAIN) return n->first;
    for (const Node *u = n + 1; u < end && u <= n + NEAR; u++) {
        if (u->nargs != 2 || u->args[0] != n->first || role(sc, u) == AS_PRODUCT ||
            follows_with(sc, n, u, n->first) == NO_VALUE)
            continue;
        if (readers_left(sc, n, n->first) > 1) {
            spec_word(s, EPI_STORE);
            operand_value(sc, o, n->first);
        }
        take_link(sc, n, u, n->first, s, o);
        return chain_follow(sc, n, u->first, s, o);
    }
    return n->first;
}

// Where v, the result of node n, whose kernel applies s, is wanted besides a mask or a factor for
// each image of it: v is stored on the way to that. Returns what the kernel writes last.
static Value store_and_scale(Sched *sc, const Node *n, Value v, SpecAttrs *s, Operands *o) {
    const Node *def = graph_def(sc->g, v), *end = sc->g->nodes.v + sc->g->nodes.n;
    if (sc->uses[v] < 2 || s->nepilogue + 2 > MAX_CHAIN) return v;
    for (const Node *u = def + 1; u < end && u <= def + NEAR; u++) {
        bool scales = u->op == OP_MASK || u->op == OP_SCALE_ROWS;
        if (!scales || u->args[0] != v || role(sc, u) != IN_MEMORY || masks_stat(sc, u) ||
            follows_with(sc, n, u, v) == NO_VALUE)
            continue;
        spec_word(s, EPI_STORE);
        operand_value(sc, o, v);
        take_link(sc, n, u, v, s, o);
        return u->first;
    }
    return v;
}

// ---- sums that ride along ----------------------------------------------------------------------
// The first node after n that is op of v.
static const Node *reader_of(const Sched *sc, const Node *n, Value v, Op op) {
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++)
        if (u->op == op && u->args[0] == v && !is_done(sc, u->first)) return u;
    return NULL;
}

// A product of v with what is there before n, summed over the positions of an image.
static const Node *product_of(const Sched *sc, const Node *n, Value v, Value *other) {
    for (const Node *u = n + 1; u < sc->g->nodes.v + sc->g->nodes.n; u++) {
        if (u->op != OP_MUL || is_done(sc, u->first)) continue;
        if ((u->args[0] != v && u->args[1] != v) || !mul_defers(sc, u)) continue;
        *other = u->args[u->args[0] == v];
        const Node *def = graph_def(sc->g, *other);
        if (def < n && role(sc, def) == IN_MEMORY && sc->deferred[*other] < 0) return u;
    }
    return NULL;
}

static void ride(Sched *sc, Riders *k, const Node *u, Epilogue word, SpecAttrs *s, Operands *o) {
    int i = k->n++;
    k->node[i] = u;
    k->partial[i] = partials_new(sc, u, k->blocks, k->r.n, k->r.batch);
    spec_word(s, word);
    operand_blocks(o, k->partial[i], k->r.n * 4);
}

static void ride_stat(Sched *sc, Riders *k, const Node *stat, int64_t block, SpecAttrs *s,
                      Operands *o) {
    const Stat *st = stat_new(sc, stat, stat, stat->first, k->r, block);
    spec_word(s, (Epilogue)(EPI_STAT_L2 + node_int(stat, A_aggregate)));
    operand_blocks(o, st->partial, k->r.n * 4);
    k->stat = stat;
}

static Riders riders_begin(Sched *sc, const Node *n, Value v, Rows r, int64_t block, SpecAttrs *s,
                           Operands *o) {
    Riders k = {.r = r, .blocks = (r.rows + block - 1) / block};
    Value other = NO_VALUE;
    if (!sc->p->fuse_steps || s->nepilogue + 3 > MAX_GROUP) return k;
    const Node *sum = reader_of(sc, n, v, OP_SUM_ROWS), *product = product_of(sc, n, v, &other);
    const Node *stat = reader_of(sc, n, v, OP_GRN_STAT);
    if (sum) ride(sc, &k, sum, EPI_STAT_MEAN, s, o);
    if (stat && node_int(stat, A_aggregate) != AGG_STD) ride_stat(sc, &k, stat, block, s, o);
    if (!product || !r.batch) return k;
    operand_value(sc, o, other);
    ride(sc, &k, reader_of(sc, product, product->first, OP_IMAGE_SUM), EPI_STAT_DOT, s, o);
    vec_push(sc->a, &sc->done, product->first);
    return k;
}

static void riders_masked(Sched *sc, Riders *k, const Node *n, Value v, int64_t block, SpecAttrs *s,
                          Operands *o) {
    if (!sc->p->fuse_steps || k->stat || s->nepilogue + 3 > MAX_GROUP) return;
    const Node *mask = reader_of(sc, n, v, OP_MASK), *stat = mask ? masks_stat(sc, mask) : NULL;
    if (!stat) return;
    spec_word(s, EPI_OUT);
    add_word(sc, mask, mask->args[1], s, o);
    ride_stat(sc, k, stat, block, s, o);
    vec_push(sc->a, &sc->done, mask->first);
}

// The sum of v times a factor for each image that nothing else reads. True when it rides along: the
// kernel's result is v then.
static bool riders_scaled(Sched *sc, Riders *k, const Node *n, Value v, SpecAttrs *s, Operands *o) {
    const Node *scale = reader_of(sc, n, v, OP_SCALE_ROWS);
    if (!scale || !scales_images(sc, scale) || sc->uses[scale->first] != 1 ||
        follows_with(sc, n, scale, v) == NO_VALUE)
        return false;
    const Node *sum = reader_of(sc, scale, scale->first, OP_SUM_ROWS);
    if (!sum || k->stat || k->n == 2 || s->nepilogue + 3 > MAX_GROUP) return false;
    spec_word(s, EPI_OUT);
    add_word(sc, scale, scale->args[1], s, o);
    ride(sc, k, sum, EPI_STAT_MEAN, s, o);
    vec_push(sc->a, &sc->done, scale->first);
    return true;
}

static void riders_end(Sched *sc, const Riders *k) {
    if (k->stat) {
        materialise_stat(sc, k->stat, k->stat->first);
        vec_push(sc->a, &sc->done, k->stat->first);
    }
    for (int i = 0; i < k->n; i++) {
        const Node *u = k->node[i];
        vec_push(sc->a, &sc->done, u->first);
        if (u->op == OP_SUM_ROWS)
            reduce_partials(sc, u, k->partial[i], k->blocks, k->r.n, k->r.batch, u->first);
        else
            sum_image_partials(sc, u, k->partial[i], k->blocks);
    }
}

// ---- all that follows --------------------------------------------------------------------------
Value follow_begin(Sched *sc, const Node *n, Value v, Rows r, int64_t block, SpecAttrs *s,
                   Operands *o, Follow *f) {
    *f = (Follow){0};
    if (!sc->p->fuse_steps) return v;
    v = chain_follow(sc, n, v, s, o);
    f->first = riders_begin(sc, n, v, r, block, s, o);
    riders_masked(sc, &f->first, n, v, block, s, o);
    bool ends = riders_scaled(sc, &f->first, n, v, s, o) || f->first.stat;
    Value scaled = ends ? v : store_and_scale(sc, n, v, s, o);
    if (scaled != v) f->last = riders_begin(sc, n, scaled, r, block, s, o);
    return scaled;
}

void follow_end(Sched *sc, const Follow *f) {
    riders_end(sc, &f->first);
    riders_end(sc, &f->last);
}

// ---- the step ----------------------------------------------------------------------------------
static void schedule_links(Sched *sc, const Node *n) {
    Rows r = rows_of(graph_type(sc->g, n->first));
    Chain c = {0};
    Value start = add_links(sc, &c, n);
    int64_t block = sc->trains ? shared_block(sc, r.rows, r.n)
                               : row_block(r.rows, 1, 1, r.n * 4 * (c.rest.n + 2), sc->t->l2 / 2);
    operand_value(sc, &c.first, start);
    operand_add(&c.first, -1); // out: below
    for (int i = 0; i < c.rest.n; i++) c.first.v[c.first.n++] = c.rest.v[i];
    Riders riders = riders_begin(sc, n, n->first, r, block, &c.attrs, &c.first);
    Value last = store_and_follow(sc, n, &c.attrs, &c.first);
    c.first.v[1].buffer = buffer_of(sc, last);
    spec_set(&c.attrs, A_n, r.n);
    Step *st = step_new(sc, n, r.batch ? OVER_IMAGE : OVER_ONCE, r.rows, block, r.n, r.n);
    call_new(sc, st, K_ELTWISE, &c.attrs, &c.first, n, 0);
    riders_end(sc, &riders);
}

static bool has_riders(const Sched *sc, const Node *n) {
    Value other;
    return reader_of(sc, n, n->first, OP_SUM_ROWS) || reader_of(sc, n, n->first, OP_GRN_STAT) ||
           product_of(sc, n, n->first, &other);
}

bool schedule_chain(Sched *sc, const Node *n) {
    if (!sc->p->fuse_steps || !is_link(sc, n)) return false;
    if (n->op == OP_MUL && mul_defers(sc, n)) return false;
    if (role(sc, n) != IN_MEMORY) return true; // of a chain to come
    bool alone = chain_length(sc, n) == 1 &&
                 !(n->op == OP_ADD && role(sc, graph_def(sc->g, secondary(sc, n))) == AS_PRODUCT);
    if (alone && !has_riders(sc, n)) return false;
    schedule_links(sc, n);
    return true;
}
