// Memory plans as text and as SVG: one panel per program, steps to the right, bytes per image,
// then those of a slot, downwards, a rectangle per buffer from its first to its last step.
#include "memory_map.h"
#include <stdlib.h>

static bool is_planned(const Buffer *b) { return region_has_life(b->region); }

// Memory of one image: for all of them, or for those in work.
static bool is_of_image(const Buffer *b) {
    return b->region == REGION_IMAGE || b->region == REGION_SLOT;
}

static int64_t image_bytes(const Schedule *s) { return s->image_bytes + s->slot_bytes; }

static const Buffer **planned_buffers(Arena *a, const Schedule *s, int *n) {
    const Buffer **v = NEWN(a, const Buffer *, s->buffers.n + 1);
    *n = 0;
    for (int i = 0; i < s->buffers.n; i++) {
        const Buffer *b = &s->buffers.v[i];
        if (!is_planned(b)) continue;
        int at = (*n)++;
        for (; at > 0 && (v[at - 1]->region > b->region ||
                          (v[at - 1]->region == b->region && v[at - 1]->offset > b->offset));
             at--)
            v[at] = v[at - 1];
        v[at] = b;
    }
    return v;
}

void memory_map(Str *out, const Schedule *s) {
    int n;
    const Buffer **v = planned_buffers(out->arena, s, &n);
    int64_t sum = 0;
    str_printf(out,
               "; memory of %s: %lld bytes fixed, %lld per image, %lld per image in work, "
               "%lld scratch per thread, %lld of prepared weights\n",
               s->name, (long long)s->fixed_bytes, (long long)s->image_bytes,
               (long long)s->slot_bytes, (long long)s->scratch_bytes, (long long)s->weight_bytes);
    if (n)
        str_printf(out, ";   %-8s %12s %12s  %-9s %s\n", "region", "offset", "bytes", "steps",
                   "buffer");
    for (int i = 0; i < n; i++) {
        const Buffer *b = v[i];
        const char *live = arena_printf(out->arena, "%d..%d", b->first, b->last);
        str_printf(out, ";   %-8s %12lld %12lld  %-9s %s\n", region_name(b->region),
                   (long long)b->offset, (long long)b->bytes, live, b->name);
        if (is_of_image(b)) sum += b->bytes;
    }
    int64_t image = image_bytes(s);
    if (sum && image)
        str_printf(out, ";   reuse: %lld bytes of buffers in %lld per image (%.1f times)\n",
                   (long long)sum, (long long)image, (double)sum / (double)image);
    str_add(out, ";\n");
}

// ---- picture -----------------------------------------------------------------------------------

enum { PANEL_WIDTH = 960, PANEL_HEIGHT = 360, MARGIN = 60, TITLE = 34 };

static const char *escape(Arena *a, const char *text) {
    Str s = {.arena = a};
    for (; *text; text++) switch (*text) {
        case '<': str_add(&s, "&lt;"); break;
        case '>': str_add(&s, "&gt;"); break;
        case '&': str_add(&s, "&amp;"); break;
        case '"': str_add(&s, "&quot;"); break;
        default: str_addn(&s, text, 1);
        }
    return str_cstr(&s);
}

static void svg_buffer(Str *out, const Schedule *s, const Buffer *b, double y0, int index) {
    double steps = s->steps.n ? s->steps.n : 1, total = (double)image_bytes(s);
    int64_t offset = b->offset + (b->region == REGION_SLOT ? s->image_bytes : 0);
    double x = MARGIN + b->first / steps * PANEL_WIDTH;
    double w = (b->last - b->first + 1) / steps * PANEL_WIDTH;
    double y = y0 + (double)offset / total * PANEL_HEIGHT;
    double h = (double)b->bytes / total * PANEL_HEIGHT;
    const char *name = escape(out->arena, b->name);
    str_printf(out,
               "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
               "fill=\"hsl(%d,60%%,70%%)\" stroke=\"#333\" stroke-width=\"0.5\"><title>%s: %lld "
               "bytes at %lld, steps %d..%d</title></rect>\n",
               x, y, w, h, index * 47 % 360, name, (long long)b->bytes, (long long)b->offset,
               b->first, b->last);
    if (w > 60 && h > 11)
        str_printf(out, "<text x=\"%.1f\" y=\"%.1f\">%.*s</text>\n", x + 3, y + 10, (int)(w / 6),
                   name);
}

static void svg_panel(Str *out, const Schedule *s, double top) {
    double y0 = top + TITLE;
    str_printf(
        out,
        "<text x=\"%d\" y=\"%.1f\" font-size=\"14\">%s: %.2f MB per image + %.2f MB per image in "
        "work + %.2f MB fixed, %.1f KB scratch per thread, %d steps</text>\n",
        MARGIN, top + 20, escape(out->arena, s->name), (double)s->image_bytes / 1e6,
        (double)s->slot_bytes / 1e6, (double)s->fixed_bytes / 1e6, (double)s->scratch_bytes / 1e3,
        s->steps.n);
    str_printf(out,
               "<rect x=\"%d\" y=\"%.1f\" width=\"%d\" height=\"%d\" fill=\"none\" "
               "stroke=\"#333\"/>\n<text x=\"4\" y=\"%.1f\">0</text>\n"
               "<text x=\"4\" y=\"%.1f\">%.2f MB</text>\n",
               MARGIN, y0, PANEL_WIDTH, PANEL_HEIGHT, y0 + 10, y0 + PANEL_HEIGHT,
               (double)image_bytes(s) / 1e6);
    if (!image_bytes(s)) return;
    for (int i = 0; i < s->buffers.n; i++)
        if (is_of_image(&s->buffers.v[i])) svg_buffer(out, s, &s->buffers.v[i], y0, i);
}

void memory_svg(Str *out, Schedule *const *schedules, int n) {
    int panels = 0, panel = TITLE + PANEL_HEIGHT + 20;
    for (int i = 0; i < n; i++) panels += image_bytes(schedules[i]) > 0;
    str_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
               "font-family=\"sans-serif\" font-size=\"9\">\n"
               "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
               PANEL_WIDTH + MARGIN + 20, panels * panel + 20);
    for (int i = 0, at = 0; i < n; i++)
        if (image_bytes(schedules[i]) > 0) svg_panel(out, schedules[i], at++ * panel);
    str_add(out, "</svg>\n");
}
