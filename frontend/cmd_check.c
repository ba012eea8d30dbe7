// cnxc check: validates a spec and prints what it describes.
#include "cmd.h"
#include "cmd_compile.h"
#include "network.h"

static const Option options[] = {
    OPTION_SET,
    OPTION_PROGRAMS,
    {"json", 0, NULL, "print one JSON object instead of the table"},
    {"layers", 0, NULL, "list the layers of block bodies with their fields; takes no SPEC"},
};
static const Command command = {
    .name = "check",
    .usage = "SPEC [--set KEY.PATH=VALUE]... [--json] | --layers",
    .summary = "validate a spec and print its shapes, parameters and MACs",
    .help = "SPEC is a YAML file, or the bare name of a model in a models folder, such as\n"
            "convnextv2_tiny: the file as given, then models/ here, then the models that come\n"
            "with cnxc. docs/spec.md describes the language.\n\n"
            "Printed are, per stage, the shape of its result, its parameters and its MACs\n"
            "(multiply-accumulates of convolutions and linears per image, all kernel taps\n"
            "counted); the totals; the geometry of FCMAE pre-training; the programs the spec\n"
            "supports; its recipes. Up to 20 errors are reported at once.",
    .options = options,
    .noptions = sizeof options / sizeof *options,
    .trailer = "Examples:\n"
               "  cnxc check convnextv2_atto\n"
               "  cnxc check my.yaml --set input.channels=4 --set input.height=160 --set head=none",
};

static const char *shape(Arena *a, Type t) {
    Str s = {.arena = a};
    for (int i = 1; i < t.rank; i++)
        str_printf(&s, "%s%lld", i > 1 ? "x" : "", (long long)t.d[i].c);
    return str_cstr(&s);
}

static void print_row(Arena *a, const char *name, const char *blocks, StageInfo s) {
    printf("  %-10s %6s  %-14s %15s %12.4f\n", name, blocks, shape(a, s.type),
           cmd_thousands(a, s.params), (double)s.macs / 1e6);
}

static const char *program_list(Arena *a, unsigned programs) {
    static const char *const names[] = {"infer", "train", "pretrain"};
    Str s = {.arena = a};
    for (int i = 0; i < 3; i++)
        if (programs >> i & 1) str_printf(&s, "%s%s", s.n ? ", " : "", names[i]);
    return str_cstr(&s);
}

static void print_input(const ModelSpec *m) {
    const InputSpec *in = &m->input;
    printf("%s: images %lldx%lldx%lld (height x width x channels), ", m->name,
           (long long)in->height, (long long)in->width, (long long)in->channels);
    if (m->head.classes)
        printf("%lld classes\n", (long long)m->head.classes);
    else
        printf("no classes (features only)\n");
    printf("  evaluation %s, %s", in->warp ? "warps both sides" : "resizes and crops",
           in->interpolation ? "bilinear" : "bicubic");
    if (!in->warp) printf(", crop_pct %g", in->crop_pct);
    printf("\n\n");
}

static void print_network(Arena *a, const ModelSpec *m, const NetworkInfo *n) {
    printf("  %-10s %6s  %-14s %15s %12s\n", "part", "blocks", "result", "parameters", "MMACs");
    print_row(a, "stem", "", n->stem);
    for (int i = 0; i < m->stages.n; i++) {
        StageInfo s = n->stage[i];
        if (i == 0) {
            s.params -= n->stem.params;
            s.macs -= n->stem.macs;
        }
        print_row(a, arena_printf(a, "stage %d", i),
                  arena_printf(a, "%lld", (long long)m->stages.v[i].depth), s);
    }
    print_row(a, "head", "", n->head);
    printf("\n  parameters %s\n  MACs       %.4f G\n", cmd_thousands(a, n->params),
           (double)n->macs / 1e9);
}

static void print_fcmae(Arena *a, const ModelSpec *m) {
    const FcmaeSpec *f = &m->fcmae;
    if (!f->present || !(m->programs & PROGRAM_PRETRAIN)) return;
    printf("\n  fcmae: mask units of %lldx%lld pixels, %lldx%lld = %lld of them, %lld visible "
           "(mask_ratio %g)\n",
           (long long)(f->stride[0] * f->mask_unit), (long long)(f->stride[1] * f->mask_unit),
           (long long)f->grid[0], (long long)f->grid[1], (long long)f->units, (long long)f->keep,
           f->mask_ratio);
    printf("  fcmae: decoder %lldx%lld, %lld values per %lldx%lld patch%s, %s parameters\n",
           (long long)f->decoder_dim, (long long)f->decoder_depth, (long long)f->values,
           (long long)f->stride[0], (long long)f->stride[1],
           f->norm_pix_loss ? " (normalised)" : "", cmd_thousands(a, f->params));
}

static void print_recipes(const ModelSpec *m) {
    static const char *const kinds[] = {"pretrain", "finetune", "train"};
    for (int i = 0; i < m->recipes.n; i++) {
        const RecipeSpec *r = &m->recipes.v[i];
        double lr = r->lr > 0 ? r->lr : r->base_lr * (double)r->batch / 256;
        printf("  recipe %s: %s, lr %g at batch %lld, %g epochs, warm-up %g, weight decay %g\n",
               r->name, kinds[r->kind], lr, (long long)r->batch, r->epochs, r->warmup_epochs,
               r->weight_decay);
    }
}

static const char *json_string(Arena *a, const char *text) {
    Str s = {.arena = a};
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            str_printf(&s, "\\%c", *text);
        else if ((unsigned char)*text < 32)
            str_printf(&s, "\\u%04x", (unsigned)*text);
        else
            str_addn(&s, text, 1);
    return str_cstr(&s);
}

static void print_json(Arena *a, const ModelSpec *m, const NetworkInfo *n) {
    printf("{\"name\": \"%s\", \"channels\": %lld, \"height\": %lld, \"width\": %lld, "
           "\"classes\": %lld, \"parameters\": %lld, \"macs\": %lld, \"stages\": [",
           json_string(a, m->name), (long long)m->input.channels, (long long)m->input.height,
           (long long)m->input.width, (long long)m->head.classes, (long long)n->params,
           (long long)n->macs);
    for (int i = 0; i < m->stages.n; i++)
        printf("%s{\"shape\": \"%s\", \"blocks\": %lld, \"parameters\": %lld, \"macs\": %lld}",
               i ? ", " : "", shape(a, n->stage[i].type), (long long)m->stages.v[i].depth,
               (long long)n->stage[i].params, (long long)n->stage[i].macs);
    printf("], \"programs\": \"%s\"", program_list(a, m->programs));
    if (m->programs & PROGRAM_PRETRAIN)
        printf(", \"fcmae\": {\"units\": %lld, \"keep\": %lld, \"parameters\": %lld}",
               (long long)m->fcmae.units, (long long)m->fcmae.keep, (long long)m->fcmae.params);
    printf("}\n");
}

static void print_layers(void) {
    for (int i = 0; i < layer_count(); i++) {
        int n;
        const Field *f = layer_fields(i, &n);
        printf("%s - %s\n", layer_name(i), layer_doc(i));
        for (int k = 0; k < n; k++) {
            printf("  %-12s %s", f[k].name, f[k].doc);
            if (f[k].words) printf(": %s", f[k].words);
            if (f[k].flags & FIELD_REQUIRED) printf(" (required)");
            if (f[k].init) printf(" (default %s)", f[k].init);
            printf("\n");
        }
    }
}

// Names the entries of the key `precision` that match no layer. False after errors on d.
static bool note_precision(const ModelSpec *m, Diag *d) {
    Compiled c;
    if (!compile_plan(m, NULL, d)) return false;
    if (!m->nprecision) return true;
    if (!compile_spec(&c, m, m->programs, &target_table[0], NULL, d)) return false;
    compile_note_rules(&c, m, NULL, d);
    return true;
}

int cmd_check(Arena *a, int argc, char *const *argv) {
    Options o;
    int status = cmd_begin(&o, a, &command, argc, argv, 0, 1);
    if (status >= 0) return status;
    if (options_has(&o, "layers")) {
        print_layers();
        return EXIT_DONE;
    }
    if (!cmd_wants(&o, 1)) return EXIT_USAGE;
    Diag *d = diag_new(a, stderr);
    ModelSpec *m = cmd_spec(&o, d);
    if (!m || !note_precision(m, d)) return EXIT_INPUT;
    NetworkInfo n = network_info(a, m);
    if (options_has(&o, "json")) {
        print_json(a, m, &n);
        return EXIT_DONE;
    }
    print_input(m);
    print_network(a, m, &n);
    print_fcmae(a, m);
    printf("\n  programs: %s\n", program_list(a, m->programs));
    print_recipes(m);
    for (int i = 0; i < m->notes.n; i++) printf("  note: %s\n", m->notes.v[i]);
    return EXIT_DONE;
}
