// The builder, the type rules (right and wrong, every op), use counts, pruning, groups, MACs, the
// verifier, and specs made of garbage.
#include "ir_case.h"

// ---- type rules --------------------------------------------------------------------------------
// want: the result types, or "!" and a part of the reason.
typedef struct {
    Op op;
    const char *types, *attrs, *want;
} Rule;

static const Rule rules[] = {
    {OP_INPUT, "B,4,5,3", "name=image", "f32[B,4,5,3]"},
    {OP_INPUT, "B,B", "name=image", "!2 batch dimensions"},
    {OP_INPUT, "B,0", "name=image", "!dimension 1 is 0"},
    {OP_INPUT, "B,3000000000", "name=x", "!dimension 1 is 3000000000"},
    {OP_INPUT, "2000000000,2000000000", "name=x", "!more than 1099511627776 elements"},
    {OP_INPUT, "B,4", "eps=1", "!it has no attribute eps"},
    {OP_PARAM, "40,3,4,4", "name=w", "f32[40,3,4,4]"},
    {OP_PARAM, "40", "", "!name is missing"},
    {OP_PARAM, "40", "name=", "!name is missing"},
    {OP_PARAM, "B,40", "name=w", "!must not depend on the batch"},
    {OP_PARAM, "4", "name=w name=v", "!name is given twice"},
    {OP_CONSTANT, "2,3", "value=1,2,3,4,5,6", "f32[2,3]"},
    {OP_CONSTANT, "B,3", "value=1", "f32[B,3]"},
    {OP_CONSTANT, "2,3", "value=1,2", "!value has 2 elements, the type f32[2,3] needs 1 or 6"},
    {OP_CONSTANT, "2,3", "", "!value has 0 elements"},
    {OP_RESHAPE, "B,4,6", "shape=4B,6", "f32[4B,6]"},
    {OP_RESHAPE, "12", "shape=3,4", "f32[3,4]"},
    {OP_RESHAPE, "1", "", "f32[]"},
    {OP_RESHAPE, "B,4,6", "shape=4,6", "!f32[B,4,6] and shape f32[4,6] differ"},
    {OP_RESHAPE, "B,4,6", "shape=4B,5", "!differ in their number of elements"},
    {OP_TRANSPOSE, "B,4,6", "perm=0,2,1", "f32[B,6,4]"},
    {OP_TRANSPOSE, "B,4,6", "perm=0,2", "!perm has 2 entries, x has rank 3"},
    {OP_TRANSPOSE, "B,4,6", "perm=0,2,2", "!entry 2 is 2"},
    {OP_TRANSPOSE, "B,4,6", "perm=0,1,3", "!entry 2 is 3"},
    {OP_TRANSPOSE, "B,4,6", "perm=0,1,-1", "!must not be negative, got -1"},
    {OP_TILE, "5", "times=3", "f32[15]"},
    {OP_TILE, "5", "", "!times must be 1 or more, got 0"},
    {OP_TILE, "5,2", "times=3", "!x must have rank 1, got f32[5,2]"},
    {OP_TILE, "5", "times=2147483647", "!dimension 0 is 10737418235"},
    {OP_PATCHIFY, "B,9,7,3", "kernel=4,2 stride=4,2", "f32[B,2,3,24]"},
    {OP_PATCHIFY, "B,5,7,3", "kernel=3,3 stride=2,1 pad=1,0", "f32[B,3,5,27]"},
    {OP_PATCHIFY, "B,9,7,3", "stride=4,2", "!kernel must be two integers, got 0"},
    {OP_PATCHIFY, "B,9,7,3", "kernel=4,2", "!stride must be two integers, got 0"},
    {OP_PATCHIFY, "B,9,7,3", "kernel=4,2 stride=0,1", "!stride must be at least 1, got 0"},
    {OP_PATCHIFY, "B,9,7,3", "kernel=4,8 stride=1,1", "!kernel width 8 is larger"},
    {OP_PATCHIFY, "B,9,7", "kernel=1,1 stride=1,1", "!x must have rank 4"},
    {OP_PATCHIFY, "B,1,1,3", "kernel=2147483647,2147483647 stride=1,1", "!too large"},
    {OP_PACK, "40,12", "nr=16", "f32[3,12,16]"},
    {OP_PACK, "40,12", "", "!nr must be 1 or more"},
    {OP_PACK, "B,12", "nr=16", "!must not depend on the batch"},
    {OP_PACK, "h40,12", "nr=16", "bf16[3,6,32]"},
    {OP_PACK, "c40,12", "nr=16", "i8[3,3,64]"},
    {OP_PACK, "c40,14", "nr=16", "!x has depth 14, of i8 it must be a multiple of 4"},
    {OP_CAST, "B,9,7", "dtype=bf16", "bf16[B,9,7]"},
    {OP_CAST, "c9,7", "", "f32[9,7]"},
    {OP_CAST, "9,7", "dtype=u8", "!dtype must be f32 or bf16, got u8"},
    {OP_CAST, "iB,7", "", "!operand 0 has element type i32"},
    {OP_QUANTIZE, "B,9,7; 2", "", "u8[B,9,7]"},
    {OP_QUANTIZE, "B,9,7; 3", "", "!grid must have 2 elements, has 3"},
    {OP_QUANTIZE, "B,9,7; B,2", "", "!grid must have rank 1"},
    {OP_QUANTIZE, "B,9,7", "", "!it takes 2 operands, got 1"},
    {OP_QUANTIZE, "hB,9,7; 2", "", "!operand 0 has element type bf16"},
    {OP_QUANTIZE_ROWS, "9,7", "", "i8[9,7]"},
    {OP_QUANTIZE_ROWS, "B,7", "", "!must not depend on the batch"},
    {OP_CONV2D, "B,9,7,3; 8,3,4,2; 8", "stride=4,2", "f32[B,2,3,8]"},
    {OP_CONV2D, "B,9,7,3; 8,3,4,2", "stride=1,1 pad=2,1", "f32[B,10,8,8]"},
    {OP_CONV2D, "B,9,7,4; 8,3,4,2; 8", "stride=4,2", "!expects 3 input channels, x has 4"},
    {OP_CONV2D, "B,9,7,3; 8,3,4,2; 7", "stride=4,2", "!bias has 7 elements"},
    {OP_CONV2D, "B,9,7,3; 8,3,4; 8", "stride=4,2", "!weight must have rank 4"},
    {OP_CONV2D, "B,3,7,3; 8,3,4,2", "stride=4,2", "!kernel height 4 is larger"},
    {OP_CONV2D, "9,B,7,3; 8,3,4,2", "stride=4,2", "!dimension 1 must not depend on the batch"},
    {OP_CONV2D, "B,9,7,3; 8,3,4,2", "stride=4", "!stride must be two integers, got 1"},
    {OP_CONV2D, "B,1000,1000,1000; 1,1000,999,999", "stride=1,1 pad=499,499",
     "!the matrix of its patches has more than"},
    {OP_CONV2D, "B,9,7,3", "stride=4,4", "!it takes 2 to 3 operands, got 1"},
    {OP_DWCONV2D, "B,9,7,5; 5,1,7,3; 5", "stride=1,1 pad=3,1", "f32[B,9,7,5]"},
    {OP_DWCONV2D, "B,9,7,5; 5,1,7,3", "stride=2,3 pad=3,1", "f32[B,5,3,5]"},
    {OP_DWCONV2D, "B,9,7,5; 6,1,7,3", "stride=1,1 pad=3,1", "!weight has 6 channels, x has 5"},
    {OP_DWCONV2D, "B,9,7,5; 5,5,7,3", "stride=1,1 pad=3,1", "!must have shape [c,1,kh,kw]"},
    {OP_DWCONV2D, "B,9,7,5; 5,1,7,3; 1", "stride=1,1 pad=3,1", "!bias has 1 elements"},
    {OP_LINEAR, "hB,5,12; h8,12; 8", "", "f32[B,5,8]"},
    {OP_LINEAR, "uB,5,12; c8,12", "", "f32[B,5,8]"},
    {OP_LINEAR, "hB,5,12; 8,12", "", "!x of bf16 and weight of f32 have no product"},
    {OP_LINEAR, "uB,5,12; h8,12", "", "!x of u8 and weight of bf16 have no product"},
    {OP_LINEAR, "hB,5,12; h8,12; h8", "", "!operand 2 has element type bf16"},
    {OP_LINEAR_DW, "hB,5,12; hB,5,8", "", "f32[12,8]"},
    {OP_LINEAR_DW, "hB,5,12; B,5,8", "", "!dy of bf16 and x of f32 have no product"},
    {OP_LINEAR, "B,4,6; 9,6; 9", "", "f32[B,4,9]"},
    {OP_LINEAR, "6; 9,6", "", "f32[9]"},
    {OP_LINEAR, "B,4,48; 9,40", "", "!weight expects 40 inputs, x has 48 channels"},
    {OP_LINEAR, "B,4,6; 9,6; 6", "", "!bias has 6 elements, the result has 9 channels"},
    {OP_LINEAR, "6B; 9,6", "", "!must not depend on the batch"},
    {OP_LINEAR, "B,6; 9,6; 9; 9", "", "!it takes 2 to 3 operands, got 4"},
    {OP_LAYERNORM, "B,4,6; 6; 6", "eps=1e-6", "f32[B,4,6]"},
    {OP_LAYERNORM, "B,4,6; 5; 6", "eps=1e-6", "!gamma has 5 elements, x has 6 channels"},
    {OP_LAYERNORM, "B,4,6; 6; 6,1", "eps=1e-6", "!beta must have rank 1"},
    {OP_LAYERNORM, "B,4,6; 6; 6", "eps=-1", "!eps must be finite and not negative, got -1"},
    {OP_LAYERNORM, "B,4,6; 6; 6", "eps=nan", "!eps must be finite"},
    {OP_NORMALIZE, "B,4,6", "eps=1e-6", "f32[B,4,6]"},
    {OP_NORMALIZE, "B", "eps=1e-6", "!must not depend on the batch"},
    {OP_GELU, "B,4,6", "approx=tanh", "f32[B,4,6]"},
    {OP_GELU, "B,4,6", "approx=relu", "!approx is one of erf|tanh, got index -1"},
    {OP_GRN, "B,4,6; 6; 6", "eps=1e-6 residual=1", "f32[B,4,6]"},
    {OP_GRN, "B,4,6; 4; 6", "eps=1e-6", "!gamma has 4 elements, x has 6 channels"},
    {OP_GRN, "B,4,6; 6; 6", "residual=2", "!residual is true or false, got 2"},
    {OP_GRN, "6; 6; 6", "", "!x must have rank 2 or more"},
    {OP_GRN_STAT, "B,4,3,6", "aggregate=std", "f32[B,6]"},
    {OP_GRN_STAT, "B,4,3,6", "statistics=batch", "f32[1,6]"},
    {OP_GRN_STAT, "4,B,6", "", "!must not depend on the batch"},
    {OP_GRN_SCALE, "B,6; 6", "normalise=sum", "f32[B,6]"},
    {OP_GRN_SCALE, "1,6; 5", "", "!gamma has 5 elements, the statistic has 6 channels"},
    {OP_GRN_SCALE, "B,2,6; 6", "", "!the statistic must have rank 2"},
    {OP_ADD, "B,4,6; B,4,6", "", "f32[B,4,6]"},
    {OP_ADD, "B,4,6; 6", "", "f32[B,4,6]"},
    {OP_ADD, "B,4,6; 4", "", "!shapes differ: f32[B,4,6] and f32[4]"},
    {OP_ADD, "6; B,4,6", "", "!shapes differ"},
    {OP_MUL, "B,4,6; B,4,6", "", "f32[B,4,6]"},
    {OP_MUL, "B,4,6; 6", "", "!shapes differ: f32[B,4,6] and f32[6]"},
    {OP_SCALE, "B,4,6; 6", "", "f32[B,4,6]"},
    {OP_SCALE, "B,4,6; B,6", "", "f32[B,4,6]"},
    {OP_SCALE, "B,4,6; 1,6", "", "f32[B,4,6]"},
    {OP_SCALE, "B,4,6; 5", "", "!the scale has 5 elements, x has 6 channels"},
    {OP_SCALE, "B,4,6; B,5", "", "!the scale has 5 channels, x has 6"},
    {OP_SCALE, "B,4,6; 2,6", "", "!neither per image nor shared"},
    {OP_SCALE, "B,4,6; B,4,6", "", "!must be [c], [n,c] or [1,c]"},
    {OP_SCALE_ROWS, "9,2,3; 9", "", "f32[9,2,3]"},
    {OP_SCALE_ROWS, "9,2,3; 3", "", "!the scale is f32[3], x has the rows of f32[9,2,3]"},
    {OP_SCALE_ROWS, "9,2,3; 9,1", "", "!the scale must have rank 1"},
    {OP_DROP_PATH, "B,4,6", "rate=0.5 key=3", "f32[B,4,6]"},
    {OP_DROP_PATH, "B,4,6", "rate=1", "!rate must be at least 0 and below 1, got 1"},
    {OP_DROP_PATH, "B,4,6", "key=-1", "!key must not be negative, got -1"},
    {OP_GLOBAL_AVG_POOL, "B,4,3,6", "", "f32[B,6]"},
    {OP_GLOBAL_AVG_POOL, "6", "", "!x must have rank 2 or more, got f32[6]"},
    {OP_UNPATCHIFY, "B,2,3,24", "kernel=4,2 stride=4,2 shape=B,9,7,3", "f32[B,9,7,3]"},
    {OP_UNPATCHIFY, "B,3,7,36", "kernel=3,4 stride=2,1 pad=1,2 shape=B,5,6,3", "f32[B,5,6,3]"},
    {OP_UNPATCHIFY, "B,2,3,24", "kernel=4,2 stride=4,2", "!shape must have rank 4, got f32[]"},
    {OP_UNPATCHIFY, "B,2,3,24", "kernel=4,2 stride=4,2 shape=B,9,8,3",
     "!x: f32[B,2,3,24], patches of f32[B,9,8,3]: f32[B,2,4,24]"},
    {OP_UNPATCHIFY, "B,2,3,24", "stride=4,2 shape=B,9,7,3", "!kernel must be two integers"},
    {OP_EXPAND, "5", "shape=B,2,3,5", "f32[B,2,3,5]"},
    {OP_EXPAND, "B,5", "shape=B,2,3,5", "f32[B,2,3,5]"},
    {OP_EXPAND, "1,5", "shape=B,2,3,5", "!neither the channels of shape f32[B,2,3,5] nor one row"},
    {OP_EXPAND, "4", "shape=B,2,3,5", "!f32[4] is neither"},
    {OP_EXPAND, "5", "", "!shape must have rank 1 or more"},
    {OP_IMAGE_SUM, "B,4,3,6", "", "f32[B,6]"},
    {OP_IMAGE_SUM, "6", "", "!x must have rank 2 or more, got f32[6]"},
    {OP_SUM_ROWS, "B,4,3,6", "", "f32[6]"},
    {OP_SUM_ROWS, "4,B", "", "!must not depend on the batch"},
    {OP_SOFTMAX_CROSS_ENTROPY, "B,6; B,6", "", "f32[B]"},
    {OP_SOFTMAX_CROSS_ENTROPY, "B,6; B,5", "", "!the targets: f32[B,5], the logits: f32[B,6]"},
    {OP_SOFTMAX_CROSS_ENTROPY, "B,4,6; B,4,6", "", "!the logits must have rank 2"},
    {OP_BCE_WITH_LOGITS, "B,6; B,6", "", "f32[B]"},
    {OP_BCE_WITH_LOGITS, "B,6; B", "", "!the targets: f32[B], the logits: f32[B,6]"},
    {OP_NORM_PIX, "B,4,6", "eps=1e-6", "f32[B,4,6]"},
    {OP_NORM_PIX, "B,4,1", "eps=1e-6", "!needs 2 elements or more, x is f32[B,4,1]"},
    {OP_MASKED_MSE, "B,4,6; B,4,6; B,4", "", "f32[B]"},
    {OP_MASKED_MSE, "B,2,3,6; B,2,3,6; B,6", "", "f32[B]"},
    {OP_MASKED_MSE, "B,4,6; B,4,6; B,5", "", "!the mask f32[B,5] has not one element per position"},
    {OP_MASKED_MSE, "B,4,6; B,4,6; 4", "", "!the mask f32[4] has not one element per position"},
    {OP_MASKED_MSE, "B,4,6; B,6,4; B,4", "", "!the target: f32[B,6,4], the prediction: "},
    {OP_LINEAR_DW, "B,4,9; B,4,6", "", "f32[9,6]"},
    {OP_LINEAR_DW, "9; 6", "", "f32[9,6]"},
    {OP_LINEAR_DW, "B,5,9; B,4,6", "", "!dy f32[B,5,9] and x f32[B,4,6] differ in their rows"},
    {OP_DWCONV2D_DX, "B,9,7,5; 5,1,7,3", "stride=1,1 pad=3,1 shape=B,9,7,5", "f32[B,9,7,5]"},
    {OP_DWCONV2D_DX, "B,5,3,5; 5,1,7,3", "stride=2,3 pad=3,1 shape=B,9,7,5", "f32[B,9,7,5]"},
    {OP_DWCONV2D_DX, "B,9,7,5; 6,1,7,3", "stride=1,1 pad=3,1 shape=B,9,7,5",
     "!weight must have shape [5,1,kh,kw], got f32[6,1,7,3]"},
    {OP_DWCONV2D_DX, "B,9,7,5; 5,1,7,3", "stride=1,1 pad=3,3 shape=B,9,7,5",
     "!dy: f32[B,9,7,5], the result: f32[B,9,11,5]"},
    {OP_DWCONV2D_DW, "B,5,3,5; B,9,7,5", "kernel=7,3 stride=2,3 pad=3,1", "f32[5,1,7,3]"},
    {OP_DWCONV2D_DW, "B,5,3,5; B,9,7,5", "stride=2,3 pad=3,1", "!kernel must be two integers"},
    {OP_DWCONV2D_DW, "B,5,3,4; B,9,7,5", "kernel=7,3 stride=2,3 pad=3,1", "!dy: f32[B,5,3,4]"},
    {OP_LAYERNORM_DX, "B,4,6; B,4,6; 6", "eps=1e-6", "f32[B,4,6]"},
    {OP_LAYERNORM_DX, "B,4,6; B,4,6; 5", "eps=1e-6", "!gamma has 5 elements, x has 6 channels"},
    {OP_LAYERNORM_DX, "B,4,5; B,4,6; 6", "eps=1e-6", "!dy: f32[B,4,5], x: f32[B,4,6]"},
    {OP_LAYERNORM_DGAMMA, "B,4,6; B,4,6", "eps=1e-6", "f32[6]"},
    {OP_LAYERNORM_DGAMMA, "B,4,6; 4,6", "eps=1e-6", "!dy: f32[B,4,6], x: f32[4,6]"},
    {OP_NORMALIZE_DX, "B,4,6; B,4,6", "eps=1e-6", "f32[B,4,6]"},
    {OP_NORMALIZE_DX, "B; B", "eps=1e-6", "!must not depend on the batch"},
    {OP_GELU_DX, "B,4,6; B,4,6", "approx=tanh", "f32[B,4,6]"},
    {OP_GELU_DX, "6; B,4,6", "", "!dy: f32[6], x: f32[B,4,6]"},
    {OP_GRN_STAT_DX, "B,6; B,4,3,6; B,6", "aggregate=std", "f32[B,4,3,6]"},
    {OP_GRN_STAT_DX, "1,6; B,4,3,6; 1,6", "statistics=batch", "f32[B,4,3,6]"},
    {OP_GRN_STAT_DX, "B,6; B,4,3,6; 1,6", "", "!G: f32[1,6], the statistic: f32[B,6]"},
    {OP_GRN_STAT_DX, "B,6; B,4,3,6; 1,6", "statistics=batch", "!dG: f32[B,6], the statistic: "},
    {OP_GRN_SCALE_DSTAT, "B,6; B,6; 6", "normalise=sum", "f32[B,6]"},
    {OP_GRN_SCALE_DSTAT, "B,6; B,6; 5", "", "!gamma has 5 elements, the statistic has 6 channels"},
    {OP_GRN_SCALE_DGAMMA, "B,6; B,6", "normalise=sum", "f32[6]"},
    {OP_GRN_SCALE_DGAMMA, "1,6; B,6", "", "!ds: f32[1,6], the statistic: f32[B,6]"},
    {OP_GRN_SCALE_DGAMMA, "B,2,6; B,2,6", "", "!the statistic must have rank 2"},
    {OP_SOFTMAX_CROSS_ENTROPY_DX, "B; B,6; B,6", "", "f32[B,6]"},
    {OP_SOFTMAX_CROSS_ENTROPY_DX, "B,1; B,6; B,6", "", "!dl: f32[B,1], the loss: f32[B]"},
    {OP_BCE_WITH_LOGITS_DX, "B; B,6; B,6", "", "f32[B,6]"},
    {OP_BCE_WITH_LOGITS_DX, "B; B,6; B,7", "", "!the targets: f32[B,7], the logits: f32[B,6]"},
    {OP_MASKED_MSE_DX, "B; B,4,6; B,4,6; B,4", "", "f32[B,4,6]"},
    {OP_MASKED_MSE_DX, "B; B,4,6; B,4,6; B,3", "", "!the mask f32[B,3] has not one element"},
    {OP_MASKED_MSE_DX, "4; B,4,6; B,4,6; B,4", "", "!dl: f32[4], the loss: f32[B]"},
    {OP_MASK, "B,8,12,5; B,2,3", "", "f32[B,8,12,5]"},
    {OP_MASK, "B,2,3,5; B,2,3", "hidden=1", "f32[B,2,3,5]"},
    {OP_MASK, "B,8,8,5; B,2,3", "", "!x f32[B,8,8,5] is no multiple of the mask f32[B,2,3]"},
    {OP_MASK, "B,8,12,5; 4,2,3", "", "!is no multiple of the mask f32[4,2,3]"},
    {OP_MASK, "B,8,12,5; B,6", "", "!the mask must have rank 3"},
    {OP_CELLS, "B,2,3", "count=4", "i32[B,4]"},
    {OP_CELLS, "B,2,3", "hidden=1", "!count must be 1 to 6, the cells of f32[B,2,3], got 0"},
    {OP_CELLS, "B,2,3", "count=7", "!got 7"},
    {OP_RULEBOOK, "iB,4", "grid=2,3 block=8 kernel=7,7", "i32[B,64,25]"},
    {OP_RULEBOOK, "iB,4", "grid=2,3 block=2 kernel=3,7", "i32[B,4,15]"},
    {OP_RULEBOOK, "iB,4", "grid=2,3 block=1 kernel=7,3", "i32[B,4,21]"},
    {OP_RULEBOOK, "B,4", "grid=2,3 block=2 kernel=7,7", "!the cells must be i32, got f32[B,4]"},
    {OP_RULEBOOK, "iB,7", "grid=2,3 block=2 kernel=7,7", "!7 cells of a grid of 2 x 3"},
    {OP_RULEBOOK, "iB,4", "grid=2,3 block=3 kernel=7,7", "!must be a power of two up to 4096"},
    {OP_RULEBOOK, "iB,4", "grid=2,3 block=2 kernel=7,4", "!the kernel must be odd, got 7 x 4"},
    {OP_RULEBOOK, "iB,4", "grid=65536,65536 block=2 kernel=7,7", "!is too large"},
    {OP_RULEBOOK, "iB,4", "grid=4096,4096 block=16 kernel=7,7", "!is too large"},
    {OP_PACK_ROWS, "B,8,12,5; iB,4", "block=4", "f32[B,64,5]"},
    {OP_PACK_ROWS, "B,8,12,5; iB,7", "block=4", "!7 cells of 6"},
    {OP_PACK_ROWS, "B,8,12,5; iB,4", "", "!must be a power of two up to 4096, got 0"},
    {OP_PACK_ROWS, "B,8,10,5; iB,4", "block=4", "!f32[B,8,10,5] is not made of cells of 4 x 4"},
    {OP_PACK_ROWS, "B,8,12,5; i4,4", "block=4", "!the cells i32[4,4] are not those of the images"},
    {OP_PACK_ROWS, "iB,8,12,5; iB,4", "block=4", "!operand 0 has element type i32"},
    {OP_UNPACK_ROWS, "B,64,5; iB,4", "block=4 shape=B,8,12,5", "f32[B,8,12,5]"},
    {OP_UNPACK_ROWS, "B,60,5; iB,4", "block=4 shape=B,8,12,5",
     "!x: f32[B,60,5], rows of f32[B,8,12,5]: f32[B,64,5]"},
    {OP_UNPACK_ROWS, "B,64,5; iB,4", "block=4", "!shape must have rank 4"},
    {OP_PATCHIFY_ROWS, "B,16,24,3; iB,4", "kernel=2,2 block=4", "f32[B,64,12]"},
    {OP_PATCHIFY_ROWS, "B,16,24,3; iB,4", "kernel=3,2 block=4", "!f32[B,5,12,18] is not made of"},
    {OP_PATCHIFY_ROWS, "B,16,24,3; iB,4", "kernel=32,2 block=1", "!a patch of 32 x 2 is larger"},
    {OP_DWCONV2D_PACKED, "B,16,5; iB,4,25; 5,1,7,7; 5", "", "f32[B,16,5]"},
    {OP_DWCONV2D_PACKED, "B,4,5; iB,4,21; 5,1,7,3", "", "f32[B,4,5]"},
    {OP_DWCONV2D_PACKED, "B,16,5; iB,4,49; 5,1,7,7", "",
     "!lists 49 neighbours, a kernel of 7 x 7 has 25"},
    {OP_DWCONV2D_PACKED, "B,15,5; iB,4,25; 5,1,7,7", "", "!is not that of the rows f32[B,15,5]"},
    {OP_DWCONV2D_PACKED, "B,16,5; iB,4,25; 6,1,7,7", "", "!weight must have shape [5,1,kh,kw]"},
    {OP_DWCONV2D_PACKED, "B,16,5; iB,4,25; 5,1,7,7; 4", "", "!bias has 4 elements"},
    {OP_DWCONV2D_PACKED, "B,16,5; B,4,25; 5,1,7,7", "", "!the rulebook must be i32"},
    {OP_DWCONV2D_PACKED_DX, "B,16,5; iB,4,25; 5,1,7,7", "", "f32[B,16,5]"},
    {OP_DWCONV2D_PACKED_DX, "B,16,5; iB,4,25; 5,1,7,8", "", "!the kernel must be odd"},
    {OP_DWCONV2D_PACKED_DW, "B,16,5; B,16,5; iB,4,25", "kernel=7,7", "f32[5,1,7,7]"},
    {OP_DWCONV2D_PACKED_DW, "B,16,4; B,16,5; iB,4,25", "kernel=7,7", "!dy: f32[B,16,4], x: "},
    {OP_DWCONV2D_PACKED_DW, "B,16,5; B,16,5; iB,4,25", "", "!kernel must be two integers"},
    {OP_ADAMW, "4,5; 4,5; 4,5; 4,5; 12; 3,2", "index=2", "f32[4,5]"},
    {OP_ADAMW, "4,5; 4,5; 4,5; 5,4; 12; 3,2", "", "!operand 3 is f32[5,4], the parameter f32[4,5]"},
    {OP_ADAMW, "4,5; 4,5; 4,5; 4,5; 12; 3,2", "index=3", "!index 3 of a table of 3 groups"},
    {OP_ADAMW, "4,5; 4,5; 4,5; 4,5; 12; 3,3", "", "!the table of groups must be [n,2]"},
    {OP_ADAMW, "4; 4; 4; 4; 11; 3,2", "", "!the hyper-parameters must be [12], got f32[11]"},
    {OP_ADAMW, "B,4; B,4; B,4; B,4; 12; 3,2", "", "!must not depend on the batch"},
    {OP_EMA, "4,5; 4,5; 12", "", "f32[4,5]"},
    {OP_EMA, "4,5; 4; 12", "", "!operand 1 is f32[4], the parameter f32[4,5]"},
    {OP_RECALL, "iB,6", "", "i32[B,6]"},
    {OP_RECALL, "B,6; B,6", "", "!it takes 1 operands, got 2"},
    {OP_GROUP, "B,6", "name=g", "!it needs a body"},
};
enum { RULES = sizeof rules / sizeof *rules };

static void check_rule(const Rule *r) {
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    // An operand whose own type is refused cannot be built; every table operand is fine.
    NodeSpec spec = case_spec(g, r->op, r->types, r->attrs);
    const char *why = graph_check(g, &spec);
    if (r->want[0] == '!') {
        if (!why || !strstr(why, r->want + 1))
            fail_msg("%s(%s) {%s}: \"%s\", expected \"%s\"", op_info[r->op].name, r->types,
                     r->attrs, why ? why : "(accepted)", r->want + 1);
        assert_memory_equal(why, op_info[r->op].name, strlen(op_info[r->op].name));
    } else {
        if (why) fail_msg("%s(%s) {%s}: %s", op_info[r->op].name, r->types, r->attrs, why);
        Value v = graph_add(g, &spec);
        assert_string_equal(type_print(a, graph_type(g, v)), r->want);
        graph_output(g, "y", v);
        assert_null(graph_verify(g));
    }
    arena_free(a);
}

static void test_rules(void **state) {
    (void)state;
    for (int i = 0; i < RULES; i++) check_rule(&rules[i]);
}

// Every row of the op table has a right and a wrong case above; groups have tests of their own.
static void test_table_is_covered(void **state) {
    (void)state;
    for (int op = 0; op < OP_COUNT; op++) {
        int right = op == OP_GROUP, wrong = 0;
        for (int i = 0; i < RULES; i++)
            if (rules[i].op == (Op)op) rules[i].want[0] == '!' ? wrong++ : right++;
        if (!right || !wrong)
            fail_msg("op %s: %d right and %d wrong cases", op_info[op].name, right, wrong);
    }
}

// ---- specs made of garbage ---------------------------------------------------------------------
static uint64_t next_random(uint64_t *s) {
    *s ^= *s << 13;
    *s ^= *s >> 7;
    return *s ^= *s << 17;
}

static int64_t wild_int(uint64_t *s) {
    static const int64_t wild[] = {0, 1, 2, 3, 4, 7, -1, INT32_MAX, INT64_MAX, INT64_MIN, 1000};
    if (next_random(s) % 2) return 1 + (int64_t)(next_random(s) % 3);
    return wild[next_random(s) % (sizeof wild / sizeof *wild)];
}

static Attr wild_attr(Arena *a, uint64_t *s, AttrId id) {
    int64_t v[3] = {wild_int(s), wild_int(s), wild_int(s)};
    Dim d[3] = {{v[0], v[1] & 1}, {v[1], v[2] & 1}, {v[2], false}};
    int n = (int)(next_random(s) % 4);
    static const double data[] = {1, 2, 3};
    switch ((unsigned)id < A_COUNT ? attr_info[id].kind : AK_INT) {
    case AK_F64: return attr_f64(id, (double)v[0]);
    case AK_STR: return attr_str(id, v[0] & 1 ? "name" : v[0] & 2 ? "" : NULL);
    case AK_INTS:
    case AK_ENUMS: return attr_ints(a, id, v, n);
    case AK_DIMS: return attr_dims(a, id, d, n);
    case AK_DATA: return (Attr){.id = id, .data = {data, n}};
    default: return attr_int(id, v[0]);
    }
}

// Whatever graph_check accepts can be built, verified and counted; nothing crashes.
static void test_garbage(void **state) {
    (void)state;
    uint64_t s = 88172645463325252u;
    int accepted = 0;
    for (int round = 0; round < 400; round++) {
        Arena *a = arena_new();
        Graph *g = graph_new(a, NULL);
        graph_input(g, "a", type_make(DT_F32, 4, (Dim[]){dim_b(1), dim_c(4), dim_c(4), dim_c(3)}),
                    (Loc){0});
        graph_param(g, "b", type_make(DT_F32, 1, (Dim[]){dim_c(3)}), (Loc){0});
        graph_param(g, "c", type_make(DT_F32, 4, (Dim[]){dim_c(3), dim_c(3), dim_c(2), dim_c(2)}),
                    (Loc){0});
        for (int i = 0; i < 60; i++) {
            NodeSpec spec = {.op = (Op)(next_random(&s) % (OP_COUNT + 1))};
            Value args[4];
            Attr attrs[6];
            int64_t extra = spec.op < OP_COUNT ? op_info[spec.op].min_args : 0;
            spec.nargs = (int)(extra + (int64_t)(next_random(&s) % 4 == 0));
            if (spec.nargs > 4) spec.nargs = 4;
            for (int k = 0; k < spec.nargs; k++)
                args[k] = (Value)(next_random(&s) % (uint64_t)(g->values.n + 1));
            spec.nattrs = (int)(next_random(&s) % 6);
            for (int k = 0; k < spec.nattrs; k++) {
                AttrId id = (AttrId)(next_random(&s) % (A_COUNT + 1));
                if (spec.op < OP_COUNT && op_info[spec.op].nattrs && next_random(&s) % 8)
                    id = op_info[spec.op].attrs[k % op_info[spec.op].nattrs];
                attrs[k] = wild_attr(a, &s, id);
            }
            for (int k = 0; k < 7; k++)
                if (k < MAX_RANK) spec.type.d[k] = (Dim){wild_int(&s), next_random(&s) % 4 == 0};
            spec.type.rank = (uint8_t)(next_random(&s) % (round % 4 ? 3 : 9));
            spec.type.dt = next_random(&s) % 8 ? DT_F32 : (DType)(next_random(&s) % 12);
            spec.args = args;
            spec.attrs = attrs;
            if (graph_check(g, &spec)) continue;
            graph_output(g, arena_printf(a, "y%d", i), graph_add(g, &spec));
            accepted++;
        }
        for (int i = 0; i < g->nodes.n; i++) assert_true(node_macs(g, &g->nodes.v[i]) >= 0);
        assert_true(graph_macs(g) >= 0);
        graph_verify(g);
        graph_prune(g);
        arena_free(a);
    }
    assert_true(accepted > 500);
}

static void test_bad_references(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    Value args[] = {7};
    NodeSpec spec = {.op = OP_GELU, .args = args, .nargs = 1};
    assert_string_equal(graph_check(g, &spec),
                        "gelu: operand 0 is value 7, the program has 0 values");
    spec.op = OP_COUNT;
    assert_non_null(strstr(graph_check(g, &spec), "does not exist"));
    spec.op = OP_GELU;
    spec.nargs = -1;
    assert_non_null(strstr(graph_check(g, &spec), "takes 1 operands, got -1"));
    spec = (NodeSpec){.op = OP_INPUT, .type = {.dt = DT_F64, .rank = 0}};
    assert_string_equal(graph_check(g, &spec),
                        "input: the type has element type f64, which is not supported");
    arena_free(a);
}

// ---- the builder -------------------------------------------------------------------------------
static Type vec_type(int64_t n) { return type_make(DT_F32, 1, (Dim[]){dim_c(n)}); }
static Type map_type(int64_t h, int64_t w, int64_t c) {
    return type_make(DT_F32, 4, (Dim[]){dim_b(1), dim_c(h), dim_c(w), dim_c(c)});
}

static Value op1(Graph *g, Op op, Value x, const Attr *attrs, int n) {
    return graph_op(g, op, (Loc){0}, NULL, &x, 1, attrs, n);
}

static Value op2(Graph *g, Op op, Value x, Value y) {
    return graph_op(g, op, (Loc){0}, NULL, (Value[]){x, y}, 2, NULL, 0);
}

static void test_hash_consing(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    Value x = graph_input(g, "x", map_type(4, 5, 3), (Loc){0});
    Value p = graph_param(g, "p", vec_type(3), (Loc){0});
    assert_int_equal(graph_param(g, "p", vec_type(3), (Loc){0}), p);
    assert_int_not_equal(graph_param(g, "q", vec_type(3), (Loc){0}), p);
    Attr erf[] = {attr_int(A_approx, 0)}, tanh_[] = {attr_int(A_approx, 1)};
    Value y = op1(g, OP_GELU, x, erf, 1);
    assert_int_equal(op1(g, OP_GELU, x, erf, 1), y);
    assert_int_not_equal(op1(g, OP_GELU, x, tanh_, 1), y);
    assert_int_equal(op2(g, OP_SCALE, y, p), op2(g, OP_SCALE, y, p));
    // Attributes in any order are the same node, and are stored sorted.
    Attr u[] = {attr_ints2(a, A_pad, 0, 0), attr_ints2(a, A_kernel, 2, 2),
                attr_ints2(a, A_stride, 2, 2)};
    Attr v[] = {u[2], u[0], u[1]};
    Value patches = op1(g, OP_PATCHIFY, x, u, 3);
    assert_int_equal(op1(g, OP_PATCHIFY, x, v, 3), patches);
    assert_int_equal(graph_def(g, patches)->attrs[0].id, A_kernel);
    // Constants by value; random ops and inputs never.
    double one = 1, two = 2;
    Value c1 = graph_constant(g, vec_type(3), &one, 1, (Loc){0});
    assert_int_equal(graph_constant(g, vec_type(3), &one, 1, (Loc){0}), c1);
    assert_int_not_equal(graph_constant(g, vec_type(3), &two, 1, (Loc){0}), c1);
    assert_int_not_equal(graph_constant(g, vec_type(4), &one, 1, (Loc){0}), c1);
    Attr drop[] = {attr_f64(A_rate, 0.5), attr_int(A_key, 1)};
    assert_int_not_equal(op1(g, OP_DROP_PATH, x, drop, 2), op1(g, OP_DROP_PATH, x, drop, 2));
    // The table grows and still finds everything.
    Value many[300];
    for (int i = 0; i < 300; i++)
        many[i] = graph_param(g, arena_printf(a, "w%d", i), vec_type(3), (Loc){0});
    for (int i = 0; i < 300; i++)
        assert_int_equal(graph_param(g, arena_printf(a, "w%d", i), vec_type(3), (Loc){0}), many[i]);
    assert_int_equal(graph_param(g, "p", vec_type(3), (Loc){0}), p);
    arena_free(a);
}

// The builder keeps its own copies of what attributes point at.
static void test_attributes_are_copied(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    char name[] = "weight";
    double data[] = {1, 2, 3};
    Value p = graph_param(g, name, vec_type(3), (Loc){0});
    Value c = graph_constant(g, vec_type(3), data, 3, (Loc){0});
    name[0] = 'X';
    data[0] = 9;
    assert_string_equal(node_str(graph_def(g, p), A_name), "weight");
    assert_true(node_attr(graph_def(g, c), A_value)->data.v[0] == 1);
    assert_int_equal(node_int(graph_def(g, p), A_times), 0);
    assert_null(node_str(graph_def(g, c), A_name));
    assert_int_equal(node_ints(graph_def(g, c), A_pad, 1), 0);
    arena_free(a);
}

static void test_prune_and_uses(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "infer");
    Value x = graph_input(g, "x", map_type(4, 5, 3), (Loc){0});
    Value unused = graph_input(g, "unused", vec_type(3), (Loc){0});
    Value dead = op1(g, OP_GELU, x, NULL, 0);
    op2(g, OP_ADD, dead, dead);
    Value y = op2(g, OP_ADD, x, x);
    Value z = op2(g, OP_SCALE, y, unused);
    graph_output(g, "y", y);
    graph_output(g, "again", y);
    int *uses = graph_use_counts(g);
    assert_int_equal(uses[x], 3);
    assert_int_equal(uses[dead], 2);
    assert_int_equal(uses[y], 3);
    assert_int_equal(uses[z], 0);
    Graph *p = graph_prune(g);
    assert_int_equal(p->nodes.n, 3);
    assert_int_equal(p->inputs.n, 2);
    assert_string_equal(p->name, "infer");
    assert_int_equal(p->outputs.n, 2);
    assert_string_equal(p->outputs.v[1].name, "again");
    assert_int_equal(graph_def(p, p->outputs.v[0].value)->op, OP_ADD);
    assert_null(graph_verify(p));
    arena_free(a);
}

static void test_copy_node(void **state) {
    (void)state;
    Arena *a = arena_new(), *b = arena_new();
    Graph *g = graph_new(a, "from"), *to = graph_new(b, "to");
    Loc loc = {"m.yaml", 3, 4};
    Value x = graph_input(g, "x", map_type(4, 5, 3), loc);
    Value y = graph_op(g, OP_GELU, loc, "act", &x, 1, NULL, 0);
    Value map[2] = {NO_VALUE, NO_VALUE};
    graph_param(to, "first", vec_type(1), loc);
    for (int i = 0; i < g->nodes.n; i++) graph_copy_node(to, g, i, map);
    arena_free(a);
    assert_int_equal(map[y], 2);
    assert_string_equal(graph_def(to, map[y])->label, "act");
    assert_int_equal(graph_def(to, map[y])->loc.line, 3);
    assert_string_equal(node_str(graph_def(to, map[x]), A_name), "x");
    arena_free(b);
}

static void test_module(void **state) {
    (void)state;
    Arena *a = arena_new();
    Module *m = module_new(a);
    assert_null(module_find(m, "infer"));
    Graph *g = graph_new(a, "infer");
    vec_push(a, &m->graphs, g);
    assert_ptr_equal(module_find(m, "infer"), g);
    assert_null(module_find(m, "features"));
    arena_free(a);
}

// ---- groups ------------------------------------------------------------------------------------
// linear -> gelu, grn_stat, as one group with two results.
static Graph *pointwise_body(Arena *a) {
    Graph *b = graph_new(a, NULL);
    Value x = graph_input(b, "x", map_type(4, 5, 3), (Loc){0});
    Value w = graph_input(b, "w", type_make(DT_F32, 2, (Dim[]){dim_c(8), dim_c(3)}), (Loc){0});
    Value y = op1(b, OP_GELU, op2(b, OP_LINEAR, x, w), NULL, 0);
    graph_output(b, "y", y);
    graph_output(b, "stat", op1(b, OP_GRN_STAT, y, NULL, 0));
    return b;
}

static void test_group(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    Value x = graph_input(g, "image", map_type(4, 5, 3), (Loc){0});
    Value w = graph_param(g, "w", type_make(DT_F32, 2, (Dim[]){dim_c(8), dim_c(3)}), (Loc){0});
    Value args[] = {x, w};
    NodeSpec spec = {.op = OP_GROUP, .args = args, .nargs = 2, .body = pointwise_body(a)};
    assert_null(graph_check(g, &spec));
    Value y = graph_add(g, &spec);
    assert_int_equal(graph_def(g, y)->nresults, 2);
    assert_string_equal(type_print(a, graph_type(g, y)), "f32[B,4,5,8]");
    assert_string_equal(type_print(a, graph_type(g, y + 1)), "f32[B,8]");
    assert_int_equal(g->values.v[y + 1].result, 1);
    graph_output(g, "y", op2(g, OP_SCALE, y, y + 1));
    assert_null(graph_verify(g));
    assert_int_equal(graph_macs(g), 4 * 5 * 3 * 8);
    Graph *p = graph_prune(g);
    assert_null(graph_verify(p));
    assert_int_equal(p->nodes.n, g->nodes.n);
    arena_free(a);
}

static void expect_refused(Graph *g, Graph *body, const Value *args, int n, const char *want) {
    const char *why =
        graph_check(g, &(NodeSpec){.op = OP_GROUP, .args = args, .nargs = n, .body = body});
    assert_non_null(why);
    if (!strstr(why, want)) fail_msg("\"%s\", expected \"%s\"", why, want);
}

static void test_bad_groups(void **state) {
    (void)state;
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    Value x = graph_input(g, "image", map_type(4, 5, 3), (Loc){0});
    Value args[] = {x, x};
    expect_refused(g, pointwise_body(a), args, 1, "the body has 2 inputs, the group 1 operands");
    expect_refused(g, pointwise_body(a), args, 2,
                   "operand 1 is f32[B,4,5,3], the body's input f32[8,3]");
    Graph *empty = graph_new(a, NULL);
    graph_input(empty, "x", map_type(4, 5, 3), (Loc){0});
    expect_refused(g, empty, args, 1, "a body returns 1 to 64 values, this one 0");
    graph_output(empty, "y", graph_param(empty, "p", vec_type(3), (Loc){0}));
    expect_refused(g, empty, args, 1, "a body may not hold a param");
    NodeSpec gelu = {.op = OP_GELU, .args = args, .nargs = 1, .body = empty};
    assert_string_equal(graph_check(g, &gelu), "gelu: it takes no body");
    arena_free(a);
}

// ---- MACs --------------------------------------------------------------------------------------
static int64_t macs_of(Op op, const char *types, const char *attrs) {
    Arena *a = arena_new();
    Graph *g = graph_new(a, "test");
    NodeSpec spec = case_spec(g, op, types, attrs);
    graph_add(g, &spec);
    int64_t macs = graph_macs(g);
    arena_free(a);
    return macs;
}

static void test_macs(void **state) {
    (void)state;
    assert_int_equal(macs_of(OP_CONV2D, "B,9,7,3; 8,3,4,2; 8", "stride=4,2"), 2 * 3 * 8 * 24);
    assert_int_equal(macs_of(OP_DWCONV2D, "B,9,7,5; 5,1,7,7", "stride=1,1 pad=3,3"),
                     9 * 7 * 5 * 49);
    assert_int_equal(macs_of(OP_LINEAR, "B,9,7,5; 20,5; 20", ""), 9 * 7 * 5 * 20);
    assert_int_equal(macs_of(OP_LINEAR, "B,5; 20,5", ""), 100);
    assert_int_equal(macs_of(OP_LINEAR, "63B,5; 20,5", ""), 6300);
    assert_int_equal(macs_of(OP_LINEAR, "5; 20,5", ""), 0);   // weight-only
    assert_int_equal(macs_of(OP_LINEAR, "7,5; 20,5", ""), 0); // weight-only
    assert_int_equal(macs_of(OP_GELU, "B,9,7,5", ""), 0);
    assert_int_equal(macs_of(OP_LINEAR, "B,1000000,1000000; 1000000,1000000", ""),
                     1000000000000000000);
    assert_int_equal(macs_of(OP_LINEAR_DW, "B,9,7,20; B,9,7,5", ""), 9 * 7 * 5 * 20);
    assert_int_equal(
        macs_of(OP_DWCONV2D_DX, "B,5,3,5; 5,1,7,3", "stride=2,3 pad=3,1 shape=B,9,7,5"),
        5 * 3 * 5 * 21);
    assert_int_equal(macs_of(OP_DWCONV2D_DW, "B,5,3,5; B,9,7,5", "kernel=7,3 stride=2,3 pad=3,1"),
                     5 * 3 * 5 * 21);
}

// ---- the verifier ------------------------------------------------------------------------------
static Graph *small_graph(Arena *a) {
    Graph *g = graph_new(a, "infer");
    Value x = graph_input(g, "x", map_type(4, 5, 3), (Loc){0});
    Value y = op1(g, OP_GELU, x, (Attr[]){attr_int(A_approx, 1)}, 1);
    graph_output(g, "y", op2(g, OP_ADD, x, y));
    return g;
}

static void expect_invalid(Graph *g, const char *want) {
    const char *why = graph_verify(g);
    if (!why || !strstr(why, want))
        fail_msg("\"%s\", expected \"%s\"", why ? why : "(accepted)", want);
    assert_non_null(strstr(why, "program infer: "));
}

static void test_verifier(void **state) {
    (void)state;
    Arena *a = arena_new();
    assert_null(graph_verify(small_graph(a)));
    Graph *g = small_graph(a);
    ((Value *)g->nodes.v[1].args)[0] = 2;
    expect_invalid(g, "node 1 (gelu): operand 0 is value 2, which comes later");
    g = small_graph(a);
    g->values.v[2].type.d[1].c = 6;
    expect_invalid(g, "is declared f32[B,6,5,3], its type is f32[B,4,5,3]");
    g = small_graph(a);
    g->values.v[1].node = 0;
    expect_invalid(g, "value 1 says it is result 0 of node 0");
    g = small_graph(a);
    ((Attr *)g->nodes.v[1].attrs)[0].i = 5;
    expect_invalid(g, "approx is one of erf|tanh, got index 5");
    g = small_graph(a);
    g->outputs.n = 0;
    expect_invalid(g, "there is no output");
    g = small_graph(a);
    graph_output(g, "y", 0);
    expect_invalid(g, "two outputs are named \"y\"");
    g = small_graph(a);
    g->outputs.v[0].value = 9;
    expect_invalid(g, "output 0 is value 9, the program has 3 values");
    g = small_graph(a);
    graph_input(g, "x", vec_type(1), (Loc){0});
    expect_invalid(g, "two inputs are named \"x\"");
    g = small_graph(a);
    g->inputs.n = 0;
    expect_invalid(g, "input node 0 is not port 0");
    g = small_graph(a);
    graph_param(g, "p", vec_type(1), (Loc){0});
    graph_param(g, "p", vec_type(2), (Loc){0});
    expect_invalid(g, "parameter \"p\" is both f32[1] and f32[2]");
    arena_free(a);
}

// ---- what it stands on -------------------------------------------------------------------------
static void test_arena(void **state) {
    (void)state;
    Arena *a = arena_new();
    for (size_t size = 0; size < 200000; size = size * 3 / 2 + 1) {
        unsigned char *p = arena_alloc(a, size);
        assert_int_equal((uintptr_t)p % (size >= 64 ? 64 : 16), 0);
        for (size_t i = 0; i < size; i++) assert_int_equal(p[i], 0);
        memset(p, 0xff, size);
    }
    VEC(int) xs = {0};
    for (int i = 0; i < 1000; i++) vec_push(a, &xs, i * i);
    assert_int_equal(xs.n, 1000);
    for (int i = 0; i < 1000; i++) assert_int_equal(xs.v[i], i * i);
    Str s = {.arena = a};
    assert_string_equal(str_cstr(&s), "");
    for (int i = 0; i < 100; i++) str_printf(&s, "%d,", i);
    str_addn(&s, "endless", 3);
    assert_int_equal(s.n, 10 * 2 + 90 * 3 + 3);
    assert_int_equal(strlen(s.s), s.n);
    assert_string_equal(s.s + s.n - 6, "99,end");
    assert_string_equal(arena_printf(a, "%s-%d", "x", 7), "x-7");
    assert_string_equal(arena_strndup(a, "abcdef", 3), "abc");
    arena_free(a);
    arena_free(NULL);
}

static void test_types(void **state) {
    (void)state;
    Arena *a = arena_new();
    Type t = type_make(DT_F32, 3, (Dim[]){dim_b(19), dim_c(4), dim_c(5)});
    int64_t fixed, per_image;
    assert_string_equal(type_print(a, t), "f32[19B,4,5]");
    assert_string_equal(type_print(a, type_make(DT_BF16, 0, NULL)), "bf16[]");
    type_elems(t, &fixed, &per_image);
    assert_int_equal(fixed, 0);
    assert_int_equal(per_image, 380);
    assert_int_equal(type_elems_at(t, 3), 1140);
    assert_int_equal(type_last(t), 5);
    assert_true(type_has_batch(t));
    t.d[0].b = false;
    type_elems(t, &fixed, &per_image);
    assert_int_equal(fixed, 380);
    assert_int_equal(per_image, 0);
    t.d[0].c = t.d[1].c = t.d[2].c = INT64_MAX;
    assert_int_equal(type_elems_at(t, 3), INT64_MAX); // saturates
    DType dt;
    assert_true(dtype_parse("bf16x", 4, &dt));
    assert_int_equal(dt, DT_BF16);
    assert_false(dtype_parse("f3", 2, &dt));
    assert_int_equal(dtype_bytes(DT_I64), 8);
    arena_free(a);
}

static void test_tables(void **state) {
    (void)state;
    for (int i = 0; i < OP_COUNT; i++) {
        Op op;
        assert_true(op_parse(op_info[i].name, strlen(op_info[i].name), &op));
        assert_int_equal(op, i);
        for (int k = 0; k < op_info[i].nattrs; k++)
            assert_in_range(op_info[i].attrs[k], 0, A_COUNT - 1);
    }
    assert_int_equal(op_info[OP_LINEAR].nattrs, 0);
    assert_int_equal(op_info[OP_GRN].nattrs, 5);
    assert_int_equal(op_info[OP_GRN].attrs[4], A_statistics);
    Arena *a = arena_new();
    assert_string_equal(attr_word(A_aggregate, 3), "std");
    assert_null(attr_word(A_aggregate, 4));
    assert_null(attr_word(A_eps, 0));
    assert_int_equal(attr_word_index(A_approx, "tanh", 4), 1);
    assert_int_equal(attr_word_index(A_approx, "tan", 3), -1);
    assert_string_equal(attr_words(a, A_approx), "erf|tanh");
    arena_free(a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_tables),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_table_is_covered),
        cmocka_unit_test(test_bad_references),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_hash_consing),
        cmocka_unit_test(test_attributes_are_copied),
        cmocka_unit_test(test_prune_and_uses),
        cmocka_unit_test(test_copy_node),
        cmocka_unit_test(test_module),
        cmocka_unit_test(test_group),
        cmocka_unit_test(test_bad_groups),
        cmocka_unit_test(test_macs),
        cmocka_unit_test(test_verifier),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
