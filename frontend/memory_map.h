// The memory plan of schedules for people: a table, and a picture of offsets over steps.
#ifndef CNX_FRONTEND_MEMORY_MAP_H
#define CNX_FRONTEND_MEMORY_MAP_H
#include "../ir/schedule.h"

// Lines that start with ';', so that the text stays IR.
void memory_map(Str *out, const Schedule *s);
void memory_svg(Str *out, Schedule *const *schedules, int n);

#endif
