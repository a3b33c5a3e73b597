/* text/jinja_text_case.c - upper, lower, title and capitalize. */
#include "base/utf8.h"
#include "text/jinja_text.h"

static bool add_mapped(cmi_jinja_builder *b, uint32_t cp, cmi_unicode_case to)
{
    uint32_t image[3];
    size_t n = cmi_unicode_map_case(cp, to, image);
    for (size_t i = 0; i < n; i++) {
        if (!cmi_jinja_add_char(b, image[i])) {
            return false;
        }
    }
    return true;
}

/* What the next letter becomes, by those before it. */
typedef cmi_unicode_case case_rule(uint32_t cp_before);

static bool map_by_rule(cmi_jinja_run *r, const cmi_jinja_str *s, case_rule *rule,
                        cmi_jinja_value *out)
{
    cmi_jinja_builder b = {.r = r};
    uint32_t before = ' ';
    size_t at = 0;
    if (!cmi_jinja_charge(r, s->n_bytes * 8)) {
        return false;
    }
    while (at < s->n_bytes) {
        uint32_t cp = 0;
        at += (size_t)cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        if (!add_mapped(&b, cp, rule(before))) {
            return false;
        }
        before = cp;
    }
    return cmi_jinja_built(&b, out);
}

static cmi_unicode_case always_upper(uint32_t before)
{
    (void)before;
    return CMI_UNICODE_UPPER;
}

static cmi_unicode_case always_lower(uint32_t before)
{
    (void)before;
    return CMI_UNICODE_LOWER;
}

static cmi_unicode_case behind_uncased(uint32_t before)
{
    return cmi_unicode_is_cased(before) ? CMI_UNICODE_LOWER : CMI_UNICODE_TITLE;
}

static cmi_unicode_case behind_separator(uint32_t before)
{
    bool separates = cmi_unicode_is_space(before) || before == '-' || before == '(' ||
                     before == '{' || before == '[' || before == '<';
    return separates ? CMI_UNICODE_UPPER : CMI_UNICODE_LOWER;
}

bool cmi_jinja_map_case(cmi_jinja_run *r, const cmi_jinja_str *s, cmi_unicode_case to,
                        cmi_jinja_value *out)
{
    return map_by_rule(r, s, to == CMI_UNICODE_UPPER ? always_upper : always_lower, out);
}

bool cmi_jinja_text_upper(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return map_by_rule(r, call->self.str, always_upper, out);
}

bool cmi_jinja_text_lower(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return map_by_rule(r, call->self.str, always_lower, out);
}

bool cmi_jinja_text_title(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return map_by_rule(r, call->self.str, behind_uncased, out);
}

bool cmi_jinja_text_title_words(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return map_by_rule(r, call->self.str, behind_separator, out);
}

bool cmi_jinja_text_capitalize(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    const cmi_jinja_str *s = call->self.str;
    cmi_jinja_builder b = {.r = r};
    size_t at = 0;
    if (!cmi_jinja_charge(r, s->n_bytes * 8)) {
        return false;
    }
    while (at < s->n_bytes) {
        uint32_t cp = 0;
        bool is_first = at == 0;
        at += (size_t)cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        if (!add_mapped(&b, cp, is_first ? CMI_UNICODE_TITLE : CMI_UNICODE_LOWER)) {
            return false;
        }
    }
    return cmi_jinja_built(&b, out);
}

/* Whether there are cased letters and none of them changes when mapped. */
static bool is_all(cmi_jinja_run *r, const cmi_jinja_str *s, cmi_unicode_case to,
                   cmi_jinja_value *out)
{
    bool any = false;
    bool all = true;
    size_t at = 0;
    if (!cmi_jinja_charge(r, s->n_bytes * 8)) {
        return false;
    }
    while (all && at < s->n_bytes) {
        uint32_t cp = 0;
        uint32_t image[3];
        at += (size_t)cmi_utf8_next(s->bytes + at, s->n_bytes - at, &cp);
        any |= cmi_unicode_is_cased(cp);
        all = cmi_unicode_map_case(cp, to, image) == 1 && image[0] == cp;
    }
    *out = cmi_jinja_bool(any && all);
    return true;
}

bool cmi_jinja_text_islower(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return is_all(r, call->self.str, CMI_UNICODE_LOWER, out);
}

bool cmi_jinja_text_isupper(cmi_jinja_run *r, const cmi_jinja_call *call, cmi_jinja_value *out)
{
    return is_all(r, call->self.str, CMI_UNICODE_UPPER, out);
}
