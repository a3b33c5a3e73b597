#!/usr/bin/env python3
"""`cminfer serve --ep N` answers as one process does, also when its ranks are killed in the middle.

  ranks_test.py CMINFER MODEL_DIR [--times N] [--ranks N] [--hosts N] [--seed N]

With --hosts the ranks are on as many, all of which are this one, and meet over UCX. 64 streams at a
time; in each round a rank is killed with -9 after a number of tokens that the seed decides. Every
stream ends with the bits of one process. Prints how long no token came.
"""
import argparse
import json
import os
import random
import re
import signal
import statistics
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(__file__))
from live_server import Server, free_ports  # pylint: disable=wrong-import-position

FEW = "CMI_FEW" in os.environ
N_STREAMS = 12 if FEW else 64
KINDS = ["-q", "w8a8-int8", "--max-num-seqs", "16", "--num-speculative-tokens", "1"]
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}},
          "required": ["a", "b"], "additionalProperties": False}


def body_of(i):
    rng = random.Random(i)
    body = {"prompt": [rng.randrange(3, 2000) for _ in range(rng.randrange(1, 150))],
            "max_tokens": 24 if FEW else 60, "temperature": rng.choice([0, 0.7, 1.2]), "seed": i,
            "logprobs": 2, "stream": True, "ignore_eos": rng.random() < 0.7,
            "frequency_penalty": rng.choice([0, 0.5])}
    if i % 4 == 0:
        body["response_format"] = {"type": "json_schema",
                                   "json_schema": {"name": "x", "schema": SCHEMA}}
    return body


class Stream(threading.Thread):
    """One request; what is left of its answer when ids and times are taken away."""

    def __init__(self, server, i, counter):
        super().__init__(daemon=True)
        self.server, self.i, self.counter = server, i, counter
        self.answer, self.times = [], []

    def run(self):
        sock = self.server.send("/v1/completions", body_of(self.i))
        for line in sock.makefile("rb"):
            if not line.startswith(b"data: "):
                continue
            if line.startswith(b"data: [DONE]"):
                self.answer.append("DONE")
                break
            event = json.loads(line[6:])
            self.answer.append(event.get("choices") or event)
            self.times.append(time.monotonic())
            self.counter.add()
        sock.close()


class Counter:
    def __init__(self):
        self.n, self.lock = 0, threading.Condition()

    def add(self):
        with self.lock:
            self.n += 1
            self.lock.notify_all()

    def wait(self, n):
        with self.lock:
            assert self.lock.wait_for(lambda: self.n >= n, timeout=600), self.n


def plain(answer):
    """Tokens as they came, however they were cut into events."""
    text = "".join(c["text"] for choices in answer[:-1] if isinstance(choices, list)
                   for c in choices)
    logprobs = [x for choices in answer[:-1] if isinstance(choices, list) for c in choices
                if c.get("logprobs") for x in zip(c["logprobs"]["tokens"],
                                                  c["logprobs"]["token_logprobs"])]
    reasons = [c["finish_reason"] for choices in answer[:-1] if isinstance(choices, list)
               for c in choices if c["finish_reason"]]
    return text, logprobs, reasons, answer[-1:]


def ask_all(server, in_between=lambda counter: None):
    counter = Counter()
    streams = [Stream(server, i, counter) for i in range(N_STREAMS)]
    for stream in streams:
        stream.start()
    in_between(counter)
    for stream in streams:
        stream.join(1200)
        assert not stream.is_alive(), f"stream {stream.i} hangs"
    return [plain(stream.answer) for stream in streams], streams


def ranks_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def start_ranks(opt):
    """The server, and what runs on the other hosts."""
    options = [opt.cminfer, opt.model, *KINDS, "--ep-staged-prefill", "--ep", str(opt.ranks),
               "--ep-num-redundant-experts", "5", "--enable-eplb", "--eplb-step-interval", "8"]
    if opt.hosts == 0:
        return Server(*options), []
    n_ports = 2 * opt.ranks // opt.hosts
    first = free_ports(n_ports * opt.hosts)
    options += ["--ep-hosts", ",".join(f"127.0.0.1:{first + host * n_ports}"
                                       for host in range(opt.hosts))]
    os.environ["CMINFER_CLUSTER_SECRET"] = f"{random.SystemRandom().getrandbits(128):032x}"
    others = [Server(*options, "--node-rank", str(host), wait=False)
              for host in range(1, opt.hosts)]
    return Server(*options), others


def longest_silence(streams, killed_at):
    """Between the last token of anybody before the kill and the first one after it that came
    later than a stream's usual pace."""
    times = sorted(t for stream in streams for t in stream.times)
    after = [t for t in times if t > killed_at]
    before = [t for t in times if t <= killed_at]
    around = before[-1:] + after
    gaps = [b - a for a, b in zip(around, around[1:])]
    return max(gaps, default=0.0)


def of_ranks(server, name, label="rank"):
    """A metric's value for each rank, or for each value of another label."""
    text = server.get("/metrics").body.decode()
    return dict((key, float(value)) for key, value in re.findall(
        rf'^{re.escape(name)}{{[^}}]*,{label}="([^"]*)"}} (\S+)$', text, re.M))


def check_metrics(server, n_ranks):
    """Each rank tells of itself, also of what it computes for others alone."""
    ranks = {str(i) for i in range(n_ranks)}
    server.wait_for("a word of every rank", lambda: all(
        of_ranks(server, "cminfer:rank_expert_rows_total").get(rank, 0) > 0 for rank in ranks))
    for name in ("up", "passes_total", "pass_seconds_total"):
        values = of_ranks(server, "cminfer:rank_" + name)
        assert set(values) == ranks and all(value > 0 for value in values.values()), (name, values)
    seconds = of_ranks(server, "cminfer:rank_pass_seconds_total")
    for rank, waited in of_ranks(server, "cminfer:rank_wait_seconds_total").items():
        assert 0 <= waited, (rank, waited, seconds)
    for name in ("experts_moved_total", "experts_adopted"):
        assert set(of_ranks(server, "cminfer:rank_" + name)) == ranks, name
    server.wait_for("a plan", lambda: of_ranks(server, "cminfer:expert_imbalance", "state"))
    imbalance = of_ranks(server, "cminfer:expert_imbalance", "state")
    assert set(imbalance) == {"measured", "planned"}, imbalance
    assert 1 <= imbalance["planned"] and 1 <= imbalance["measured"] <= n_ranks, imbalance
    assert server.metric("cminfer:eplb_plans_total") >= 1


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cminfer")
    parser.add_argument("model")
    parser.add_argument("--times", type=int, default=2 if FEW else 4)
    parser.add_argument("--ranks", type=int, default=3)
    parser.add_argument("--hosts", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    opt = parser.parse_args()
    one = Server(opt.cminfer, opt.model, *KINDS)
    want, _ = ask_all(one)
    assert one.stop() == 0
    server, others = start_ranks(opt)
    got, _ = ask_all(server)
    assert got == want, "ranks answer otherwise"
    check_metrics(server, opt.ranks)
    n_events = sum(len(logprobs) for _, logprobs, _, _ in want)
    silences = []
    for seed in range(opt.seed, opt.seed + opt.times):
        rng = random.Random(seed)
        killed_at = []

        def kill_one(counter, rng=rng, killed_at=killed_at):
            counter.wait(rng.randrange(1, n_events // 2))
            ranks = [rank for host in (server, *others) for rank in ranks_of(host.pid)]
            os.kill(rng.choice(ranks), signal.SIGKILL)
            killed_at.append(time.monotonic())

        n_lost = server.metric("cminfer:ranks_lost_total")
        got, streams = ask_all(server, kill_one)
        wrong = [i for i in range(N_STREAMS) if got[i] != want[i]]
        assert not wrong, f"seed {seed}: streams {wrong}: {got[wrong[0]]} != {want[wrong[0]]}"
        silences.append(longest_silence(streams, killed_at[0]))
        server.wait_for("the rank's return", lambda: (
            server.metric("cminfer:ranks_lost_total") > n_lost and
            server.metric("cminfer:ranks_up") == opt.ranks))
        assert server.metric("cminfer:ranks_lost_total") == n_lost + 1, "others died"
        print(f"seed {seed}: {N_STREAMS} streams with the right bits, "
              f"no token for {silences[-1] * 1e3:.0f} ms", flush=True)
    moved = server.metric("cminfer:requests_moved_total")
    assert moved > 0
    assert server.stop() == 0
    assert all(other.stop() == 0 for other in others)
    print(f"{opt.times} ranks killed, {moved:.0f} requests moved; silence: median "
          f"{statistics.median(silences) * 1e3:.0f} ms, longest {max(silences) * 1e3:.0f} ms")


main()
