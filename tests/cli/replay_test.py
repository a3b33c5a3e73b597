#!/usr/bin/env python3
"""What a real server recorded replays to the same plans, and a change in it is noticed.

  replay_test.py CMINFER MODEL
"""
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server"))
from live_server import DEADLINE_S, Server  # noqa: E402

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])
N_REQUESTS = 12 if os.environ.get("CMI_FEW") else 40


def replay(path, *options):
    return subprocess.run([CMINFER, "bench", "replay", path, *options], capture_output=True,
                          text=True, timeout=DEADLINE_S, check=False)


class Replay(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = os.path.join(folder.name, "run.events")

    def record(self, *options, end=signal.SIGTERM):
        """Requests in a crowd with shared beginnings, some of whose clients leave."""
        server = Server(CMINFER, MODEL, "--record-events", self.path, *options)
        rng = random.Random(7)
        begin = [rng.randrange(3, 2000) for _ in range(400)]

        def ask(number):
            draw = random.Random(number)
            body = {"prompt": begin[:draw.choice((0, 130, 400))] + [draw.randrange(3, 2000)] * 9,
                    "max_tokens": draw.choice((1, 20, 100)), "temperature": 1, "seed": number,
                    "ignore_eos": True}
            if number % 10 == 3:
                server.send("/v1/completions", body).close()
            else:
                self.assertEqual(server.post("/v1/completions", body).status, 200)
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(N_REQUESTS)]
        for thread in threads:
            thread.start()
        server.post("/reset_prefix_cache", {})
        for thread in threads:
            thread.join()
        preemptions = server.metric("vllm:num_preemptions_total")
        self.assertEqual(server.stop(end), 0 if end == signal.SIGTERM else -end)
        return preemptions

    def test_a_servers_plans_are_planned_again(self):
        preemptions = self.record("--max-total-tokens", "1024", "--num-speculative-tokens", "2")
        done = replay(self.path, "--json")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        result = json.loads(done.stdout)
        self.assertEqual((result["result"], result["ending"]), ("same", "whole"))
        self.assertEqual(result["preemptions"], preemptions)
        self.assertGreater(result["steps"], 100)
        self.assertLessEqual(result["requests"], N_REQUESTS)
        self.assertGreater(result["requests"], N_REQUESTS // 2)
        text = replay(self.path).stdout
        self.assertIn("the same plans, byte for byte", text)
        self.assertIn("steps/s", text)

    def test_so_are_those_of_two_instances(self):
        self.record("--disaggregate", "--max-total-tokens", "1024", "--num-speculative-tokens", "1")
        decode, prefill = (json.loads(replay(path, "--json").stdout)
                           for path in (self.path, self.path + ".prefill"))
        for result in (decode, prefill):
            self.assertEqual((result["result"], result["ending"]), ("same", "whole"))
        self.assertGreater(decode["steps"], 100)
        self.assertGreater(prefill["rows"], decode["requests"])

    def test_a_flipped_bit_is_noticed(self):
        self.record()
        with open(self.path, "rb") as f:
            log = bytearray(f.read())
        rng = random.Random(1)
        for _ in range(20):
            bit = rng.randrange(len(log) * 8)
            log[bit // 8] ^= 1 << bit % 8
            with open(self.path, "wb") as f:
                f.write(log)
            done = replay(self.path, "-r", "1")
            self.assertTrue(done.returncode == 1 or "without an end" in done.stdout, bit)
            log[bit // 8] ^= 1 << bit % 8

    def test_a_killed_servers_log_is_known_to_be_incomplete(self):
        self.record(end=signal.SIGKILL)
        done = replay(self.path)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("log: without an end", done.stdout)
        self.assertIn("the same plans", done.stdout)

    def test_errors_are_one_clear_line(self):
        for content, words in ((b"", "no event log"), (b"CMIEVLOG", "first record"),
                               (b"x" * 100, "no event log")):
            with open(self.path, "wb") as f:
                f.write(content)
            done = replay(self.path)
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr.count("\n"), 1)
            self.assertIn(words, done.stderr)
        self.assertEqual(replay(self.path + ".not").returncode, 1)
        self.assertEqual(subprocess.run([CMINFER, "bench", "replay"], capture_output=True,
                                        check=False).returncode, 2)
        for more in ([], ["--disaggregate"]):
            refused = subprocess.run([CMINFER, "serve", MODEL, "--port", "0", "--record-events",
                                      "/nowhere/x", *more], capture_output=True, text=True,
                                     timeout=DEADLINE_S, check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("/nowhere/x", refused.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
