#include "policy/microbatch.h"

enum {
    TRIAL_STEPS = 4,
    TRIAL_PATIENCE = 16, /* steps in which others let a trial's number run, or it is over */
    FIRST_PAUSE = 16,
    LONGEST_PAUSE = 4096,
    RANK_BITS = 16,
};

static const double gain_to_change = 1.03; /* MICROBATCH_GAIN */

void cmi_microbatch_init(cmi_microbatch *m)
{
    for (int i = 0; i < CMI_MICROBATCH_KINDS; i++) {
        m->kinds[i] = (cmi_microbatch_trials){.current = 1, .pause = FIRST_PAUSE};
    }
}

uint32_t cmi_microbatch_wish(const cmi_microbatch *m, cmi_microbatch_kind kind)
{
    const cmi_microbatch_trials *t = &m->kinds[kind];
    return t->is_trying ? 3 - t->current : t->current;
}

static void note_current(cmi_microbatch_trials *t, double cost)
{
    t->group_best = t->n_group == 0 ? cost : CMI_MIN(t->group_best, cost);
    if (++t->n_group == TRIAL_STEPS) {
        t->best = t->group_best;
        t->n_group = 0;
    }
}

static void note_other(cmi_microbatch_trials *t, double cost)
{
    t->tried_best = t->n_tried == 0 ? cost : CMI_MIN(t->tried_best, cost);
    t->n_tried++;
}

/* Others may have wished otherwise all the time: then nothing is known. */
static void end_trial(cmi_microbatch_trials *t)
{
    const bool is_known = t->n_tried >= TRIAL_STEPS;
    const bool pays = is_known && (t->best == 0 || t->tried_best * gain_to_change < t->best);
    if (pays) {
        t->current = 3 - t->current;
        t->best = t->tried_best;
        t->n_group = 0;
    }
    t->pause = pays ? FIRST_PAUSE : CMI_MIN(2 * t->pause, (uint32_t)LONGEST_PAUSE);
    t->is_trying = false;
    t->n_steps = 0;
}

void cmi_microbatch_note(cmi_microbatch *m, cmi_microbatch_kind kind, uint32_t n, double work,
                         double ns)
{
    cmi_microbatch_trials *t = &m->kinds[kind];
    if (n == t->current) {
        note_current(t, ns / work);
    } else if (t->is_trying) {
        note_other(t, ns / work);
    }
    t->n_steps++;
    if (t->is_trying && (t->n_tried == TRIAL_STEPS || t->n_steps == TRIAL_PATIENCE)) {
        end_trial(t);
    } else if (!t->is_trying && t->n_steps >= t->pause) {
        t->is_trying = true;
        t->n_steps = t->n_tried = 0;
    }
}

uint32_t cmi_microbatch_vote(cmi_microbatch_kind kind, uint32_t rank, uint32_t n)
{
    return 1 + ((((uint32_t)kind << RANK_BITS | rank) << 1) | (n - 1));
}

uint32_t cmi_microbatch_agreed(uint32_t highest_vote)
{
    return highest_vote == 0 ? 1 : 1 + (highest_vote - 1) % 2;
}
