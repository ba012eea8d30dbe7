// The text form of both IRs: print -> parse -> print is the identity.
//
//   program infer {
//     %x = input {name="image"} : f32[B,224,224,3]
//     %w = param {name="downsample_layers.0.0.weight"} : f32[40,3,4,4]
//     %2 = conv2d %x, %w, %b {stride=[4,4]} : f32[B,56,56,40] @"stem"
//     %3, %4 = group %2, %w2 {name="pw1"} : f32[B,56,56,160], f32[B,160] @"stages.0.0" {
//       %0 = input ... ; a nested program body, same syntax
//       return %5, %6
//     }
//     return logits=%9, pooled=%8
//   }
// Comments run from ';' to the end of the line. The grammar is in ir/README.md.
#ifndef CNX_IR_TEXT_H
#define CNX_IR_TEXT_H
#include "graph.h"

void graph_print(Str *out, const Graph *g);
void module_print(Str *out, const Module *m);
// Errors go to d with their place; returns NULL after any.
Module *module_parse(Arena *a, Diag *d, const char *file, const char *text, size_t n);

#endif
