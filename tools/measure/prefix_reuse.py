#!/usr/bin/env python3
"""What a shared beginning of prompts saves: throughput and TTFT when a part of every prompt is the
same, and their ratio to no shared part. Blocks of 128 tokens are shared, so a prompt should have
many of them.

example:
  tools/measure/prefix_reuse.py /data/DeepSeek-V2-Lite --input 4096 --svg reuse.svg
"""
import measuring as m


def main():
    p = m.parser(__doc__)
    p.add_argument("--shares", type=float, nargs="+", default=[0, 12.5, 50, 90],
                   help="of the prompt, in percent (default 0 12.5 50 90)")
    p.add_argument("--requests", type=int, default=64, help="of each row (default 64)")
    p.add_argument("--concurrency", type=int, default=8)
    p.add_argument("--input", type=int, default=1024, help="tokens of a prompt (default 1024)")
    p.add_argument("--output", type=int, default=16, help="tokens of an answer (default 16)")
    opt = m.arguments(p, {"shares": [0, 50], "requests": 6, "input": 512, "output": 4})

    def measure(server, share, number):
        n_shared = int(opt.input * share / 100)
        common = {"seed": int(share * 10) + 10000 * (number + 1), "random_prefix_len": n_shared,
                  "random_output_len": opt.output}
        m.load(opt, server, num_prompts=1, random_input_len=1, **common)  # the shared part alone
        before = server.metrics()
        result = m.load(opt, server, num_prompts=opt.requests, max_concurrency=opt.concurrency,
                        random_input_len=opt.input - n_shared, **common)
        after = server.metrics()
        names = ("vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total")
        queried, hits = (after[name] - before[name] for name in names)
        return {**result, "hit_percent": 100 * hits / max(queried, 1)}
    with m.Server(opt) as server:
        found = m.rounds(opt, opt.shares, lambda side, i: measure(server, side, i))
    keys = ("hit_percent", "total_token_throughput", "median_ttft_ms", "p99_ttft_ms")
    rows = [[f"{share:g} %", *(m.median(found[share], k) for k in keys)] for share in opt.shares]
    for row in rows:
        row += [row[2] / rows[0][2], row[3] / rows[0][3]]
    m.print_table(f"{opt.requests} prompts of {opt.input} tokens, {opt.concurrency} at a time, "
                  f"{opt.model}",
                  ("shared", "found in the cache, %", "all tokens/s", "TTFT ms, median", "p99",
                   "throughput / none shared", "TTFT / none shared"), rows)
    if opt.svg:
        m.write_svg(opt.svg, "What shared beginnings save", [r[0] for r in rows], "ratio",
                    {"throughput": [r[5] for r in rows], "TTFT": [r[6] for r in rows]})


if __name__ == "__main__":
    main()
