#!/usr/bin/env python3
"""What drafts of the MTP layer are worth: acceptance, and speed of decode with and without them, at
several batch sizes. The answers are the same bits; only the time differs. Speed is that of the
answers behind their first tokens, all of a batch begun at once: prompts do not count, of which the
layer's share is that of one layer among the model's.

Beside it stands what drafts could bring with this acceptance: by the bytes and operations of a
step that verifies them, and by how long such a step takes in `cminfer bench --drafts`; 1 where
drafts cannot bring anything, since then none are tried.

example:
  tools/measure/mtp.py models/matrix-tiny --drafts 1 2 --svg mtp.svg \\
      --dataset models/matrix-tiny/eval.jsonl
"""
import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import tempfile

import measuring as m

COUNTERS = ("vllm:spec_decode_num_draft_tokens_total",
            "vllm:spec_decode_num_accepted_tokens_total")


class Data:
    """Prompts: random ones, or lines of the dataset, other ones for every seed."""

    def __init__(self, opt, folder):
        self.opt, self.path, self.lines = opt, os.path.join(folder, "lines.jsonl"), None
        if opt.dataset:
            with open(opt.dataset, encoding="utf-8") as f:
                self.lines = f.readlines()

    def options(self, n, seed):
        if not self.lines:
            return {"random_input_len": self.opt.input}
        chosen = random.Random(seed).sample(self.lines, n)
        with open(self.path, "w", encoding="utf-8") as f:
            f.writelines(chosen)
        is_chat = "messages" in json.loads(chosen[0])
        return {"dataset_name": "custom", "dataset_path": self.path,
                "backend": "openai-chat" if is_chat else "openai"}


def measure(opt, data, server, n, number):
    before = server.metrics()
    result = m.load(opt, server, num_prompts=n, max_concurrency=n, seed=number, ignore_eos=True,
                    random_output_len=opt.output, temperature=opt.temperature,
                    **data.options(n, number))
    after = server.metrics()
    tried, right = (after.get(name, 0) - before.get(name, 0) for name in COUNTERS)
    tpot_ms = result["mean_tpot_ms"] or math.nan  # 0: all events of an answer came at once
    return {"speed": 1000 * n / tpot_ms, "tried": tried, "right": right}


def bench(opt, drafts):
    """{(batch, drafts): tokens/s if all drafts hold, measured and by the machine's limits}."""
    done = subprocess.run([opt.cminfer, "bench", opt.model, *opt.model_options.split(), "-p", "0",
                           "-n", "24", "-d", str(opt.input), "--batch", commas(opt.batch),
                           "--drafts", commas(drafts), "--json"],
                          capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {(r["batch"], r["drafts"]): {**r, "limit": r["tokens_per_s"] / r["share"]} for r in rows}


def commas(numbers):
    return ",".join(map(str, numbers))


def what_drafts_allow(offline, n, k, accepted_percent, key):
    """Speed with drafts over that without, when this share of them holds."""
    if not k or accepted_percent != accepted_percent:
        return 1
    tokens_of_all = (1 + k * accepted_percent / 100) / (1 + k)
    return max(1, tokens_of_all * offline[n, k][key] / offline[n, 0][key])


def main():
    p = m.parser(__doc__)
    p.add_argument("--batch", type=int, nargs="+", default=[1, 8, 32])
    p.add_argument("--drafts", type=int, nargs="+", default=[1], help="for each token (default 1)")
    p.add_argument("--input", type=int, default=64, help="tokens of a prompt (default 64)")
    p.add_argument("--output", type=int, default=128, help="tokens of an answer (default 128)")
    p.add_argument("--temperature", type=float, default=0)
    p.add_argument("--always", action="store_true",
                   help="drafts also where they cost more than they bring (--speculate-always)")
    p.add_argument("--dataset", metavar="FILE", help="JSON lines with \"prompt\" or \"messages\", "
                   "instead of random prompts, which no model continues as it would text")
    p.set_defaults(rounds=15)  # one batch is short, and machines are noisy
    opt = m.arguments(p, {"batch": [1, 4], "rounds": 2, "input": 16, "output": 16,
                          "always": True})
    always = ["--speculate-always"] if opt.always else []
    sides = [(n, k) for n in opt.batch for k in [0, *opt.drafts]]
    offline = bench(opt, [0, *opt.drafts])
    with contextlib.ExitStack() as stack:
        data = Data(opt, stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {k: stack.enter_context(m.Server(
            opt, "--num-speculative-tokens", k, "--max-num-seqs", max(opt.batch), *always))
            for k in [0, *opt.drafts]}
        found = m.rounds(opt, sides,
                         lambda side, i: measure(opt, data, servers[side[1]], side[0], i))
    rows = []
    for n, k in sides:
        results = found[n, k]
        ratio = statistics.median(r["speed"] / plain["speed"]
                                  for r, plain in zip(results, found[n, 0]))
        tried, right = (sum(r[key] for r in results) for key in ("tried", "right"))
        accepted = 100 * right / tried if tried else float("nan")
        limit, step = (what_drafts_allow(offline, n, k, accepted, key)
                       for key in ("limit", "tokens_per_s"))
        rows.append([str(n), str(k), tried, accepted,
                     m.median(results, "speed"), ratio, limit, step])
    m.print_table(f"Drafts, answers of {opt.output} tokens, {opt.model}",
                  ("batch", "drafts", "tried", "accepted, %", "decode tokens/s",
                   "/ without drafts", "allowed by bytes and operations", "by steps of bench"),
                  rows)
    if opt.svg:
        m.write_svg(opt.svg, "Speed with drafts", opt.batch, "/ without drafts",
                    {f"{k} a token": [r[5] for r in rows if r[1] == str(k)] for k in opt.drafts})


if __name__ == "__main__":
    main()
