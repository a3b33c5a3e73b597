/* text/jinja_exec.c - statements, variables and macros.
 *
 * Loops, macro calls and caught blocks have a frame of variables of their own; `if` has none. What
 * is set inside a frame ends with it, and what is around it can be read: only namespaces carry
 * something out. Captured output is the tail of the one output buffer, cut off when it is taken, so
 * that an error anywhere leaves nothing to clean up. */
#include "text/jinja_exec.h"

#include <string.h>

/* ---- variables ---- */

bool cmi_jinja_push_frame(cmi_jinja_run *r, cmi_jinja_frame *parent)
{
    cmi_jinja_frame *frame = cmi_jinja_alloc(r, 1, sizeof *frame);
    if (frame == NULL || !cmi_jinja_descend(r)) {
        return false;
    }
    frame->parent = parent;
    r->frame = frame;
    return true;
}

void cmi_jinja_pop_frame(cmi_jinja_run *r, cmi_jinja_frame *back_to)
{
    cmi_jinja_ascend(r);
    r->frame = back_to;
}

bool cmi_jinja_set_name(cmi_jinja_run *r, uint32_t name_id, const cmi_jinja_value *value)
{
    cmi_jinja_frame *f = r->frame;
    if (f == NULL) {
        r->root[name_id] = *value;
        return true;
    }
    if (!cmi_jinja_charge(r, f->n)) {
        return false;
    }
    for (size_t i = 0; i < f->n; i++) {
        if (f->slots[i].name_id == name_id) {
            f->slots[i].value = *value;
            return true;
        }
    }
    if (f->n == f->cap) {
        size_t cap = f->cap * 2 + 2;
        cmi_jinja_slot *slots = cmi_jinja_alloc(r, cap, sizeof *slots);
        if (slots == NULL) {
            return false;
        }
        if (f->n > 0) {
            memcpy(slots, f->slots, f->n * sizeof *slots);
        }
        f->slots = slots;
        f->cap = cap;
    }
    f->slots[f->n++] = (cmi_jinja_slot){.name_id = name_id, .value = *value};
    return true;
}

static bool assign_ns_attr(cmi_jinja_run *r, const cmi_jinja_node *target,
                           const cmi_jinja_value *value)
{
    cmi_jinja_node name = {
        .kind = CMI_JINJA_NAME, .line = target->line, .name_id = target->ns_attr.name_id};
    cmi_jinja_value ns;
    if (!cmi_jinja_eval(r, &name, &ns)) {
        return false;
    }
    if (ns.kind != CMI_JINJA_NAMESPACE) {
        return cmi_jinja_misfit(r, "only attributes of a namespace can be set, not those of %s",
                                cmi_jinja_type_name(&ns));
    }
    return cmi_jinja_ns_set(r, ns.ns, target->ns_attr.attr, value);
}

static bool assign_tuple(cmi_jinja_run *r, const cmi_jinja_node *target,
                         const cmi_jinja_value *value)
{
    cmi_jinja_seq items;
    if (!cmi_jinja_collect(r, value, &items)) {
        return false;
    }
    if (items.n != target->items.n) {
        return cmi_jinja_misfit(r, "%zu values cannot be assigned to %zu names", items.n,
                                target->items.n);
    }
    for (size_t i = 0; i < items.n; i++) {
        if (!cmi_jinja_assign(r, target->items.items[i], &items.items[i])) {
            return false;
        }
    }
    return true;
}

bool cmi_jinja_assign(cmi_jinja_run *r, const cmi_jinja_node *target, const cmi_jinja_value *value)
{
    switch ((cmi_jinja_node_kind)target->kind) {
    case CMI_JINJA_NAME:
        return cmi_jinja_set_name(r, target->name_id, value);
    case CMI_JINJA_NS_ATTR:
        return assign_ns_attr(r, target, value);
    default:
        return assign_tuple(r, target, value);
    }
}

/* ---- output ---- */

static cmi_jinja_flow flow_of(bool ok)
{
    return ok ? CMI_JINJA_DONE : CMI_JINJA_FAILED;
}

static bool print(cmi_jinja_run *r, const cmi_jinja_str *s)
{
    return cmi_jinja_charge(r, s->n_bytes) &&
           (cmi_buf_append(r->out, s->bytes, s->n_bytes) ||
            cmi_jinja_fail(r, CMI_ERR_TOO_LARGE, "the output has more than %zu bytes",
                           r->out->max));
}

static cmi_jinja_flow exec_data(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    return flow_of(print(r, node->data));
}

static cmi_jinja_flow exec_print(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    cmi_jinja_value v;
    const cmi_jinja_str *s;
    return flow_of(cmi_jinja_eval(r, node->operand, &v) && cmi_jinja_to_str(r, &v, &s) &&
                   print(r, s));
}

cmi_jinja_flow cmi_jinja_capture(cmi_jinja_run *r, const cmi_jinja_nodes *nodes,
                                 cmi_jinja_value *out)
{
    size_t from = r->out->len;
    cmi_jinja_flow flow = cmi_jinja_exec(r, nodes);
    if (flow == CMI_JINJA_FAILED) {
        return flow;
    }
    const cmi_jinja_str *s = cmi_jinja_str_copy(r, cmi_buf_cstr(r->out) + from, r->out->len - from);
    cmi_buf_truncate(r->out, from);
    *out = cmi_jinja_text(s);
    return s == NULL ? CMI_JINJA_FAILED : flow;
}

/* ---- statements ---- */

static cmi_jinja_flow exec_if(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    const cmi_jinja_nodes *branches = &node->cond_block.branches;
    for (size_t i = 0; i < branches->n; i++) {
        const cmi_jinja_node *branch = branches->items[i];
        cmi_jinja_value test;
        if (!cmi_jinja_eval(r, branch->branch.test, &test)) {
            return CMI_JINJA_FAILED;
        }
        if (cmi_jinja_truth(&test)) {
            return cmi_jinja_exec(r, &branch->branch.body);
        }
    }
    return cmi_jinja_exec(r, &node->cond_block.otherwise);
}

static cmi_jinja_flow exec_set(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    cmi_jinja_value v;
    return flow_of(cmi_jinja_eval(r, node->set.value, &v) &&
                   cmi_jinja_assign(r, node->set.target, &v));
}

/* Captures a body within a frame of its own and sends it through the filter, if there is one. */
static cmi_jinja_flow capture_filtered(cmi_jinja_run *r, const cmi_jinja_node *node,
                                       cmi_jinja_value *out)
{
    cmi_jinja_frame *outer = r->frame;
    cmi_jinja_value text;
    if (!cmi_jinja_push_frame(r, outer)) {
        return CMI_JINJA_FAILED;
    }
    cmi_jinja_flow flow = cmi_jinja_capture(r, &node->set.body, &text);
    *out = text;
    if (flow == CMI_JINJA_DONE && node->set.value != NULL &&
        !cmi_jinja_eval_filter(r, node->set.value, &text, out)) {
        flow = CMI_JINJA_FAILED;
    }
    cmi_jinja_pop_frame(r, outer);
    return flow;
}

static cmi_jinja_flow exec_set_block(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    cmi_jinja_value v;
    cmi_jinja_flow flow = capture_filtered(r, node, &v);
    return flow == CMI_JINJA_DONE ? flow_of(cmi_jinja_assign(r, node->set.target, &v)) : flow;
}

static cmi_jinja_flow exec_filter_block(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    cmi_jinja_value v;
    const cmi_jinja_str *s;
    cmi_jinja_flow flow = capture_filtered(r, node, &v);
    return flow == CMI_JINJA_DONE ? flow_of(cmi_jinja_to_str(r, &v, &s) && print(r, s)) : flow;
}

static cmi_jinja_flow exec_scope(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    cmi_jinja_frame *outer = r->frame;
    if (!cmi_jinja_push_frame(r, outer)) {
        return CMI_JINJA_FAILED;
    }
    cmi_jinja_flow flow = cmi_jinja_exec(r, &node->items);
    cmi_jinja_pop_frame(r, outer);
    return flow;
}

static cmi_jinja_flow exec_break(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    (void)r;
    (void)node;
    return CMI_JINJA_BROKE;
}

static cmi_jinja_flow exec_continue(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    (void)r;
    (void)node;
    return CMI_JINJA_CONTINUED;
}

/* ---- macros ---- */

static bool new_macro(cmi_jinja_run *r, const cmi_jinja_macro_def *def, cmi_jinja_value *out)
{
    cmi_jinja_macro *macro = cmi_jinja_alloc(r, 1, sizeof *macro);
    if (macro == NULL) {
        return false;
    }
    *macro = (cmi_jinja_macro){.def = def, .frame = r->frame};
    *out = (cmi_jinja_value){.kind = CMI_JINJA_MACRO, .macro = macro};
    return true;
}

static cmi_jinja_flow exec_macro_def(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    cmi_jinja_value macro;
    return flow_of(new_macro(r, node->macro, &macro) &&
                   cmi_jinja_set_name(r, node->macro->name_id, &macro));
}

/* A macro is called with one keyword more: the body of the call block, as a macro named caller. */
static cmi_jinja_flow exec_call_block(cmi_jinja_run *r, const cmi_jinja_node *node)
{
    static const cmi_jinja_str caller_name = CMI_JINJA_STR("caller");
    const cmi_jinja_node *call = node->call_block.call;
    cmi_jinja_value callee;
    cmi_jinja_value caller;
    cmi_jinja_value v;
    cmi_jinja_args args;
    const cmi_jinja_str *s;
    if (!cmi_jinja_eval(r, call->call.callee, &callee) ||
        !cmi_jinja_eval_args(r, call->call.args, &args) ||
        !new_macro(r, node->call_block.caller, &caller)) {
        return CMI_JINJA_FAILED;
    }
    cmi_jinja_named *keywords = cmi_jinja_alloc(r, args.n_keywords + 1, sizeof *keywords);
    if (keywords == NULL) {
        return CMI_JINJA_FAILED;
    }
    memcpy(keywords, args.keywords, args.n_keywords * sizeof *keywords);
    keywords[args.n_keywords++] = (cmi_jinja_named){.name = &caller_name, .value = caller};
    args.keywords = keywords;
    return flow_of(cmi_jinja_call_value(r, &callee, &args, &v) && cmi_jinja_to_str(r, &v, &s) &&
                   print(r, s));
}

/* The argument for a parameter; UNSET when there is none. */
static void find_argument(const cmi_jinja_args *args, size_t place, const cmi_jinja_str *name,
                          cmi_jinja_value *out)
{
    *out = (cmi_jinja_value){.kind = CMI_JINJA_UNSET};
    if (place < args->n_positional) {
        *out = args->positional[place];
        return;
    }
    for (size_t i = 0; i < args->n_keywords; i++) {
        if (cmi_jinja_str_equal(args->keywords[i].name, name)) {
            *out = args->keywords[i].value;
        }
    }
}

/* Every keyword names a parameter that has no positional argument yet; `caller` is always allowed.
 */
static bool check_keywords(cmi_jinja_run *r, const cmi_jinja_macro_def *def,
                           const cmi_jinja_args *args)
{
    for (size_t i = 0; i < args->n_keywords; i++) {
        const cmi_jinja_str *name = args->keywords[i].name;
        bool known = cmi_jinja_str_is(name, "caller");
        for (size_t k = args->n_positional; !known && k < def->params.n; k++) {
            known = cmi_jinja_str_equal(name, def->params.items[k]->param.name);
        }
        if (!cmi_jinja_charge(r, def->params.n)) {
            return false;
        }
        if (!known) {
            return cmi_jinja_misfit(r, "the macro takes no keyword argument '%.*s'",
                                    (int)CMI_MIN(name->n_bytes, (size_t)80), name->bytes);
        }
    }
    return true;
}

static bool bind_params(cmi_jinja_run *r, const cmi_jinja_macro_def *def,
                        const cmi_jinja_args *args)
{
    if (args->n_positional > def->params.n) {
        return cmi_jinja_misfit(r, "the macro takes at most %zu arguments, not %zu", def->params.n,
                                args->n_positional);
    }
    if (!check_keywords(r, def, args)) {
        return false;
    }
    for (size_t i = 0; i < def->params.n; i++) {
        const cmi_jinja_node *param = def->params.items[i];
        cmi_jinja_value v;
        find_argument(args, i, param->param.name, &v);
        if (v.kind == CMI_JINJA_UNSET) {
            v = cmi_jinja_undefined("a parameter of the macro was not given");
            if (param->param.otherwise != NULL && !cmi_jinja_eval(r, param->param.otherwise, &v)) {
                return false;
            }
        }
        if (!cmi_jinja_charge(r, args->n_keywords) ||
            !cmi_jinja_set_name(r, param->param.name_id, &v)) {
            return false;
        }
    }
    return true;
}

/* `caller` within the macro; the name has a number only when the template mentions it. */
static bool bind_caller(cmi_jinja_run *r, const cmi_jinja_args *args)
{
    static const cmi_jinja_str name = CMI_JINJA_STR("caller");
    uint32_t id;
    cmi_jinja_value caller;
    find_argument(args, args->n_positional, &name, &caller);
    return caller.kind == CMI_JINJA_UNSET ||
           !cmi_strmap_get(&r->jinja->name_ids, name.bytes, name.n_bytes, &id) ||
           cmi_jinja_set_name(r, id, &caller);
}

bool cmi_jinja_call_macro(cmi_jinja_run *r, const cmi_jinja_macro *macro,
                          const cmi_jinja_args *args, cmi_jinja_value *out)
{
    cmi_jinja_frame *outer = r->frame;
    if (!cmi_jinja_push_frame(r, macro->frame)) {
        return false;
    }
    bool ok = bind_params(r, macro->def, args) && bind_caller(r, args) &&
              cmi_jinja_capture(r, &macro->def->body, out) == CMI_JINJA_DONE;
    cmi_jinja_pop_frame(r, outer);
    return ok;
}

cmi_jinja_flow cmi_jinja_exec(cmi_jinja_run *r, const cmi_jinja_nodes *nodes)
{
    static cmi_jinja_flow (*const statements[])(cmi_jinja_run *, const cmi_jinja_node *) = {
        [CMI_JINJA_DATA] = exec_data,
        [CMI_JINJA_PRINT] = exec_print,
        [CMI_JINJA_IF] = exec_if,
        [CMI_JINJA_FOR] = cmi_jinja_exec_for,
        [CMI_JINJA_SET] = exec_set,
        [CMI_JINJA_SET_BLOCK] = exec_set_block,
        [CMI_JINJA_MACRO_DEF] = exec_macro_def,
        [CMI_JINJA_CALL_BLOCK] = exec_call_block,
        [CMI_JINJA_FILTER_BLOCK] = exec_filter_block,
        [CMI_JINJA_SCOPE] = exec_scope,
        [CMI_JINJA_BREAK] = exec_break,
        [CMI_JINJA_CONTINUE] = exec_continue,
    };
    if (!cmi_jinja_descend(r)) {
        return CMI_JINJA_FAILED;
    }
    cmi_jinja_flow flow = CMI_JINJA_DONE;
    for (size_t i = 0; flow == CMI_JINJA_DONE && i < nodes->n; i++) {
        const cmi_jinja_node *node = nodes->items[i];
        if (!cmi_jinja_charge(r, 1)) {
            flow = CMI_JINJA_FAILED;
            break;
        }
        r->line = node->line;
        flow = statements[node->kind](r, node);
    }
    cmi_jinja_ascend(r);
    return flow;
}
