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
    uint64_t left_out; /* bytes of experts that a whole block has before it, and this one lacks */
} cmi_weights_span;

typedef struct cmi_weights_plan {
    const cmi_model_config *config;
    cmi_dtype dtype;
    bool int8_head;
    bool with_mtp;
    bool without_experts;
    const cmi_checkpoint *checkpoint; /* NULL: sizes only, or random weights */
    uint64_t random_seed;
    uint8_t *block;           /* of the tensors; NULL: nothing is placed */
    uint64_t block_bytes;     /* of it so far */
    bool is_left_out;         /* what comes now: it is checked and has a place in the whole only */
    uint64_t left_out_bytes;  /* so far */
    cmi_digest *set_digest;   /* in it, so that those who share it need not hash */
    cmi_shared_block *shared; /* that has the block; NULL: it is private memory */
    uint8_t *structs;         /* of cmi_weights and what it points to but for tensors */
    uint64_t struct_bytes;    /* of them so far */
    uint64_t
        digest; /* of all that goes into the block, and how; of the whole one without experts */
    cmi_weights_copy *copies; /* [n_copies] once structs are set */
    size_t n_copies;
    cmi_weights_span *spans; /* [n_spans], ascending, once structs are set */
    size_t n_spans;
    uint64_t *expert_places; /* [num_hidden_layers + 1], or NULL: filled in, where in a whole block
                                the slabs of a layer begin; 0: it has none */
    cmi_error *err;
    cmi_status status; /* the first error */
} cmi_weights_plan;

/* Walks over everything that the config asks for, always in the same order. Without checkpoint it
 * counts the bytes; with one it also looks up every tensor and checks it, and counts n_copies; with
 * a block and structs of that many bytes too, it fills the structs and copies. Returns the weights
 * at the head of the structs, NULL without block or on error (status). */
cmi_weights *cmi_weights_plan_walk(cmi_weights_plan *plan);

/* A plan of what config and options ask for, before its first walk. */
cmi_weights_plan cmi_weights_plan_make(const cmi_model_config *config,
                                       const cmi_weights_options *opt, cmi_error *err);

/* Opens the checkpoint (which the caller closes, also after an error) and walks over everything, so
 * that all is checked before memory is taken. */
CMI_NODISCARD cmi_status cmi_weights_plan_open(cmi_weights_plan *plan, cmi_checkpoint *checkpoint,
                                               const char *dir);

/* A compute type that there is, else CMI_ERR_INVALID. */
CMI_NODISCARD cmi_status cmi_weights_check_dtype(const cmi_weights_options *opt, cmi_error *err);

/* ---- one routed expert ---- */

enum { CMI_EXPERT_COPIES = 3 };

/* An expert by the code that plans it in a walk. */
typedef struct cmi_expert_plan {
    cmi_ffn ffn;                                /* in the slab; w NULL without one */
    uint64_t slab_bytes;                        /* gate_up, then down */
    cmi_weights_copy copies[CMI_EXPERT_COPIES]; /* into the slab */
    size_t n_copies;                            /* 0 without a checkpoint */
    cmi_status status; /* why it cannot be planned; CMI_OK after a walk over the same checkpoint */
} cmi_expert_plan;

/* slab: 64-byte aligned, or NULL. err may be NULL. Any thread. */
cmi_expert_plan cmi_weights_plan_expert(const cmi_weights_plan *plan, uint32_t layer_idx,
                                        uint32_t expert, void *slab, cmi_error *err);

/* Refuses a checkpoint with more layers or experts than the config says. */
CMI_NODISCARD cmi_status cmi_weights_check_names(const cmi_checkpoint *checkpoint,
                                                 const cmi_model_config *config, cmi_error *err);

/* Any tensor of layer idx is there. */
bool cmi_weights_has_layer(const cmi_checkpoint *checkpoint, uint32_t layer_idx);

/* fn for each task, on the team, or without one (NULL) in order on the calling thread. */
void cmi_weights_run_tasks(cmi_team *team, cmi_team_fn *fn, void *arg, uint32_t n_tasks);

/* Does all copies, ordered by their place in the files (which orders the array), and hashes what it
 * reads unless hash is NULL. Of opt counts the team (NULL: the calling thread) and progress.
 * CMI_ERR_IO: a file cannot be read (any more); what was copied is then not whole. */
CMI_NODISCARD cmi_status cmi_weights_copy_run(cmi_weights_copy *copies, size_t n_copies,
                                              cmi_weights_hash *hash,
                                              const cmi_weights_options *opt, cmi_error *err);

/* A slab to be filled as its bytes are at `place` of a whole block. */
typedef struct cmi_random_slab {
    cmi_ffn ffn; /* in the slab */
    uint64_t place, slab_bytes;
} cmi_random_slab;

/* weights_random.c. What is not a value must be zero already. */
void cmi_weights_fill_random_slabs(const cmi_random_slab *slabs, size_t n_slabs, uint64_t seed,
                                   const cmi_weights_options *opt);

/* weights_random.c: writes every tensor. */
void cmi_weights_fill_random(cmi_weights *weights, const cmi_weights_plan *plan,
                             const cmi_weights_options *opt);

/* weights_place.c: on which memory node the bytes of the block lie */

/* The node that should have this byte: cmi_team_share of its span, node 0 outside of spans. */
uint32_t cmi_weights_home(const cmi_weights_plan *plan, const cmi_team *team, uint64_t byte);

/* Where byte, which is of a matrix, lies in a block that nothing is left out of. */
uint64_t cmi_weights_whole_place(const cmi_weights_plan *plan, uint64_t byte);

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
