/* text/jinja_eval.c - expressions: one function for each kind of node, picked from a table. */
#include <string.h>

#include "text/jinja_run.h"

/* Returns how many slots it looked at. */
static size_t look_up(const cmi_jinja_run *r, uint32_t name_id, cmi_jinja_value *out)
{
    size_t n_seen = 0;
    for (const cmi_jinja_frame *f = r->frame; f != NULL; f = f->parent) {
        for (size_t i = 0; i < f->n; i++) {
            if (f->slots[i].name_id == name_id) {
                *out = f->slots[i].value;
                return n_seen + i;
            }
        }
        n_seen += f->n + 1;
    }
    *out = r->root[name_id];
    return n_seen;
}

static bool eval_const(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    (void)r;
    *out = node->constant;
    return true;
}

static bool eval_name(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    size_t n_seen = look_up(r, node->name_id, out);
    if (out->kind == CMI_JINJA_UNSET) {
        *out = (cmi_jinja_value){.kind = CMI_JINJA_UNDEFINED,
                                 .of = CMI_JINJA_OF_CONTEXT,
                                 .str = r->jinja->names[node->name_id]};
    }
    return cmi_jinja_charge(r, n_seen);
}

static bool eval_items(cmi_jinja_run *r, const cmi_jinja_nodes *nodes, cmi_jinja_value **out)
{
    cmi_jinja_value *items = cmi_jinja_alloc(r, nodes->n, sizeof *items);
    for (size_t i = 0; items != NULL && i < nodes->n; i++) {
        if (!cmi_jinja_eval(r, nodes->items[i], &items[i])) {
            return false;
        }
    }
    *out = items;
    return items != NULL;
}

static bool eval_new_list(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value *items;
    cmi_jinja_kind kind = node->kind == CMI_JINJA_NEW_LIST ? CMI_JINJA_LIST : CMI_JINJA_TUPLE;
    return eval_items(r, &node->items, &items) &&
           cmi_jinja_new_seq(r, kind, items, node->items.n, out);
}

static bool eval_new_dict(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_dict_builder b = {0};
    for (size_t i = 0; i < node->items.n; i += 2) {
        cmi_jinja_value key;
        cmi_jinja_value value;
        if (!cmi_jinja_eval(r, node->items.items[i], &key) ||
            !cmi_jinja_eval(r, node->items.items[i + 1], &value) ||
            !cmi_jinja_dict_put(r, &b, &key, &value)) {
            return false;
        }
    }
    return cmi_jinja_dict_built(r, &b, out);
}

static bool eval_concat(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_builder b = {.r = r};
    for (size_t i = 0; i < node->items.n; i++) {
        cmi_jinja_value v;
        if (!cmi_jinja_eval(r, node->items.items[i], &v) || !cmi_jinja_add_text(&b, &v)) {
            return false;
        }
    }
    return cmi_jinja_built(&b, out);
}

static bool eval_binary(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value left;
    cmi_jinja_value right;
    if (!cmi_jinja_eval(r, node->binary.left, &left) ||
        !cmi_jinja_eval(r, node->binary.right, &right)) {
        return false;
    }
    r->line = node->line;
    return cmi_jinja_binary(r, (cmi_jinja_op)node->op, &left, &right, out);
}

static bool eval_unary(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value v;
    if (!cmi_jinja_eval(r, node->operand, &v)) {
        return false;
    }
    r->line = node->line;
    if (node->op == CMI_JINJA_NEG) {
        return cmi_jinja_negate(r, &v, out);
    }
    cmi_jinja_value negative;
    *out = cmi_jinja_is_number(&v) ? cmi_jinja_plain_number(&v) : v;
    return cmi_jinja_is_number(&v) || cmi_jinja_negate(r, &v, &negative);
}

/* The operand that decides, as in Python, not its truth. */
static bool eval_and_or(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    if (!cmi_jinja_eval(r, node->binary.left, out)) {
        return false;
    }
    bool decided = cmi_jinja_truth(out) == (node->kind == CMI_JINJA_OR);
    return decided || cmi_jinja_eval(r, node->binary.right, out);
}

static bool eval_not(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value v;
    if (!cmi_jinja_eval(r, node->operand, &v)) {
        return false;
    }
    *out = cmi_jinja_bool(!cmi_jinja_truth(&v));
    return true;
}

/* a < b < c is a < b and b < c, with b evaluated once. */
static bool eval_compare(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value left;
    bool holds = true;
    if (!cmi_jinja_eval(r, node->items.items[0], &left)) {
        return false;
    }
    for (size_t i = 1; holds && i < node->items.n; i++) {
        const cmi_jinja_node *link = node->items.items[i];
        cmi_jinja_value right;
        if (!cmi_jinja_eval(r, link->operand, &right)) {
            return false;
        }
        r->line = node->line;
        if (!cmi_jinja_compare(r, (cmi_jinja_op)link->op, &left, &right, &holds)) {
            return false;
        }
        left = right;
    }
    *out = cmi_jinja_bool(holds);
    return true;
}

static bool eval_cond(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value test;
    if (!cmi_jinja_eval(r, node->cond.test, &test)) {
        return false;
    }
    const cmi_jinja_node *taken = cmi_jinja_truth(&test) ? node->cond.yes : node->cond.no;
    if (taken == NULL) {
        *out = cmi_jinja_undefined("an 'if' without 'else' was false and gave no value");
        return true;
    }
    return cmi_jinja_eval(r, taken, out);
}

static bool eval_attr(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value object;
    if (!cmi_jinja_eval(r, node->attr.object, &object)) {
        return false;
    }
    r->line = node->line;
    return cmi_jinja_get_attr(r, &object, node->attr.name, out);
}

static bool eval_item(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value object;
    cmi_jinja_value index;
    if (!cmi_jinja_eval(r, node->item.object, &object) ||
        !cmi_jinja_eval(r, node->item.index, &index)) {
        return false;
    }
    r->line = node->line;
    return cmi_jinja_get_item(r, &object, &index, out);
}

static bool eval_slice(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value object;
    cmi_jinja_value bounds;
    if (!cmi_jinja_eval(r, node->slice.object, &object) ||
        !cmi_jinja_eval(r, node->slice.bounds, &bounds)) {
        return false;
    }
    r->line = node->line;
    return cmi_jinja_slice(r, &object, bounds.seq->items, out);
}

/* ---- calls ---- */

typedef struct args_under_way {
    cmi_jinja_value *positional;
    cmi_jinja_named *keywords;
    size_t n_positional, n_keywords;
} args_under_way;

/* *args and **kwargs, of which the room has to be known beforehand. */
static bool eval_stars(cmi_jinja_run *r, const cmi_jinja_call_args *call, cmi_jinja_seq *star,
                       cmi_jinja_value *star_star)
{
    cmi_jinja_value items;
    *star = (cmi_jinja_seq){0};
    *star_star = cmi_jinja_none();
    if (call->star != NULL &&
        (!cmi_jinja_eval(r, call->star, &items) || !cmi_jinja_collect(r, &items, star))) {
        return false;
    }
    if (call->star_star == NULL) {
        return true;
    }
    if (!cmi_jinja_eval(r, call->star_star, star_star)) {
        return false;
    }
    return star_star->kind == CMI_JINJA_DICT ||
           cmi_jinja_misfit(r, "what stands behind ** must be dict, not %s",
                            cmi_jinja_type_name(star_star));
}

static bool add_star_star(cmi_jinja_run *r, const cmi_jinja_dict *d, args_under_way *a)
{
    for (size_t i = 0; i < d->n; i++) {
        const cmi_jinja_str *name;
        if (!cmi_jinja_charge(r, a->n_keywords * 16) ||
            !cmi_jinja_want_str(r, &d->keys[i], "the name of an argument", &name)) {
            return false;
        }
        for (size_t k = 0; k < a->n_keywords; k++) {
            if (cmi_jinja_str_equal(a->keywords[k].name, name)) {
                return cmi_jinja_misfit(r, "an argument is given by name and within **");
            }
        }
        a->keywords[a->n_keywords++] = (cmi_jinja_named){.name = name, .value = d->values[i]};
    }
    return true;
}

bool cmi_jinja_eval_args(cmi_jinja_run *r, const cmi_jinja_call_args *call, cmi_jinja_args *out)
{
    cmi_jinja_seq star;
    cmi_jinja_value star_star;
    args_under_way a = {0};
    if (!eval_stars(r, call, &star, &star_star)) {
        return false;
    }
    size_t n_more = star_star.kind == CMI_JINJA_DICT ? star_star.dict->n : 0;
    a.positional = cmi_jinja_alloc(r, call->positional.n + star.n, sizeof *a.positional);
    a.keywords = a.positional == NULL
                     ? NULL
                     : cmi_jinja_alloc(r, call->keywords.n + n_more, sizeof *a.keywords);
    if (a.keywords == NULL) {
        return false;
    }
    for (size_t i = 0; i < call->positional.n; i++) {
        if (!cmi_jinja_eval(r, call->positional.items[i], &a.positional[a.n_positional++])) {
            return false;
        }
    }
    if (star.n > 0) {
        memcpy(a.positional + a.n_positional, star.items, star.n * sizeof *star.items);
        a.n_positional += star.n;
    }
    for (size_t i = 0; i < call->keywords.n; i++) {
        const cmi_jinja_node *keyword = call->keywords.items[i];
        cmi_jinja_named *named = &a.keywords[a.n_keywords++];
        named->name = keyword->attr.name;
        if (!cmi_jinja_eval(r, keyword->attr.object, &named->value)) {
            return false;
        }
    }
    if (n_more > 0 && !add_star_star(r, star_star.dict, &a)) {
        return false;
    }
    *out = (cmi_jinja_args){.positional = a.positional,
                            .n_positional = a.n_positional,
                            .keywords = a.keywords,
                            .n_keywords = a.n_keywords};
    return true;
}

static bool eval_call(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value callee;
    cmi_jinja_args args;
    if (!cmi_jinja_eval(r, node->call.callee, &callee) ||
        !cmi_jinja_eval_args(r, node->call.args, &args)) {
        return false;
    }
    r->line = node->line;
    return cmi_jinja_call_value(r, &callee, &args, out);
}

static bool apply_node(cmi_jinja_run *r, const cmi_jinja_node *node, const cmi_jinja_value *object,
                       cmi_jinja_value *out)
{
    cmi_jinja_args args;
    if (!cmi_jinja_eval_args(r, node->apply.args, &args)) {
        return false;
    }
    r->line = node->line;
    if (node->apply.builtin == NULL) {
        return cmi_jinja_misfit(
            r, "there is no %s '%.*s'", node->kind == CMI_JINJA_FILTER ? "filter" : "test",
            (int)CMI_MIN(node->apply.name->n_bytes, (size_t)80), node->apply.name->bytes);
    }
    return cmi_jinja_apply(r, node->apply.builtin, object, &args, out);
}

bool cmi_jinja_eval_filter(cmi_jinja_run *r, const cmi_jinja_node *node,
                           const cmi_jinja_value *innermost, cmi_jinja_value *out)
{
    cmi_jinja_value object = *innermost;
    if (!cmi_jinja_charge(r, 1) || !cmi_jinja_descend(r)) {
        return false;
    }
    bool ok = (node->apply.object == NULL ||
               cmi_jinja_eval_filter(r, node->apply.object, innermost, &object)) &&
              apply_node(r, node, &object, out);
    cmi_jinja_ascend(r);
    return ok;
}

static bool eval_apply(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    cmi_jinja_value object;
    return cmi_jinja_eval(r, node->apply.object, &object) && apply_node(r, node, &object, out);
}

bool cmi_jinja_eval(cmi_jinja_run *r, const cmi_jinja_node *node, cmi_jinja_value *out)
{
    static bool (*const evaluators[])(cmi_jinja_run *, const cmi_jinja_node *,
                                      cmi_jinja_value *) = {
        [CMI_JINJA_CONST] = eval_const,       [CMI_JINJA_NAME] = eval_name,
        [CMI_JINJA_NEW_LIST] = eval_new_list, [CMI_JINJA_NEW_TUPLE] = eval_new_list,
        [CMI_JINJA_NEW_DICT] = eval_new_dict, [CMI_JINJA_CONCAT] = eval_concat,
        [CMI_JINJA_BINARY] = eval_binary,     [CMI_JINJA_UNARY] = eval_unary,
        [CMI_JINJA_AND] = eval_and_or,        [CMI_JINJA_OR] = eval_and_or,
        [CMI_JINJA_NOT] = eval_not,           [CMI_JINJA_COMPARE] = eval_compare,
        [CMI_JINJA_COND] = eval_cond,         [CMI_JINJA_ATTR] = eval_attr,
        [CMI_JINJA_ITEM] = eval_item,         [CMI_JINJA_SLICE] = eval_slice,
        [CMI_JINJA_CALL] = eval_call,         [CMI_JINJA_FILTER] = eval_apply,
        [CMI_JINJA_TEST] = eval_apply,
    };
    if (!cmi_jinja_charge(r, 1) || !cmi_jinja_descend(r)) {
        return false;
    }
    r->line = node->line;
    bool ok = evaluators[node->kind](r, node, out);
    cmi_jinja_ascend(r);
    return ok;
}
