// cnxc weights: inspect, convert and make checkpoints through the runtime's readers.
#include "cmd.h"
#include "../runtime/cnxrt_weights.h"
#include "network.h"

static const Option options[] = {
    {"names", 0, "SCHEME", "convert: official, timm or hf"},
    {"dtype", 0, "TYPE", "convert: f32 (default), f16 or bf16, at half the size"},
    {"seed", 0, "N", "init: seed of the values (default 0)"},
    OPTION_SET,
};
static const Command command = {
    .name = "weights",
    .usage =
        "inspect FILE | convert IN OUT --names=SCHEME [--dtype=TYPE] | init SPEC OUT [--seed N]",
    .summary = "inspect, convert or make checkpoints",
    .help =
        "Files are safetensors or what torch.save writes (.pt, .pth); results are safetensors.\n\n"
        "  inspect FILE       lists the tensors and the naming scheme they follow\n"
        "  convert IN OUT     rewrites a checkpoint under another scheme's names and shapes\n"
        "  init SPEC OUT      writes every parameter of a spec under its official name with\n"
        "                     values from a fixed hash of (name, index, seed): for tests and\n"
        "                     for trying things without a trained model",
    .options = options,
    .noptions = sizeof options / sizeof *options,
    .trailer = "Examples:\n"
               "  cnxc weights inspect convnextv2_atto_1k_224_ema.pt\n"
               "  cnxc weights convert model.pt model.safetensors --names=timm\n"
               "  cnxc weights init convnextv2_atto seeded.safetensors --seed 1",
};

static int failed(const char *path, CnxrtError *err) {
    fprintf(stderr, "cnxc weights: error: %s\n", err->text ? err->text : path);
    cnxrt_error_free(err);
    return EXIT_INPUT;
}

static int inspect(Arena *a, const char *path) {
    CnxrtWeights *w = NULL;
    CnxrtError err = {0};
    if (cnxrt_weights_open(path, &w, &err) != CNXRT_OK) return failed(path, &err);
    int64_t total = 0;
    for (int i = 0; i < cnxrt_weights_count(w); i++) {
        const CnxrtTensorInfo *t = cnxrt_weights_info(w, i);
        Str shape = {.arena = a};
        int64_t n = 1;
        for (int k = 0; k < t->rank; k++) {
            str_printf(&shape, "%s%lld", k ? "," : "", (long long)t->dims[k]);
            n *= t->dims[k];
        }
        total += n;
        printf("%-56s %-5s [%s]\n", t->name, t->dtype, str_cstr(&shape));
    }
    printf("%d tensors, %s elements, names: %s\n", cnxrt_weights_count(w), cmd_thousands(a, total),
           cnxrt_weights_scheme(w));
    printf("%s\n", cnxrt_weights_about(w));
    cnxrt_weights_close(w);
    return EXIT_DONE;
}

static int convert(const char *in, const char *out, const char *scheme, const char *dtype) {
    static const char *const schemes[] = {"official", "timm", "hf"};
    bool known = false;
    for (int i = 0; scheme && i < 3; i++) known |= strcmp(scheme, schemes[i]) == 0;
    if (!known) {
        fprintf(stderr, "cnxc weights: error: --names is %s; it must be official, timm or hf\n",
                scheme ? scheme : "missing");
        const char *near = scheme ? nearest_name(scheme, schemes, 3) : NULL;
        if (near) fprintf(stderr, "    hint: did you mean '%s'?\n", near);
        return EXIT_USAGE;
    }
    CnxrtError err = {0};
    if (cnxrt_weights_convert(in, out, scheme, dtype, &err) != CNXRT_OK) return failed(in, &err);
    return EXIT_DONE;
}

// One parameter under its official name; GRN vectors as (1,1,1,K), as the official code keeps them.
static CnxrtTensor seeded(Arena *a, const char *name, Type t, uint64_t seed) {
    CnxrtTensor out = {.name = name, .rank = t.rank};
    for (int k = 0; k < t.rank; k++) out.dims[k] = t.d[k].c;
    float *data = arena_alloc(a, sizeof(float) * (size_t)type_elems_at(t, 1));
    cnxrt_seed_weights(name, out.rank, out.dims, seed, data);
    out.data = data;
    if (strstr(name, ".grn.") && t.rank == 1) {
        out.rank = 4;
        out.dims[3] = out.dims[0];
        out.dims[0] = out.dims[1] = out.dims[2] = 1;
    }
    return out;
}

static int init(const Options *o, const char *path) {
    Arena *a = o->arena;
    int64_t seed = 0;
    if (!options_int(o, "seed", 0, INT64_MAX, &seed, stderr)) return EXIT_USAGE;
    Diag *d = diag_new(a, stderr);
    int n;
    const char **sets = options_all(o, "set", &n);
    ModelSpec *spec = spec_load(a, d, o->args.v[1], cmd_model_dirs(a), sets, n, "infer");
    Module *m = spec ? spec_module(spec, d) : NULL;
    if (!m) return EXIT_INPUT;
    const Graph *g = module_find(m, "infer");
    CnxrtTensor *tensors = NEWN(a, CnxrtTensor, g->nodes.n + 1);
    int count = 0;
    for (int i = 0; i < g->nodes.n; i++) {
        const Node *node = &g->nodes.v[i];
        if (node->op == OP_PARAM)
            tensors[count++] =
                seeded(a, node_str(node, A_name), graph_type(g, node->first), (uint64_t)seed);
    }
    CnxrtError err = {0};
    const char *metadata[] = {"model", spec->name, NULL};
    if (cnxrt_safetensors_write(path, tensors, count, metadata, &err) != CNXRT_OK)
        return failed(path, &err);
    return EXIT_DONE;
}

int cmd_weights(Arena *a, int argc, char *const *argv) {
    static const char *const verbs[] = {"inspect", "convert", "init"};
    static const int wanted[] = {2, 3, 3};
    Options o;
    int status = cmd_begin(&o, a, &command, argc, argv, 1, 3);
    if (status >= 0) return status;
    const char *verb = o.args.v[0];
    int which = -1;
    for (int i = 0; i < 3; i++)
        if (strcmp(verb, verbs[i]) == 0) which = i;
    if (which < 0) {
        fprintf(stderr, "cnxc weights: error: unknown action '%s'\n", verb);
        const char *near = nearest_name(verb, verbs, 3);
        fprintf(stderr,
                near ? "    hint: did you mean '%s'?\n" : "    hint: inspect, convert or init\n",
                near);
        return EXIT_USAGE;
    }
    if (o.args.n != wanted[which]) {
        fprintf(stderr, "cnxc weights: error: %s takes %d file%s, not %d\n", verb,
                wanted[which] - 1, which ? "s" : "", o.args.n - 1);
        return EXIT_USAGE;
    }
    if (which == 0) return inspect(a, o.args.v[1]);
    const char *dtype = cmd_dtype(&o, "dtype");
    if (!dtype) return EXIT_USAGE;
    if (which == 1) return convert(o.args.v[1], o.args.v[2], options_get(&o, "names", NULL), dtype);
    return init(&o, o.args.v[2]);
}
