// cnxc eval: runs IR text by the naive evaluator, on .npy files.
#include "cmd.h"
#include "../ir/eval.h"
#include "../ir/text.h"
#include "../runtime/cnxrt_weights.h"
#include <stdlib.h>
#include <unistd.h>

static const Option options[] = {
    {"input", 'i', "[NAME=]X.npy",
     "an input port's value; NAME may be left out where there is one"},
    {"output", 'o', "[NAME=]Y.npy", "where to write an output port; may be repeated"},
    {"output-port", 0, "NAME", "the port --output without a NAME means (default: the first)"},
    {"weights", 'w', "FILE", "parameters from a checkpoint (safetensors, .pt or .pth)"},
    {"seed", 0, "N", "parameters from the hash of 'cnxc weights init'"},
    {"program", 'p', "NAME", "which program (default: infer, else the first)"},
    {"layout", 0, "nhwc|nchw", "order of rank-4 inputs and outputs (default nhwc, as in the IR)"},
    {"precision", 0, "f32|f64", "of the whole evaluation (default f32)"},
};
static const Command command = {
    .name = "eval",
    .usage = "FILE.ir --input X.npy --output Y.npy [--weights FILE | --seed N]",
    .summary = "run IR text by its naive definition",
    .help =
        "The evaluator is the definition of every op: plain loops, no tricks, slow. The batch is\n"
        "the first dimension of the input. Where the text holds a program prepare (after the\n"
        "pass hoist-prepare), it is run first and its results are the parameters of the other.",
    .options = options,
    .noptions = sizeof options / sizeof *options,
    .trailer = "Examples:\n"
               "  cnxc emit convnextv2_atto -o atto.ir\n"
               "  cnxc eval atto.ir --weights w.safetensors --input x.npy --output y.npy\n"
               "  cnxc eval atto.ir --seed 1 --input x.npy --output logits=y.npy --precision f64",
};

typedef struct {
    const Options *options;
    Arena *arena;
    Diag *diag;
    const Module *module;
    const Graph *graph;   // the program to run
    const Graph *prepare; // run before it, or NULL
    DType dt;
    bool nchw;
    // parameters by name
    const CnxrtParam *params;
    int nparams;
    float *blob; // of a checkpoint, or NULL: seeded
    uint64_t seed;
    Tensor *prepared; // results of prepare
} Eval;

static bool fail(Eval *e, const char *fmt, const char *what) {
    diag_error(e->diag, (Loc){0}, fmt, what);
    return false;
}

// ---- parameters --------------------------------------------------------------------------------

static int prepared_index(const Eval *e, const char *name) {
    for (int i = 0; e->prepare && i < e->prepare->outputs.n; i++)
        if (strcmp(e->prepare->outputs.v[i].name, name) == 0) return i;
    return -1;
}

// Every parameter that must come from outside, with offsets into one blob.
static bool list_params(Eval *e, int64_t *bytes) {
    const Graph *graphs[] = {e->prepare, e->graph};
    VEC(CnxrtParam) list = {0};
    for (int k = 0; k < 2; k++)
        for (int i = 0; graphs[k] && i < graphs[k]->nodes.n; i++) {
            const Node *n = &graphs[k]->nodes.v[i];
            const char *name = n->op == OP_PARAM ? node_str(n, A_name) : NULL;
            if (!name || (k == 1 && prepared_index(e, name) >= 0)) continue;
            bool known = false;
            for (int j = 0; j < list.n; j++) known |= strcmp(list.v[j].name, name) == 0;
            if (known) continue;
            Type t = graph_type(graphs[k], n->first);
            if (type_has_batch(t)) return fail(e, "parameter '%s' depends on the batch", name);
            CnxrtParam p = {.name = name, .rank = t.rank, .offset = *bytes};
            for (int d = 0; d < t.rank; d++) p.dims[d] = t.d[d].c;
            int64_t elements = type_elems_at(t, 1);
            if (elements > (int64_t)1 << 36 || *bytes > (int64_t)1 << 38)
                return fail(e, "parameter '%s' is too large", name);
            *bytes += elements * (int64_t)sizeof(float);
            vec_push(e->arena, &list, p);
        }
    e->params = list.v;
    e->nparams = list.n;
    return true;
}

static bool load_params(Eval *e, const char *path, int64_t bytes) {
    CnxrtError err = {0};
    CnxrtWeights *w = NULL;
    e->blob = arena_alloc(e->arena, (size_t)bytes + 64);
    CnxrtStatus status = cnxrt_weights_open(path, &w, &err);
    if (status == CNXRT_OK) status = cnxrt_weights_load(w, e->params, e->nparams, e->blob, &err);
    cnxrt_weights_close(w);
    if (status != CNXRT_OK) fail(e, "%s", err.text ? err.text : path);
    cnxrt_error_free(&err);
    return status == CNXRT_OK;
}

static Tensor widen(Eval *e, const Tensor *t, DType dt) {
    if (t->dt == dt) return *t;
    Tensor out = tensor_new(e->arena, dt, t->rank, t->d);
    int64_t n = tensor_elems(t);
    for (int64_t i = 0; i < n; i++)
        if (dt == DT_F64)
            ((double *)out.data)[i] = ((const float *)t->data)[i];
        else
            ((float *)out.data)[i] = (float)((const double *)t->data)[i];
    return out;
}

static const char *supply(void *user, const char *name, Type type, Tensor *out) {
    Eval *e = user;
    int index = e->prepared ? prepared_index(e, name) : -1;
    if (index >= 0) {
        *out = e->prepared[index];
        return out->rank == type.rank ? NULL : "program prepare gives it another shape";
    }
    for (int i = 0; i < e->nparams; i++) {
        const CnxrtParam *p = &e->params[i];
        if (strcmp(p->name, name)) continue;
        Tensor t = tensor_new(e->arena, DT_F32, p->rank, p->dims);
        size_t bytes = (size_t)tensor_elems(&t) * sizeof(float);
        if (e->blob)
            memcpy(t.data, (char *)e->blob + p->offset, bytes);
        else
            cnxrt_seed_weights(name, p->rank, p->dims, e->seed, t.data);
        *out = widen(e, &t, e->dt);
        return NULL;
    }
    return "no such parameter";
}

// ---- files -------------------------------------------------------------------------------------

// "NAME=file" -> index of the port and the file; a plain file means port 0 or --output-port.
static const char *split_port(const char *text, const char *const *names, int n, int *port) {
    const char *eq = strchr(text, '=');
    for (int i = 0; eq && i < n; i++)
        if (strlen(names[i]) == (size_t)(eq - text) && !strncmp(names[i], text, strlen(names[i]))) {
            *port = i;
            return eq + 1;
        }
    return text;
}

// Moves between [B,c,h,w] and [B,h,w,c].
static Tensor reorder(Eval *e, const Tensor *t, bool to_nhwc) {
    int64_t B = t->d[0], h = t->d[to_nhwc ? 2 : 1], w = t->d[to_nhwc ? 3 : 2],
            c = t->d[to_nhwc ? 1 : 3];
    int64_t d[] = {B, to_nhwc ? h : c, to_nhwc ? w : h, to_nhwc ? c : w};
    Tensor out = tensor_new(e->arena, t->dt, 4, d);
    size_t size = t->dt == DT_F64 ? 8 : 4;
    for (int64_t b = 0; b < B; b++)
        for (int64_t y = 0; y < h; y++)
            for (int64_t x = 0; x < w; x++)
                for (int64_t k = 0; k < c; k++) {
                    size_t last = (size_t)(((b * h + y) * w + x) * c + k);
                    size_t first = (size_t)(((b * c + k) * h + y) * w + x);
                    memcpy((char *)out.data + (to_nhwc ? last : first) * size,
                           (const char *)t->data + (to_nhwc ? first : last) * size, size);
                }
    return out;
}

static bool read_npy(Eval *e, const char *path, Tensor *out) {
    CnxrtError err = {0};
    CnxrtNpy npy = {0};
    bool wide = e->dt == DT_F64;
    CnxrtStatus status = wide ? cnxrt_npy_read(path, &npy, &err) : CNXRT_OK;
    wide = wide && status == CNXRT_OK && strcmp(npy.dtype, "f8") == 0;
    if (status == CNXRT_OK && !wide) {
        cnxrt_npy_free(&npy);
        status = cnxrt_npy_read_f32(path, &npy, &err);
    }
    if (status != CNXRT_OK) {
        fail(e, "%s", err.text ? err.text : path);
    } else if (npy.rank > MAX_RANK) {
        status = CNXRT_ERROR_FORMAT;
        fail(e, "'%s' has too many dimensions", path);
    } else {
        Tensor t = tensor_new(e->arena, wide ? DT_F64 : DT_F32, npy.rank, npy.dims);
        memcpy(t.data, npy.data, (size_t)tensor_elems(&t) * (wide ? 8 : 4));
        *out = widen(e, &t, e->dt);
    }
    cnxrt_npy_free(&npy);
    cnxrt_error_free(&err);
    return status == CNXRT_OK;
}

// Whether t has the declared type at some batch; sets or checks *batch.
static bool fits(Eval *e, const char *name, Type type, const Tensor *t, int64_t *batch) {
    Str got = {.arena = e->arena};
    bool ok = t->rank == type.rank;
    for (int i = 0; i < t->rank; i++) str_printf(&got, "%s%lld", i ? "," : "", (long long)t->d[i]);
    for (int i = 0; ok && i < type.rank; i++) {
        if (type.d[i].b && *batch == 0 && t->d[i] % type.d[i].c == 0)
            *batch = t->d[i] / type.d[i].c;
        ok = t->d[i] == dim_at(type.d[i], *batch) && t->d[i] > 0;
    }
    if (!ok)
        diag_error(e->diag, (Loc){0}, "input '%s' is %s but the file holds [%s]", name,
                   type_print(e->arena, type), str_cstr(&got));
    return ok;
}

static bool read_inputs(Eval *e, Tensor *inputs, int64_t *batch) {
    const Graph *g = e->graph;
    int n, count = g->inputs.n;
    const char **files = options_all(e->options, "input", &n);
    const char **names = NEWN(e->arena, const char *, count + 1);
    bool *given = NEWN(e->arena, bool, count + 1);
    for (int i = 0; i < count; i++) names[i] = node_str(graph_def(g, g->inputs.v[i]), A_name);
    for (int i = 0; i < n; i++) {
        int port = count == 1 ? 0 : -1;
        const char *path = split_port(files[i], names, count, &port);
        if (port < 0) return fail(e, "--input=%s names no input of the program", files[i]);
        Type type = graph_type(g, g->inputs.v[port]);
        if (!read_npy(e, path, &inputs[port])) return false;
        if (e->nchw && inputs[port].rank == 4) inputs[port] = reorder(e, &inputs[port], true);
        if (!fits(e, names[port], type, &inputs[port], batch)) return false;
        given[port] = true;
    }
    for (int i = 0; i < count; i++)
        if (!given[i])
            return fail(e, "input '%s' is missing: give --input NAME=FILE.npy", names[i]);
    if (*batch == 0) *batch = 1;
    return true;
}

static bool write_outputs(Eval *e, const Tensor *results) {
    const Graph *g = e->graph;
    int n, count = g->outputs.n, first = -1;
    const char **files = options_all(e->options, "output", &n);
    const char **names = NEWN(e->arena, const char *, count + 1);
    const char *port_name =
        options_get(e->options, "output-port", count ? g->outputs.v[0].name : "");
    for (int i = 0; i < count; i++) {
        names[i] = g->outputs.v[i].name;
        if (strcmp(names[i], port_name) == 0) first = i;
    }
    for (int i = 0; i < n; i++) {
        int port = first;
        const char *path = split_port(files[i], names, count, &port);
        if (port < 0) return fail(e, "the program has no output '%s'", port_name);
        Tensor t = widen(e, &results[port], DT_F32);
        if (e->nchw && t.rank == 4) t = reorder(e, &t, false);
        CnxrtError err = {0};
        if (cnxrt_npy_write_f32(path, t.rank, t.d, t.data, &err) != CNXRT_OK) {
            fail(e, "%s", err.text ? err.text : path);
            cnxrt_error_free(&err);
            return false;
        }
    }
    return true;
}

// ---- memory: the evaluator keeps every value ---------------------------------------------------

static double graph_bytes(const Eval *e, const Graph *g, int64_t batch) {
    double total = 0;
    for (int i = 0; i < g->values.n; i++) {
        double elements = 1;
        Type t = g->values.v[i].type;
        for (int k = 0; k < t.rank; k++)
            elements *= (double)t.d[k].c * (t.d[k].b ? (double)batch : 1);
        total += elements * dtype_bytes(e->dt);
    }
    for (int i = 0; i < g->nodes.n; i++)
        if (g->nodes.v[i].body) total += graph_bytes(e, g->nodes.v[i].body, batch);
    return total;
}

static bool memory_suffices(Eval *e, int64_t batch) {
    double need = graph_bytes(e, e->graph, batch);
    if (e->prepare) need += graph_bytes(e, e->prepare, 1);
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGE_SIZE);
    if (need <= have) return true;
    diag_error(e->diag, (Loc){0}, "the values of program %s take %.1f GB; this machine has %.1f GB",
               e->graph->name, need / 1e9, have / 1e9);
    return false;
}

// ---- the command -------------------------------------------------------------------------------

static bool pick_program(Eval *e) {
    const char *name = options_get(e->options, "program", NULL);
    e->graph = module_find(e->module, name ? name : "infer");
    if (!e->graph && !name && e->module->graphs.n) e->graph = e->module->graphs.v[0];
    if (!e->graph) return fail(e, "the text has no program '%s'", name ? name : "infer");
    e->prepare = module_find(e->module, "prepare");
    if (e->prepare == e->graph) e->prepare = NULL;
    return true;
}

static bool run(Eval *e) {
    int64_t batch = 0, bytes = 0;
    const char *weights = options_get(e->options, "weights", NULL);
    if (!pick_program(e) || !memory_suffices(e, 1) || !list_params(e, &bytes)) return false;
    if (e->nparams && !weights && !options_has(e->options, "seed"))
        return fail(e, "parameter '%s' needs a value: give --weights FILE or --seed N",
                    e->params[0].name);
    if (weights && !load_params(e, weights, bytes)) return false;
    Tensor *inputs = NEWN(e->arena, Tensor, e->graph->inputs.n + 1);
    Tensor *results = NEWN(e->arena, Tensor, e->graph->outputs.n + 1);
    if (!read_inputs(e, inputs, &batch) || !memory_suffices(e, batch)) return false;
    EvalContext ctx = {.arena = e->arena, .dt = e->dt, .batch = batch, .param = supply, .user = e};
    const char *why = NULL;
    if (e->prepare) {
        Tensor *prepared = NEWN(e->arena, Tensor, e->prepare->outputs.n + 1);
        why = eval_graph(&ctx, e->prepare, prepared);
        e->prepared = prepared;
    }
    ctx.inputs = inputs;
    if (!why) why = eval_graph(&ctx, e->graph, results);
    return why ? fail(e, "%s", why) : write_outputs(e, results);
}

static bool word(const Options *o, const char *name, const char *no, const char *yes, bool *out) {
    const char *text = options_get(o, name, no);
    *out = strcmp(text, yes) == 0;
    if (*out || strcmp(text, no) == 0) return true;
    fprintf(stderr, "cnxc eval: error: --%s is '%s'; it must be %s or %s\n", name, text, no, yes);
    return false;
}

int cmd_eval(Arena *a, int argc, char *const *argv) {
    Options o;
    int status = cmd_begin(&o, a, &command, argc, argv, 1, 1);
    if (status >= 0) return status;
    Eval e = {.options = &o, .arena = a, .diag = diag_new(a, stderr)};
    bool wide;
    int64_t seed = 0;
    if (!word(&o, "layout", "nhwc", "nchw", &e.nchw) ||
        !word(&o, "precision", "f32", "f64", &wide) ||
        !options_int(&o, "seed", 0, INT64_MAX, &seed, stderr))
        return EXIT_USAGE;
    e.dt = wide ? DT_F64 : DT_F32;
    e.seed = (uint64_t)seed;
    size_t n = 0;
    const char *path = o.args.v[0];
    char *text = cmd_read(a, e.diag, path, &n);
    e.module = text ? module_parse(a, e.diag, strcmp(path, "-") ? path : "<stdin>", text, n) : NULL;
    if (!e.module) return EXIT_INPUT;
    for (int i = 0; i < e.module->graphs.n; i++) {
        const char *why = graph_verify(e.module->graphs.v[i]);
        if (why) return fail(&e, "%s", why), EXIT_INPUT;
    }
    return run(&e) ? EXIT_DONE : EXIT_INPUT;
}
