#!/usr/bin/env python3
"""A server's life as its operator sees it: start, readiness, keys, drain, end.

  life_test.py CMINFER MODEL
"""
import os
import signal
import subprocess
import sys
import tempfile
import threading
import unittest

from live_server import DEADLINE_S, Server, post_bytes, read_answer, read_until

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

COMPLETIONS = "/v1/completions"
SHORT = {"prompt": "a", "max_tokens": 1}
# Where every access is watched a token takes ten times as long.
LONG = {"prompt": "a", "ignore_eos": True, "stream": True,
        "max_tokens": 200 if "CMI_FEW" in os.environ else 2000}
PROBES = ("/health", "/liveness", "/ping", "/readiness", "/ready")


class LifeTest(unittest.TestCase):
    def start(self, *options, **kwargs):
        server = Server(CMINFER, MODEL, *options, **kwargs)
        self.addCleanup(lambda: server.process.poll() is None and server.process.kill())
        return server


class Start(LifeTest):
    def test_it_is_alive_before_it_is_ready(self):
        """Loading waits at a chat template that is a pipe, and fails when the pipe is opened."""
        with tempfile.TemporaryDirectory() as folder:
            pipe = os.path.join(folder, "template.jinja")
            os.mkfifo(pipe)
            server = self.start("--chat-template", pipe, wait=False)
            server.wait_for_port()
            for path in ("/health", "/liveness", "/ping", "/metrics", "/version"):
                self.assertEqual(server.get(path).status, 200, path)
            for answer in (server.get("/readiness"), server.get("/ready"),
                           server.get("/v1/models"), server.post(COMPLETIONS, SHORT)):
                self.assertEqual(answer.status, 503)
                self.assertEqual(answer.json()["error"]["code"], 503)
                self.assertIn("Retry-After", answer.headers)
            open(pipe, "w").close()
            self.assertEqual(server.wait(), 1)
            self.assertIn(pipe.encode(), server.log.splitlines()[-1])
            self.assertEqual(server.log.count(b"cminfer: "), 1)

    def test_probes_of_a_ready_server(self):
        server = self.start()
        for path in PROBES:
            answer = server.get(path)
            self.assertEqual((answer.status, answer.body), (200, b""), path)
        self.assertEqual(server.stop(), 0)

    def test_only_this_machine_can_connect_unless_told(self):
        server = self.start()
        self.assertEqual(server.listening(), [("0100007F", server.port)])
        self.assertEqual(server.stop(), 0)
        server = self.start("--host", "0.0.0.0")
        self.assertEqual(server.listening(), [("00000000", server.port)])
        self.assertEqual(server.stop(), 0)

    def test_a_busy_port_is_one_clear_line(self):
        server = self.start()
        second = subprocess.run([CMINFER, "serve", MODEL, "--port", str(server.port)],
                                capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertEqual(second.returncode, 1)
        self.assertEqual(second.stderr.count("\n"), 1, second.stderr)
        for words in (f"port {server.port} is taken by", str(server.pid), "--port"):
            self.assertIn(words, second.stderr)
        self.assertEqual(server.get("/health").status, 200)
        port = server.port
        self.assertEqual(server.stop(), 0)
        # The port is free again at once, though its connections are still remembered.
        third = self.start("--port", str(port))
        self.assertEqual(third.port, port)
        self.assertEqual(third.stop(), 0)


class Keys(LifeTest):
    def expect_guarded(self, server, good, bad):
        requests = [("GET", path) for path in ("/v1/models", "/v1/models/matrix-tiny", "/metrics",
                                               "/version", "/", "/none")]
        requests += [("POST", path) for path in ("/v1/chat/completions", COMPLETIONS, "/tokenize",
                                                 "/detokenize", "/health")]
        for method, path in requests:
            for headers in bad:
                answer = server.request(method, path, b"{}" if method == "POST" else None, headers)
                if path == "/health":
                    self.assertEqual(answer.status, 405)
                    continue
                self.assertEqual(answer.status, 401, (path, headers))
                self.assertEqual(answer.json()["error"]["type"], "AuthenticationError")
                self.assertEqual(answer.headers["WWW-Authenticate"], "Bearer")
        for path in PROBES:
            self.assertEqual(server.get(path).status, 200, path)
        for key in good:
            headers = {"Authorization": f"Bearer {key}"}
            self.assertEqual(server.request("GET", "/v1/models", headers=headers).status, 200)
            self.assertEqual(server.request("POST", COMPLETIONS, SHORT, headers).status, 200)
        self.assertEqual(server.request("OPTIONS", COMPLETIONS).status, 204)

    def test_they_guard_everything_but_the_probes(self):
        bad = [{}] + [{"Authorization": value} for value in (
            "", "Bearer", "Bearer ", "Bearer sesam", "Bearer sesame2", "Bearer Sesame", "sesame",
            "Basic c2VzYW1l", "Bearer sesame,open", "Bearer " + "x" * 5000)]
        server = self.start("--api-key", "sesame", "--api-key", "other")
        self.expect_guarded(server, ["sesame", "other"], bad + [{"X-Api-Key": "sesame"}])
        self.assertEqual(server.stop(), 0)
        self.assertNotIn(b"sesame", server.log)

    def test_they_can_come_from_the_environment(self):
        server = self.start(env={"CMINFER_API_KEY": "sesame"})
        self.expect_guarded(server, ["sesame"], [{}])
        self.assertEqual(server.stop(), 0)


class Log(LifeTest):
    TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"

    def lines(self, server, request_id):
        """Those of a request; they come when libmicrohttpd is done with it, so soon."""
        mark = f" id={request_id} ".encode()
        server.wait_for(f"the log line of {request_id}",
                        lambda: server.get("/health") and mark in server.log)
        return [dict(field.partition("=")[::2] for field in line.decode().split() if "=" in field)
                for line in server.log.splitlines() if mark in line]

    def test_a_line_for_each_request_when_it_ends(self):
        server = self.start("--max-num-seqs", "1")
        prompt = {"prompt": [7] * 300, "max_tokens": 3, "ignore_eos": True}
        parent = f"00-{self.TRACE}-00f067aa0ba902b7-01"
        for i, stream in enumerate((False, True)):
            server.post(COMPLETIONS, {**prompt, "stream": stream},
                        **{"X-Request-Id": f"r{i}", "traceparent": parent})
            line, = self.lines(server, f"r{i}")
            times = {name: float(line.pop(name)) for name in list(line) if name.endswith("_ms")}
            self.assertEqual(line, {
                "id": f"r{i}", "trace_id": self.TRACE, "status": "200", "finish": "length",
                "prompt_tokens": "300", "cached_tokens": str(i * 256), "output_tokens": "3"})
            self.assertEqual(list(times), ["queue_ms", "prefill_ms", "decode_ms", "ttft_ms",
                                           "total_ms"])
            self.assertLessEqual(times["queue_ms"] + times["prefill_ms"] + times["decode_ms"],
                                 times["total_ms"] + 0.2)  # 0.05 for each that is rounded
        for bad in (parent.upper(), parent + "-", "00-1-2-3", ""):
            server.post(COMPLETIONS, SHORT, **{"X-Request-Id": "bad", "traceparent": bad})
        lines = self.lines(server, "bad")
        self.assertFalse(any("trace_id" in line for line in lines))
        server.get("/none", **{"X-Request-Id": "none", "traceparent": parent})
        line, = self.lines(server, "none")
        self.assertEqual(set(line), {"id", "trace_id", "status", "total_ms"})
        self.assertEqual(line["status"], "404")
        left = server.connect()
        left.sendall(post_bytes(COMPLETIONS, LONG, "X-Request-Id: left\r\n"))
        read_until(left, b"data: ")
        left.close()
        line, = self.lines(server, "left")
        self.assertEqual((line["status"], line["finish"]), ("499", "abort"))
        cut = server.connect()
        cut.sendall(post_bytes(COMPLETIONS, LONG, "X-Request-Id: cut\r\n"))
        read_until(cut, b"data: ")
        server.post("/abort_request", {"abort_all": True})
        read_until(cut, b"[DONE]")
        line, = self.lines(server, "cut")
        self.assertEqual((line["status"], line["error"]), ("200", "403"))
        cut.close()
        self.assertEqual(server.stop(), 0)

    def test_it_can_be_turned_off(self):
        for option in ("--no-log-requests", "--disable-log-requests"):
            server = self.start(option)
            server.post(COMPLETIONS, SHORT)
            self.assertEqual(server.stop(), 0)
            self.assertNotIn(b"request id=", server.log)


class End(LifeTest):
    def test_clients_are_told_and_the_status_is_0(self):
        for signal_number in (signal.SIGTERM, signal.SIGINT):
            server = self.start("--max-num-seqs", "1")
            stream = server.send(COMPLETIONS, LONG)
            whole = server.send(COMPLETIONS, {**LONG, "stream": False})
            queued = server.send(COMPLETIONS, {**LONG, "n": 3})
            idle = server.connect()
            server.wait_running(1, 4)
            self.assertEqual(server.stop(signal_number), 0)
            for sock in (stream, queued):
                events = read_answer(sock).body.decode().split("\n\n")
                self.assertEqual(events[-2:], ["data: [DONE]", ""])
                self.assertIn('data: {"error":{', events[-3])
                self.assertIn('"code":503', events[-3])
                self.assertNotIn('"finish_reason":"', "".join(events))
            self.assertEqual(read_answer(whole).status, 503)
            self.assertEqual(idle.recv(1), b"")
            for sock in (stream, whole, queued, idle):
                sock.close()

    def test_running_work_may_be_given_time(self):
        server = self.start("--shutdown-timeout", "100")
        stream = server.send(COMPLETIONS, {**LONG, "max_tokens": 500})
        read_until(stream, b"data: ")
        stopped = []
        stopper = threading.Thread(target=lambda: stopped.append(server.stop()))
        server.get("/health")
        stopper.start()
        server.wait_for("not ready", lambda: server.get("/readiness").status == 503)
        self.assertEqual(server.get("/health").status, 200)
        refused = server.post(COMPLETIONS, SHORT)
        self.assertEqual((refused.status, refused.json()["error"]["code"]), (503, 503))
        rest = read_until(stream)
        self.assertTrue(rest.rstrip(b"\r\n0").endswith(b"data: [DONE]"), rest[-300:])
        self.assertIn(b'"finish_reason":"length"', rest)
        stopper.join()
        self.assertEqual(stopped, [0])
        stream.close()

    def crowd(self, server):
        """More work than any test waits for."""
        body = {**LONG, "max_tokens": 2000}
        streams = [server.send(COMPLETIONS, {**body, "seed": i}) for i in range(100)]
        server.wait_for("a crowd", lambda: server.metric("vllm:num_requests_running") == 1 and
                        server.metric("vllm:num_requests_waiting") > 60)
        return streams

    @staticmethod
    def end_of(sock):
        """The answer. None: nobody read while it was written, and it was cut off."""
        try:
            return read_answer(sock)
        except ConnectionResetError:
            return None

    def test_time_that_is_not_enough(self):
        server = self.start("--max-num-seqs", "1", "--shutdown-timeout", "1")
        streams = self.crowd(server)
        self.assertEqual(server.stop(), 0)
        ends = [self.end_of(sock) for sock in streams[1:]]
        told = 0
        for end in filter(None, ends):
            if end.status == 503:  # it was read after the signal
                self.assertEqual(end.json()["error"]["code"], 503)
                continue
            event, *rest = end.body.decode().split("\n\n")[-3:]
            self.assertEqual(rest, ["data: [DONE]", ""])
            if '"error"' in event:
                told += 1
                self.assertIn('"message":"The server was stopped."', event)
                self.assertIn('"code":503', event)
        self.assertGreater(told, 50)
        for sock in streams:
            sock.close()

    def test_a_second_signal_ends_at_once(self):
        for first, second in ((signal.SIGTERM, signal.SIGTERM), (signal.SIGTERM, signal.SIGINT),
                              (signal.SIGINT, signal.SIGTERM)):
            server = self.start("--max-num-seqs", "1", "--shutdown-timeout", "10000")
            streams = self.crowd(server)
            server.process.send_signal(first)
            server.wait_for("not ready", lambda: server.get("/readiness").status == 503)
            self.assertEqual(server.stop(second), -second)
            for sock in streams:
                sock.close()

    def test_kept_connections_are_sent_away(self):
        server = self.start("--max-num-seqs", "1", "--shutdown-timeout", "10000")
        streams = self.crowd(server)
        kept = [server.connect() for _ in range(3)]
        get = b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n"
        for sock in kept:
            sock.sendall(get)
            self.assertNotEqual(read_answer(sock).headers["Connection"], "close")
        server.process.send_signal(signal.SIGTERM)
        server.wait_for("not ready", lambda: server.get("/readiness").status == 503)
        for sock in kept:
            sock.sendall(get)
            self.assertEqual(read_answer(sock).headers["Connection"], "close")
            self.assertEqual(sock.recv(1), b"")
            sock.close()
        refused = server.post(COMPLETIONS, SHORT)
        self.assertEqual((refused.status, refused.json()["error"]["message"]),
                         (503, "The server is stopping and takes no more requests."))
        for sock in streams:
            sock.close()
        self.assertEqual(server.wait(), 0)  # there is nothing left to wait for

    def test_while_requests_are_half_sent(self):
        server = self.start()
        half = server.connect()
        half.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
        server.get("/health")
        self.assertEqual(server.stop(), 0)
        half.close()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
