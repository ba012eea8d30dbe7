// YAML text -> a tree whose every node knows its place, with inheritance (`extends`) and overrides
// (--set). Only what a spec needs: maps, lists and scalars of one document. Aliases, tags, a second
// document and duplicate keys are errors; scalars keep their text and are typed by the schema.
#ifndef CNX_FRONTEND_YAML_H
#define CNX_FRONTEND_YAML_H
#include "../ir/diag.h"

typedef enum { YAML_TEXT, YAML_LIST, YAML_MAP } YamlKind;

typedef struct Yaml Yaml;
typedef struct {
    const char *key; // NULL in lists
    Loc loc;         // of the key
    Yaml *value;
} YamlEntry;

struct Yaml {
    YamlKind kind;
    Loc loc;
    const char *text; // YAML_TEXT
    bool quoted;      // YAML_TEXT in quotes: a string, whatever it looks like
    VEC(YamlEntry) entries;
};

// Where names of models are looked for besides the path itself.
typedef struct {
    const char *const *dirs;
    int n;
} YamlDirs;

// The value under key of a map, or NULL.
Yaml *yaml_get(const Yaml *map, const char *key);
// A plain `none`, `null`, `~` or empty scalar.
bool yaml_is_none(const Yaml *y);
// "a map", "a list", "'text'": for messages.
const char *yaml_describe(Arena *a, const Yaml *y);

// One document. Returns NULL after errors on d. text must outlive the tree.
Yaml *yaml_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n);

// The file a spec's name stands for: name, name.yaml, models/name[.yaml], then the same in dirs.
// NULL when there is none.
const char *yaml_find(Arena *a, const char *name, YamlDirs dirs);

// The model of those folders whose name is nearest, or NULL.
const char *yaml_nearest(Arena *a, const char *name, YamlDirs dirs);

// Reads a file and merges it over the files it extends (relative to it, then in dirs): maps merge
// key by key, anything else is replaced. Returns NULL after errors on d.
Yaml *yaml_load(Arena *a, Diag *d, const char *path, YamlDirs dirs);

// Applies "key.path=value" overrides, in order; a segment may be an index into a list, and missing
// maps are made. Values are YAML. Places are lines of the pseudo-file "--set". Errors go to d.
void yaml_override(Arena *a, Diag *d, Yaml *root, const char *const *sets, int n);

// base with over on top; neither is changed.
Yaml *yaml_merge(Arena *a, const Yaml *base, const Yaml *over);

#endif
