// Groups: the form of their bodies, and how fuse passes build and extend them. Private to passes/.
//
// The form a kernel can be made of, operand 0 of each op being the result of the one before:
//   prologue   [cast to f32] [scale] | [normalize] [patchify], then [cast to bf16 | quantize]
//   anchor     linear | dwconv2d
//   epilogue   gelu, scale, add, mul, grn_stat, in any order and number (the latter is a side
//              result)
//   tail       [normalize | layernorm], then [cast to bf16 | quantize]
// All other operands are inputs of the body. Results are that of the last op, the statistics, and
// after a linear what the ops before the last gave, each at most once. A body of any other form is
// legal: it is scheduled op by op.
#ifndef CNX_PASSES_GROUP_H
#define CNX_PASSES_GROUP_H
#include "pass.h"

enum { MAX_GROUP = MAX_EPILOGUE - 1 }; // ops of an epilogue: the bias is a word too
typedef struct {
    int prologue[2], nprologue; // node indices in the body
    int widen, narrow;          // casts at the start and at the end of the prologue, -1: none
    int anchor;
    int epilogue[MAX_GROUP], nepilogue;
    int tail;  // -1: none
    int store; // cast of what the anchor, the epilogue and the tail gave, -1: none
    Value result;
} GroupForm;
// False when the body has another form.
bool group_form(const Graph *body, GroupForm *f);

// A group under construction in graph dst.
typedef struct {
    Graph *dst, *body;
    VEC(Value) args;    // operands, values of dst
    VEC(Value) inputs;  // the body's input for each
    VEC(Value) results; // values of the body
    const Node *like;   // place and label come from it
} Group;
void group_begin(Group *b, Graph *dst, const Node *like);
Value group_operand(Group *b, Value v); // the body's input for v of dst, made when new
// Takes over the node that defines v of dst (its body when it is a group). All results become
// results of the new group, in order; returns the body's value of v.
Value group_absorb(Group *b, Value v);
// Appends a node like `like` (op, attributes, place) on values of the body.
Value group_append(Group *b, const Node *like, const Value *args, int nargs);
// The group node; returns its first result.
Value group_end(Group *b);

// In dst, v is the result of a linear, or of a group with a linear as anchor and no tail, whose
// last op gave v: an epilogue may follow.
bool takes_epilogue(const Graph *dst, Value v);
// The same for a tail, after linear or dwconv2d.
bool takes_tail(const Graph *dst, Value v);
#endif
