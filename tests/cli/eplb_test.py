#!/usr/bin/env python3
"""What users see of `cminfer eplb`: the published example, an independent second implementation on
random loads, and one clear line for every wrong input.

  eplb_test.py CMINFER
"""
import json
import os
import random
import struct
import subprocess
import sys
import tempfile
import unittest

CMINFER = os.path.abspath(sys.argv[1])
FEW = "CMI_FEW" in os.environ

EXAMPLE = [[90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86],
           [20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27]]
EXAMPLE_SHAPE = {"replicas": 16, "groups": 4, "nodes": 2, "ranks": 8}


def f32(x):
    """The float32 next to x. Sums and quotients of two, made in double, are right then."""
    return struct.unpack("f", struct.pack("f", x))[0]


def pack(loads, n_packs):
    """The pack of each item and its place there: heaviest first, into the lightest with room."""
    room = len(loads) // n_packs
    if room == 1:
        return [(i, 0) for i in range(n_packs)]
    sums, packs, found = [0.0] * n_packs, [[] for _ in range(n_packs)], {}
    for item in sorted(range(len(loads)), key=lambda i: -loads[i]):
        best = min((p for p in range(n_packs) if len(packs[p]) < room), key=lambda p: sums[p])
        found[item] = (best, len(packs[best]))
        packs[best].append(item)
        sums[best] = f32(sums[best] + loads[item])
    return [found[i] for i in range(len(loads))]


def place_layer(loads, n_slots, n_groups, n_nodes, n_ranks):
    """The slots of each expert, first replica first."""
    if n_groups % n_nodes != 0:
        n_groups = n_nodes = 1
    size = len(loads) // n_groups
    groups = [f32(sum(loads[g * size:(g + 1) * size])) for g in range(n_groups)]
    nodes = [{} for _ in range(n_nodes)]
    for g, (node, place) in enumerate(pack(groups, n_nodes)):
        nodes[node][place] = range(g * size, (g + 1) * size)
    slots = [[] for _ in loads]
    for n, node in enumerate(nodes):
        experts = [e for place in sorted(node) for e in node[place]]
        counts = dict.fromkeys(experts, 1)
        items = list(experts)
        while len(items) < n_slots // n_nodes:
            best = max(experts, key=lambda e: f32(loads[e] / counts[e]))
            items.append(best)
            counts[best] += 1
        placed = pack([f32(loads[e] / counts[e]) for e in items], n_ranks // n_nodes)
        for e, (rank, place) in zip(items, placed):
            slots[e].append((n * (n_ranks // n_nodes) + rank) * (n_slots // n_ranks) + place)
    return slots


def reference(load, shape):
    layers = [place_layer([f32(x) for x in layer], shape["replicas"], shape["groups"],
                          shape["nodes"], shape["ranks"]) for layer in load]
    most = max(len(slots) for layer in layers for slots in layer)
    physical = [[None] * shape["replicas"] for _ in layers]
    for row, layer in zip(physical, layers):
        for expert, slots in enumerate(layer):
            for slot in slots:
                row[slot] = expert
    return {"physical_to_logical": physical,
            "logical_to_physical": [[s + [-1] * (most - len(s)) for s in layer]
                                    for layer in layers],
            "replica_counts": [[len(s) for s in layer] for layer in layers]}


class Eplb(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.folder.name, "load.json")
        self.addCleanup(self.folder.cleanup)

    def run_on(self, load, shape, *options):
        with open(self.path, "w") as file:
            file.write(load if isinstance(load, str) else json.dumps(load))
        shape = [word for name, n in shape.items() for word in (f"--{name}", str(n))]
        return subprocess.run([CMINFER, "eplb", "--load", self.path, *shape, *options],
                              capture_output=True, text=True, timeout=300)

    def place(self, load, shape):
        done = self.run_on(load, shape, "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("\n"), 1)
        return json.loads(done.stdout)

    def test_the_published_example(self):
        got = self.place(EXAMPLE, EXAMPLE_SHAPE)
        self.assertEqual(list(got), ["physical_to_logical", "logical_to_physical",
                                     "replica_counts"])
        self.assertEqual(got["physical_to_logical"],
                         [[5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1],
                          [7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1]])
        self.assertEqual(got["replica_counts"], [[1, 2, 1, 1, 2, 2, 1, 1, 1, 1, 2, 1],
                                                 [1, 2, 1, 1, 1, 2, 2, 1, 2, 1, 1, 1]])
        self.assertEqual(got["logical_to_physical"][0][:6],
                         [[12, -1], [15, 13], [11, -1], [6, -1], [7, 5], [0, 2]])
        self.assertEqual(got, reference(EXAMPLE, EXAMPLE_SHAPE))

    def random_shape(self, rng):
        while True:
            nodes = rng.choice([1, 1, 2, 3, 4])
            shape = {"nodes": nodes, "ranks": nodes * rng.choice([1, 2, 3, 8])}
            groups = nodes * rng.randint(1, 4) if rng.random() < 0.7 else rng.randint(1, 7)
            n_experts = groups * rng.choice([1, 2, 3, 8, 32])
            shape.update(groups=groups, replicas=shape["ranks"] * rng.randint(1, 12))
            if n_experts <= shape["replicas"]:
                return n_experts, shape

    def test_a_second_implementation_agrees(self):
        for seed in range(20 if FEW else 200):
            rng = random.Random(seed)
            n, shape = self.random_shape(rng)
            draw = rng.choice([lambda: rng.randrange(1000), lambda: rng.randrange(4),
                               lambda: rng.choice([0, 0, 7]), lambda: rng.random() * 1e6])
            load = [[draw() for _ in range(n)] for _ in range(rng.randint(1, 3))]
            if n // shape["groups"] > 1 and isinstance(load[0][0], float):
                load = [[round(x) for x in layer] for layer in load]  # sums of groups are exact
            self.assertEqual(self.place(load, shape), reference(load, shape), f"seed {seed}")

    def test_the_table_for_people(self):
        done = self.run_on(EXAMPLE, EXAMPLE_SHAPE)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("4 groups on 2 nodes (hierarchical)", done.stdout)
        rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
        # 12 in order on 8 ranks: 2 2 2 2 1 1 1 1, so (104 + 165) / (1033 / 8); 156 / (1033 / 8).
        self.assertEqual(rows["0"], ["2.083", "1.208", "2", "of", "expert", "1"])
        self.assertEqual(rows["mean"][1], "1.225")
        flat = self.run_on([[1] * 8], {"replicas": 8, "groups": 3, "nodes": 2, "ranks": 4})
        self.assertIn("global", flat.stdout)

    def test_a_layer_without_load(self):
        got = self.place([[0, 0, 0, 0]], {"replicas": 6, "ranks": 2})
        self.assertEqual(got["replica_counts"], [[3, 1, 1, 1]])

    def refused(self, status, words, load, shape, *options):
        done = self.run_on(load, shape, *options, "--json")
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
        for word in words:
            self.assertIn(word, done.stderr)

    def test_wrong_loads(self):
        shape = {"replicas": 4, "ranks": 2}
        for load, word in (("", "line"), ("[[1, NaN]]", "NaN"), ("[[1, 1e999]]", "overflow"),
                           ("[[1, 2], [3]]", "layer 1"), ("[[1, -2]]", "expert 1"),
                           ("[[1e31, 2]]", "1e30"), ("[[1, 1e-31]]", "1e-30"),
                           ('[[1, "2"]]', "expert 1"), ("[[1, null]]", "expert 1"),
                           ("[1, 2]", "layer 0"), ("[]", "layers"), ("[[]]", "layer 0"),
                           ('{"load": [[1]]}', "array"), ("[[1, 2]", "line"),
                           ("[[1]] x", "line"), ("\xff", "line"),
                           (json.dumps([[1] * 1025]), "1024"),
                           (json.dumps([[1]] * 1025), "1024"),
                           ("[[99999999999999999999]]", "integer")):
            with self.subTest(load[:20]):
                self.refused(1, [word, "load.json: "], load, shape)

    def test_wrong_shapes(self):
        for word, change in (("fewer replicas", {"replicas": 8}),
                             ("multiple of the ranks", {"replicas": 15}),
                             ("multiple of the groups", {"groups": 10}),
                             ("multiple of the nodes", {"nodes": 4, "ranks": 2}),
                             ("--replicas", {"replicas": 5000}), ("--ranks", {"ranks": 0}),
                             ("--nodes", {"nodes": "x"}), ("--groups", {"groups": -1})):
            with self.subTest(word):
                self.refused(2, [word], EXAMPLE, {**EXAMPLE_SHAPE, **change})
        self.refused(2, ["--replicas"], EXAMPLE, {"ranks": 2})
        self.refused(2, ["--oops"], EXAMPLE, EXAMPLE_SHAPE, "--oops")

    def test_a_file_that_is_not_there(self):
        done = subprocess.run([CMINFER, "eplb", "--load", self.path, "--replicas", "4", "--ranks",
                               "2"], capture_output=True, text=True, timeout=300)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1))
        self.assertIn("load.json", done.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
