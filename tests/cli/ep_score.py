#!/usr/bin/env python3
"""`cminfer score --ep N` prints the bytes of one process: any number of ranks, of one host or two
(which are this one) and over shared memory or UCX, redundant experts, weights and KV of every
type, drafts, chunks, prompts that ranks share or not; and when ranks are killed meanwhile.

  ep_score.py CMINFER MODEL_DIR [--full]

Of all combinations a part in which every pair of values meets, or with --full all.
"""
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server"))
from live_server import free_ports  # pylint: disable=wrong-import-position

KINDS = (("--dtype", "bf16"), ("--dtype", "f32"), ("-q", "w8a8-int8"),
         ("-q", "w8a8-int8", "--kv-cache-dtype", "int8"))
AXES = {
    "ranks": (1, 2, 3, 4, 8, 16),
    "hosts": (0, 1, 2),
    "redundant": (0, 5, 16),
    "microbatches": (0, 1, 2),
    "eplb": (0, 4),
    "staged": (0, 1),
    "kind": tuple(range(len(KINDS))),
    "chunk": (7, 64, 512),
    "threads": (1, 4),
}
ALONE = {"ranks": 1, "hosts": 0, "redundant": 0, "microbatches": 0, "eplb": 0, "staged": 0,
         "chunk": 2048,
         "threads": 2}
TEXT = "ROMEO: But soft! What light through yonder window breaks? 12 + 30 = "


def hosts_of(case):
    if case["hosts"] == 0:
        return []
    n_ports = 2 * case["ranks"] // case["hosts"]
    first = free_ports(n_ports * case["hosts"])
    hosts = [f"127.0.0.1:{first + host * n_ports}" for host in range(case["hosts"])]
    return ["--ep-hosts", ",".join(hosts)]


def command(cminfer, model, case, generate):
    return [cminfer, "score", model, "--text", TEXT * 2, "--top", "5", "--drafts",
            "--generate", str(generate), *KINDS[case["kind"]],
            "--ep", str(case["ranks"]), "--ep-num-redundant-experts", str(case["redundant"]),
            "--ep-microbatches", str(case["microbatches"]),
            *(["--enable-eplb", "--eplb-step-interval", str(case["eplb"])] if case["eplb"] else []),
            *(["--ep-staged-prefill"] if case["staged"] else []),
            *hosts_of(case), "-b", str(case["chunk"]), "--threads", str(case["threads"])]


def is_valid(case):
    if case["ranks"] == 1:
        return all(case[name] == 0
                   for name in ("hosts", "redundant", "microbatches", "eplb", "staged"))
    return case["hosts"] == 0 or case["ranks"] % case["hosts"] == 0


def pairs_of(case):
    return set(itertools.combinations(sorted(case.items()), 2))


def pairwise(cases, seed):
    """Cases in which every pair of values that can meet does: the best of some, again and again."""
    left = set().union(*map(pairs_of, cases))
    chosen = []
    while left:
        some = random.Random(seed + len(chosen)).sample(cases, min(len(cases), 60))
        best = max(some, key=lambda case: len(pairs_of(case) & left))
        if pairs_of(best) & left:
            chosen.append(best)
            left -= pairs_of(best)
        else:
            seed += 1
    return chosen


def run(args, n_hosts=1):
    """What the first host prints."""
    others = [subprocess.Popen([*args, "--node-rank", str(host + 1)], stderr=subprocess.DEVNULL)
              for host in range(n_hosts - 1)]
    done = subprocess.run(args, capture_output=True, timeout=1200)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)}\nexit status {done.returncode}: {done.stderr.decode()[-2000:]}")
    for host, other in enumerate(others):
        if other.wait(timeout=600) != 0:
            sys.exit(f"{' '.join(args)}\nhost {host + 1}: exit status {other.returncode}")
    shared = re.search(rb"rank 0: prompts were shared in (\d+) of", done.stderr)
    if "--ep-staged-prefill" in args and "7" not in args and not (shared and int(shared[1]) > 0):
        sys.exit(f"{' '.join(args)}\nshares no prompt: {done.stderr.decode()[-2000:]}")
    return done.stdout


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


def check_killed(cminfer, model, want, case, seed):
    """One rank after the other but the first is killed while tokens come. False: all of them had
    come before this process saw it."""
    rng = random.Random(seed)
    args = command(cminfer, model, case, 40)
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(args, stdout=subprocess.PIPE, stderr=log)
        killed, got = 0, b""
        at = sorted(rng.sample(range(60, 95), case["ranks"] - 1))
        for i, line in enumerate(process.stdout):
            got += line
            ranks = children_of(process.pid) if killed < len(at) and i == at[killed] else []
            if ranks:
                os.kill(rng.choice(ranks), signal.SIGKILL)
                killed += 1
        status = process.wait()
        log.seek(0)
        if got != want or status != 0:
            sys.exit(f"seed {seed}: {killed} ranks were killed, status {status}, "
                     f"{len(got)} bytes of {len(want)}: {log.read().decode()[-3000:]}")
    return killed == len(at)


def main():
    cminfer, model = sys.argv[1:3]
    os.environ["CMINFER_CLUSTER_SECRET"] = "%032x" % random.SystemRandom().getrandbits(128)
    cases = [dict(zip(AXES, values)) for values in itertools.product(*AXES.values())]
    cases = [case for case in cases if is_valid(case)]
    if "--full" not in sys.argv:
        cases = pairwise(cases, 1)
    if "CMI_FEW" in os.environ:
        cases = cases[::6]
    want = {}
    for kind in range(len(KINDS)):
        want[kind] = run(command(cminfer, model, {**ALONE, "kind": kind}, 6))
    for case in cases:
        if run(command(cminfer, model, case, 6), case["hosts"]) != want[case["kind"]]:
            sys.exit(f"other bytes with {case}")
    seeds = range(2 if "CMI_FEW" in os.environ else 6)
    alone = {**ALONE, "kind": 2}
    long = run(command(cminfer, model, alone, 40))
    for seed in seeds:
        case = {**ALONE, "ranks": 2 + seed % 3, "hosts": seed // 4 % 2, "kind": 2,
                "redundant": 4 * (seed % 2), "staged": seed % 2,
                "microbatches": 1 + seed // 3 % 2, "eplb": 5 * (seed // 2 % 2), "chunk": 64}
        if not any(check_killed(cminfer, model, long, case, seed) for _ in range(20)):
            sys.exit(f"seed {seed}: the ranks were never alive to be killed")
    print(f"{len(cases)} ways to run ranks, {len(seeds)} times ranks killed: the same bytes")


main()
