// pretrain, finetune, train: a recipe with the changes of the command line, the run's messages, and
// how it goes: a bar on a terminal, else a line now and then.
#include "cli_run.h"
#include "cnxrt_clock.h"
#include "trainer.h"
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t caught;

// The second signal ends the process as usual.
static void on_signal(int signal_number) {
    caught = signal_number;
    signal(signal_number, SIG_DFL);
}

typedef struct {
    Cli *cli;
    bool bar; // drawn in place
    double start, last;
    int64_t first_step;
    bool started;
    char line[200]; // the bar's text, redrawn after messages
} View;

// ---- options ------------------------------------------------------------------------------------

static int compiled_in(const Cli *c) {
    const CliArgs *a = &c->args;
    const struct {
        const char *value, *option, *set;
    } rows[] = {{a->set_mask_ratio, "mask-ratio", "--set fcmae.mask_ratio="},
                {a->set_mask_unit, "mask-unit", "--set fcmae.mask_unit="},
                {a->set_norm_pix, "norm-pix", "--set fcmae.norm_pix_loss="},
                {a->set_classes, "classes", "--set head.classes="},
                {a->set_channels, "channels", "--set input.channels="},
                {a->set_loss, "loss", "--set recipes.RECIPE.loss="},
                {a->set_size, "size", "--set input.width=N --set input.height="}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].value)
            return cli_usage(c, "--%s is compiled in: rebuild with cnxc build %s%s", rows[i].option,
                             rows[i].set, rows[i].value);
    return CLI_OK;
}

// "A,B" with low <= A, B <= high.
static bool pair(const char *text, double low, double high, double v[2]) {
    char *end;
    v[0] = strtod(text, &end);
    if (end == text || *end != ',') return false;
    const char *second = end + 1;
    v[1] = strtod(second, &end);
    return end != second && !*end && v[0] >= low && v[1] >= low && v[0] <= high && v[1] <= high;
}

static void change(double *field, double value) {
    if (!isnan(value)) *field = value;
}

static int change_texts(const Cli *c, CnxrtRecipe *r) {
    const CliArgs *a = &c->args;
    double v[2];
    if (a->betas) {
        if (!pair(a->betas, 0, 0.9999999, v))
            return cli_usage(c, "--betas %s: expected B1,B2, each at least 0 and below 1",
                             a->betas);
        r->beta1 = v[0], r->beta2 = v[1];
    }
    if (a->crop_scale && strcmp(a->crop_scale, "none") == 0) {
        r->crop_scale[0] = r->crop_scale[1] = 0;
    } else if (a->crop_scale) {
        if (!pair(a->crop_scale, 1e-6, 1, v) || v[0] > v[1])
            return cli_usage(c, "--crop-scale %s: expected A,B with 0 < A <= B <= 1, or none",
                             a->crop_scale);
        memcpy(r->crop_scale, v, sizeof v);
    }
    if (a->rand_augment)
        r->rand_augment = strcmp(a->rand_augment, "none") == 0 ? NULL : a->rand_augment;
    return CLI_OK;
}

static int change_recipe(const Cli *c, CnxrtRecipe *r) {
    const CliArgs *a = &c->args;
    change(&r->min_lr, a->min_lr);
    change(&r->weight_decay, a->weight_decay);
    change(&r->clip, a->clip);
    change(&r->drop_path, a->drop_path);
    change(&r->label_smoothing, a->smoothing);
    change(&r->mixup, a->mixup);
    change(&r->cutmix, a->cutmix);
    change(&r->mix_switch, a->mix_switch);
    change(&r->flip, a->flip);
    change(&r->erase, a->erase);
    return change_texts(c, r);
}

// The recipe of that name, or the first of the command's kind.
static int find_recipe(const Cli *c, const CnxrtModel *m, int kind, CnxrtRecipe *out) {
    static const char *const kinds[] = {"pretrain", "finetune", "train"};
    const char *name = c->args.recipe;
    for (int i = 0; i < m->nrecipes; i++) {
        const CnxrtRecipe *r = &m->recipes[i];
        if (name ? strcmp(r->name, name) != 0 : r->kind != kind) continue;
        if (r->kind != kind && (r->kind == CNXRT_PRETRAIN || kind == CNXRT_PRETRAIN))
            return cli_usage(c, "recipe %s is one of %s", name, kinds[r->kind]);
        *out = *r;
        out->kind = kind;
        return change_recipe(c, out);
    }
    CnxrtError list = {0};
    for (int i = 0; i < m->nrecipes; i++)
        cnxrt_error_add(&list, "%s%s", i ? ", " : "", m->recipes[i].name);
    int status = name ? cli_usage(c, "no recipe %s in this program; there are: %s", name,
                                  list.text ? list.text : "none")
                      : cli_fail(c, "the spec has no recipe for %s (there are: %s); --recipe NAME",
                                 kinds[kind], list.text ? list.text : "none");
    cnxrt_error_free(&list);
    return status;
}

static int run_options(const Cli *c, TrainerOptions *o) {
    const CliArgs *a = &c->args;
    int kind = c->command->letter == 'p'   ? CNXRT_PRETRAIN
               : c->command->letter == 'u' ? CNXRT_FINETUNE
                                           : CNXRT_TRAIN;
    const CnxrtModel *m = kind == CNXRT_PRETRAIN ? c->model->pretrain : c->model->train;
    if (!a->data || !a->out)
        return cli_usage(c, "%s: --data DATA and --out RUN are needed",
                         a->data ? "where to" : "with what");
    if (!m)
        return cli_fail(c, "model %s was built without the program %s (cnxc build --programs)",
                        c->model->name, kind == CNXRT_PRETRAIN ? "pretrain" : "train");
    *o = (TrainerOptions){.model = c->model,
                          .asked = {.batch = a->train_batch,
                                    .steps = a->steps,
                                    .epochs = a->epochs,
                                    .warmup_epochs = a->warmup_epochs,
                                    .lr = a->lr,
                                    .ema = a->ema},
                          .data = a->data,
                          .val = a->val,
                          .out = a->out,
                          .init = a->init,
                          .micro = a->micro,
                          .seed = (uint64_t)a->seed,
                          .threads = (int)a->threads,
                          .label_fraction = isnan(a->label_fraction) ? 0 : a->label_fraction,
                          .save_every = a->save_every,
                          .eval_every = a->eval_every,
                          .resume = a->resume != 0};
    if (kind == CNXRT_FINETUNE && !a->init && !a->resume)
        return cli_usage(c, "fine-tuning starts from a checkpoint: --init CKPT (train starts from "
                            "scratch)");
    return find_recipe(c, m, kind, &o->recipe);
}

// ---- messages -----------------------------------------------------------------------------------

static void bar_clear(const View *v) {
    if (v->bar) fputs("\r\033[K", stderr);
}

static void view_say(void *user, const char *text) {
    View *v = user;
    flockfile(stderr);
    bar_clear(v);
    fprintf(stderr, "%s %s: ", v->cli->self, v->cli->command->name);
    for (; *text; text++) {
        fputc(*text, stderr);
        if (*text == '\n') fputs("    ", stderr);
    }
    fprintf(stderr, "\n%s", v->bar ? v->line : "");
    funlockfile(stderr);
}

static void view_wait(void *user, int64_t done, int64_t all) {
    View *v = user;
    double now = cnxrt_seconds();
    if (!v->bar || now - v->last < 0.1) return;
    v->last = now;
    fprintf(stderr, "\r%s  validating %lld/%lld\033[K", v->line, (long long)done, (long long)all);
    fflush(stderr);
}

static void print_row(const TrainerNews *n, double loss) {
    const MetricsRow *r = &n->row;
    printf("step %lld/%lld  epoch %.3f  loss %.5g  lr %.3g  %.1f images/s", (long long)n->step,
           (long long)n->steps, r->epoch, loss, r->lr, n->images_per_second);
    if (n->validated) printf("  val loss %.5g", r->val_loss);
    if (n->validated && !isnan(r->val_top1))
        printf("  top-1 %.2f %%  top-5 %.2f %%", r->val_top1, r->val_top5);
    if (n->validated && !isnan(r->val_map)) printf("  mAP %.2f %%", r->val_map);
    printf("%s\n", n->best ? "  best" : "");
    fflush(stdout);
}

static void draw_bar(View *v, const TrainerNews *n, double now) {
    enum { BAR = 20 };
    char bar[BAR + 1];
    int filled = (int)(n->step * BAR / n->steps);
    double rate = (double)(n->step - v->first_step) / (now - v->start + 1e-9);
    int eta = rate > 0 ? (int)((double)(n->steps - n->step) / rate + 0.5) : 0;
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '-', (size_t)(BAR - filled));
    bar[BAR] = 0;
    snprintf(v->line, sizeof v->line,
             "[%s] %lld/%lld  loss %.4f  lr %.2e  %.1f images/s  ETA %d:%02d:%02d", bar,
             (long long)n->step, (long long)n->steps, n->loss, n->row.lr, n->images_per_second,
             eta / 3600, eta / 60 % 60, eta % 60);
    fprintf(stderr, "\r%s\033[K", v->line);
    fflush(stderr);
}

// Validations and the end are always a line; on a terminal the bar tells the rest, elsewhere a line
// every ten seconds does.
static void view_news(void *user, const TrainerNews *n) {
    View *v = user;
    double now = cnxrt_seconds();
    if (!v->started) {
        v->started = true;
        v->start = now;
        v->first_step = n->step;
    }
    bool line = n->validated || n->step == n->steps;
    if (!v->bar && !v->cli->args.quiet && now - v->last >= 10) line = true;
    if (line) {
        bar_clear(v);
        print_row(n, n->loss);
        v->last = now;
    }
    if (v->bar && n->step < n->steps && (line || now - v->last >= 0.1)) {
        v->last = now;
        draw_bar(v, n, now);
    }
}

static bool view_stop(void *user) {
    (void)user;
    return caught != 0;
}

int cli_train(Cli *c) {
    TrainerOptions o;
    int status = compiled_in(c);
    if (status == CLI_OK) status = run_options(c, &o);
    if (status != CLI_OK) return status;
    View v = {.cli = c, .bar = !c->args.quiet && isatty(STDERR_FILENO)};
    o.say = view_say;
    o.news = view_news;
    o.wait = view_wait;
    o.stop = view_stop;
    o.user = &v;
    TrainerEnd end;
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&act.sa_mask);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGTERM, &act, NULL);
    CnxrtStatus result = trainer_run(&o, &end, &c->err);
    bar_clear(&v);
    if (result != CNXRT_OK) return cli_fail(c, "%s", c->err.text ? c->err.text : "out of memory");
    if (end == TRAINER_DONE) return CLI_OK;
    fprintf(stderr, "%s %s: interrupted; the state is saved, --resume continues\n", c->self,
            c->command->name);
    return 128 + caught;
}
