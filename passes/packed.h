// Programs of masked pre-training: what the passes that drop rows of maps share. Private to
// passes/.
//
// A map is a value [n,h,w,c] of which op after op computes every position alone; a pass replaces it
// by the rows of the positions somebody needs.
#ifndef CNX_PASSES_PACKED_H
#define CNX_PASSES_PACKED_H
#include "pass.h"

// True for the programs these passes work on, by name: pretrain, reconstruct.
bool program_masked(const Graph *g);

// Operand i of n has the positions of n's result (a map, not a weight or a vector).
bool operand_is_map(const Graph *g, const Node *n, int i);
// The rows of n's result are those of the same positions of its maps: it can work on any of them.
bool op_keeps_rows(const Graph *g, const Node *n);
// A node of src on rows: operands that are maps come from rows, the others from map (both take
// values of src to dst); type is that of the result.
Value build_on_rows(Graph *dst, const Graph *src, const Node *n, const Value *map,
                    const Value *rows, Type type);

// Copies the inputs of src and what v is computed from to dst, in order, so that lists of cells can
// be made before the first map; done, by node, gets those copied.
void copy_before(Graph *dst, const Graph *src, Value v, Value *map, bool *done);

// patchify whose patches tile the image.
bool patches_tile(const Node *n);

#endif
