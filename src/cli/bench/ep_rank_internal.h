/* cli/bench/ep_rank_internal.h - a rank's state, which the parts of the measurement share:
 * ep_rank.c (the rounds), ep_rank_rows.c (what is sent, and the proof that it arrives) and
 * ep_rank_meet.c (what ranks say to each other). Thread: the rank's own. */
#ifndef CMI_CLI_BENCH_EP_RANK_INTERNAL_H
#define CMI_CLI_BENCH_EP_RANK_INTERNAL_H

#include "cli/bench/ep_rank.h"

/* How long a rank waits for others in a round. */
static const uint64_t CMI_BENCH_EP_PATIENCE_NS = 60000000000u;

/* The dispatch until all rows are here; sorting them to their experts; the results' way back; and
 * as many bytes in few puts, and in few copies. */
enum { DISPATCH, SORT, COMBINE, DISPATCH_PUT, COMBINE_PUT, DISPATCH_COPY, COMBINE_COPY, N_TIMES };

typedef struct rank_report { /* written into rank 0's region */
    uint64_t dispatch_bytes, combine_bytes;
    double times[N_TIMES][CMI_BENCH_EP_MAX_ROUNDS];
} rank_report;

typedef struct bench_rank {
    const cmi_bench_ep_options *opt;
    const cmi_bench_ep_place *place;
    cmi_ep_layout layout;
    cmi_team *team;
    cmi_exchange *exchange;
    uint8_t *region;
    uint16_t *rank_of; /* [n_experts] */
    uint8_t *values;   /* [n_rows][message_bytes]: rows, and more behind them for plain copies */
    float *scales;
    uint32_t *expert_ids;
    uint8_t *arrived, *results;
    float *arrived_scales;
    uint32_t *expert_begin;
    rank_report report;
    uint64_t n_met;
} bench_rank;

/* ---- ep_rank_rows.c ---- */

/* Once there is an exchange. */
void cmi_bench_ep_make_rows(bench_rank *r);
void cmi_bench_ep_free_rows(bench_rank *r);

/* In place of experts: makes results of the rows that are here by which their ranks see that each
 * row was at its expert. */
void cmi_bench_ep_answer_rows(bench_rank *r);

/* Whether the results that came back, stride bytes apart, are such answers to this rank's rows. */
bool cmi_bench_ep_are_answers(const bench_rank *r, const uint8_t *back, size_t stride);

/* ---- ep_rank_meet.c ---- */

/* Of a report in rank 0's region; of rank n_ranks: all that a region has. */
size_t cmi_bench_ep_report_offset(const cmi_ep_layout *layout, uint32_t rank);

/* Accepted, with progress while there is no room. */
cmi_status cmi_bench_ep_put(bench_rank *r, uint32_t rank, const void *from, size_t offset,
                            size_t n_bytes);

/* What this rank has put is there. */
cmi_status cmi_bench_ep_flush(bench_rank *r);

/* All ranks are here, and what each has put is there. */
cmi_status cmi_bench_ep_meet(bench_rank *r);

/* Meets twice: a rank that slept comes late, the second time all are awake. */
cmi_status cmi_bench_ep_start_together(bench_rank *r);

/* The report of every rank is in rank 0's region, and nobody has left before. */
cmi_status cmi_bench_ep_part(bench_rank *r);

#endif
