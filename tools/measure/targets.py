#!/usr/bin/env python3
"""Whether a server keeps a TPOT target under too much load: p99 TPOT over the target, goodput
relative to that at the load the machine can carry, and how soon a request is refused. All of it
is taken from the server's line for each request: the load generator has low priority.

The load that can be carried is measured first, as requests a second with --concurrency of them at a
time and no target. Then a server with each target gets 0.5, 1, 2 and 4 times as many a second.
Goodput counts answers whose TPOT is within the target (and TTFT, with --ttft-ms). How long a
refusal (429) takes is counted from the request's first byte.

example:
  tools/measure/targets.py /data/DeepSeek-V2-Lite --tpot-ms 50 100 --ttft-ms 2000 --svg targets.svg
"""
import re
import time

import measuring as m


def requests_of(lines):
    """What the server's lines say of requests: a list of {name: text}."""
    return [dict(re.findall(r"(\w+)=(\S+)", line)) for line in lines
            if " POST /v1/completions status=" in line]


def lines_of(server, n_lines, n):
    """Those of n requests, which are read by another thread, behind the first n_lines."""
    end = time.monotonic() + 10
    while len(requests_of(server.log[n_lines:])) < n and time.monotonic() < end:
        time.sleep(0.05)
    return requests_of(server.log[n_lines:])


def percentile(values, share):
    """The least of the values that this share of them do not exceed."""
    ranked = sorted(values)
    return ranked[max(0, -int(-share * len(ranked) // 1) - 1)] if ranked else None


def lengths(opt):
    return {"random_input_len": opt.input, "random_output_len": opt.output}


def measure_capacity(opt):
    with m.Server(opt) as server:
        found = m.rounds(opt, ["capacity"], lambda side, i: m.load(
            opt, server, num_prompts=opt.requests, max_concurrency=opt.concurrency, seed=i,
            **lengths(opt)))
    return m.median(found["capacity"], "request_throughput")


def measure(opt, server, target, rate, number):
    n, n_lines = max(int(rate * opt.seconds), 4), len(server.log)
    result = m.load(opt, server, num_prompts=n, request_rate=rate, seed=number + 1, nice=19,
                    **lengths(opt))
    requests = lines_of(server, n_lines, n)
    answers = [r for r in requests if r["status"] == "200" and int(r["output_tokens"]) > 1]
    refusals = [float(r["total_ms"]) for r in requests if r["status"] == "429"]
    tpots = [float(r["decode_ms"]) / (int(r["output_tokens"]) - 1) for r in answers]
    n_good = sum(tpot <= target and (not opt.ttft_ms or float(r["ttft_ms"]) <= opt.ttft_ms)
                 for tpot, r in zip(tpots, answers))
    return {"goodput": n_good / result["duration"],
            "kept_percent": 100 * n_good / len(answers) if answers else None,
            "p99_tpot": percentile(tpots, 0.99),
            "refused_percent": 100 * len(refusals) / n, "refusal_ms": percentile(refusals, 0.5),
            "p99_refusal_ms": percentile(refusals, 0.99)}


def main():
    p = m.parser(__doc__)
    p.add_argument("--tpot-ms", type=float, nargs="+", default=[50], help="targets (default 50)")
    p.add_argument("--ttft-ms", type=float, help="a target, too")
    p.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2, 4],
                   help="of the load that can be carried (default 0.5 1 2 4)")
    p.add_argument("--seconds", type=float, default=60, help="of each load (default 60)")
    p.add_argument("--requests", type=int, default=200,
                   help="to see what can be carried (default 200)")
    p.add_argument("--concurrency", type=int, default=32, help="for that (default 32)")
    p.add_argument("--input", type=int, default=256, help="tokens of a prompt (default 256)")
    p.add_argument("--output", type=int, default=64, help="tokens of an answer (default 64)")
    opt = m.arguments(p, {"tpot_ms": [50], "factors": [1, 4], "seconds": 0.5, "requests": 8,
                          "concurrency": 4, "input": 32, "output": 8})
    has_targets = m.serve_knows(opt.cminfer, "--tpot-ms")
    capacity, rows = measure_capacity(opt), []
    for target in opt.tpot_ms:
        options = ["--tpot-ms", f"{target:g}"] if has_targets else []
        if has_targets and opt.ttft_ms:
            options += ["--ttft-ms", f"{opt.ttft_ms:g}"]
        with m.Server(opt, *options) as server:
            found = m.rounds(opt, opt.factors, lambda f, i, t=target, s=server: measure(
                opt, s, t, f * capacity, i))
        at_1 = m.median(found[1], "goodput") if 1 in found else float("nan")
        for factor in opt.factors:
            good = m.median(found[factor], "goodput")
            rows.append([f"{target:g}", factor, m.median(found[factor], "p99_tpot") / target, good,
                         good / at_1 if at_1 else float("nan"),
                         *(m.median(found[factor], key) for key in
                           ("kept_percent", "refused_percent", "refusal_ms", "p99_refusal_ms"))])
    unknown = "" if has_targets else "; this cminfer takes no targets, so nothing is held to them"
    m.print_table(f"{capacity:.3g} requests/s can be carried ({opt.input} + {opt.output} tokens), "
                  f"{opt.model}{unknown}",
                  ("target, ms", "load", "p99 TPOT / target", "goodput, requests/s",
                   "/ goodput at 1", "kept, %", "refused, %", "refusal after, ms", "p99"), rows)
    if opt.svg:
        m.write_svg(opt.svg, "Goodput under load", [f"{f:g}" for f in opt.factors], "requests/s",
                    {f"{t:g} ms": [r[3] for r in rows if r[0] == f"{t:g}"] for t in opt.tpot_ms})


if __name__ == "__main__":
    main()
