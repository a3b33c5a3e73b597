#!/usr/bin/env python3
"""cminfer bench serve: against the real server, and against one that does what servers should not.

  load_test.py CMINFER MODEL

Nothing here says how fast anything is; times are compared with each other, and with waits from
below.
"""
import json
import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest
import xml.etree.ElementTree

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server"))
from live_server import DEADLINE_S, Server  # noqa: E402

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

# What vllm bench serve writes, and ours.
SETTINGS = {"date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts",
            "request_rate", "burstiness", "max_concurrency"}
TOTALS = {"duration", "completed", "failed", "total_input_tokens", "total_output_tokens",
          "request_throughput", "request_goodput", "output_throughput", "total_token_throughput",
          "max_output_tokens_per_s", "max_concurrent_requests"}
METRICS = {f"{what}_{metric}_ms" for metric in ("ttft", "tpot", "itl", "e2el")
           for what in ("mean", "median", "std", "p50", "p90", "p99")}
DETAILS = {"input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times",
           "generated_texts", "errors"}
OURS = {"client", "base_url", "endpoint", "dataset_name", "dataset_path", "trace_scale", "seed",
        "failed_by_reason", "rejected", "rejected_with_retry_after", "max_retry_after_s",
        "cancelled", "not_started", "interrupted", "good", "total_cached_tokens",
        "total_output_chunks", "answers_without_usage", "max_start_lag_ms", "client_cpu_share"}


def run(*args, env=None):
    environment = {k: v for k, v in os.environ.items() if k != "OPENAI_API_KEY"}
    return subprocess.run([CMINFER, "bench", "serve", *map(str, args)], capture_output=True,
                          text=True, timeout=DEADLINE_S, check=False,
                          env={**environment, **(env or {})})


def percentile(values, p):
    values = sorted(values)
    position = p / 100 * (len(values) - 1)
    below = math.floor(position)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (position - below)


class Load(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name, content=None):
        path = os.path.join(self.folder, name)
        if content is not None:
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
        return path

    def measure(self, port, *args, status=0, detailed=True, env=None):
        """The result's JSON."""
        path = self.path("result.json")
        result = run("--port", port, "--result-filename", path,
                     *(["--save-detailed"] if detailed else []), *args, env=env)
        self.assertEqual(result.returncode, status, result.stderr)
        self.table = result.stdout
        self.errors = result.stderr
        with open(path, encoding="utf-8") as file:
            return json.load(file)


class RealServer(Load):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(CMINFER, MODEL)

    @classmethod
    def tearDownClass(cls):
        assert cls.server.stop() == 0

    def test_random_prompts_of_exact_length(self):
        plot = self.path("plot.svg")
        got = self.measure(self.server.port, "--tokenizer", MODEL, "--random-input-len", 100,
                           "--random-output-len", 12, "--num-prompts", 12, "--request-rate", 200,
                           "--goodput", "ttft:60000", "tpot:60000", "--plot", plot)
        self.assertEqual(set(got), SETTINGS | TOTALS | METRICS | DETAILS | OURS)
        self.assertEqual((got["completed"], got["failed"]), (12, 0))
        self.assertEqual(got["input_lens"], [100] * 12)
        self.assertEqual(got["output_lens"], [12] * 12)
        self.assertEqual(got["model_id"], "matrix-tiny")
        self.assertAlmostEqual(got["request_goodput"], got["request_throughput"])
        self.assertAlmostEqual(got["output_throughput"] * got["duration"], 144, delta=1e-3)
        self.check_definitions(got)
        self.assertIn("Request goodput (req/s):", self.table)
        self.assertIn("P99 TPOT (ms):", self.table)
        self.assertEqual(self.errors, "")  # no bar where there is no terminal
        self.check_plot(plot)

    def check_definitions(self, got):
        tpots = [(latency - ttft) / (n - 1) * 1e3 for latency, ttft, n in
                 zip(got["latencies"], got["ttfts"], got["output_lens"])]
        itls = [gap * 1e3 for gaps in got["itls"] for gap in gaps]
        for name, values in (("ttft", [x * 1e3 for x in got["ttfts"]]), ("tpot", tpots),
                             ("itl", itls), ("e2el", [x * 1e3 for x in got["latencies"]])):
            self.assertAlmostEqual(got[f"mean_{name}_ms"], sum(values) / len(values), places=4)
            self.assertEqual(got[f"median_{name}_ms"], got[f"p50_{name}_ms"])
            for p in (50, 90, 99):
                self.assertAlmostEqual(got[f"p{p}_{name}_ms"], percentile(values, p), places=4)
        for ttft, gaps, latency in zip(got["ttfts"], got["itls"], got["latencies"]):
            self.assertLessEqual(ttft + sum(gaps), latency + 1e-6)
        self.assertEqual(got["total_output_chunks"], len(itls) + len(got["itls"]))

    def check_plot(self, path):
        root = xml.etree.ElementTree.parse(path).getroot()
        text = " ".join(root.itertext())
        for words in ("TTFT (ms)", "TPOT, ITL (ms)", "E2EL (ms)", "time (s)", "tokens/s",
                      "requests", "matrix-tiny"):
            self.assertIn(words, text)
        self.assertNotIn("nan", text)

    def test_chat(self):
        got = self.measure(self.server.port, "--backend", "openai-chat", "--num-prompts", 6,
                           "--random-input-len", 20, "--random-output-len", 5,
                           "--max-concurrency", 2, detailed=False)
        self.assertEqual(set(got), SETTINGS | TOTALS | METRICS | OURS)
        self.assertEqual((got["completed"], got["total_output_tokens"]), (6, 30))
        self.assertEqual(got["endpoint"], "/v1/chat/completions")
        self.assertLessEqual(got["max_concurrent_requests"], 2)

    def test_a_trace_as_token_ids(self):
        lines = [{"timestamp": 10 * i, "input_length": 700, "output_length": 4,
                  "hash_ids": [1, 10 + i]} for i in range(4)]
        trace = self.path("trace.jsonl", "\n".join(map(json.dumps, lines)))
        got = self.measure(self.server.port, "--dataset-name", "mooncake", "--dataset-path", trace,
                           "--token-ids", "--trace-scale", 2, "--max-model-len", 600)
        self.assertEqual(got["input_lens"], [596] * 4)
        self.assertEqual(got["output_lens"], [4] * 4)
        self.assertEqual(got["request_rate"], "trace")
        self.assertGreaterEqual(got["start_times"][3], 0.015)

    def test_cancelled_requests_are_no_failures(self):
        got = self.measure(self.server.port, "--num-prompts", 10, "--random-input-len", 10,
                           "--random-output-len", 1500, "--cancel-rate", 1, "--cancel-delay", 0.05)
        self.assertEqual((got["completed"], got["failed"], got["cancelled"]), (0, 0, 10))
        self.server.wait_running(0, 0)

    def test_a_model_that_is_not_there(self):
        got = self.measure(self.server.port, "--model", "nope", "--num-prompts", 2, status=1)
        self.assertEqual(got["failed_by_reason"], {"http_404": 2})
        self.assertIn("nope", got["errors"][0])
        self.assertEqual(self.errors.count("\n"), 1)


def event(**fields):
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def token(text="a", finish=None):
    return event(choices=[{"index": 0, "text": text, "finish_reason": finish}])


USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 2})
DONE = b"data: [DONE]\n\n"
GOOD = token() + token(finish="length") + USAGE + DONE
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def whole(body, head=STREAM):
    return head + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(body):
    return (STREAM + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))


class ScriptedServer:
    """Answers request number i (GETs apart) as answer(socket, i, its body) does. True: the
    connection stays open for the next one."""

    def __init__(self, answer):
        self.answer = answer
        self.lock = threading.Lock()
        self.requests = []  # (head, body)
        self.n_connections = 0  # that carried one of them
        self.n_open = self.most_open = 0
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(sock,), daemon=True).start()

    def serve(self, sock):
        got = b""
        is_counted = False
        try:
            while (request := self.read_request(sock, got)) is not None:
                head, body, got = request
                if head.startswith("GET"):
                    sock.sendall(whole(b'{"data":[{"id":"scripted"}]}', b"HTTP/1.1 200 OK\r\n"))
                    continue
                with self.lock:
                    number = len(self.requests)
                    self.requests.append((head, body))
                    self.n_connections += 0 if is_counted else 1
                    is_counted = True
                    self.n_open += 1
                    self.most_open = max(self.most_open, self.n_open)
                stays = self.answer(sock, number, body)
                with self.lock:
                    self.n_open -= 1
                if not stays:
                    break
        except OSError:
            pass
        sock.close()

    @staticmethod
    def read_request(sock, got):
        while b"\r\n\r\n" not in got:
            if not (more := sock.recv(65536)):
                return None
            got += more
        head, got = got.split(b"\r\n\r\n", 1)
        lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
        length = int(lines[0].split(b":")[1]) if lines else 0
        while len(got) < length:
            got += sock.recv(65536)
        body = json.loads(got[:length]) if length else None
        return head.decode(), body, got[length:]

    def close(self):
        self.listener.close()


def wait_until_closed(sock):
    while sock.recv(4096):
        pass


class Scripted(Load):
    def serve(self, answer):
        server = ScriptedServer(answer)
        self.addCleanup(server.close)
        return server

    def measure_script(self, answer, *args, n=None, **kwargs):
        self.server = self.serve(answer)
        n = ["--num-prompts", n] if n else []
        return self.measure(self.server.port, "--random-input-len", 5, "--random-output-len", 2,
                            *n, *args, **kwargs)

    def test_failures_by_reason(self):
        def answer(sock, number, _):
            scripts = [
                whole(GOOD),
                whole(b'{"error":{"message":"full"}}',
                      b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 3\r\n"),
                whole(b"later", b"HTTP/1.1 429 Too Many Requests\r\n"),
                whole(b"oops", b"HTTP/1.1 500 Internal\r\n"),
                chunked(token() + event(error={"message": "died"}) + DONE),
                chunked(token() + b"data: {broken\n\n" + DONE),
                chunked(token()),
                b"",
                STREAM + b"Transfer-Encoding: chunked\r\n\r\nff\r\n" + token(),
                b"what?\r\n",
            ]
            sock.sendall(scripts[number])
            return False

        got = self.measure_script(answer, "--max-concurrency", 1, n=10)
        self.assertEqual(got["completed"], 1)
        self.assertEqual(got["failed"], 9)
        self.assertEqual(got["failed_by_reason"],
                         {"http_429": 2, "http_500": 1, "error_event": 1, "malformed": 2,
                          "incomplete": 1, "connection": 2})
        self.assertEqual((got["rejected"], got["rejected_with_retry_after"],
                          got["max_retry_after_s"]), (2, 1, 3))
        self.assertEqual(got["output_lens"], [2] + [0] * 9)
        for number, words in ((1, "full"), (3, "oops"), (4, "died"), (5, "{broken"),
                              (7, "without an answer"), (8, "middle"), (9, "what?")):
            self.assertIn(words, got["errors"][number])
        self.assertIn("Rejected with 429 (with Retry-After 1):", self.table)

    def test_slow_chunks_in_pieces(self):
        wait = threading.Event()
        pause_s = 0.03

        def answer(sock, _, __):
            data = chunked(b": ping\n\n" + token("x") + token("y", "stop") + USAGE + DONE)
            half = data.index(b'"y"')
            for piece in (data[:20], data[20:half], data[half:half + 1], data[half + 1:-7],
                          data[-7:]):
                sock.sendall(piece)
                wait.wait(pause_s)
            return True

        got = self.measure_script(answer, n=3)
        self.assertEqual((got["completed"], got["generated_texts"]), (3, ["xy"] * 3))
        for ttft, gaps, latency in zip(got["ttfts"], got["itls"], got["latencies"]):
            self.assertGreaterEqual(ttft, pause_s)
            self.assertEqual(len(gaps), 1)
            self.assertGreaterEqual(gaps[0], 2 * pause_s - 0.01)
            self.assertAlmostEqual(latency, ttft + gaps[0], places=6)

    def test_timeouts(self):
        def answer(sock, number, _):
            if number == 1:
                sock.sendall(chunked(GOOD))
                return True
            sock.sendall(STREAM + b"\r\n" + token())
            wait_until_closed(sock)
            return False

        got = self.measure_script(answer, "--timeout", 0.3, n=3)
        self.assertEqual((got["completed"], got["failed_by_reason"]), (1, {"timeout": 2}))

    def test_connections_are_used_again(self):
        def answer(sock, number, _):
            sock.sendall(chunked(GOOD))
            return number % 4 != 3  # then it closes, though it did not say so

        got = self.measure_script(answer, "--max-concurrency", 1, n=12)
        self.assertEqual((got["completed"], got["failed"]), (12, 0))
        self.assertEqual(len(self.server.requests), 12)
        self.assertEqual(self.server.n_connections, 3)

    def test_no_more_than_the_limit_are_open(self):
        def answer(sock, _, __):
            sock.sendall(whole(GOOD))
            return True

        got = self.measure_script(answer, "--max-concurrency", 3, n=60)
        self.assertEqual(got["completed"], 60)
        self.assertLessEqual(self.server.most_open, 3)
        self.assertLessEqual(got["max_concurrent_requests"], 3)

    def test_hundreds_are_open_at_once(self):
        n = 300
        all_there = threading.Event()

        def answer(sock, number, _):
            if number == n - 1:
                all_there.set()
            all_there.wait(DEADLINE_S)
            sock.sendall(whole(GOOD))
            return False

        got = self.measure_script(answer, n=n)
        self.assertEqual((got["completed"], got["max_concurrent_requests"]), (n, n))

    def test_what_is_sent(self):
        def answer(sock, _, __):
            sock.sendall(whole(GOOD))
            return True

        self.measure_script(answer, "--header", "X-A: b c", "--header", "X-D=e", "--extra_body",
                            '{"top_k":3}', "--temperature", 0, n=1, env={"OPENAI_API_KEY": "k1"})
        head, body = self.server.requests[0]
        for line in ("POST /v1/completions HTTP/1.1", "X-A: b c", "X-D: e",
                     "Authorization: Bearer k1"):
            self.assertIn(line, head.split("\r\n"))
        prompt = body.pop("prompt")
        self.assertEqual(len(prompt.split()), 5)
        self.assertEqual(body, {"model": "scripted", "max_tokens": 2, "stream": True,
                                "stream_options": {"include_usage": True}, "ignore_eos": True,
                                "temperature": 0, "top_k": 3})
        custom = self.path("custom.jsonl", '{"prompt": "hi", "output_tokens": 9}\n'
                                           '{"messages": [{"role": "user", "content": "yo"}]}\n')
        self.measure_script(answer, "--endpoint", "/x/v1/chat/completions", "--dataset_name",
                            "custom", "--dataset-path", custom, "--api-key", "k2", "--model", "m",
                            "--max-concurrency", 1, n=3)
        bodies = [body for _, body in self.server.requests]
        self.assertIn("POST /x/v1/chat/completions HTTP/1.1", self.server.requests[0][0])
        self.assertIn("Bearer k2", self.server.requests[0][0])
        self.assertEqual(bodies[0], bodies[2])
        self.assertEqual(bodies[0]["messages"], [{"role": "user", "content": "hi"}])
        self.assertEqual((bodies[0]["max_completion_tokens"], bodies[0]["model"]), (9, "m"))
        self.assertEqual(bodies[1]["messages"], [{"role": "user", "content": "yo"}])
        self.assertEqual(bodies[1]["max_completion_tokens"], 2)
        self.assertNotIn("ignore_eos", bodies[1])

    def test_a_seed_repeats_the_requests(self):
        def answer(sock, _, __):
            sock.sendall(whole(GOOD))
            return True

        def bodies(seed):
            self.measure_script(answer, "--seed", seed, "--random-range-ratio", 0.5,
                                "--random-prefix-len", 3, "--max-concurrency", 1, n=5)
            return [body for _, body in self.server.requests]

        first = bodies(1)
        self.assertEqual(first, bodies(1))
        self.assertNotEqual(first, bodies(2))
        self.assertEqual(len({tuple(body["prompt"].split()[:3]) for body in first}), 1)
        self.assertEqual(len({body["prompt"] for body in first}), 5)

    def test_without_usage_tokens_are_estimated(self):
        def answer(sock, _, __):
            sock.sendall(whole(token() + token() + token(finish="stop") + DONE))
            return True

        got = self.measure_script(answer, n=2)
        self.assertEqual((got["answers_without_usage"], got["output_lens"]), (2, [3, 3]))
        self.assertEqual(got["input_lens"], [5, 5])

    def test_warmups_do_not_count(self):
        def answer(sock, _, __):
            sock.sendall(whole(GOOD))
            return True

        got = self.measure_script(answer, "--num-warmups", 2, n=3)
        self.assertEqual(got["completed"], 3)
        self.assertEqual(len(self.server.requests), 5)

    def test_an_interrupt_shows_what_was_done(self):
        stopped = threading.Event()

        def answer(sock, number, _):
            if number < 2:
                sock.sendall(whole(GOOD))
                return True
            stopped.set()
            wait_until_closed(sock)
            return False

        server = self.serve(answer)
        with subprocess.Popen([CMINFER, "bench", "serve", "--port", str(server.port),
                               "--num-prompts", "9", "--max-concurrency", "1"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            self.assertTrue(stopped.wait(DEADLINE_S))
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=DEADLINE_S)
        self.assertEqual(process.returncode, 1)
        self.assertRegex(out, r"Successful requests: +2\n")
        self.assertRegex(out, r"Requests not started: +6\n")
        self.assertIn("interrupted: 7 requests", err)


class Usage(Load):
    def test_help(self):
        for args in (["bench", "serve", "--help"], ["help", "bench", "serve"]):
            text = subprocess.run([CMINFER, *args], capture_output=True, text=True,
                                  check=True).stdout
            for words in ("Usage: cminfer bench serve", "Examples:", "--goodput", "--plot"):
                self.assertIn(words, text)
        text = subprocess.run([CMINFER, "help", "bench"], capture_output=True, text=True,
                              check=True).stdout
        self.assertIn("bench serve", text)

    def test_wrong_options_are_one_line(self):
        for args, words in ((["--frob"], "--frob"), (["extra"], "extra"),
                            (["--request-rate", "-1"], "--request-rate"),
                            (["--burstiness", "0"], "--burstiness"),
                            (["--goodput", "ttft:1", "itl:2"], "itl:2"),
                            (["--backend", "x"], "--backend"),
                            (["--backend", "openai", "--endpoint", "/v1/chat/completions"],
                             "--endpoint"),
                            (["--endpoint", "/v1/embeddings"], "--endpoint"),
                            (["--dataset-name", "sharegpt"], "--dataset-name"),
                            (["--dataset-name", "azure"], "--dataset-path"),
                            (["--dataset-path", "x"], "--dataset-name"),
                            (["--metric-percentiles", "50,x"], "--metric-percentiles"),
                            (["--percentile-metrics", "ttft,x"], "--percentile-metrics"),
                            (["--random-range-ratio", "1"], "--random-range-ratio"),
                            (["--cancel-rate", "2"], "--cancel-rate"),
                            (["--timeout", "0"], "--timeout"), (["--header", "x"], "--header"),
                            (["--token-ids", "--backend", "openai-chat"], "--token-ids"),
                            (["--base-url", "https://a"], "https"),
                            (["--base-url", "http://a", "--port", "1"], "--base-url"),
                            (["--api-key", "a\nb"], "key")):
            result = run(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertIn(words, result.stderr)

    def test_what_is_not_there_is_one_line(self):
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # and does not listen
            port = bound.getsockname()[1]
            trace = self.path("trace.jsonl", "{}\n")
            for args, words in ((["--port", port], "cannot connect"),
                                (["--dataset-name", "azure", "--dataset-path", "/nonexistent"],
                                 "/nonexistent"),
                                (["--dataset-name", "mooncake", "--dataset-path", trace],
                                 "line 1"),
                                (["--tokenizer", "/nonexistent"], "/nonexistent")):
                result = run(*args)
                self.assertEqual(result.returncode, 1, args)
                self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
                self.assertIn(words, result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
