#!/usr/bin/env python3
"""Every metric that a real server has, moved by a workload, under the names of both families.

  metrics_live_test.py CMINFER MODEL

metrics_test.c checks the text's form and the server's own counts; here the engine's numbers are
real: requests that wait, drafts, cached prompts and the reasons why others were not.
"""
import os
import re
import subprocess
import sys
import unittest

from live_server import DEADLINE_S, Server, post_bytes, read_until

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

COMPLETIONS = "/v1/completions"
LONG = {"prompt": "a", "ignore_eos": True, "max_tokens": 600}

# What no workload of one process moves: nothing is loaded from elsewhere, and nothing fails there.
NEVER = {"loaded", "no_pages", "load_failed", "corrupt"}
NOT_HERE = {"disabled"}  # an option that this server was not given


class Scrape:
    def __init__(self, server):
        self.types, self.samples = {}, []
        for line in server.get("/metrics").body.decode().splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split()
                self.types[name] = kind
            elif not line.startswith("#"):
                name, labels, value = re.fullmatch(r"([^{]+)\{(.*)\} (\S+)", line).groups()
                self.samples.append((name, labels, float(value)))

    def get(self, name, label=""):
        found = [v for n, labels, v in self.samples if n == name and label in labels]
        assert found, (name, label)
        return sum(found)

    def moved(self):
        """The families of which a sample is not 0; of histograms the count must not be."""
        moved = set()
        for name, kind in self.types.items():
            full = name + "_count" if kind == "histogram" else name
            if any(n == full and v != 0 for n, _, v in self.samples):
                moved.add(name)
        return moved


class LiveMetrics(unittest.TestCase):
    def start(self, *options):
        server = Server(CMINFER, MODEL, *options)
        self.addCleanup(lambda: server.process.poll() is None and server.process.kill())
        return server

    def work(self, server, moved):
        """Something for every counter; gauges of the moment are scraped in the middle."""
        self.miss_targets(server)
        streams = [server.send(COMPLETIONS, {**LONG, "seed": i, "stream": True})
                   for i in range(6)]
        server.wait_for("running and waiting requests",
                        lambda: {"vllm:num_requests_running", "vllm:num_requests_waiting",
                                 "vllm:kv_cache_usage_perc", "sglang:num_running_reqs",
                                 "sglang:num_queue_reqs", "sglang:token_usage",
                                 "sglang:num_used_tokens"} <= self.scraped(server, moved))
        for sock in streams:
            read_until(sock, b"data: [DONE]\n\n")
            sock.close()
        for _ in range(2):
            server.post(COMPLETIONS, {"prompt": [7] * 513, "max_tokens": 1})
        for salt in "abcdef":  # names of losses are hashed: one may meet another's, all do not
            server.post(COMPLETIONS, {"prompt": [7] * 513, "max_tokens": 1, "cache_salt": salt})
        server.post(COMPLETIONS, {"prompt": [8] * 256, "max_tokens": 1})
        server.post(COMPLETIONS, {"prompt": [9] * 300, "max_tokens": 1, "echo": True,
                                  "logprobs": 1})
        for _ in range(2):  # push out the first ones, and ask for them again
            for i in range(8):
                server.post(COMPLETIONS, {"prompt": [20 + i] * 600, "max_tokens": 1})
        left = server.send(COMPLETIONS, {**LONG, "stream": True})
        read_until(left, b"data: ")
        left.close()
        slow = server.connect()
        slow.sendall(post_bytes(COMPLETIONS, b"{}")[:-1])
        read_until(slow)
        slow.close()
        server.wait_running(0, 0)

    def miss_targets(self, server):
        """Nothing is known of durations yet, so nothing is refused; later it is."""
        impossible = {"x-llm-d-slo-ttft-ms": "0.001"}
        self.assertEqual(server.post(COMPLETIONS, LONG, **impossible).status, 429)
        self.assertEqual(server.metric("cminfer:requests_given_up_total"), 1)
        # A few steps only, as drafts are given up where they cost more than they bring.
        question = {"messages": [{"role": "user", "content": "What is 457 + 825?"}]}
        server.post("/v1/chat/completions", {**question, "max_tokens": 6})
        answer = server.post(COMPLETIONS, {**LONG, "prompt": [5] * 1800, "max_tokens": 150},
                             **{"x-llm-d-slo-ttft-ms": "10", "x-llm-d-slo-tpot-ms": "0.001"})
        self.assertEqual(answer.status, 200)
        self.assertEqual(server.post(COMPLETIONS, LONG, **impossible).status, 429)
        self.assertEqual(server.metric("cminfer:requests_given_up_total"), 1)
        answer = server.post(COMPLETIONS, {**LONG, "max_tokens": 1900},
                             **{"x-request-timeout-ms": "20"})
        self.assertEqual(answer.status, 408)

    def scraped(self, server, moved):
        moved |= Scrape(server).moved()
        return moved

    def test_a_workload_moves_every_metric(self):
        server = self.start("--metrics-names", "both", "--max-num-seqs", "4",
                            "--max-total-tokens", "2048", "--num-speculative-tokens", "2",
                            "--speculate-always",
                            "--slow-client-timeout", "1", "--step-probe-ms", "0")
        before = Scrape(server)
        moved = set()
        self.work(server, moved)
        after = Scrape(server)
        self.assertEqual(set(before.types) - self.scraped(server, moved), set())
        self.assertGreater(len(moved), 35)
        for name, labels, value in after.samples:
            kind = next(k for n, k in after.types.items() if name.startswith(n))
            if kind == "counter":
                self.assertGreaterEqual(value, sum(v for n, l, v in before.samples
                                                   if (n, l) == (name, labels)))
            which = re.search(r'(?:reason|stage)="([^"]*)"', labels)
            if name.startswith("cminfer:prefix") and which:
                is_zero = which[1] in NEVER | NOT_HERE
                self.assertEqual(value == 0, is_zero, (name, labels))
        self.check_sums(after)
        self.assertEqual(server.stop(), 0)

    def check_sums(self, scrape):
        tokens = "cminfer:prefix_cache_tokens_total"
        prompt, used = (scrape.get(tokens, f'stage="{s}"') for s in ("prompt", "used"))
        self.assertEqual(prompt, used + scrape.get("cminfer:prefix_cache_lost_tokens_total"))
        self.assertEqual(prompt, scrape.get("vllm:prefix_cache_queries_total"))
        self.assertEqual(prompt, scrape.get("sglang:prompt_tokens_total"))
        self.assertEqual(used, scrape.get("vllm:prefix_cache_hits_total"))
        self.assertEqual(used, scrape.get("sglang:cached_tokens_total"))
        self.assertEqual(scrape.get("vllm:request_success_total"),
                         scrape.get("sglang:num_requests_total"))
        self.assertEqual(scrape.get("vllm:request_success_total", 'finished_reason="abort"'),
                         scrape.get("sglang:num_aborted_requests_total"))
        self.assertEqual(scrape.get("vllm:generation_tokens_total"),
                         scrape.get("sglang:generation_tokens_total"))

    def test_without_a_cache_all_is_disabled(self):
        server = self.start("--no-enable-prefix-caching")
        server.post(COMPLETIONS, {"prompt": [7] * 513, "max_tokens": 1})
        scrape = Scrape(server)
        self.assertEqual(scrape.get("cminfer:prefix_cache_lost_tokens_total", '"disabled"'), 512)
        self.assertEqual(scrape.get("cminfer:prefix_cache_lost_tokens_total"), 513)
        self.assertEqual(server.stop(), 0)

    def test_with_prefill_apart_the_sums_hold(self):
        server = self.start("--disaggregate", "--metrics-names", "both")
        for _ in range(2):
            server.post(COMPLETIONS, {"prompt": [7] * 513, "max_tokens": 2})
        scrape = Scrape(server)
        self.check_sums(scrape)
        self.assertEqual(scrape.get("vllm:prefix_cache_hits_total"), 512)
        self.assertEqual(server.stop(), 0)

    def test_one_family_at_a_time(self):
        for names, good, bad in (("vllm", "vllm:", "sglang:"), ("sglang", "sglang:", "vllm:")):
            server = self.start("--metrics-names", names)
            types = Scrape(server).types
            self.assertTrue(any(name.startswith(good) for name in types))
            self.assertFalse(any(name.startswith(bad) for name in types))
            self.assertIn("http_requests_total", types)
            self.assertEqual(server.stop(), 0)
        ended = subprocess.run([CMINFER, "serve", MODEL, "--metrics-names", "x"],
                               timeout=DEADLINE_S, capture_output=True, text=True)
        self.assertNotEqual(ended.returncode, 0)
        self.assertIn("--metrics-names takes vllm, sglang or both", ended.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
