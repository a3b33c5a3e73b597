#!/usr/bin/env python3
"""What redundant experts are worth: the load of the busiest rank over the mean of the ranks, when
the demand for experts follows Zipf's law: the k-th in demand gets a share like 1 / k^s, and which
expert that is, is drawn for each layer. First every expert once and in order, then placed by
`cminfer eplb` with 0, 16, 32 and 64 further replicas. No time is measured: the figures are the same
on every machine.

example:
  tools/measure/expert_placement.py --skews 0.5 1 --ranks 16
"""
import argparse
import json
import os
import random
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def arguments():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cminfer", default=os.path.join(ROOT, "build", "cminfer"),
                   help="the program (default: build/cminfer)")
    p.add_argument("--skews", type=float, nargs="+", default=[0.5, 0.75, 1],
                   help="s of Zipf's law (default 0.5 0.75 1)")
    p.add_argument("--ranks", type=int, nargs="+", default=[8, 16],
                   help="that share the slots (default 8 16); below them, a rank for each slot")
    p.add_argument("--experts", type=int, default=256, help="of a layer (default 256)")
    p.add_argument("--groups", type=int, default=8, help="for the rows with nodes (default 8)")
    p.add_argument("--nodes", type=int, default=4, help="of the same rows (default 4)")
    p.add_argument("--replicas", type=int, nargs="+", default=[0, 16, 32, 64],
                   help="beyond one for each expert (default 0 16 32 64)")
    p.add_argument("--layers", type=int, default=58, help="(default 58)")
    p.add_argument("--seed", type=int, default=1)
    return p.parse_args()


def zipf_loads(opt, skew):
    rng = random.Random(opt.seed)
    shares = [round(1e6 / (k + 1) ** skew) for k in range(opt.experts)]
    return [rng.sample(shares, len(shares)) for _ in range(opt.layers)]


def imbalance(layer, experts, n_ranks):
    """max / mean over ranks that share the slots evenly, the first ones with one more."""
    counts = [experts.count(e) for e in range(len(layer))]
    n_each, n_longer = divmod(len(experts), n_ranks)
    sums, at = [], 0
    for rank in range(n_ranks):
        n = n_each + (rank < n_longer)
        sums.append(sum(layer[e] / counts[e] for e in experts[at:at + n]))
        at += n
    return max(sums) * n_ranks / sum(sums)


def placed(opt, load, n_slots, n_ranks, n_groups, n_nodes):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(load, file)
        file.flush()
        command = [opt.cminfer, "eplb", "--json", "--load", file.name, "--replicas", n_slots,
                   "--ranks", n_ranks, "--groups", n_groups, "--nodes", n_nodes]
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())
    return json.loads(done.stdout)["physical_to_logical"]


def cell(load, placements, n_ranks):
    found = [imbalance(layer, experts, n_ranks) for layer, experts in zip(load, placements)]
    return f"{sum(found) / len(found):.2f} ({max(found):.2f})"


def main():
    opt = arguments()
    kinds = [(str(n), n, 1, 1) for n in opt.ranks]
    kinds += [(f"{n} on {opt.nodes} nodes", n, opt.groups, opt.nodes) for n in opt.ranks]
    kinds += [("one for each slot", None, 1, 1)]
    print(f"{opt.experts} experts, {opt.layers} layers, seed {opt.seed}: max / mean, average of "
          "the layers (worst layer)\n")
    heads = ["s", "ranks", "in order", *(f"+{n}" for n in opt.replicas)]
    print("| " + " | ".join(heads) + " |")
    print("| ---: | --- |" + " ---: |" * (len(heads) - 2))
    for skew in opt.skews:
        load = zipf_loads(opt, skew)
        in_order = [list(range(opt.experts))] * opt.layers
        for name, n_ranks, n_groups, n_nodes in kinds:
            cells = [f"{skew:g}", name, cell(load, in_order, n_ranks or opt.experts)]
            for n in opt.replicas:
                n_slots = opt.experts + n
                found = placed(opt, load, n_slots, n_ranks or n_slots, n_groups, n_nodes)
                cells.append(cell(load, found, n_ranks or n_slots))
            print("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
