// The tables that programs are written in and the walker reads (driver.c writes, walk.c emits the
// reader): arrays of 64-bit words, of the many steps 32-bit ones. Private to codegen/.
//
//   program: spans, places, kernels, how many spans
//   span:    its words, steps; step:  its words, parts; part:  its words, calls, operands (32-bit)
//
// Steps that follow each other and are of no span are one here, too: not BY_IMAGE.
// A step has one part; a list step (OVER_LIST) several. An operand is the number of its place and
// an offset of its own; operands that differ by that alone share a place:
//
//   table[index] + constant + offset * (batched ? images of the batch : 1) + thread * per_thread
//   + first image in work * per_slot + image * per_image + block * per_block + r0 * per_row
#ifndef CNX_CODEGEN_WALK_H
#define CNX_CODEGEN_WALK_H
#include "module.h"

// Fields of CnxrtFrame, in order.
enum {
    F_ARENA,
    F_SCRATCH,
    F_WEIGHTS,
    F_PARAMS,
    F_INPUTS,
    F_OUTPUTS,
    F_BATCH,
    F_TEAM,
    F_PROFILE,
    F_STATE
};

enum { PROGRAM_SPANS, PROGRAM_PLACES, PROGRAM_KERNELS, PROGRAM_COUNT };

enum { SPAN_LENGTH, SPAN_STEPS, SPAN_BY_IMAGE, SPAN_WORDS };

enum {
    STEP_LENGTH,    // words, parts included
    STEP_IMAGES,    // 1: units are of one image each
    STEP_FLAT,      // 1: rows are those of all images
    STEP_LIST,      // 1: the parts of a list
    STEP_ROWS,      // list: parts
    STEP_ROW_BLOCK, // never 0
    STEP_COLS,
    STEP_COL_BLOCK, // never 0
    STEP_COL_BLOCKS,
    STEP_COLUMNS_FIRST, // 1: all rows of all images before the next block of columns
    STEP_WORDS
};

enum {
    PART_LENGTH,
    PART_FIRST, // number of its first call in the program
    PART_ELEMS, // of a list
    PART_CALLS,
    PART_OPERANDS,
    PART_WORDS // then calls, then the operands of all of them
};
enum {
    CALL_KERNEL,
    CALL_COLS,
    CALL_OPERANDS,
    CALL_WORDS
}; // COLS: its end of columns; 0: the unit's
enum {
    OPERAND_PLACE,
    OPERAND_OFFSET,
    OPERAND_WORDS = OPERAND_OFFSET + 2
}; // 64-bit offset, low half first

enum {
    PLACE_TABLE, // field of the frame; 0: the frame itself
    PLACE_INDEX,
    PLACE_CONSTANT,
    PLACE_BATCHED,
    PLACE_THREAD,
    PLACE_SLOT,
    PLACE_IMAGE,
    PLACE_BLOCK,
    PLACE_ROW,
    PLACE_WORDS
};

// void walk(frame, thread, nthreads, program, operands, ops): runs a program. Memory for it:
// OPERAND_ROW words for each operand of a part, a pointer for each operand of a call.
enum { OPERAND_ROW = 4 };
LLVMValueRef unit_walker(Unit *u);

#endif
