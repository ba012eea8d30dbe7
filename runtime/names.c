// Translation by patterns, in both directions, with one matcher: the wildcards of the pattern that
// matches are put into the pattern of the other side.
#include "names.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum {
#define SCHEME(id, name, mark) SCHEME_##id,
#include "names.def"
    SCHEME_COUNT
} Scheme;

static const struct {
    const char *name, *mark;
} schemes[] = {
#define SCHEME(id, name, mark) {name, mark},
#include "names.def"
};

static const char *const prefixes[] = {
#define PREFIX(text) text,
#include "names.def"
};

static const struct {
    Scheme scheme;
    const char *theirs, *official;
} rows[] = {
#define NAME(scheme, theirs, official) {SCHEME_##scheme, theirs, official},
#include "names.def"
};

static const char *const spares[] = {
#define SPARE(official) official,
#include "names.def"
};

#define COUNT(a) (sizeof(a) / sizeof *(a))

typedef struct {
    const char *s;
    int n;
} Part;

// parts: what each wildcard stands for (up to 4).
static bool match(const char *pattern, const char *name, Part *parts) {
    for (; *pattern; pattern++) {
        if (*pattern == '*') {
            *parts = (Part){name, (int)strlen(name)};
            return *name != 0;
        }
        if (*pattern == '#') {
            int n = 0;
            while (isdigit((unsigned char)name[n])) n++;
            if (n == 0) return false;
            *parts++ = (Part){name, n};
            name += n;
        } else if (*pattern != *name++) {
            return false;
        }
    }
    return *name == 0;
}

bool name_matches(const char *pattern, const char *name) {
    Part parts[4];
    return match(pattern, name, parts);
}

static char *fill(const char *prefix, const char *pattern, const Part *parts) {
    size_t size = strlen(prefix) + strlen(pattern) + 1;
    int nparts = 0;
    for (const char *p = pattern; *p; p++)
        if (*p == '#' || *p == '*') size += (size_t)parts[nparts++].n;
    char *out = malloc(size), *at = out;
    if (!out) return NULL;
    at += strlen(strcpy(at, prefix));
    for (; *pattern; pattern++) {
        if (*pattern == '#' || *pattern == '*') {
            memcpy(at, parts->s, (size_t)parts->n);
            at += parts++->n;
        } else {
            *at++ = *pattern;
        }
    }
    *at = 0;
    return out;
}

static const char *drop(const char *name, const char *prefix) {
    size_t n = strlen(prefix);
    return strncmp(name, prefix, n) == 0 && name[n] ? name + n : NULL;
}

// Without the prefixes of wrappers; "encoder." is one too, except in the scheme that has stages
// below it.
static const char *bare_name(const char *name, bool encoder) {
    for (;;) {
        const char *next = encoder ? drop(name, "encoder.") : NULL;
        for (size_t i = 0; i < COUNT(prefixes) && !next; i++) next = drop(name, prefixes[i]);
        if (!next) return name;
        name = next;
    }
}

static int detect(const CnxrtWeights *w) {
    for (int s = 0; s < SCHEME_COUNT; s++)
        for (int i = 0; i < w->count; i++)
            if (name_matches(schemes[s].mark, bare_name(w->tensors[i].info.name, s != SCHEME_HF)))
                return s;
    return SCHEME_COUNT;
}

// An encoder with official names and neither final norm nor head comes from pre-training too.
static bool is_encoder_only(const CnxrtWeights *w) {
    for (int i = 0; i < w->count; i++) {
        const char *name = w->tensors[i].official;
        if (name_matches("norm.*", name) || name_matches("head.*", name)) return false;
    }
    return true;
}

bool names_translate(CnxrtWeights *w) {
    int scheme = detect(w);
    for (int i = 0; i < w->count; i++) {
        WeightTensor *t = &w->tensors[i];
        const char *bare = bare_name(t->info.name, scheme != SCHEME_HF);
        Part parts[4];
        for (size_t r = 0; r < COUNT(rows) && !t->official; r++)
            if ((int)rows[r].scheme == scheme && match(rows[r].theirs, bare, parts)) {
                t->official = fill("", rows[r].official, parts);
                if (!t->official) return false;
            }
        if (!t->official) t->official = strdup(bare);
        if (!t->official) return false;
    }
    if (scheme == SCHEME_OFFICIAL && is_encoder_only(w)) scheme = SCHEME_FCMAE;
    w->scheme = scheme == SCHEME_COUNT ? "unknown" : schemes[scheme].name;
    return true;
}

char *names_from_official(const char *official, const char *scheme, int version) {
    bool hf = strcmp(scheme, schemes[SCHEME_HF].name) == 0;
    const char *prefix = version == 1 ? "convnext." : "convnextv2.";
    Part parts[4];
    for (size_t r = 0; r < COUNT(rows); r++)
        if (strcmp(schemes[rows[r].scheme].name, scheme) == 0 &&
            match(rows[r].official, official, parts))
            return fill(hf && !name_matches("head.*", official) ? prefix : "", rows[r].theirs,
                        parts);
    return strdup(official);
}

bool name_is_spare(const char *official) {
    for (size_t i = 0; i < COUNT(spares); i++)
        if (name_matches(spares[i], official)) return true;
    return false;
}
