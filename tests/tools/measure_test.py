#!/usr/bin/env python3
"""The measuring scripts still run: each in its smoke mode, on the bundled model. No figure is held
to anything but being one.

  measure_test.py CMINFER MODEL
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tools", "measure")

sys.path.insert(0, FOLDER)
import measuring  # noqa: E402


def run(script, *options):
    return subprocess.run([sys.executable, os.path.join(FOLDER, script), *options], timeout=250,
                          capture_output=True, text=True, check=False)


class Measure(unittest.TestCase):
    def smoke(self, script, n_rows, *options):
        """The cells of the table that the script prints, by row."""
        with tempfile.TemporaryDirectory() as folder:
            svg = os.path.join(folder, "plot.svg")
            done = run(script, MODEL, "--cminfer", CMINFER, "--smoke", "--svg", svg, *options)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            root = xml.etree.ElementTree.parse(svg).getroot()
            self.assertTrue(root.findall("{http://www.w3.org/2000/svg}polyline"), script)
        lines = [line for line in done.stdout.splitlines() if line.startswith("|")]
        self.assertRegex(lines[1], r"^\| --- \|( ---: \|)+$")
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        self.assertEqual({len(row) for row in rows}, {len(rows[0])}, done.stdout)
        self.assertEqual(len(rows) - 2, n_rows, done.stdout)
        for cell in (cell for row in rows[2:] for cell in row[1:]):
            self.assertRegex(cell, r"^(-|[0-9.]+(e[+-]?\d+)?|)$", done.stdout)
        return rows[2:]

    def test_serve_table(self):
        rows = self.smoke("serve_table.py", 2)
        self.assertEqual([row[-1] for row in rows], ["0", "0"])  # failed

    def test_prefix_reuse(self):
        rows = self.smoke("prefix_reuse.py", 2)
        self.assertEqual([row[1] for row in rows], ["0", "50"])  # found in the cache

    def test_mtp(self):
        rows = self.smoke("mtp.py", 4)
        self.assertEqual([row[2] == "0" for row in rows], [True, False] * 2)  # tried
        self.assertEqual([row[3] == "-" for row in rows], [True, False] * 2)  # accepted

    def test_targets(self):
        self.smoke("targets.py", 2, "--ttft-ms", "5000")

    def test_interference(self):
        n_kinds = 1 + measuring.serve_knows(CMINFER, "--disaggregate")
        self.smoke("interference.py", 2 * n_kinds)

    def test_expert_placement(self):
        done = run("expert_placement.py", "--cminfer", CMINFER, "--layers", "2", "--skews", "1",
                   "--ranks", "16", "--replicas", "0", "32")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()[4:]]
        self.assertEqual([row[1] for row in rows], ["16", "16 on 4 nodes", "one for each slot"])
        for row in rows:
            worst = [float(cell.split("(")[1].strip(")")) for cell in row[2:]]
            self.assertEqual(worst, sorted(worst, reverse=True), row)  # replicas help

    def test_ep_network(self):
        done = run("ep_network.py", "--cminfer", CMINFER, "--ranks", "2", "--rounds", "1",
                   "--bench-rounds", "1", "--rows", "5", "--hidden", "128", "--json")
        if "ep_network.py: ip " in done.stderr or "need root" in done.stderr or \
                "no ip command" in done.stderr:
            self.skipTest(done.stderr)  # namespaces cannot be made here
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        rows = json.loads(done.stdout)
        self.assertEqual([(row["ranks"], row["by"]) for row in rows["bench"]],
                         [(2, "ucx, TCP"), (2, "ucx, shared memory"), (2, "local")])
        for row in rows["bench"]:
            self.assertGreater(row["dispatch_share_of_put"], 0)
        for row in rows["ucx_perftest"]:
            self.assertGreater(row["bytes_per_s"], 0)

    def test_soak(self):
        rows = {row[0]: row[1:] for row in self.smoke("soak.py", 6)}
        sent, ended, not_once = rows["requests: sent, ended, not once"]
        self.assertEqual((sent, not_once), (ended, "0"))
        self.assertEqual(rows["KV in use, % of pages"][-1], "0")

    def test_every_script_has_help_with_an_example(self):
        scripts = [name for name in sorted(os.listdir(FOLDER))
                   if name.endswith(".py") and name != "measuring.py"]
        self.assertGreaterEqual(len(scripts), 6)
        for name in scripts:
            with self.subTest(name):
                done = run(name, "--help")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertRegex(done.stdout, re.compile(r"^example:\n  tools/measure/" + name,
                                                         re.M))


class Numbers(unittest.TestCase):
    def test_they_are_short_and_not_rounded_away(self):
        for value, text in ((0, "0"), (1234.4, "1234"), (999.7, "1000"), (12.34, "12.3"),
                            (0.01234, "0.0123"),
                            (float("nan"), "-"), ("a", "a"), (50, "50")):
            self.assertEqual(measuring.number(value), text)

    def test_a_median_leaves_out_what_is_missing(self):
        self.assertEqual(measuring.median([{"a": 1}, {"a": None}, {"a": 3}], "a"), 2)
        self.assertNotEqual(measuring.median([{}], "a"), measuring.median([{}], "a"))  # NaN

    def test_sides_take_turns(self):
        class Options:
            rounds = 3
        order = []
        found = measuring.rounds(Options, ["a", "b"], lambda s, i: order.append(s) or i)
        self.assertEqual(order, ["a", "b", "b", "a", "a", "b"])
        self.assertEqual(found, {"a": [0, 1, 2], "b": [0, 1, 2]})


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
