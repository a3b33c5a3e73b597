/* model/weights_tensor.h - one tensor on its way into a plan (weights_internal.h): looked up in the
 * checkpoint, checked, and given its place.
 *
 * All of these count sizes into the plan. With a checkpoint they check and note copies, with a
 * block they place. The first error stays in the plan's status. */
#ifndef CMI_MODEL_WEIGHTS_TENSOR_H
#define CMI_MODEL_WEIGHTS_TENSOR_H

#include "model/weights_internal.h"

enum { CMI_PLAN_NAME_BYTES = 128 };

/* Rows of a tensor: which tensor, its whole shape (n_rows 0: a vector), and which of its rows. */
typedef struct cmi_plan_rows {
    const char *prefix, *suffix; /* together the name */
    uint32_t n_rows, n_cols;
    uint32_t first, n; /* n 0: all rows */
} cmi_plan_rows;

/* The next n_bytes of the block, aligned; NULL while nothing is placed. */
void *cmi_plan_take(cmi_weights_plan *p, uint64_t n_bytes);

/* The same of the structs, which hold pointers and stay with their process. */
void *cmi_plan_take_struct(cmi_weights_plan *p, uint64_t n_bytes);

/* Looks the tensor up, checks it and notes the copy. */
void cmi_plan_add_copy(cmi_weights_plan *p, const cmi_plan_rows *from, cmi_weights_copy copy);

/* Room for n_out outputs; an I8 matrix gets whole blocks. */
cmi_linear cmi_plan_take_linear(cmi_weights_plan *p, cmi_dtype dtype, uint32_t n_out,
                                uint32_t n_in);

/* Fills m from its row (output) first_row on with a tensor's rows. */
void cmi_plan_fill_rows(cmi_weights_plan *p, const cmi_linear *m, uint32_t first_row,
                        const cmi_plan_rows *from);

/* Room for a whole tensor, and its copy. */
const float *cmi_plan_vector(cmi_weights_plan *p, const char *prefix, const char *suffix,
                             uint32_t n);
cmi_linear cmi_plan_linear(cmi_weights_plan *p, cmi_dtype dtype, const char *prefix,
                           const char *suffix, uint32_t n_out, uint32_t n_in);

/* gate_proj, up_proj and down_proj behind prefix. */
cmi_ffn cmi_plan_ffn(cmi_weights_plan *p, const char *prefix, uint32_t width);

#endif
