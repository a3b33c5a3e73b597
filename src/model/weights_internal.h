/* model/weights_internal.h - how loading is cut: weights_plan.c says which tensor goes where
 * (weights_tensor.c looks each up), weights_copy.c converts, weights_block.c has the memory,
 * weights_place.c chooses its nodes. */
#ifndef CMI_MODEL_WEIGHTS_INTERNAL_H
#define CMI_MODEL_WEIGHTS_INTERNAL_H

#include "model/checkpoint.h"
#include "model/weights.h"

/* The version of what lies in the block. Processes share a block only if they agree about it, so
 * count it up whenever the same checkpoint gives other bytes; weights_share_test.c notices. */
enum { CMI_WEIGHTS_LAYOUT = 2 };

/* Where the rows of a tensor go. */
typedef enum cmi_weights_placing {
    CMI_PLACE_ROWS,       /* row by row, dest_stride elements apart */
    CMI_PLACE_TRANSPOSED, /* row i becomes column i */
    CMI_PLACE_I8_BLOCKS,  /* packed blocks (kernels/int8.h) */
} cmi_weights_placing;

/* The way of some consecutive rows of a tensor into the block. */
typedef struct cmi_weights_copy {
    const cmi_checkpoint_tensor *source;
    const cmi_checkpoint_tensor *scale_source; /* NULL: none */
    const uint8_t *scale; /* FP8: F32 [scale_rows][scale_cols]; I8: [rows] of scale_dtype; unaligned
                           */
    cmi_dtype scale_dtype;
    uint64_t scale_cols;
    uint32_t block_rows, block_cols; /* of one FP8 scale */
    uint64_t source_row;             /* the first one */
    uint64_t n_rows, n_cols;         /* a vector is one row */
    cmi_weights_placing placing;
    void *dest;
    size_t dest_stride; /* elements */
    cmi_dtype dest_dtype;
    /* CMI_PLACE_I8_BLOCKS: row i is output dest_row + i; blocks 0, 1, 2, ... of outputs are blocks
     * first_block, first_block + block_step, ... from dest on. */
    uint64_t dest_row;
    uint32_t first_block, block_step;
} cmi_weights_copy;

/* A matrix in the block, or half of one: of its bytes every memory node gets its share. */
typedef struct cmi_weights_span {
    uint64_t begin, n_bytes;
} cmi_weights_span;

typedef struct cmi_weights_plan {
    const cmi_model_config *config;
    cmi_dtype dtype;
    bool int8_head;
    bool with_mtp;
    const cmi_checkpoint *checkpoint; /* NULL: sizes only, or random weights */
    uint64_t random_seed;
    uint8_t *block;           /* of the tensors; NULL: nothing is placed */
    uint64_t block_bytes;     /* of it so far */
    cmi_digest *set_digest;   /* in it, so that those who share it need not hash */
    cmi_shared_block *shared; /* that has the block; NULL: it is private memory */
    uint8_t *structs;         /* of cmi_weights and what it points to but for tensors */
    uint64_t struct_bytes;    /* of them so far */
    uint64_t digest;          /* of all that goes into the block, and how */
    cmi_weights_copy *copies; /* [n_copies] once structs are set */
    size_t n_copies;
    cmi_weights_span *spans; /* [n_spans], ascending, once structs are set */
    size_t n_spans;
    cmi_error *err;
    cmi_status status; /* the first error */
} cmi_weights_plan;

/* Walks over everything that the config asks for, always in the same order. Without checkpoint it
 * counts the bytes; with one it also looks up every tensor and checks it, and counts n_copies; with
 * a block and structs of that many bytes too, it fills the structs and copies. Returns the weights
 * at the head of the structs, NULL without block or on error (status). */
cmi_weights *cmi_weights_plan_walk(cmi_weights_plan *plan);

/* Refuses a checkpoint with more layers or experts than the config says. */
CMI_NODISCARD cmi_status cmi_weights_check_names(const cmi_checkpoint *checkpoint,
                                                 const cmi_model_config *config, cmi_error *err);

/* Any tensor of layer idx is there. */
bool cmi_weights_has_layer(const cmi_checkpoint *checkpoint, uint32_t layer_idx);

/* Does all copies, ordered by their place in the files (which orders the array), and hashes what it
 * reads. CMI_ERR_IO: a file cannot be read (any more); what was copied is then not whole. */
CMI_NODISCARD cmi_status cmi_weights_copy_run(cmi_weights_copy *copies, size_t n_copies,
                                              cmi_weights_hash *hash,
                                              const cmi_weights_options *opt, cmi_error *err);

/* weights_random.c: writes every tensor. */
void cmi_weights_fill_random(cmi_weights *weights, const cmi_weights_plan *plan,
                             const cmi_weights_options *opt);

/* weights_place.c: on which memory node the bytes of the block lie */

/* The node that should have this byte: cmi_team_share of its span, node 0 outside of spans. */
uint32_t cmi_weights_home(const cmi_weights_plan *plan, const cmi_team *team, uint64_t byte);

/* Cuts the block at multiples of unit into stretches that each have one home, that of most of their
 * bytes: from `begin` on the next one, whose end is returned. */
uint64_t cmi_weights_stretch(const cmi_weights_plan *plan, const cmi_team *team, uint64_t unit,
                             uint64_t begin, uint32_t *node_out);

/* Takes the memory of an empty block, each page from its home. Nothing happens where the team knows
 * one node and the block is private: its pages come as they are written. CMI_ERR_NO_MEMORY. */
CMI_NODISCARD cmi_status cmi_weights_place(const cmi_weights_plan *plan, cmi_team *team);

/* The share of the block that lies at home, by a sample; 1 where the team knows one node, NAN where
 * the system does not say. */
double cmi_weights_share_at_home(const cmi_weights_plan *plan, const cmi_team *team);

/* weights_block.c */

/* Takes private or shared memory of plan->block_bytes and sets plan->block and plan->shared. */
CMI_NODISCARD cmi_status cmi_weights_block_open(cmi_weights_plan *plan,
                                                const cmi_weights_options *opt);

uint64_t cmi_weights_block_taken_bytes(const cmi_weights_plan *plan,
                                       const cmi_weights_options *opt);

/* The bytes have to be written: nobody has done it. */
bool cmi_weights_block_is_empty(const cmi_weights_plan *plan);

/* After writing, or instead of it: brings the block into huge pages, says in weights how much of it
 * and how much lies at home, and lets others see it if it is shared. */
CMI_NODISCARD cmi_status cmi_weights_block_finish(cmi_weights_plan *plan, cmi_team *team,
                                                  cmi_weights *weights);

/* Of plan or of weights that were made from it. */
void cmi_weights_block_close(uint8_t *block, uint64_t block_bytes, cmi_shared_block *shared);

#endif
