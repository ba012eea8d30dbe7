// The C header of a generated library: constants, documented functions, C++ guards. It includes
// nothing of ours, so a library is its binary and this one file.
#include "module.h"
#include <ctype.h>
#include <stdlib.h>

// The name of an output port as a C parameter, e.g. "stage0".
static const char *identifier(Arena *a, const char *s, bool upper) {
    char *id = arena_strdup(a, s);
    for (char *p = id; *p; p++) {
        if (!isalnum((unsigned char)*p)) *p = '_';
        if (upper) *p = (char)toupper((unsigned char)*p);
    }
    return id;
}

static int64_t port_floats(const Buffer *b) { return b->bytes / dtype_bytes(b->type.dt); }

// "56 x 56 x 40" per image.
static const char *port_shape(Arena *a, const Buffer *b) {
    Str s = {.arena = a};
    for (int i = 1; i < b->type.rank; i++)
        str_printf(&s, "%s%lld", i > 1 ? " x " : "", (long long)b->type.d[i].c);
    return str_cstr(&s);
}

// The shortest decimal that reads back as v.
static void print_float(Str *o, float v) {
    char text[32];
    for (int digits = 6; digits <= 9; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) break;
    }
    str_printf(o, "%s%sf", text, strpbrk(text, ".en") ? "" : ".0");
}

static void print_constants(Str *o, const char *up, const CodegenModel *m) {
    str_printf(o, "#define %s_CHANNELS %d\n#define %s_HEIGHT %d\n#define %s_WIDTH %d\n", up,
               m->channels, up, m->height, up, m->width);
    str_printf(o, "#define %s_CLASSES %d\n", up, m->classes);
    str_add(o,
            "// Preprocessing: (pixel / 255 - mean) / std per channel; initialisers of arrays.\n");
    const struct {
        const char *word;
        const float *v;
    } rows[] = {{"MEAN", m->mean}, {"STD", m->std}};
    for (int r = 0; r < 2; r++) {
        str_printf(o, "#define %s_%s {", up, rows[r].word);
        for (int c = 0; c < m->channels; c++) {
            str_add(o, c ? ", " : "");
            print_float(o, rows[r].v[c]);
        }
        str_add(o, "}\n");
    }
    str_add(o, "// Floats of each result, per image.\n");
    const Schedule *s = model_program(m, "features");
    if (!s) s = model_program(m, "infer");
    for (int i = 0; s && i < schedule_ports(s, REGION_OUTPUT); i++) {
        const Buffer *b = schedule_port(s, REGION_OUTPUT, i);
        str_printf(o, "#define %s_%s_FLOATS %lld // %s\n", up, identifier(o->arena, b->name, true),
                   (long long)port_floats(b), port_shape(o->arena, b));
    }
}

static const char creation[] =
    "// A session: weights, memory for `max_batch` images, `threads` threads. Use a session from\n"
    "// one thread at a time; any number of sessions may run at once.\n"
    "typedef struct NAME_model NAME_model;\n"
    "\n"
    "// All functions that return int return 0 on success and one of these otherwise.\n"
    "enum {\n"
    "    UP_OK = 0,\n"
    "    UP_ERROR_IO = 1,       // the checkpoint cannot be read\n"
    "    UP_ERROR_FORMAT = 2,   // it is no safetensors or PyTorch file\n"
    "    UP_ERROR_MISMATCH = 3, // tensors are missing, extra or mis-shaped (the message lists "
    "them)\n"
    "    UP_ERROR_MEMORY = 4,\n"
    "    UP_ERROR_ARGUMENT = 5,\n"
    "    UP_ERROR_CPU = 6,      // this CPU lacks instructions the library was compiled for\n"
    "};\n"
    "\n"
    "// Opens a session.\n"
    "//   weights    a checkpoint (safetensors or PyTorch zip)EMBEDDED\n"
    "//   threads    0: OMP_NUM_THREADS, or all CPUs\n"
    "//   max_batch  memory is taken for this many images now, none later; 0: 1\n"
    "//   err        when not NULL, receives a message of at most errlen bytes (\"\" on success)\n"
    "// *out is NULL on error.\n"
    "int NAME_create(const char *weights, int threads, int64_t max_batch, NAME_model **out,\n"
    "                char *err, size_t errlen);\n"
    "\n"
    "// Another session on the weights of `from`, which are held once in memory and freed with "
    "the\n"
    "// last session. `from` must not be destroyed during the call.\n"
    "int NAME_clone(const NAME_model *from, int threads, int64_t max_batch, NAME_model **out,\n"
    "               char *err, size_t errlen);\n"
    "\n"
    "// Frees a session; NULL is allowed.\n"
    "void NAME_destroy(NAME_model *m);\n"
    "\n"
    "// Why the last run of this session failed; \"\" when it did not.\n"
    "const char *NAME_error(const NAME_model *m);\n"
    "\n"
    "// The names of the classes, one a line, as stored with the weights; NULL when unknown.\n"
    "const char *NAME_class_names(const NAME_model *m);\n"
    "\n"
    "// Running. images: [batch, UP_HEIGHT, UP_WIDTH, UP_CHANNELS], channels last, normalised\n"
    "// (UP_MEAN, UP_STD). Results are float32, the batch outermost. Any batch may be passed; it "
    "is\n"
    "// cut into pieces of max_batch. No memory is taken.\n";

// Text with NAME, UP and EMBEDDED replaced.
static void print_template(Str *o, const char *text, const char *name, const char *up,
                           const char *embedded) {
    for (const char *p = text; *p;) {
        if (strncmp(p, "NAME_", 5) == 0)
            str_add(o, name), p += 4;
        else if (strncmp(p, "UP_", 3) == 0)
            str_add(o, up), p += 2;
        else if (strncmp(p, "EMBEDDED", 8) == 0)
            str_add(o, embedded), p += 8;
        else
            str_addn(o, p++, 1);
    }
}

static const char memory[] =
    "// Functions need no other code, no stack below the stack pointer and no more of it than a "
    "few\n"
    "// kilobytes; they keep nothing between calls. memory: UP_MEMORY_BYTES for a batch of one "
    "image\n"
    "// and UP_MEMORY_PER_IMAGE more for every further one, at any address; of no use afterwards.\n"
    "// images: [batch, UP_HEIGHT, UP_WIDTH, UP_CHANNELS], channels last, normalised (UP_MEAN,\n"
    "// UP_STD). Results are float32, the batch outermost.\n";

static void print_memory(Str *o, const char *name, const char *up, const CodegenModel *m) {
    FreestandingMemory bytes = freestanding_memory(m);
    str_printf(o, "#define %s_MEMORY_BYTES %lld\n", up, (long long)bytes.bytes);
    str_printf(o, "#define %s_MEMORY_PER_IMAGE %lld\n\n", up, (long long)bytes.per_image);
    print_template(o, memory, name, up, "");
}

// What declarations of one kind of library start with.
typedef struct {
    const char *name;
    bool freestanding;
} Declares;

static void print_start(Str *o, const Declares *d, const char *suffix) {
    if (d->freestanding)
        str_printf(o, "void %s_%s(void *memory, int64_t batch, const float *images", d->name,
                   suffix);
    else
        str_printf(o, "int %s_%s(%s_model *m, int64_t batch, const float *images", d->name, suffix,
                   d->name);
}

static void print_one_output(Str *o, const Declares *d, const char *suffix, const Schedule *s,
                             const char *output, const char *what) {
    int port = schedule_port_find(s, REGION_OUTPUT, output);
    if (port < 0) return;
    const Buffer *b = schedule_port(s, REGION_OUTPUT, port);
    str_printf(o, "// %s: %s [batch, %lld].\n", output, what, (long long)port_floats(b));
    print_start(o, d, suffix);
    str_printf(o, ", float *%s);\n\n", identifier(o->arena, output, false));
}

static void print_features(Str *o, const Declares *d, const Schedule *s) {
    str_add(o, "// The outputs of every stage, channels last; pass NULL for those not wanted.\n");
    int ports[MAX_PORTS], n = schedule_feature_ports(s, ports);
    for (int i = 0; i < n; i++) {
        const Buffer *b = schedule_port(s, REGION_OUTPUT, ports[i]);
        str_printf(o, "//   %-8s [batch x %s]\n", b->name, port_shape(o->arena, b));
    }
    print_start(o, d, "features");
    for (int i = 0; i < n; i++)
        str_printf(o, ",%sfloat *%s", i % 4 == 0 ? "\n        " : " ",
                   identifier(o->arena, schedule_port(s, REGION_OUTPUT, ports[i])->name, false));
    str_add(o, ");\n\n");
}

void header_print(Str *out, const char *name, const CodegenModel *m, bool freestanding) {
    const char *up = identifier(out->arena, name, true);
    str_printf(out,
               "// %s: a compiled model, %d x %d x %d pixels, %d classes. Generated by cnxc.\n",
               m->name, m->height, m->width, m->channels, m->classes);
    str_printf(out, "#ifndef %s_MODEL_H\n#define %s_MODEL_H\n", up, up);
    str_add(out, "#include <stddef.h>\n#include <stdint.h>\n");
    str_add(out, "\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    print_constants(out, up, m);
    str_add(out, "\n");
    Declares d = {name, freestanding};
    if (freestanding)
        print_memory(out, name, up, m);
    else
        print_template(out, creation, name, up,
                       m->embedded || m->raw ? "; NULL: the embedded weights" : "");
    const Schedule *s = model_program(m, "infer");
    str_add(out, "\n");
    if (s) {
        print_one_output(out, &d, "infer", s, "logits", "class scores before softmax,");
        print_one_output(out, &d, "embed", s, "pooled",
                         "the final norm of the mean over positions,");
    }
    if ((s = model_program(m, "features"))) print_features(out, &d, s);
    str_add(out, "#ifdef __cplusplus\n}\n#endif\n#endif\n");
}
