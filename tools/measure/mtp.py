#!/usr/bin/env python3
"""What drafts of the MTP layer are worth: acceptance, and throughput with and without them, at
several batch sizes. The answers are the same bits; only the time differs.

example:
  tools/measure/mtp.py models/matrix-tiny --drafts 1 2 --dataset prompts.jsonl --svg mtp.svg
"""
import contextlib

import measuring as m

COUNTERS = ("vllm:spec_decode_num_draft_tokens_total",
            "vllm:spec_decode_num_accepted_tokens_total")


def main():
    p = m.parser(__doc__)
    p.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    p.add_argument("--drafts", type=int, nargs="+", default=[1], help="for each token (default 1)")
    p.add_argument("--requests", type=int, default=8,
                   help="of each row and sequence of the batch (default 8)")
    p.add_argument("--input", type=int, default=64, help="tokens of a prompt (default 64)")
    p.add_argument("--output", type=int, default=128, help="tokens of an answer (default 128)")
    p.add_argument("--temperature", type=float, default=0)
    p.add_argument("--always", action="store_true",
                   help="drafts also where they cost more than they bring (--speculate-always)")
    p.add_argument("--dataset", metavar="FILE", help="JSON lines with \"prompt\", instead of "
                   "random prompts, which no model continues as it would text")
    opt = m.arguments(p, {"batch": [1, 4], "requests": 2, "input": 16, "output": 16,
                          "always": True})
    always = ["--speculate-always"] if opt.always else []
    data = {"dataset_name": "custom", "dataset_path": opt.dataset} if opt.dataset else {
        "random_input_len": opt.input}
    sides = [(n, k) for n in opt.batch for k in [0, *opt.drafts]]

    def measure(servers, side, number):
        n, k = side
        before = servers[k].metrics()
        result = m.load(opt, servers[k], num_prompts=opt.requests * n, max_concurrency=n,
                        seed=number, random_output_len=opt.output, temperature=opt.temperature,
                        ignore_eos=True, **data)
        after = servers[k].metrics()
        tried, right = (after.get(name, 0) - before.get(name, 0) for name in COUNTERS)
        return {**result, "accepted_percent": 100 * right / tried if tried else None}
    with contextlib.ExitStack() as stack:
        servers = {k: stack.enter_context(m.Server(
            opt, "--num-speculative-tokens", k, "--max-num-seqs", max(opt.batch), *always))
            for k in [0, *opt.drafts]}
        found = m.rounds(opt, sides, lambda side, i: measure(servers, side, i))
    rows = []
    for n, k in sides:
        results = found[n, k]
        speed, plain = (m.median(r, "output_throughput") for r in (results, found[n, 0]))
        rows.append([str(n), str(k), m.median(results, "accepted_percent"), speed, speed / plain,
                     m.median(results, "median_tpot_ms")])
    m.print_table(f"Drafts, answers of {opt.output} tokens, {opt.model}",
                  ("batch", "drafts", "accepted, %", "output tokens/s", "/ without drafts",
                   "TPOT ms, median"), rows)
    if opt.svg:
        m.write_svg(opt.svg, "Throughput with drafts", opt.batch, "/ without drafts",
                    {f"{k} a token": [r[4] for r in rows if r[1] == str(k)] for k in opt.drafts})


if __name__ == "__main__":
    main()
