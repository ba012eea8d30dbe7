// Runs a libFuzzer entry without libFuzzer:  fuzz_x ROUNDS SEED FOLDER...
// Replays every file of the folders, then ROUNDS inputs made from them by seeded random edits of
// bytes, tokens and lines and by splicing two files. The same arguments give the same inputs. On a
// crash the input is left in fuzz-crash.txt.
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { INPUT_LIMIT = 1 << 16, MAX_FILES = 4096, MAX_EDITS = 6 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    char *s;
    size_t n;
} Text;

static Text files[MAX_FILES]; // test program: state of the one run, for the signal handler too
static int nfiles;
static char current[INPUT_LIMIT];
static size_t current_size;
static uint64_t random_state;

static uint64_t next_random(void) { // splitmix64
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t below(size_t n) { return n ? (size_t)(next_random() % n) : 0; }

static void on_crash(int sig) {
    int fd = open("fuzz-crash.txt", O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd >= 0 && write(fd, current, current_size) >= 0) close(fd);
    signal(sig, SIG_DFL);
    raise(sig);
}

static int text_order(const void *x, const void *y) {
    return strcmp(*(char *const *)x, *(char *const *)y);
}

static void read_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f || nfiles == MAX_FILES) {
        fprintf(stderr, "cannot read %s\n", path);
        exit(2);
    }
    char *s = malloc(INPUT_LIMIT);
    size_t n = fread(s, 1, INPUT_LIMIT, f);
    fclose(f);
    files[nfiles++] = (Text){s, n};
}

static void read_folder(const char *path) {
    char *names[MAX_FILES];
    int n = 0;
    DIR *dir = opendir(path);
    if (!dir) {
        fprintf(stderr, "cannot open %s\n", path);
        exit(2);
    }
    for (struct dirent *e; (e = readdir(dir)) && n < MAX_FILES;)
        if (e->d_name[0] != '.') names[n++] = strdup(e->d_name);
    closedir(dir);
    qsort(names, (size_t)n, sizeof *names, text_order);
    for (int i = 0; i < n; i++) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, names[i]);
        read_file(file);
        free(names[i]);
    }
}

static void replace(size_t at, size_t drop, const char *s, size_t n) {
    if (at > current_size) at = current_size;
    if (drop > current_size - at) drop = current_size - at;
    if (n > INPUT_LIMIT - (current_size - drop)) return;
    memmove(current + at + n, current + at + drop, current_size - at - drop);
    memcpy(current + at, s, n);
    current_size += n - drop;
}

static bool in_word(char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
           c == '%' || c == '.' || c == '-';
}

// The token round a random place: a run of word characters, or one other character.
static Text random_token(const char *s, size_t n) {
    if (!n) return (Text){(char *)s, 0};
    size_t from = below(n), to = from + 1;
    if (in_word(s[from])) {
        while (from > 0 && in_word(s[from - 1])) from--;
        while (to < n && in_word(s[to])) to++;
    }
    return (Text){(char *)s + from, to - from};
}

static Text random_line(const char *s, size_t n) {
    if (!n) return (Text){(char *)s, 0};
    size_t from = below(n), to = from;
    while (from > 0 && s[from - 1] != '\n') from--;
    while (to < n && s[to] != '\n') to++;
    return (Text){(char *)s + from, to - from + (to < n)};
}

static void edit(void) {
    static const char *const numbers[] = {
        "0",     "1",     "-1",         "2",          "7",
        "255",   "65536", "2147483647", "4294967296", "9223372036854775807",
        "1e308", "B",     "3B"};
    const Text *other = &files[below((size_t)nfiles)];
    size_t at = below(current_size + 1);
    Text here = random_token(current, current_size), there = random_token(other->s, other->n);
    const char *number = numbers[below(sizeof numbers / sizeof numbers[0])];
    char byte = (char)next_random();
    switch (below(9)) {
    case 0: replace(at, 1, &byte, 1); break;
    case 1: replace(at, below(4), "", 0); break;
    case 2: replace(at, 0, &byte, 1); break;
    case 3: replace((size_t)(here.s - current), here.n, there.s, there.n); break;
    case 4: replace((size_t)(here.s - current), 0, there.s, there.n); break;
    case 5: replace((size_t)(here.s - current), here.n, number, strlen(number)); break;
    case 6:
        here = random_line(current, current_size);
        replace((size_t)(here.s - current), here.n, "", 0);
        break;
    case 7:
        here = random_line(current, current_size);
        there = random_line(other->s, other->n);
        replace((size_t)(here.s - current), 0, there.s, there.n);
        break;
    default: replace(at, current_size, other->s, below(other->n)); break;
    }
}

static void run(void) { LLVMFuzzerTestOneInput((const uint8_t *)current, current_size); }

static void load(const Text *t) {
    memcpy(current, t->s, t->n);
    current_size = t->n;
}

int main(int argc, char **argv) {
    if (argc < 4) {
        fprintf(stderr, "usage: %s ROUNDS SEED FOLDER...\n", argv[0]);
        return 2;
    }
    static const int fatal[] = {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL};
    for (size_t i = 0; i < sizeof fatal / sizeof fatal[0]; i++) signal(fatal[i], on_crash);
    random_state = strtoull(argv[2], NULL, 10);
    for (int i = 3; i < argc; i++) read_folder(argv[i]);
    for (int i = 0; i < nfiles; i++) {
        load(&files[i]);
        run();
    }
    long rounds = strtol(argv[1], NULL, 10);
    for (long r = 0; r < rounds && nfiles; r++) {
        load(&files[below((size_t)nfiles)]);
        for (size_t k = 1 + below(MAX_EDITS); k > 0; k--) edit();
        run();
    }
    printf("%d files and %ld made inputs\n", nfiles, rounds);
    for (int i = 0; i < nfiles; i++) free(files[i].s);
    return nfiles ? 0 : 2;
}
