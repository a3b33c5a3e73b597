#!/usr/bin/env python3
"""TTFT, TPOT and throughput of a server at several concurrencies.

example:
  tools/measure/serve_table.py /data/DeepSeek-V2-Lite --model-options '-q w8a8-int8' --svg table.svg
"""
import measuring as m


def main():
    p = m.parser(__doc__)
    p.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 64, 256])
    p.add_argument("--requests", type=int, default=500, help="of each row (default 500)")
    p.add_argument("--input", type=int, default=256, help="tokens of a prompt (default 256)")
    p.add_argument("--output", type=int, default=64, help="tokens of an answer (default 64)")
    opt = m.arguments(p, {"concurrency": [1, 4], "requests": 8, "input": 32, "output": 8})
    with m.Server(opt, "--max-num-seqs", max(opt.concurrency)) as server:
        found = m.rounds(opt, opt.concurrency, lambda n, i: m.load(
            opt, server, num_prompts=opt.requests, max_concurrency=n, seed=1000 * n + i,
            random_input_len=opt.input, random_output_len=opt.output, random_range_ratio=0.5))
    keys = ("median_ttft_ms", "p99_ttft_ms", "median_tpot_ms", "p99_tpot_ms", "output_throughput",
            "total_token_throughput", "failed")
    rows = [[str(n), *(m.median(found[n], k) for k in keys)] for n in opt.concurrency]
    m.print_table(
        f"{opt.requests} requests of {opt.input} + {opt.output} tokens (+-50 %), {opt.model}",
        ("concurrency", "TTFT ms, median", "p99", "TPOT ms, median", "p99", "output tokens/s",
         "all tokens/s", "failed"), rows)
    if opt.svg:
        m.write_svg(opt.svg, "Throughput and concurrency", opt.concurrency, "tokens/s",
                    {"output": [r[5] for r in rows], "all": [r[6] for r in rows]})


if __name__ == "__main__":
    main()
