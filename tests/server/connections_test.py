#!/usr/bin/env python3
"""Many clients at once, and those that are slow.

  connections_test.py CMINFER MODEL

10,000 connections that stay open and 1,000 streams beside them; clients that send or read a byte
now and then; clients that leave. Nobody waits for another client, and memory has a bound.
"""
import os
import resource
import selectors
import socket
import sys
import time
import unittest

from live_server import DEADLINE_S, Server, post_bytes, read_answer, read_until

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])
SANITIZED = "CMI_FEW" in os.environ

COMPLETIONS = "/v1/completions"
N_IDLE, N_STREAMS = (500, 100) if SANITIZED else (10000, 1000)
SHORT = {"prompt": "a", "max_tokens": 4, "temperature": 0, "ignore_eos": True}
LONG = {"prompt": "a", "ignore_eos": True, "max_tokens": 2000, "stream": True}
# A prompt of several chunks, so that a cancellation finds it in prefill.
PROMPT = {**LONG, "prompt": [7] * 1900, "max_tokens": 100}


def raise_open_files(n):
    """Whether this process may have n descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < n:
        return False
    if soft != resource.RLIM_INFINITY and soft < n:
        resource.setrlimit(resource.RLIMIT_NOFILE, (n, hard))
    return True


class ConnectionsTest(unittest.TestCase):
    def start(self, *options):
        server = Server(CMINFER, MODEL, *options)
        self.addCleanup(lambda: server.process.poll() is None and server.process.kill())
        return server

    def expect_closed(self, sock):
        """Whatever comes before; no answer to a request that was never whole."""
        try:
            got = read_until(sock)
        except ConnectionResetError:
            got = b""
        self.assertNotIn(b" 200 ", got)
        sock.close()


class Crowd(ConnectionsTest):
    def test_ten_thousand_stay_and_a_thousand_stream(self):
        need = N_IDLE + N_STREAMS + 300
        if not raise_open_files(need):
            self.skipTest(f"the hard limit of open files is below {need}")
        server = self.start("--max-num-seqs", "256", "--idle-timeout", "600")
        if b"connections at once, not" in server.log:
            self.skipTest(server.log.decode())
        want = server.post(COMPLETIONS, SHORT).json()["choices"][0]["text"]
        before_kib = server.resident_kib()
        idle = [self.ask(server, i) for i in range(N_IDLE)]
        per_client_kib = (server.resident_kib() - before_kib) / N_IDLE
        print(f"{per_client_kib:.1f} KiB a connection", file=sys.stderr)
        streams = [server.connect() for _ in range(N_STREAMS)]
        for sock in streams:
            sock.sendall(post_bytes(COMPLETIONS, {**SHORT, "stream": True}))
        for sock in streams:
            answer = read_answer(sock)
            self.assertEqual(answer.status, 200)
            text = "".join(c["choices"][0]["text"] for c in answer.chunks())
            self.assertEqual(text, want)
            sock.close()
        for sock in idle[::97]:  # they are still served
            sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertEqual(read_answer(sock).status, 200)
        if not SANITIZED:
            self.assertLess(per_client_kib, 64)
        for sock in idle:
            sock.close()
        self.assertEqual(server.stop(), 0)

    @staticmethod
    def ask(server, i):
        sock = server.connect()
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\nX-Request-Id: %d\r\n\r\n" % i)
        assert read_answer(sock).status == 200
        return sock

    def test_one_address_may_be_limited(self):
        server = self.start("--max-connections-per-address", "3")
        socks = [self.ask(server, i) for i in range(3)]
        more = server.connect()
        self.expect_closed(more)
        socks[0].close()
        server.wait_for("another's place", lambda: self.can_ask(server))
        for sock in socks[1:]:
            sock.close()
        self.assertEqual(server.stop(), 0)

    @staticmethod
    def can_ask(server):
        try:
            return server.get("/health").status == 200
        except (OSError, socket.error):
            return False
        except Exception:  # http.client: closed without an answer
            return False


class SlowClients(ConnectionsTest):
    """Each sends or takes a byte more often than the idle timeout asks for."""

    def trickle(self, socks, seconds=DEADLINE_S):
        """A byte to each, again and again, until the server has closed them all."""
        selector = selectors.DefaultSelector()
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        n_open = len(socks)
        while n_open > 0:
            self.assertLess(time.monotonic(), end, f"{n_open} are still open")
            for key, _ in selector.select(0.2):
                try:
                    closed = not key.fileobj.recv(65536)
                except ConnectionResetError:
                    closed = True
                if closed:
                    selector.unregister(key.fileobj)
                    n_open -= 1
            for sock in socks:
                try:
                    sock.send(b"a")
                except OSError:
                    pass
        selector.close()
        for sock in socks:
            sock.close()

    def test_heads_and_bodies_that_trickle_are_ended(self):
        server = self.start("--idle-timeout", "2", "--slow-client-timeout", "2")
        starts = [b"", b"G", b"GET /health HTTP/1.1\r\nHost: a\r\nX: ",
                  b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n",
                  b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 90000000\r\n\r\n"]
        socks = []
        for start in starts * 20:
            sock = server.connect()
            sock.sendall(start)
            socks.append(sock)
        before = server.metric("cminfer:slow_clients_total")
        self.trickle(socks)
        self.assertGreaterEqual(server.metric("cminfer:slow_clients_total") - before, 60)
        self.assertEqual(server.post(COMPLETIONS, SHORT).status, 200)
        self.assertEqual(server.stop(), 0)

    def test_a_request_that_takes_long_is_not_the_clients_fault(self):
        server = self.start("--idle-timeout", "1", "--slow-client-timeout", "1",
                            "--max-num-seqs", "1")
        # Without a connection that is kept behind the answer, for however long this test may take.
        sockets = []
        for i in range(4):
            body = {**LONG, "seed": i} if i < 3 else {**SHORT, "stream": False}
            sockets.append(server.connect())
            sockets[-1].sendall(post_bytes(COMPLETIONS, body, "Connection: close\r\n"))
        *running, waiting = sockets
        for sock in running:
            last = read_answer(sock).chunks()[-1]["choices"][0]
            self.assertEqual(last["finish_reason"], "length")
            sock.close()
        self.assertEqual(read_answer(waiting).status, 200)
        self.assertEqual(server.metric("cminfer:slow_clients_total"), 0)
        waiting.close()
        self.assertEqual(server.stop(), 0)


class Leaving(ConnectionsTest):
    def aborts(self, server):
        text = server.get("/metrics").body.decode()
        rows = [row for row in text.splitlines() if 'finished_reason="abort"' in row]
        self.assertEqual(len(rows), 1)
        return int(rows[0].split()[-1])

    def test_queued_in_prefill_and_in_decode(self):
        server = self.start("--max-num-seqs", "1", "--max-num-batched-tokens", "8")
        blocker = server.send(COMPLETIONS, LONG)
        read_until(blocker, b"data: ")
        queued = server.send(COMPLETIONS, LONG)
        server.wait_running(1, 1)
        queued.close()
        server.wait_running(1, 0)
        self.assertEqual(self.aborts(server), 1)
        blocker.close()  # in decode
        server.wait_running(0, 0)
        self.assertEqual(self.aborts(server), 2)
        tokens = server.metric("vllm:generation_tokens_total")
        prefill = server.send(COMPLETIONS, PROMPT)
        server.wait_running(1, 0)
        prefill.close()
        server.wait_running(0, 0)
        self.assertEqual(self.aborts(server), 3)
        self.assertEqual(server.metric("vllm:generation_tokens_total"), tokens)
        self.assertEqual(server.post(COMPLETIONS, SHORT).status, 200)
        self.assertEqual(server.stop(), 0)

    def test_pings_come_while_a_stream_waits(self):
        server = self.start("--max-num-seqs", "1", "--sse-ping-interval", "1")
        blockers = [server.send(COMPLETIONS, {**LONG, "seed": i}) for i in range(20)]
        read_until(blockers[0], b"data: ")
        queued = server.send(COMPLETIONS, {**SHORT, "stream": True})
        got = read_until(queued, b": ping\n\n")
        self.assertNotIn(b"data: ", got)
        for sock in blockers:
            sock.close()
        rest = read_until(queued, b"data: [DONE]\n\n")
        self.assertIn(b'"finish_reason":"length"', rest)
        queued.close()
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
