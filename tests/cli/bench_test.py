#!/usr/bin/env python3
"""cminfer bench: rows that parse and add up, in every format. Nothing here looks at a clock.

  bench_test.py CMINFER MODELS
"""
import csv
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

CMINFER, MODELS = map(os.path.abspath, sys.argv[1:3])
SOURCE = os.path.dirname(MODELS)
TINY = os.path.join(MODELS, "matrix-tiny")


def run(*args):
    return subprocess.run([CMINFER, "bench", "--memory", "64", "--seconds", "0", *args],
                          capture_output=True, text=True, timeout=300, check=False)


class Bench(unittest.TestCase):
    def rows(self, *args):
        result = run(*args, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        return [json.loads(line) for line in result.stdout.splitlines()]


class Machine(Bench):
    def test_limits_and_the_profile(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "machine.json")
            rows = self.rows("--machine", "--threads", "2", "--profile", path)
            with open(path, encoding="utf-8") as file:
                profile = json.load(file)
        limits = {(row["limit"], row["isa"], row["threads"]): row["value"] for row in rows}
        self.assertEqual(len(limits), len(rows))
        self.assertTrue(all(value > 0 for value in limits.values()))
        units = {"int8": "op/s", "bf16": "op/s", "f32": "op/s", "bandwidth": "B/s", "signal": "s"}
        for row in rows:
            self.assertEqual(row["unit"], units[row["limit"]])
        for name in ("int8", "bf16", "f32", "bandwidth"):
            for threads in (1, 2):
                self.assertIn((name, "ref", threads), limits)
        self.assertEqual(profile["version"], 1)
        for threads, part in ((1, "one_thread"), (2, "all_threads")):
            part = profile[part]
            self.assertEqual(part["threads"], threads)
            for name, key in (("int8", "int8_ops_per_s"), ("f32", "f32_ops_per_s"),
                              ("bandwidth", "read_bytes_per_s")):
                of_this = [value for (limit, _, n), value in limits.items()
                           if limit == name and n == threads]
                self.assertTrue(any(abs(part[key] / value - 1) < 1e-4 for value in of_this))
            self.assertGreater(part["bf16_ops_per_s"], 0)
        self.assertGreater(profile["signal_seconds"], 0)

    def test_a_profile_that_cannot_be_written(self):
        result = run("--machine", "--threads", "1", "--profile", "/nonexistent/machine.json")
        self.assertEqual(result.returncode, 1)
        self.assertIn("/nonexistent/machine.json", result.stderr)


class Kernels(Bench):
    """A row's figures follow from each other, whatever the machine does."""

    def check(self, row):
        self.assertIn(row["bound"], ("int8", "bf16", "f32", "bandwidth"))
        amount = row["bytes"] if row["bound"] == "bandwidth" else row["ops"]
        self.assertGreater(row["seconds"], 0)
        self.assertAlmostEqual(row["share"], amount / row["limit"] / row["seconds"], delta=1e-6)

    def test_every_kernel_has_rows(self):
        rows = self.rows("--kernels", "--isa", "ref", "--shapes", "3x40x24", "--threads", "1")
        for row in rows:
            self.check(row)
            self.assertEqual((row["isa"], row["threads"]), ("ref", 1))
        with open(os.path.join(SOURCE, "src/kernels/kernels.h"), encoding="utf-8") as file:
            names = re.findall(r"^    X\((\w+), cmi_\w+_fn\)", file.read(), re.MULTILINE)
        self.assertGreater(len(names), 10)
        self.assertEqual(list(dict.fromkeys(row["kernel"] for row in rows)), names)

    def test_products(self):
        rows = self.rows("--kernels", "--only", "gemm_i8,gemm_bf16", "--shapes",
                         "16x96x128,1x64x64", "--threads", "2")
        self.assertEqual({row["kernel"] for row in rows}, {"gemm_i8", "gemm_bf16"})
        for row in rows:
            self.check(row)
            n_rows, n_cols, n_k = map(int, row["shape"].split("x"))
            self.assertEqual(row["ops"], 2 * n_rows * n_cols * n_k)
            if row["kernel"] == "gemm_bf16":
                self.assertEqual(row["bytes"], 2 * (n_rows + n_cols) * n_k)
            else:  # blocks of 16 outputs: 128 bytes of head, then the weights
                self.assertEqual(row["bytes"], n_cols // 16 * (128 + 16 * n_k) + n_rows * n_k)
            self.assertTrue(row["onednn"] is None or row["onednn"] > 0)
        cut = {(row["kernel"], row["isa"], row["shape"]): [] for row in rows}
        for row in rows:
            cut[row["kernel"], row["isa"], row["shape"]].append(row["threads"])
        self.assertTrue(all(threads == [1, 2] for threads in cut.values()))


class Models(Bench):
    def check(self, row):
        self.assertAlmostEqual(row["tokens_per_s"], row["batch"] * int(row["test"][2:])
                               / row["seconds"], delta=1e-5 * row["tokens_per_s"])
        self.assertIn(row["bound"], ("int8", "bf16", "f32", "bandwidth"))
        self.assertGreater(row["share"], 0)
        self.assertEqual(row["threads"], 2)

    def test_a_model(self):
        rows = self.rows(TINY, "-p", "20,70", "-n", "3", "-d", "0,65", "--batch", "1,9",
                         "--prompt-batch", "1,2", "-r", "1", "--threads", "2",
                         "--max-num-batched-tokens", "64")
        for row in rows:
            self.check(row)
            self.assertEqual((row["model"], row["weights"], row["stage"]),
                             ("matrix-tiny", "bf16", "all"))
        want = [(f"pp{n}", batch, depth) for n in (20, 70) for batch in (1, 2) for depth in (0, 65)]
        want += [("tg3", batch, depth) for batch in (1, 9) for depth in (0, 65)]
        self.assertEqual([(row["test"], row["batch"], row["depth"]) for row in rows], want)
        costs = {(row["test"], row["batch"], row["depth"]): row for row in rows}
        one, nine = costs["tg3", 1, 65], costs["tg3", 9, 65]
        self.assertEqual(nine["ops"], 9 * one["ops"])
        self.assertLess(nine["bytes"], 9 * one["bytes"])
        self.assertEqual(costs["pp20", 2, 0]["ops"], 2 * costs["pp20", 1, 0]["ops"])

    def test_stages(self):
        config = os.path.join(TINY, "config.json")
        args = ("--config", config, "--random-weights", "-p", "64", "-n", "2", "--batch", "3",
                "-r", "1", "--threads", "2", "--stages", "--max-num-batched-tokens", "64")
        rows = {how: self.rows(*args, "--routing", how) for how in ("gate", "uniform", "zipf")}
        stages = ["all", "mla_prolog", "attention", "output_projection", "dense_ffn", "gate",
                  "dispatch", "grouped_experts", "combine", "head"]
        bytes_of_experts = {}
        for how, of_this in rows.items():
            self.assertEqual([row["stage"] for row in of_this], 2 * stages)
            for test in (of_this[:len(stages)], of_this[len(stages):]):
                self.assertAlmostEqual(sum(row["ops"] for row in test[1:]) / test[0]["ops"], 1)
                self.assertAlmostEqual(sum(row["bytes"] for row in test[1:]) / test[0]["bytes"], 1)
                for row in test:
                    self.assertEqual(row["routing"], how)
                    moves_only = row["stage"] in ("dispatch", "combine")
                    self.assertEqual(row["share"] is None, moves_only)
                    self.assertEqual(row["bound"] is None, moves_only)
            bytes_of_experts[how] = of_this[-3]["bytes"]
        # 2 steps of 3 rows with 4 of 16 experts each, of which four layers have less when skewed
        self.assertLess(bytes_of_experts["zipf"], bytes_of_experts["uniform"])

    def test_random_weights(self):
        config = os.path.join(TINY, "config.json")
        args = ("--config", config, "--random-weights", "-p", "5", "-n", "2", "-r", "1",
                "--threads", "2")
        whole, cut = (self.rows(*args, *more) for more in
                      ((), ("--override", "num_hidden_layers=1", "--override", "vocab_size=64",
                            "--quantization", "w8a8-int8")))
        for rows, weights in ((whole, "bf16"), (cut, "int8")):
            self.assertEqual([row["test"] for row in rows], ["pp5", "tg2"])
            for row in rows:
                self.check(row)
                self.assertEqual(row["weights"], weights)
        self.assertLess(cut[1]["bytes"] * 4, whole[1]["bytes"])

    def test_what_does_not_run(self):
        config = os.path.join(TINY, "config.json")
        for args, status, word in (
                ([TINY, "-p", "3000"], 1, "max_position_embeddings 2048"),
                (["/nonexistent"], 1, "/nonexistent"),
                (["--config", "/nonexistent", "--random-weights"], 2, "/nonexistent"),
                (["--config", config], 2, "--random-weights"),
                ([TINY, "--random-weights"], 2, "--config"),
                ([TINY, "--override", "a=1"], 2, "--config"),
                (["--config", config, "--random-weights", "--override", "hidden_size"], 2,
                 "NAME=VALUE"),
                (["--config", config, "--random-weights", "--override", "hidden_size=x"], 2,
                 "hidden_size"),
                ([TINY, "-p", "1,x"], 2, "--n-prompt"), ([TINY, "--batch", "0"], 2, "--batch"),
                ([TINY, "--routing", "fair"], 2, "--routing"),
                (["--machine", "--stages"], 2, "--machine"),
                ([TINY, "--kernels"], 2, "--kernels"), (["--machine", "-p", "1"], 2, "--machine"),
                ([TINY, "--max-model-len", "64"], 2, "--max-model-len")):
            result = run(*args)
            self.assertEqual(result.returncode, status, (args, result.stderr))
            self.assertIn(word, result.stderr)
            if status == 2:
                self.assertEqual(result.stderr.count("\n"), 1, args)


class ExpertParallelism(unittest.TestCase):
    def run_ep(self, *args):
        return subprocess.run([CMINFER, "bench", "ep", "--rows", "5", "--hidden", "128",
                               "--experts", "8", "--top-k", "2", "--rounds", "3", *args],
                              capture_output=True, text=True, timeout=300, check=False)

    def test_both_ways(self):
        for args, way in (((), "direct"), (("--puts",), "put"), (("--delay", "100"), "put"),
                          (("--fabric", "ucx"), "put")):
            result = self.run_ep("--ranks", "1,3", "--json", *args)
            self.assertEqual(result.returncode, 0, result.stderr)
            rows = [json.loads(line) for line in result.stdout.splitlines()]
            self.assertEqual([(row["ranks"], row["way"]) for row in rows], [(1, way), (3, way)])
            for row in rows:
                self.assertEqual(row["combine_bytes"], 5 * 2 * 256)
                # a row goes to a rank once: 512 bytes with its scale
                self.assertLessEqual(512 * 5, row["dispatch_bytes"])
                self.assertLessEqual(row["dispatch_bytes"], 512 * 10)
                self.assertGreater(row["dispatch_seconds"], 0)
                self.assertEqual((row["message_bytes"], row["result_bytes"]), (512, 256))
                for part in ("sort_seconds", "dispatch_share", "dispatch_share_of_put",
                             "combine_share", "combine_share_of_put"):
                    self.assertGreater(row[part], 0, part)
            self.assertEqual(rows[0]["dispatch_bytes"], 512 * 5)

    def test_wrong_usage(self):
        for args in (("--ranks", "0"), ("--ranks", "2,"), ("--top-k", "9"), ("MODEL",)):
            result = self.run_ep(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(len(result.stderr.splitlines()), 1)


class Pipeline(unittest.TestCase):
    def run_pipeline(self, *args):
        return subprocess.run([CMINFER, "bench", "pipeline", *args], capture_output=True,
                              text=True, timeout=300, check=False)

    def test_one_and_two_microbatches(self):
        for model in ((TINY,), ("--config", os.path.join(TINY, "config.json"), "--random-weights",
                                "--override", "num_hidden_layers=3", "-q", "w8a8-int8")):
            result = self.run_pipeline(*model, "--json", "-r", "2", "-p", "20,1", "--batch", "3,0",
                                       "--drafts", "2", "-d", "70", "--delay", "1,30", "--ep", "3")
            self.assertEqual(result.returncode, 0, result.stderr)
            rows = [json.loads(line) for line in result.stdout.splitlines()]
            self.assertEqual([(row["test"], row["delay_us"]) for row in rows],
                             [(test, delay) for test in ("pp20", "pp1", "tg x 3")
                              for delay in (0, 1, 30)])
            n_layers = 4 if len(model) == 1 else 2  # of experts
            for row in rows:
                n_rows = {"pp20": 20, "pp1": 1, "tg x 3": 9}[row["test"]]
                for name, n in (("one", 1), ("two", 2)):
                    self.assertAlmostEqual(
                        row[name + "_tokens_per_s"] * row[name + "_seconds"] / 3 / n_rows, 1, 3)
                    # two heads a layer of experts and microbatch, and what has rows
                    self.assertGreaterEqual(row[name + "_puts"], 2 * n * n_layers)
                self.assertEqual(row["hidden_share"] is None, row["delay_us"] == 0)
            self.assertGreater(rows[0]["two_put_bytes"], rows[3]["two_put_bytes"])

    def test_wrong_usage(self):
        for args in ((), (TINY, "--config", "x"), (TINY, "--ep", "0"), (TINY, "--delay", "0"),
                     (TINY, "--delay", "1,2,3,4,5,6,7,8"), (TINY, "--routing", "near"),
                     (TINY, "--random-weights"), (TINY, "--override", "a=1")):
            result = self.run_pipeline(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(len(result.stderr.splitlines()), 1)


class Eplb(unittest.TestCase):
    def run_eplb(self, *args):
        return subprocess.run([CMINFER, "bench", "eplb", *args], capture_output=True,
                              text=True, timeout=300, check=False)

    def test_moving_makes_loads_even(self):
        result = self.run_eplb(TINY, "--json", "-r", "1", "--redundant", "0,16", "--batch", "4",
                               "--window", "10", "--pause", "10")
        self.assertEqual(result.returncode, 0, result.stderr)
        rows = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([row["redundant"] for row in rows], [0, 16])
        self.assertGreater(rows[0]["moves"], 0)
        self.assertLess(rows[0]["imbalance_after"], rows[0]["imbalance_before"])
        self.assertEqual(rows[1]["imbalance_after"], 1)  # all experts are on both ranks
        for row in rows:
            self.assertEqual(row["ranks"], 2)
            self.assertGreaterEqual(row["imbalance_planned"], 1)
            self.assertAlmostEqual(row["after_tokens_per_s"] * row["after_seconds"], 8, 6)
            self.assertGreaterEqual(row["moving_longest"], 1)

    def test_wrong_usage(self):
        for args in ((), (TINY, "--config", "x"), (TINY, "--ep", "1"), (TINY, "--redundant", "-1"),
                     (TINY, "--routing", "gate"), (TINY, "--random-weights"),
                     (TINY, "--override", "a=1")):
            result = self.run_eplb(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(len(result.stderr.splitlines()), 1)


class Staged(unittest.TestCase):
    def run_staged(self, *args):
        return subprocess.run([CMINFER, "bench", "staged", *args], capture_output=True, text=True,
                              timeout=300, check=False)

    def test_both_ways_have_the_same_bits(self):  # or the command fails
        for model in ((TINY, "--delay", "20"),
                      ("--config", os.path.join(TINY, "config.json"), "--random-weights",
                       "--override", "num_hidden_layers=2", "-q", "w8a8-int8")):
            result = self.run_staged(*model, "--json", "-r", "2", "-p", "5,100,7,20", "--chunk",
                                     "40", "--ep", "3")
            self.assertEqual(result.returncode, 0, result.stderr)
            rows = [json.loads(line) for line in result.stdout.splitlines()]
            self.assertEqual([row["way"] for row in rows], ["data-parallel", "staged"])
            for row in rows:
                self.assertEqual((row["ranks"], row["tokens"], row["passes"]), (3, 132, 3))
                self.assertAlmostEqual(row["tokens_per_s"] * row["seconds"] / 132, 1, 3)
                self.assertTrue(0 <= row["idle_share"] < 1)
            self.assertIsNone(rows[0]["staged_bytes"])
            # heads of all rows, float32, those of a rank's own rows aside
            n_layers = 5 if "--delay" in model else 2
            self.assertGreater(rows[1]["staged_bytes"], n_layers * 132 * 8 * 32 * 4 / 2)

    def test_wrong_usage(self):
        for args in ((), (TINY, "--config", "x"), (TINY, "--ep", "0"), (TINY, "-p", "0"),
                     (TINY, "--chunk", "0"), (TINY, "--random-weights"),
                     (TINY, "--override", "a=1")):
            result = self.run_staged(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(len(result.stderr.splitlines()), 1)


class Formats(Bench):
    def test_md_and_csv(self):
        args = ("--machine", "--threads", "1", "--isa", "ref")
        lines = run(*args).stdout.splitlines()
        self.assertTrue(all(line.startswith("|") and line.endswith("|") for line in lines))
        self.assertEqual(len({len(line) for line in lines}), 1)
        table = list(csv.DictReader(run(*args, "--output", "csv").stdout.splitlines()))
        self.assertEqual([row["limit"] for row in table], ["int8", "bf16", "f32", "bandwidth"])
        self.assertTrue(all(float(row["value"]) > 0 for row in table))


class Usage(unittest.TestCase):
    def test_wrong_usage_is_status_2_and_one_line(self):
        for args, word in (([], "--machine"), (["--machine", "--output", "xml"], "--output"),
                           (["--machine", "--json", "--output", "csv"], "--json"),
                           (["--machine", "--isa", "z80"], "--isa"),
                           (["--machine", "--threads", "0"], "--threads"),
                           (["--machine", "--kernels"], "--machine"),
                           (["--machine", "--shapes", "1x2x3"], "--shapes"),
                           (["--kernels", "--profile", "x"], "--profile"),
                           (["--kernels", "--only", "gemm_i8,gemm"], "\"gemm\""),
                           (["--kernels", "--shapes", "1x2"], "--shapes"),
                           (["--kernels", "--shapes", "1x2x0"], "--shapes"),
                           (["--kernels", "--shapes", "1x2x99999"], "--shapes"),
                           (["--kernels", "--seconds", "-1"], "--seconds")):
            result = run(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(result.stderr.count("\n"), 1, args)
            self.assertIn(word, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
