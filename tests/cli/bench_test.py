#!/usr/bin/env python3
"""cminfer bench: rows that parse and add up, in every format. Nothing here looks at a clock.

  bench_test.py CMINFER MODELS
"""
import csv
import json
import os
import subprocess
import sys
import tempfile
import unittest

CMINFER, MODELS = map(os.path.abspath, sys.argv[1:3])
TINY = os.path.join(MODELS, "matrix-tiny")


def run(*args):
    return subprocess.run([CMINFER, "bench", *args], capture_output=True, text=True, timeout=300,
                          check=False)


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
                           (["--machine", "--threads", "0"], "--threads")):
            result = run(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(result.stderr.count("\n"), 1, args)
            self.assertIn(word, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
