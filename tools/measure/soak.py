#!/usr/bin/env python3
"""A server at saturation for minutes, with clients that leave: whether memory and descriptors grow,
whether anything is held at rest, whether each request ended once, and how its tokens a second
compare with those of `cminfer bench` on the same batch.

The exit status is 1 when something is held at rest or a request did not end once.

example:
  tools/measure/soak.py models/matrix-tiny --minutes 30 --svg soak.svg
"""
import collections
import json
import re
import statistics
import subprocess
import sys
import threading
import time

import measuring as m


class Watcher:
    """Resident memory, descriptors and generated tokens, every second."""

    def __init__(self, server):
        self.server, self.is_over = server, threading.Event()
        self.mib, self.descriptors, self.tokens = [], [], []
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.is_over.wait(1):
            self.mib.append(self.server.resident_mib())
            self.descriptors.append(self.server.n_descriptors())
            self.tokens.append((time.monotonic(),
                                self.server.metrics()["vllm:generation_tokens_total"]))

    def stop(self):
        self.is_over.set()
        self.thread.join()

    def tokens_per_s(self):
        """The median of the seconds: the pauses between two loads do not count."""
        speeds = [(b - a) / (t - s) for (s, a), (t, b) in zip(self.tokens, self.tokens[1:])]
        return statistics.median(speeds) if speeds else float("nan")


def offline_tokens_per_s(opt):
    """Of a decode step with as many sequences, with the context that they have on average."""
    done = subprocess.run([opt.cminfer, "bench", opt.model, *opt.model_options.split(), "-p", "0",
                           "-n", "32", "-d", str(opt.input + opt.output // 2), "--batch",
                           str(opt.concurrency), "--json"],
                          capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return next(r["tokens_per_s"] for r in rows if r["test"].startswith("tg"))


def ends(server):
    """{request id: how often its end was logged}."""
    ids = (re.search(r"request id=(\S+) POST /v1/completions", line) for line in server.log)
    return collections.Counter(found[1] for found in ids if found)


def wait_for_rest(server):
    for _ in range(600):
        now = server.metrics()
        if not now["vllm:num_requests_running"] + now["vllm:num_requests_waiting"]:
            return now
        time.sleep(0.1)
    return now


def soak(opt, server):
    """Loads, one behind the other, until the time is over: {what: how many}."""
    total, end, number = collections.Counter(), time.monotonic() + opt.minutes * 60, 0
    while number == 0 or time.monotonic() < end:
        result = m.load(opt, server, num_prompts=opt.requests, max_concurrency=opt.concurrency,
                        cancel_rate=0.1, cancel_delay=opt.cancel_delay, seed=number,
                        random_input_len=opt.input, random_output_len=opt.output,
                        random_range_ratio=0.5)
        total.update({k: result[k] for k in ("completed", "cancelled", "failed", "rejected")})
        number += 1
    return total


def main():
    p = m.parser(__doc__)
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--requests", type=int, default=1000, help="of each load (default 1000)")
    p.add_argument("--concurrency", type=int, default=64)
    p.add_argument("--cancel-delay", type=float, default=0.2,
                   help="seconds after which 10 %% of the clients leave (default 0.2)")
    p.add_argument("--input", type=int, default=128, help="tokens of a prompt (default 128)")
    p.add_argument("--output", type=int, default=64, help="tokens of an answer (default 64)")
    opt = m.arguments(p, {"minutes": 0.05, "requests": 40, "concurrency": 4, "input": 16,
                          "cancel_delay": 0.02})
    with m.Server(opt, "--max-num-seqs", opt.concurrency) as server:
        m.load(opt, server, num_prompts=opt.concurrency, max_concurrency=opt.concurrency,
               random_input_len=opt.input, random_output_len=opt.output)  # memory is there then
        n_before, mib_before = server.n_descriptors(), server.resident_mib()
        watcher = Watcher(server)
        total = soak(opt, server)
        watcher.stop()
        rest = wait_for_rest(server)
        mib_after, n_after = server.resident_mib(), server.n_descriptors()
    counts = ends(server)
    n_clients = sum(total.values()) + opt.concurrency
    n_twice = sum(1 for n in counts.values() if n != 1)
    offline, served = offline_tokens_per_s(opt), watcher.tokens_per_s()
    m.print_table(f"{opt.minutes:g} minutes, {opt.concurrency} at a time, 10 % leave, {opt.model}",
                  ("", "before", "most", "after"), [
                      ["resident memory, MiB", mib_before, max(watcher.mib, default=mib_before),
                       mib_after],
                      ["open descriptors", n_before, max(watcher.descriptors, default=n_before),
                       n_after],
                      ["KV in use, % of pages", "", "", 100 * rest["vllm:kv_cache_usage_perc"]],
                      ["requests: completed, left, failed", total["completed"], total["cancelled"],
                       total["failed"] + total["rejected"]],
                      ["requests: sent, ended, not once", n_clients, len(counts), n_twice],
                      ["tokens/s: offline, served, ratio", offline, served, served / offline]])
    if opt.svg:
        m.write_svg(opt.svg, "Resident memory", range(len(watcher.mib)), "MiB",
                    {"MiB": watcher.mib})
    if rest["vllm:kv_cache_usage_perc"] or n_twice or total["failed"]:
        sys.exit("something is held at rest, failed, or did not end once")


if __name__ == "__main__":
    main()
