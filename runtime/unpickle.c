// The pickle machine for protocols 2 to 5 (the opcodes of Python's pickletools), as one loop over
// opcodes with a stack and a memo. Time and memory are linear in the length of the pickle: an
// opcode pushes at most one value, containers take items off the stack, memo indices are bounded.
#include "unpickle.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct Chunk {
    Chunk *next;
    size_t used, size;
    _Alignas(16) unsigned char bytes[];
};

static void fail(Unpickler *u, const char *what) {
    if (u->status != CNXRT_OK) return;
    u->status = CNXRT_ERROR_FORMAT;
    cnxrt_error_set(u->err, "%s: pickle: %s (at byte %td)", u->path, what, u->at - u->begin);
}

static void *take_memory(Unpickler *u, size_t size) {
    size = (size + 15) & ~(size_t)15;
    Chunk *c = u->chunks;
    if (!c || c->size - c->used < size) {
        size_t room = size > 65536 ? size : 65536;
        c = malloc(sizeof *c + room);
        if (!c) {
            u->status = weights_no_memory(u->err);
            return NULL;
        }
        *c = (Chunk){.next = u->chunks, .size = room};
        u->chunks = c;
    }
    void *p = c->bytes + c->used;
    c->used += size;
    return memset(p, 0, size);
}

static Value *value_new(Unpickler *u, ValueKind kind) {
    Value *v = take_memory(u, sizeof *v);
    if (v) v->kind = kind;
    return v;
}

static Value *value_text(Unpickler *u, ValueKind kind, const unsigned char *s, size_t n) {
    Value *v = value_new(u, kind);
    char *copy = v ? take_memory(u, n + 1) : NULL;
    if (!copy) return NULL;
    memcpy(copy, s, n);
    v->s = copy;
    if (memchr(copy, 0, n)) v->kind = V_OPAQUE; // bytes, or a name nothing can have
    return v;
}

static void push(Unpickler *u, Value *v) {
    if (!v || u->status != CNXRT_OK) return;
    if (u->nstack == u->stack_capacity) {
        int64_t capacity = u->stack_capacity ? 2 * u->stack_capacity : 256;
        Value **p = realloc(u->stack, (size_t)capacity * sizeof *p);
        if (!p) {
            u->status = weights_no_memory(u->err);
            return;
        }
        u->stack = p;
        u->stack_capacity = capacity;
    }
    u->stack[u->nstack++] = v;
}

// The topmost value, which is not a mark; NULL after fail.
static Value *top(Unpickler *u) {
    if (u->nstack > 0 && u->stack[u->nstack - 1]->kind != V_MARK) return u->stack[u->nstack - 1];
    fail(u, "the stack is empty");
    return NULL;
}

static Value *pop(Unpickler *u) {
    Value *v = top(u);
    if (v) u->nstack--;
    return v;
}

// Index above the topmost mark; -1 after fail.
static int64_t find_mark(Unpickler *u) {
    for (int64_t i = u->nstack; i > 0; i--)
        if (u->stack[i - 1]->kind == V_MARK) return i;
    fail(u, "no mark");
    return -1;
}

static void append(Unpickler *u, Value *to, Value *item) {
    if (to->n == to->capacity) {
        int64_t capacity = to->capacity ? 2 * to->capacity : 8;
        Value **p = take_memory(u, (size_t)capacity * sizeof *p);
        if (!p) return;
        if (to->n) memcpy(p, to->items, (size_t)to->n * sizeof *p);
        to->items = p;
        to->capacity = capacity;
    }
    to->items[to->n++] = item;
}

// Moves the values from index `from` up into `to` (opaque ones forget them) and drops the mark.
static void take_items(Unpickler *u, int64_t from, Value *to, ValueKind kind) {
    if (!to) return;
    if (kind == V_DICT && (u->nstack - from) % 2) {
        fail(u, "a key without a value");
        return;
    }
    for (int64_t i = from; i < u->nstack && to->kind == kind && u->status == CNXRT_OK; i++)
        append(u, to, u->stack[i]);
    u->nstack = from;
}

static Value *collect(Unpickler *u, ValueKind kind, int64_t n) {
    Value *v = value_new(u, kind);
    if (!v) return NULL;
    for (int64_t i = u->nstack - n; i < u->nstack; i++) {
        if (i < 0 || u->stack[i]->kind == V_MARK) {
            fail(u, "the stack is empty");
            return NULL;
        }
        append(u, v, u->stack[i]);
    }
    u->nstack -= n;
    return v;
}

static Value *collect_mark(Unpickler *u, ValueKind kind) {
    int64_t from = find_mark(u);
    Value *v = from < 0 ? NULL : value_new(u, kind);
    if (!v) return NULL;
    take_items(u, from, v, kind);
    u->nstack = from - 1;
    return v;
}

Value *value_get(const Value *dict, const char *key) {
    for (int64_t i = dict->n - 2; i >= 0; i -= 2) // the last assignment counts
        if (dict->items[i]->kind == V_STR && strcmp(dict->items[i]->s, key) == 0)
            return dict->items[i + 1];
    return NULL;
}

// ---- tensors ------------------------------------------------------------------------------------

static const struct {
    const char *storage, *scalar; // class of a typed storage, name of the torch.dtype
    StDtype dtype;
} torch_types[] = {
    {"FloatStorage", "torch float32", ST_F32},
    {"DoubleStorage", "torch float64", ST_F64},
    {"HalfStorage", "torch float16", ST_F16},
    {"BFloat16Storage", "torch bfloat16", ST_BF16},
    {"LongStorage", "torch int64", ST_I64},
    {"IntStorage", "torch int32", ST_I32},
    {"ShortStorage", "torch int16", ST_I16},
    {"CharStorage", "torch int8", ST_I8},
    {"ByteStorage", "torch uint8", ST_U8},
    {"BoolStorage", "torch bool", ST_BOOL},
    {"", "torch uint16", ST_U16},
    {"", "torch uint32", ST_U32},
    {"", "torch uint64", ST_U64},
};

static StDtype storage_dtype(const char *name) {
    // Older files name the device in the module: "torch.cuda FloatStorage".
    const char *class = strchr(name, ' ');
    bool torch = strncmp(name, "torch ", 6) == 0 || strncmp(name, "torch.cuda ", 11) == 0;
    for (size_t i = 0; torch && i < sizeof torch_types / sizeof *torch_types; i++)
        if (strcmp(class + 1, torch_types[i].storage) == 0) return torch_types[i].dtype;
    return ST_COUNT;
}

static StDtype scalar_dtype(const Value *v) {
    for (size_t i = 0; v->s && i < sizeof torch_types / sizeof *torch_types; i++)
        if (strcmp(v->s, torch_types[i].scalar) == 0) return torch_types[i].dtype;
    return ST_COUNT;
}

// ('storage', type, key, location, numel[, (view key, offset, numel) | None])
static void load_storage(Unpickler *u) {
    Value *id = pop(u);
    if (!id) return;
    if (id->kind != V_TUPLE || id->n < 5 || id->items[0]->kind != V_STR ||
        strcmp(id->items[0]->s, "storage") != 0 || id->items[1]->kind != V_GLOBAL ||
        id->items[2]->kind != V_STR || id->items[4]->kind != V_INT || id->items[4]->i < 0) {
        fail(u, "a persistent id that is not a storage");
        return;
    }
    Value *v = value_new(u, V_STORAGE);
    if (!v) return;
    v->s = id->items[2]->s;
    v->i = id->items[4]->i;
    v->dtype = storage_dtype(id->items[1]->s);
    v->untyped = strcmp(id->items[1]->s, "torch.storage UntypedStorage") == 0;
    if (v->untyped) v->dtype = ST_U8;
    const Value *view = id->n > 5 ? id->items[5] : NULL;
    if (view && view->kind == V_TUPLE && view->n == 3 && view->items[1]->kind == V_INT)
        v->offset = view->items[1]->i;
    if (u->nstorages == u->storages_capacity) {
        int64_t capacity = u->storages_capacity ? 2 * u->storages_capacity : 64;
        Value **p = realloc(u->storages, (size_t)capacity * sizeof *p);
        if (!p) {
            u->status = weights_no_memory(u->err);
            return;
        }
        u->storages = p;
        u->storages_capacity = capacity;
    }
    u->storages[u->nstorages++] = v;
    push(u, v);
}

static bool take_ints(const Value *v, int *n, int64_t *out) {
    if ((v->kind != V_TUPLE && v->kind != V_LIST) || v->n > 8) return false;
    for (int64_t i = 0; i < v->n; i++) {
        if (v->items[i]->kind != V_INT || v->items[i]->i < 0) return false;
        out[i] = v->items[i]->i;
    }
    *n = (int)v->n;
    return true;
}

// (storage, offset, size, stride, ...)
static Value *make_tensor(Unpickler *u, const Value *args, StDtype dtype) {
    Value *t = value_new(u, V_TENSOR);
    if (!t) return NULL;
    int nstrides = 0;
    if (args->n < 4 || args->items[0]->kind != V_STORAGE || args->items[1]->kind != V_INT ||
        args->items[1]->i < 0 || !take_ints(args->items[2], &t->rank, t->dims) ||
        !take_ints(args->items[3], &nstrides, t->strides) || nstrides != t->rank) {
        fail(u, "a tensor is not (storage, offset, size of up to 8 dimensions, stride)");
        return NULL;
    }
    t->storage = args->items[0];
    t->offset = args->items[1]->i;
    t->dtype = dtype == ST_COUNT ? t->storage->dtype : dtype;
    return t;
}

static Value *make_opaque(Unpickler *u, const Value *of) {
    Value *v = value_new(u, V_OPAQUE);
    if (v && of && of->kind == V_GLOBAL) v->s = of->s;
    return v;
}

// OrderedDict([(k, v), ...]), as Python 2 wrote it, or OrderedDict().
static Value *make_dict(Unpickler *u, const Value *args) {
    Value *d = value_new(u, V_DICT);
    const Value *pairs = args->n == 1 ? args->items[0] : NULL;
    if (!d || !pairs || (pairs->kind != V_LIST && pairs->kind != V_TUPLE)) return d;
    for (int64_t i = 0; i < pairs->n; i++) {
        const Value *p = pairs->items[i];
        if ((p->kind != V_LIST && p->kind != V_TUPLE) || p->n != 2) continue;
        append(u, d, p->items[0]);
        append(u, d, p->items[1]);
    }
    return d;
}

static bool is_dict_class(const char *name) {
    return strcmp(name, "collections OrderedDict") == 0 ||
           strcmp(name, "collections defaultdict") == 0 || strcmp(name, "builtins dict") == 0 ||
           strcmp(name, "__builtin__ dict") == 0;
}

// What calling a known function or class would give; opaque for all others.
static Value *apply(Unpickler *u, const Value *f, const Value *args, int depth) {
    if (f->kind != V_GLOBAL || args->kind != V_TUPLE) return make_opaque(u, f);
    if (is_dict_class(f->s)) return make_dict(u, args);
    if (strcmp(f->s, "torch Size") == 0 && args->n == 1) return args->items[0];
    if (strncmp(f->s, "torch._utils _rebuild_", 22) == 0) {
        const char *name = f->s + 22;
        if (strcmp(name, "tensor_v2") == 0 || strcmp(name, "tensor") == 0)
            return make_tensor(u, args, ST_COUNT);
        if (strcmp(name, "tensor_v3") == 0 && args->n >= 7) {
            Value *t = make_tensor(u, args, scalar_dtype(args->items[6]));
            if (t && scalar_dtype(args->items[6]) == ST_COUNT) return make_opaque(u, f);
            return t;
        }
        if (strncmp(name, "parameter", 9) == 0 && args->n >= 1) return args->items[0];
    }
    if (strcmp(f->s, "torch._tensor _rebuild_from_type_v2") == 0 && args->n >= 3 && depth < 4)
        return apply(u, args->items[0], args->items[2], depth + 1);
    return make_opaque(u, f);
}

// ---- opcodes ------------------------------------------------------------------------------------

// n bytes at the cursor, NULL after fail.
static const unsigned char *take(Unpickler *u, uint64_t n) {
    if (u->status != CNXRT_OK) return NULL;
    if (n > (uint64_t)(u->end - u->at)) {
        fail(u, "truncated");
        return NULL;
    }
    const unsigned char *p = u->at;
    u->at += n;
    return p;
}

static uint64_t take_uint(Unpickler *u, int bytes) {
    const unsigned char *p = take(u, (uint64_t)bytes);
    uint64_t v = 0;
    for (int i = 0; p && i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static void push_int(Unpickler *u, ValueKind kind, int64_t i) {
    Value *v = value_new(u, kind);
    if (v) v->i = i;
    push(u, v);
}

// Little-endian two's complement of any length; opaque when it does not fit.
static void push_long(Unpickler *u, uint64_t n) {
    const unsigned char *p = take(u, n);
    if (!p) return;
    if (n > 8) {
        push(u, value_new(u, V_OPAQUE));
        return;
    }
    uint64_t v = n && p[n - 1] & 128 ? UINT64_MAX : 0;
    for (uint64_t i = 0; i < n; i++) {
        v &= ~((uint64_t)255 << (8 * i));
        v |= (uint64_t)p[i] << (8 * i);
    }
    push_int(u, V_INT, (int64_t)v);
}

static void push_text(Unpickler *u, ValueKind kind, uint64_t n) {
    const unsigned char *p = take(u, n);
    if (!p) return;
    push(u, kind == V_STR ? value_text(u, V_STR, p, n) : value_new(u, V_OPAQUE));
}

static void push_global(Unpickler *u) {
    const unsigned char *p = u->at;
    const unsigned char *eol = memchr(p, '\n', (size_t)(u->end - p));
    const unsigned char *eol2 = eol ? memchr(eol + 1, '\n', (size_t)(u->end - eol - 1)) : NULL;
    if (!eol2) {
        fail(u, "truncated");
        return;
    }
    u->at = eol2 + 1;
    Value *v = value_text(u, V_GLOBAL, p, (size_t)(eol2 - p));
    if (v && v->kind == V_GLOBAL) *strchr((char *)(uintptr_t)v->s, '\n') = ' ';
    push(u, v);
}

static void push_stack_global(Unpickler *u) {
    const Value *name = pop(u), *module = pop(u);
    if (!name || !module) return;
    if (name->kind != V_STR || module->kind != V_STR) {
        push(u, value_new(u, V_OPAQUE));
        return;
    }
    size_t m = strlen(module->s), n = strlen(name->s);
    Value *v = value_new(u, V_GLOBAL);
    char *s = v ? take_memory(u, m + n + 2) : NULL;
    if (!s) return;
    memcpy(s, module->s, m);
    s[m] = ' ';
    memcpy(s + m + 1, name->s, n);
    v->s = s;
    push(u, v);
}

static void memo_put(Unpickler *u, uint64_t index) {
    Value *v = top(u);
    if (!v) return;
    if (index > (uint64_t)(u->end - u->begin)) {
        fail(u, "a memo index beyond the pickle's length");
        return;
    }
    if ((int64_t)index >= u->nmemo) {
        int64_t n = 2 * (int64_t)index + 64;
        Value **p = realloc(u->memo, (size_t)n * sizeof *p);
        if (!p) {
            u->status = weights_no_memory(u->err);
            return;
        }
        memset(p + u->nmemo, 0, (size_t)(n - u->nmemo) * sizeof *p);
        u->memo = p;
        u->nmemo = n;
    }
    u->memo[index] = v;
}

static void memo_get(Unpickler *u, uint64_t index) {
    if (u->status != CNXRT_OK) return;
    if (index >= (uint64_t)u->nmemo || !u->memo[index])
        fail(u, "an unknown memo index");
    else
        push(u, u->memo[index]);
}

static void do_reduce(Unpickler *u, int extra) {
    for (; extra > 0; extra--) (void)pop(u); // keyword arguments
    const Value *args = pop(u), *f = pop(u);
    if (args && f) push(u, apply(u, f, args, 0));
}

static void do_object(Unpickler *u, bool inst) {
    if (inst) push_global(u);
    if (u->status == CNXRT_OK && inst) u->nstack--;
    int64_t from = find_mark(u);
    if (from < 0) return;
    const Value *class = !inst && from < u->nstack ? u->stack[from] : NULL;
    u->nstack = from - 1;
    push(u, make_opaque(u, class));
}

// The container below the topmost mark takes what is above it.
static void do_items(Unpickler *u, ValueKind kind) {
    int64_t from = find_mark(u);
    if (from < 0) return;
    if (from < 2 || u->stack[from - 2]->kind == V_MARK)
        fail(u, "the stack is empty");
    else
        take_items(u, from, u->stack[from - 2], kind);
    u->nstack = from - 1;
}

static void do_item(Unpickler *u, ValueKind kind) {
    Value *b = pop(u), *a = kind == V_DICT ? pop(u) : b, *to = top(u);
    if (!a || !b || !to || to->kind != kind) return;
    if (kind == V_DICT) append(u, to, a);
    append(u, to, b);
}

// Protocol 2 and 3, the part torch.save uses most.
static void step_common(Unpickler *u, int op) {
    int64_t mark;
    switch (op) {
    case '(': push(u, value_new(u, V_MARK)); break;
    case '0':
        if (u->nstack > 0) u->nstack--;
        break;
    case '1':
        if ((mark = find_mark(u)) >= 0) u->nstack = mark - 1;
        break;
    case '2': push(u, top(u)); break;
    case 'N': push(u, value_new(u, V_NONE)); break;
    case 0x88: push_int(u, V_BOOL, 1); break;
    case 0x89: push_int(u, V_BOOL, 0); break;
    case 'J': push_int(u, V_INT, (int32_t)take_uint(u, 4)); break;
    case 'K': push_int(u, V_INT, (int64_t)take_uint(u, 1)); break;
    case 'M': push_int(u, V_INT, (int64_t)take_uint(u, 2)); break;
    case 0x8a: push_long(u, take_uint(u, 1)); break;
    case 0x8b: push_long(u, take_uint(u, 4)); break;
    case 'G': // a float: no value is wanted from it
        (void)take_uint(u, 8);
        push(u, value_new(u, V_FLOAT));
        break;
    case 'X': push_text(u, V_STR, take_uint(u, 4)); break;
    case 'U': push_text(u, V_STR, take_uint(u, 1)); break;
    case 'T': push_text(u, V_STR, take_uint(u, 4)); break;
    case 'B': push_text(u, V_OPAQUE, take_uint(u, 4)); break;
    case 'C': push_text(u, V_OPAQUE, take_uint(u, 1)); break;
    case ']': push(u, value_new(u, V_LIST)); break;
    case ')': push(u, value_new(u, V_TUPLE)); break;
    case '}': push(u, value_new(u, V_DICT)); break;
    case 'a': do_item(u, V_LIST); break;
    case 'e': do_items(u, V_LIST); break;
    case 's': do_item(u, V_DICT); break;
    case 'u': do_items(u, V_DICT); break;
    case 'l': push(u, collect_mark(u, V_LIST)); break;
    case 't': push(u, collect_mark(u, V_TUPLE)); break;
    case 'd': push(u, collect_mark(u, V_DICT)); break;
    case 0x85: push(u, collect(u, V_TUPLE, 1)); break;
    case 0x86: push(u, collect(u, V_TUPLE, 2)); break;
    case 0x87: push(u, collect(u, V_TUPLE, 3)); break;
    case 'c': push_global(u); break;
    case 'R': do_reduce(u, 0); break;
    case 0x81: do_reduce(u, 0); break;
    case 'b': (void)pop(u); break; // on purpose: state is never applied
    case 'i': do_object(u, true); break;
    case 'o': do_object(u, false); break;
    case 'q': memo_put(u, take_uint(u, 1)); break;
    case 'r': memo_put(u, take_uint(u, 4)); break;
    case 'h': memo_get(u, take_uint(u, 1)); break;
    case 'j': memo_get(u, take_uint(u, 4)); break;
    case 'Q': load_storage(u); break;
    default: fail(u, "an opcode that torch.save does not write"); break;
    }
}

// Protocols 4 and 5. nmemoized: how many MEMOIZE there were.
static void step(Unpickler *u, int op, uint64_t *nmemoized) {
    switch (op) {
    case 0x80:
        if (take_uint(u, 1) > 5) fail(u, "a protocol newer than 5");
        break;
    case 0x95: (void)take_uint(u, 8); break; // a frame is only a hint for buffering
    case 0x8c: push_text(u, V_STR, take_uint(u, 1)); break;
    case 0x8d: push_text(u, V_STR, take_uint(u, 8)); break;
    case 0x8e: push_text(u, V_OPAQUE, take_uint(u, 8)); break;
    case 0x96: push_text(u, V_OPAQUE, take_uint(u, 8)); break;
    case 0x8f: push(u, value_new(u, V_OPAQUE)); break;
    case 0x90: do_items(u, V_LIST); break; // onto an opaque set
    case 0x91:
        (void)collect_mark(u, V_LIST);
        push(u, value_new(u, V_OPAQUE));
        break;
    case 0x92: do_reduce(u, 1); break;
    case 0x93: push_stack_global(u); break;
    case 0x94: memo_put(u, (*nmemoized)++); break;
    default: step_common(u, op); break;
    }
}

void unpickle_begin(Unpickler *u, const char *path, const unsigned char *bytes, size_t size,
                    CnxrtError *err) {
    *u = (Unpickler){.begin = bytes, .at = bytes, .end = bytes + size, .path = path, .err = err};
}

Value *unpickle_next(Unpickler *u) {
    u->nstack = 0;
    if (u->nmemo) memset(u->memo, 0, (size_t)u->nmemo * sizeof *u->memo);
    uint64_t nmemoized = 0;
    while (u->status == CNXRT_OK) {
        const unsigned char *op = take(u, 1);
        if (!op) break;
        if (*op == '.') return pop(u);
        step(u, *op, &nmemoized);
    }
    return NULL;
}

void unpickle_end(Unpickler *u) {
    while (u->chunks) {
        Chunk *next = u->chunks->next;
        free(u->chunks);
        u->chunks = next;
    }
    free(u->stack);
    free(u->memo);
    free(u->storages);
}
