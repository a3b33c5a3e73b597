/* text/jinja_filters.h - the code of filters, by what they work on; the table of all of them is in
 * jinja_filters.c. */
#ifndef CMI_TEXT_JINJA_FILTERS_H
#define CMI_TEXT_JINJA_FILTERS_H

#include "text/jinja_run.h"

/* jinja_filters_number.c */
cmi_jinja_fn cmi_jinja_filter_abs, cmi_jinja_filter_int, cmi_jinja_filter_float;
cmi_jinja_fn cmi_jinja_filter_round;

/* jinja_filters_items.c */
cmi_jinja_fn cmi_jinja_filter_length, cmi_jinja_filter_first, cmi_jinja_filter_last;
cmi_jinja_fn cmi_jinja_filter_list, cmi_jinja_filter_reverse, cmi_jinja_filter_items;
cmi_jinja_fn cmi_jinja_filter_batch, cmi_jinja_filter_join, cmi_jinja_filter_sum;
cmi_jinja_fn cmi_jinja_filter_map, cmi_jinja_filter_attr;
cmi_jinja_fn cmi_jinja_filter_select, cmi_jinja_filter_reject;
cmi_jinja_fn cmi_jinja_filter_selectattr, cmi_jinja_filter_rejectattr;

/* jinja_filters_order.c */
cmi_jinja_fn cmi_jinja_filter_sort, cmi_jinja_filter_dictsort, cmi_jinja_filter_unique;
cmi_jinja_fn cmi_jinja_filter_min, cmi_jinja_filter_max;

/* item itself when path is UNSET or none, item[path] for a number, and for a text what its parts
 * between dots lead to. */
CMI_NODISCARD bool cmi_jinja_follow_path(cmi_jinja_run *r, const cmi_jinja_value *item,
                                         const cmi_jinja_value *path, cmi_jinja_value *out);

#endif
