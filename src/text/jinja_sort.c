#include "text/jinja_sort.h"

/* Whether key b must stand before key a, which is now left of it. */
static bool must_swap(cmi_jinja_run *r, const cmi_jinja_value *a, const cmi_jinja_value *b,
                      bool descending, bool *out)
{
    int order;
    bool ok = cmi_jinja_charge(r, 1) &&
              (descending ? cmi_jinja_order(r, a, b, &order) : cmi_jinja_order(r, b, a, &order));
    *out = ok && order == -1;
    return ok;
}

/* Merges the sorted runs [lo, mid) and [mid, hi) of `from` into `to`. */
static bool merge(cmi_jinja_run *r, const cmi_jinja_value *keys, bool descending,
                  const size_t *from, size_t *to, const size_t bounds[3])
{
    size_t left = bounds[0];
    size_t right = bounds[1];
    for (size_t at = bounds[0]; at < bounds[2]; at++) {
        bool take_right = left == bounds[1];
        if (!take_right && right < bounds[2] &&
            !must_swap(r, &keys[from[left]], &keys[from[right]], descending, &take_right)) {
            return false;
        }
        to[at] = take_right ? from[right++] : from[left++];
    }
    return true;
}

bool cmi_jinja_sorted_order(cmi_jinja_run *r, const cmi_jinja_seq *keys, bool descending,
                            const size_t **order_out)
{
    size_t n = keys->n;
    size_t *from = cmi_jinja_alloc(r, n, sizeof *from);
    size_t *to = from == NULL ? NULL : cmi_jinja_alloc(r, n, sizeof *to);
    if (to == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        from[i] = i;
    }
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t bounds[3] = {lo, CMI_MIN(lo + width, n), CMI_MIN(lo + 2 * width, n)};
            if (!merge(r, keys->items, descending, from, to, bounds)) {
                return false;
            }
        }
        size_t *swap = from;
        from = to;
        to = swap;
    }
    *order_out = from;
    return true;
}
