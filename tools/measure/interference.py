#!/usr/bin/env python3
"""What prompts that keep arriving do to answers that are being written: TPOT, and gaps between
tokens (ITL), of running decodes alone and beside long prompts, with and without --disaggregate on
as many cores. Both servers are up, and one at a time works; --share-weights lets them have one copy
of the weights. The model must have room for a prompt and the answer.

example:
  tools/measure/interference.py /data/DeepSeek-V2-Lite --model-options '-t 16 --share-weights'
"""
import contextlib
import itertools
import signal
import time

import measuring as m

PLAIN, APART = "together", "--disaggregate"
LONGEST_S = 300  # a run with prompts


def measure(opt, server, rate, number):
    """Of the decodes; prompts arrive from before their first token until after their last."""
    prompts = None
    if rate > 0:
        before = server.metrics()["vllm:prompt_tokens_total"]
        prompts = m.start_load(opt, server, num_prompts=int(rate * LONGEST_S) + 1,
                               request_rate=rate, random_input_len=opt.input,
                               random_output_len=1, seed=1000 + number)
        while (server.metrics()["vllm:prompt_tokens_total"] == before and
               prompts[0].poll() is None):
            time.sleep(0.01)
    result = m.load(opt, server, num_prompts=opt.decodes, max_concurrency=opt.decodes, seed=number,
                    random_input_len=opt.decode_input, random_output_len=opt.output)
    if prompts:
        prompts[0].send_signal(signal.SIGINT)  # it ends its requests and writes what it has
        result["prompts"] = m.end_load(*prompts)["completed"]
    return {"prompts": 0, **result}


def main():
    p = m.parser(__doc__)
    p.add_argument("--decodes", type=int, default=16, help="at a time (default 16)")
    p.add_argument("--decode-input", type=int, default=16, help="tokens of their prompts")
    p.add_argument("--output", type=int, default=512, help="tokens of their answers (default 512)")
    p.add_argument("--input", type=int, default=1024,
                   help="tokens of the prompts that arrive (default 1024)")
    p.add_argument("--rate", type=float, nargs="+", default=[2.0],
                   help="prompts a second (default 2)")
    opt = m.arguments(p, {"decodes": 4, "output": 64, "input": 256, "rate": [10.0]})
    kinds = [PLAIN] + ([APART] if m.serve_knows(opt.cminfer, APART) else [])
    sides = list(itertools.product(kinds, [0.0, *opt.rate]))
    with contextlib.ExitStack() as stack:
        servers = {kind: stack.enter_context(m.Server(opt, *([APART] if kind == APART else [])))
                   for kind in kinds}
        found = m.rounds(opt, sides,
                         lambda side, i: measure(opt, servers[side[0]], side[1], i))
    keys = ("median_tpot_ms", "p99_tpot_ms", "median_itl_ms", "p99_itl_ms", "prompts")
    rows = []
    for kind, rate in sides:
        row = [m.median(found[kind, rate], key) for key in keys]
        alone = m.median(found[kind, 0.0], "p99_itl_ms")
        rows.append([kind, f"{rate:g}", *row, row[3] / alone])
    m.print_table(f"{opt.decodes} decodes of {opt.output} tokens beside prompts of {opt.input}, "
                  f"{opt.model}",
                  ("prefill and decode", "prompts/s", "TPOT ms, median", "p99", "ITL ms, median",
                   "p99", "prompts done", "p99 ITL / alone"), rows)
    if opt.svg:
        m.write_svg(opt.svg, "Decodes beside prompts", [f"{r:g}/s" for r in [0.0, *opt.rate]],
                    "p99 ITL, ms", {k: [r[5] for r in rows if r[0] == k] for k in kinds})


if __name__ == "__main__":
    main()
