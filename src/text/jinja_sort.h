/* text/jinja_sort.h - a stable sort whose comparison can fail. */
#ifndef CMI_TEXT_JINJA_SORT_H
#define CMI_TEXT_JINJA_SORT_H

#include "text/jinja_run.h"

/* *order_out: the numbers of the keys in ascending order, or descending; equal keys keep theirs.
 * Keys without an order between them are an error. O(n log n) comparisons. */
CMI_NODISCARD bool cmi_jinja_sorted_order(cmi_jinja_run *r, const cmi_jinja_seq *keys,
                                          bool descending, const size_t **order_out);

#endif
