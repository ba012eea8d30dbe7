// YAML -> tree over libyaml's events. A recursive reader (depth bounded), then inheritance as a
// merge of whole trees: because every node carries its own Loc, an error in an inherited value is
// shown in the file that holds it.
#include "yaml.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <yaml.h>

enum { MAX_DEPTH = 64, MAX_EXTENDS = 16, MAX_FILE = 4 << 20, MAX_INDEX = 4096 };

typedef struct {
    Arena *arena;
    Diag *diag;
    const char *file;
    int line0, col0; // added to places: 0 for files, the place of the value for --set
    yaml_parser_t parser;
} Reader;

Yaml *yaml_get(const Yaml *map, const char *key) {
    if (!map || map->kind != YAML_MAP) return NULL;
    for (int i = 0; i < map->entries.n; i++)
        if (strcmp(map->entries.v[i].key, key) == 0) return map->entries.v[i].value;
    return NULL;
}

bool yaml_is_none(const Yaml *y) {
    if (!y || y->kind != YAML_TEXT || y->quoted) return false;
    return !*y->text || !strcmp(y->text, "none") || !strcmp(y->text, "null") ||
           !strcmp(y->text, "~");
}

const char *yaml_describe(Arena *a, const Yaml *y) {
    if (y->kind == YAML_MAP) return "a map";
    if (y->kind == YAML_LIST) return "a list";
    if (!*y->text) return "nothing";
    return arena_printf(a, "'%.60s%s'", y->text, strlen(y->text) > 60 ? "..." : "");
}

static Yaml *yaml_new(Arena *a, YamlKind kind, Loc loc) {
    Yaml *y = NEW(a, Yaml);
    y->kind = kind;
    y->loc = loc;
    y->text = "";
    return y;
}

// ---- events -> tree ----------------------------------------------------------------------------

static Loc reader_loc(const Reader *r, yaml_mark_t m) {
    int line = (int)m.line, col = (int)m.column;
    if (r->col0 && line) return (Loc){r->file, r->line0 + 1, r->col0 + 1}; // past one line's value
    return (Loc){r->file, r->line0 + line + 1, (line ? 0 : r->col0) + col + 1};
}

// The next event, or false after reporting what libyaml found wrong.
static bool reader_next(Reader *r, yaml_event_t *e) {
    if (yaml_parser_parse(&r->parser, e)) return true;
    yaml_parser_t *p = &r->parser;
    Loc loc = reader_loc(r, p->error == YAML_READER_ERROR ? p->mark : p->problem_mark);
    diag_error(r->diag, loc, "%s%s%s", p->problem ? p->problem : "not YAML", p->context ? " " : "",
               p->context ? p->context : "");
    return false;
}

static Yaml *reader_scalar(Reader *r, const yaml_event_t *e, Loc loc) {
    if (memchr(e->data.scalar.value, 0, e->data.scalar.length)) {
        diag_error(r->diag, loc, "a NUL character in a string");
        return NULL;
    }
    Yaml *y = yaml_new(r->arena, YAML_TEXT, loc);
    y->text = arena_strndup(r->arena, (const char *)e->data.scalar.value, e->data.scalar.length);
    y->quoted = e->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    return y;
}

static bool reader_rejects(Reader *r, const yaml_event_t *e, Loc loc) {
    const yaml_char_t *tag = NULL;
    if (e->type == YAML_ALIAS_EVENT) {
        diag_error(r->diag, loc, "YAML aliases are not supported");
        diag_hint(r->diag, "share values with 'extends' or with block parameters");
        return true;
    }
    if (e->type == YAML_SCALAR_EVENT) tag = e->data.scalar.tag;
    if (e->type == YAML_SEQUENCE_START_EVENT) tag = e->data.sequence_start.tag;
    if (e->type == YAML_MAPPING_START_EVENT) tag = e->data.mapping_start.tag;
    if (tag) diag_error(r->diag, loc, "YAML tags are not supported: '%.60s'", (const char *)tag);
    return tag != NULL;
}

static Yaml *reader_node(Reader *r, yaml_event_t *e, int depth);

static bool reader_list(Reader *r, Yaml *list, int depth) {
    for (;;) {
        yaml_event_t e;
        if (!reader_next(r, &e)) return false;
        if (e.type == YAML_SEQUENCE_END_EVENT) return yaml_event_delete(&e), true;
        Loc loc = reader_loc(r, e.start_mark);
        Yaml *item = reader_node(r, &e, depth + 1);
        if (!item) return false;
        vec_push(r->arena, &list->entries, ((YamlEntry){NULL, loc, item}));
    }
}

static void map_add(Reader *r, Yaml *map, YamlEntry entry) {
    for (int i = 0; i < map->entries.n; i++)
        if (strcmp(map->entries.v[i].key, entry.key) == 0) {
            diag_error(r->diag, entry.loc, "key '%s' is given twice", entry.key);
            diag_hint(r->diag, "the first is on line %d", map->entries.v[i].loc.line);
            return;
        }
    vec_push(r->arena, &map->entries, entry);
}

static bool reader_map(Reader *r, Yaml *map, int depth) {
    for (;;) {
        yaml_event_t e;
        if (!reader_next(r, &e)) return false;
        if (e.type == YAML_MAPPING_END_EVENT) return yaml_event_delete(&e), true;
        Loc loc = reader_loc(r, e.start_mark);
        Yaml *key = reader_node(r, &e, depth + 1);
        if (!key) return false;
        if (key->kind != YAML_TEXT) {
            diag_error(r->diag, loc, "a key must be a word, not %s", yaml_describe(r->arena, key));
            return false;
        }
        if (!reader_next(r, &e)) return false;
        Yaml *value = reader_node(r, &e, depth + 1);
        if (!value) return false;
        map_add(r, map, (YamlEntry){key->text, loc, value});
    }
}

// The node that e starts; deletes e.
static Yaml *reader_node(Reader *r, yaml_event_t *e, int depth) {
    Loc loc = reader_loc(r, e->start_mark);
    Yaml *y = NULL;
    if (reader_rejects(r, e, loc)) {
    } else if (depth > MAX_DEPTH) {
        diag_error(r->diag, loc, "nested deeper than %d levels", MAX_DEPTH);
    } else if (e->type == YAML_SCALAR_EVENT) {
        y = reader_scalar(r, e, loc);
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        y = yaml_new(r->arena, YAML_LIST, loc);
        if (!reader_list(r, y, depth)) y = NULL;
    } else {
        y = yaml_new(r->arena, YAML_MAP, loc);
        if (!reader_map(r, y, depth)) y = NULL;
    }
    yaml_event_delete(e);
    return y;
}

// Events up to the first node, the node, and the check that nothing follows. Loc of an empty text
// is its start.
static Yaml *reader_document(Reader *r) {
    yaml_event_t e;
    Yaml *root = NULL;
    for (;;) {
        if (!reader_next(r, &e)) return NULL;
        if (e.type == YAML_STREAM_END_EVENT) break;
        if (e.type == YAML_STREAM_START_EVENT || e.type == YAML_DOCUMENT_END_EVENT) {
            yaml_event_delete(&e);
        } else if (e.type == YAML_DOCUMENT_START_EVENT) {
            Loc loc = reader_loc(r, e.start_mark);
            yaml_event_delete(&e);
            if (root) return diag_error(r->diag, loc, "a second YAML document"), NULL;
        } else if (!(root = reader_node(r, &e, 0))) {
            return NULL;
        }
    }
    yaml_event_delete(&e);
    return root ? root : yaml_new(r->arena, YAML_TEXT, (Loc){r->file, r->line0 + 1, r->col0 + 1});
}

static Yaml *parse_at(Arena *a, Diag *d, const char *text, size_t n, Loc start) {
    Reader r = {a, d, start.file, start.line - 1, start.col - 1, {0}};
    if (!yaml_parser_initialize(&r.parser)) return diag_error(d, start, "out of memory"), NULL;
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, n);
    int before = diag_count(d);
    Yaml *y = reader_document(&r);
    yaml_parser_delete(&r.parser);
    return diag_count(d) > before ? NULL : y;
}

Yaml *yaml_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n) {
    diag_source(d, file, text, n);
    return parse_at(a, d, text, n, (Loc){file, 1, 1});
}

// ---- files and inheritance ---------------------------------------------------------------------

static bool is_file(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && !S_ISDIR(st.st_mode);
}

static const char *find_in(Arena *a, const char *dir, const char *name) {
    const char *slash = *dir && dir[strlen(dir) - 1] != '/' ? "/" : "";
    const char *plain = arena_printf(a, "%s%s%s", dir, slash, name);
    if (is_file(plain)) return plain;
    const char *yaml = arena_printf(a, "%s%s%s.yaml", dir, slash, name);
    return is_file(yaml) ? yaml : NULL;
}

const char *yaml_find(Arena *a, const char *name, YamlDirs dirs) {
    const char *path = find_in(a, "", name);
    if (path || *name == '/') return path;
    path = find_in(a, "models", name);
    for (int i = 0; !path && i < dirs.n; i++) path = find_in(a, dirs.dirs[i], name);
    return path;
}

enum { MAX_NAMES = 256 };

static int list_models(Arena *a, const char *dir, const char **names, int n) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && n < MAX_NAMES && (e = readdir(d));) {
        size_t len = strlen(e->d_name);
        if (len > 5 && strcmp(e->d_name + len - 5, ".yaml") == 0)
            names[n++] = arena_strndup(a, e->d_name, len - 5);
    }
    if (d) closedir(d);
    return n;
}

const char *yaml_nearest(Arena *a, const char *name, YamlDirs dirs) {
    const char *names[MAX_NAMES];
    int n = list_models(a, "models", names, 0);
    for (int i = 0; i < dirs.n; i++) n = list_models(a, dirs.dirs[i], names, n);
    return nearest_name(name, names, n);
}

static char *read_file(Arena *a, const char *path, size_t *n, const char **why) {
    FILE *f = fopen(path, "rb");
    if (!f) return *why = strerror(errno), NULL;
    Str s = {.arena = a};
    char buf[16384];
    size_t got;
    while ((got = fread(buf, 1, sizeof buf, f)) > 0 && s.n <= MAX_FILE) str_addn(&s, buf, got);
    *why = ferror(f) ? strerror(errno) : s.n > MAX_FILE ? "larger than 4 MB" : NULL;
    fclose(f);
    *n = s.n;
    if (*why) return NULL;
    return s.n ? s.s : arena_strdup(a, "");
}

static YamlEntry *map_find(const Yaml *map, const char *key) {
    for (int i = 0; i < map->entries.n; i++)
        if (strcmp(map->entries.v[i].key, key) == 0) return &map->entries.v[i];
    return NULL;
}

Yaml *yaml_merge(Arena *a, const Yaml *base, const Yaml *over) {
    Yaml *y = NEW(a, Yaml);
    if (!base || base->kind != YAML_MAP || over->kind != YAML_MAP) return *y = *over, y;
    *y = (Yaml){.kind = YAML_MAP, .loc = over->loc, .text = ""};
    for (int i = 0; i < base->entries.n; i++) vec_push(a, &y->entries, base->entries.v[i]);
    for (int i = 0; i < over->entries.n; i++) {
        YamlEntry e = over->entries.v[i], *old = map_find(y, e.key);
        if (old)
            *old = (YamlEntry){e.key, e.loc, yaml_merge(a, old->value, e.value)};
        else
            vec_push(a, &y->entries, e);
    }
    return y;
}

typedef struct {
    Arena *arena;
    Diag *diag;
    YamlDirs dirs;
    const char *stack[MAX_EXTENDS];
    int depth;
} Loader;

static Yaml *load_file(Loader *l, const char *path, Loc from);

// The file that `extends: name` in `path` means.
static const char *resolve(Loader *l, const char *path, const char *name) {
    if (*name == '/') return find_in(l->arena, "", name);
    const char *slash = strrchr(path, '/');
    const char *dir = slash ? arena_strndup(l->arena, path, (size_t)(slash - path)) : "";
    if (slash == path) dir = "/";
    const char *found = find_in(l->arena, dir, name);
    for (int i = 0; !found && i < l->dirs.n; i++) found = find_in(l->arena, l->dirs.dirs[i], name);
    return found;
}

static Yaml *load_base(Loader *l, const char *path, const Yaml *ref) {
    if (ref->kind != YAML_TEXT || !*ref->text) {
        diag_error(l->diag, ref->loc, "'extends' takes a file name or a list of them, not %s",
                   yaml_describe(l->arena, ref));
        return NULL;
    }
    const char *found = resolve(l, path, ref->text);
    if (!found) {
        diag_error(l->diag, ref->loc, "cannot find '%s'", ref->text);
        diag_hint(l->diag, "looked beside %s and in the models folders", path);
        return NULL;
    }
    return load_file(l, found, ref->loc);
}

static Yaml *load_extends(Loader *l, const char *path, Yaml *own) {
    YamlEntry *e = map_find(own, "extends");
    if (!e) return own;
    Yaml *ref = e->value, *base = NULL;
    int n = ref->kind == YAML_LIST ? ref->entries.n : 1;
    for (int i = 0; i < n; i++) {
        Yaml *next = load_base(l, path, ref->kind == YAML_LIST ? ref->entries.v[i].value : ref);
        if (!next) return NULL;
        base = base ? yaml_merge(l->arena, base, next) : next;
    }
    *e = own->entries.v[--own->entries.n];
    return base ? yaml_merge(l->arena, base, own) : own;
}

static bool load_cycle(Loader *l, const char *real, const char *path, Loc from) {
    for (int i = 0; i < l->depth; i++)
        if (strcmp(l->stack[i], real) == 0) {
            diag_error(l->diag, from, "'%s' extends itself", path);
            return true;
        }
    if (l->depth < MAX_EXTENDS) return false;
    diag_error(l->diag, from, "more than %d files extend each other", MAX_EXTENDS);
    return true;
}

static Yaml *load_file(Loader *l, const char *path, Loc from) {
    char *resolved = realpath(path, NULL);
    const char *real = arena_strdup(l->arena, resolved ? resolved : path), *why = NULL;
    free(resolved);
    if (load_cycle(l, real, path, from)) return NULL;
    size_t n = 0;
    char *text = read_file(l->arena, path, &n, &why);
    if (!text) return diag_error(l->diag, from, "cannot read '%s': %s", path, why), NULL;
    Yaml *y = yaml_parse(l->arena, l->diag, path, text, n);
    if (!y) return NULL;
    if (y->kind != YAML_MAP) {
        diag_error(l->diag, y->loc, "a spec is a map of keys, not %s", yaml_describe(l->arena, y));
        return NULL;
    }
    l->stack[l->depth++] = real;
    y = load_extends(l, path, y);
    l->depth--;
    return y;
}

Yaml *yaml_load(Arena *a, Diag *d, const char *path, YamlDirs dirs) {
    Loader l = {.arena = a, .diag = d, .dirs = dirs};
    return load_file(&l, path, (Loc){0});
}

// ---- overrides ---------------------------------------------------------------------------------

static const char set_file[] = "--set";

// The place of item `key` of y, made if missing. NULL after an error.
static YamlEntry *set_step(Arena *a, Diag *d, Yaml *y, const char *key, Loc loc) {
    if (y->kind == YAML_LIST) {
        char *end;
        long i = strtol(key, &end, 10);
        if (*end || end == key || i < 0 || i >= y->entries.n) {
            diag_error(d, loc, "'%s' is not an index into a list of %d", key, y->entries.n);
            return NULL;
        }
        return &y->entries.v[i];
    }
    if (yaml_is_none(y)) y->kind = YAML_MAP;
    if (y->kind == YAML_TEXT) {
        diag_error(d, loc, "'%s' cannot be set inside the value %s", key, yaml_describe(a, y));
        return NULL;
    }
    YamlEntry *e = map_find(y, key);
    if (e) return e;
    vec_push(a, &y->entries, ((YamlEntry){key, loc, NULL}));
    return &y->entries.v[y->entries.n - 1];
}

static void set_one(Arena *a, Diag *d, Yaml *root, const char *set, int line) {
    const char *eq = strchr(set, '='), *p = set;
    if (!eq || eq == set) {
        diag_error(d, (Loc){set_file, line, 1}, "'%s' is not of the form key.path=value", set);
        return;
    }
    size_t off = (size_t)(eq + 1 - set);
    Yaml *value = parse_at(a, d, eq + 1, strlen(eq + 1), (Loc){set_file, line, (int)off + 1});
    if (!value) return;
    for (Yaml *at = root;;) {
        size_t len = strcspn(p, ".=");
        Loc loc = {set_file, line, (int)(p - set) + 1};
        if (!len) diag_error(d, loc, "an empty name in the path");
        YamlEntry *e = len ? set_step(a, d, at, arena_strndup(a, p, len), loc) : NULL;
        if (!e) return;
        p += len;
        if (*p == '=') {
            e->value = value;
            return;
        }
        if (!e->value) e->value = yaml_new(a, YAML_MAP, loc);
        at = e->value;
        p++;
    }
}

void yaml_override(Arena *a, Diag *d, Yaml *root, const char *const *sets, int n) {
    Str all = {.arena = a};
    for (int i = 0; i < n; i++) {
        str_add(&all, sets[i]);
        str_add(&all, "\n");
    }
    if (n) diag_source(d, set_file, str_cstr(&all), all.n);
    for (int i = 0; i < n; i++) {
        if (strchr(sets[i], '\n'))
            diag_error(d, (Loc){set_file, i + 1, 1}, "a line break in --set");
        else
            set_one(a, d, root, sets[i], i + 1);
    }
}
