// JSON as the runtime uses it: jansson or, where a build has none, the same functions from json.c.
// That form owns trees alone (no reference counts: json_object_set takes no value of another tree).
#ifndef CNXRT_JSON_H
#define CNXRT_JSON_H
#ifdef CNXRT_JANSSON
#include <jansson.h>
#else
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef struct json_t json_t;
typedef long long json_int_t;
typedef struct {
    int position; // bytes read
    char text[160];
} json_error_t;

enum { JSON_COMPACT = 1, JSON_REJECT_DUPLICATES = 2 };
#define JSON_INDENT(n) ((size_t)(n) << 8)
#define JSON_REAL_PRECISION(n) ((size_t)(n) << 16)

// NULL without memory; strings also when the text is no UTF-8.
json_t *json_object(void);
json_t *json_array(void);
json_t *json_string(const char *text);
json_t *json_integer(json_int_t v);
json_t *json_real(double v);
json_t *json_boolean(int v);
json_t *json_null(void);
void json_decref(json_t *j); // frees the tree; NULL is allowed

// Values are handed over. 0, or -1 when there is no memory or the value is NULL.
int json_object_set_new(json_t *object, const char *key, json_t *value);
int json_array_append_new(json_t *array, json_t *value);

json_t *json_object_get(const json_t *object, const char *key); // NULL: none, or no object
json_t *json_array_get(const json_t *array, size_t i);
size_t json_array_size(const json_t *array);
int json_is_object(const json_t *j);
int json_is_array(const json_t *j);
int json_is_string(const json_t *j);
int json_is_integer(const json_t *j);
int json_is_null(const json_t *j);
const char *json_string_value(const json_t *j); // NULL: no string
json_int_t json_integer_value(const json_t *j); // 0: no integer
double json_real_value(const json_t *j);        // 0: no real
// Member i of an object: its key, NULL behind the last.
const char *json_member(const json_t *object, size_t i, json_t **value);
#define json_object_foreach(object, key, value)                                                    \
    for (size_t json_i = 0; (key = json_member(object, json_i, &value)); json_i++)

// An object or array, and nothing behind it; NULL with the reason in *error.
json_t *json_loadb(const char *text, size_t n, size_t flags, json_error_t *error);
char *json_dumps(const json_t *j, size_t flags);        // heap text
int json_dumpf(const json_t *j, FILE *f, size_t flags); // 0, or -1
#endif
#endif
