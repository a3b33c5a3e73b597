#!/usr/bin/env python3
"""What is not HTTP, or not quite, one connection a case, beside one stream that must not notice.

  hostile_http_test.py CMINFER MODEL

Each case is bytes that a client sends and what may come back: one answer with one of some statuses,
or nothing but the end of the connection (CLOSED). hostile_test.py has what is wrong inside bodies.
"""
import concurrent.futures
import json
import os
import re
import socket
import struct
import sys
import threading
import time
import unittest

from live_server import DEADLINE_S, Server, post_bytes, read_until

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

CLOSED = 0
COMPLETIONS = "/v1/completions"
GOOD = {"prompt": "a", "max_tokens": 2, "temperature": 0}
STREAM = {"prompt": "hello", "max_tokens": 400, "temperature": 0, "ignore_eos": True,
          "stream": True}
GET = b"GET /version HTTP/1.1\r\nHost: a\r\n"
END = b"Connection: close\r\n\r\n"
POST = b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
BODY = json.dumps(GOOD).encode()


def post(body, headers=""):
    return post_bytes(COMPLETIONS, body, headers + "Connection: close\r\n")


# name: (bytes, statuses of the only answer)
CASES = {
    # the request line
    "nothing": (b"", {CLOSED}),
    "empty lines": (b"\r\n" * 50, {CLOSED}),
    "words": (b"hello\r\n\r\n", {CLOSED, 400}),
    "binary": (bytes(range(256)) * 4, {CLOSED, 400}),
    "zeros": (bytes(3000), {CLOSED, 400}),
    "TLS hello": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(505), {CLOSED, 400}),
    "SSH": (b"SSH-2.0-OpenSSH_9.2\r\n", {CLOSED, 400}),
    "SOCKS": (b"\x05\x01\x00", {CLOSED}),
    "HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {CLOSED, 400, 405, 505}),
    "HTTP/0.9": (b"GET /version\r\n\r\n", {CLOSED, 400, 505}),
    "HTTP/9.9": (b"GET /version HTTP/9.9\r\nHost: a\r\n" + END, {CLOSED, 400, 505}),
    "no version number": (b"GET /version HTTP/\r\nHost: a\r\n" + END, {CLOSED, 400, 505}),
    "no path": (b"GET\r\n\r\n", {CLOSED, 400}),
    "unknown method": (b"BREW /version HTTP/1.1\r\nHost: a\r\n" + END, {405}),
    "small letters": (b"get /version HTTP/1.1\r\nHost: a\r\n" + END, {405}),
    "TRACE": (b"TRACE /version HTTP/1.1\r\nHost: a\r\n" + END, {405}),
    "CONNECT": (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n" + END, {404}),
    "absolute URL": (b"GET http://a/version HTTP/1.1\r\nHost: a\r\n" + END, {404}),
    "long method": (b"G" * 40000 + b" / HTTP/1.1\r\nHost: a\r\n" + END,
                    {CLOSED, 400, 413, 414, 431}),
    "long URL": (b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: a\r\n" + END, {CLOSED, 414, 431}),
    "long query": (b"GET /version?" + b"a=b&" * 20000 + b" HTTP/1.1\r\n" + END,
                   {CLOSED, 414, 431}),
    "NUL in the path": (b"GET /ver\0sion HTTP/1.1\r\nHost: a\r\n" + END, {CLOSED, 400, 404}),
    "%00 in the path": (b"GET /version%00x HTTP/1.1\r\nHost: a\r\n" + END, {404}),
    "bad escape": (b"GET /%zz%u0041 HTTP/1.1\r\nHost: a\r\n" + END, {404}),
    "dots": (b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\n" + END, {404}),
    "raw UTF-8 path": ("GET /模型 HTTP/1.1\r\nHost: a\r\n".encode() + END, {404}),
    "bytes above 127": (b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n" + END, {404}),
    # headers
    "no Host": (b"GET /version HTTP/1.1\r\n" + END, {400}),
    "two Hosts": (GET + b"Host: b\r\n" + END, {400}),
    "no colon": (GET + b"X\r\n" + END, {CLOSED, 400}),
    "long header": (GET + b"X: " + b"a" * 100000 + b"\r\n" + END, {CLOSED, 413, 431}),
    "long name": (GET + b"X" * 100000 + b": a\r\n" + END, {CLOSED, 413, 431}),
    "many headers": (GET + b"A: b\r\n" * 20000 + END, {CLOSED, 413, 431}),
    "long id": (GET + b"X-Request-Id: " + b"a" * 5000 + b"\r\n" + END, {200}),
    "id of control bytes": (GET + b"X-Request-Id: a\x01\x7f\xff\r\n" + END, {200, 400}),
    "websocket": (GET + b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n", {200, 400}),
    "unknown Expect": (POST + b"Expect: the moon\r\nContent-Length: 2\r\n" + END + b"{}",
                       {400, 417}),
    "Expect for too much": (POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n" + END,
                            {413}),
    # how long a body is
    "negative length": (POST + b"Content-Length: -1\r\n" + END + BODY, {CLOSED, 400}),
    "no number": (POST + b"Content-Length: x\r\n" + END + BODY, {CLOSED, 400}),
    "length of 65 bits": (POST + b"Content-Length: 99999999999999999999\r\n" + END + BODY,
                          {CLOSED, 400, 413}),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 40\r\n" + END + BODY, {400}),
    "both framings": (POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n" + END + BODY,
                      {400}),
    "gzip encoding": (POST + b"Transfer-Encoding: gzip\r\n" + END + BODY, {CLOSED, 400}),
    "length too large": (POST + b"Content-Length: 1000\r\n" + END + BODY, {CLOSED}),
    "length too small": (POST + b"Content-Length: 5\r\n" + END + BODY, {400}),
    "no body": (post(b""), {400}),
    "far too large": (POST + b"Content-Length: 1000000000000\r\n" + END + b"{", {413}),
    "too large": (post(b" " * (11 << 20)), {413}),
    "no chunk size": (CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n", {CLOSED, 400}),
    "negative chunk": (CHUNKED + b"-1\r\n{}\r\n0\r\n\r\n", {CLOSED, 400}),
    "huge chunk": (CHUNKED + b"ffffffffffffffffff\r\n{}", {CLOSED, 400, 413}),
    "long chunk": (CHUNKED + b"1\r\n{}\r\n0\r\n\r\n", {CLOSED, 400}),
    "short chunk": (CHUNKED + b"9\r\n{}\r\n0\r\n\r\n", {CLOSED, 400}),
    "long extension": (CHUNKED + b"2;" + b"x" * 100000 + b"\r\n{}\r\n0\r\n\r\n",
                       {CLOSED, 400, 413, 431, 500}),  # 500: libmicrohttpd's word for it
    "no last chunk": (CHUNKED + b"2\r\n{}\r\n", {CLOSED}),
    # bodies
    "deep JSON": (post(b'{"prompt": ' + b"[" * 1000000), {400}),
    "invalid UTF-8": (post(b'{"prompt": "\xc3\x28\xff"}'), {400}),
    "NUL in JSON": (post(b'{"prompt": "a\0b"}'), {400}),
    "UTF-16": (post(json.dumps(GOOD).encode("utf-16")), {400}),
    "lone surrogate": (post(b'{"prompt": "\\ud800"}'), {400}),
    "long number": (post(b'{"prompt": "a", "seed": ' + b"9" * 1000000 + b"}"), {400}),
    "gzip body": (post(b"\x1f\x8b\x08" + bytes(100), "Content-Encoding: gzip\r\n"), {400}),
    "multipart": (post(b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\nb\r\n--x--\r\n",
                       "Content-Type: multipart/form-data; boundary=x\r\n"), {400}),
}

# What is sent a byte at a time behind the start, until the server has had enough.
TRICKLES = {
    "a request line": (b"", b"G"),
    "headers": (GET, b"X: y\r\n"),
    "a header": (GET + b"X: ", b"a"),
    "a body": (POST + b"Content-Length: 100000\r\n\r\n", b" "),
    "a refused body": (b"POST /none HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", b" "),
    "chunks": (CHUNKED, b"1\r\n \r\n"),
    "a chunk size": (CHUNKED, b"0"),
    "a chunk": (CHUNKED + b"ffff\r\n", b" "),
}


def normal(stream):
    """A stream without what differs in each: ids, times, how it was cut into chunks."""
    events = re.findall(rb"data: .*", stream)
    return [re.sub(rb'"id":"[^"]*"|"created":\d+', b"", event) for event in events]


class Quiet:
    """One client that streams again and again, and minds how."""

    def __init__(self, server):
        self.server = server
        self.want = self.stream()
        self.stop = threading.Event()
        self.n_streams = 0
        self.problem = None
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def stream(self):
        sock = self.server.connect()
        sock.sendall(post_bytes(COMPLETIONS, STREAM, "Connection: close\r\n"))
        got = normal(read_until(sock))
        sock.close()
        return got

    def run(self):
        while not self.stop.is_set() and self.problem is None:
            try:
                got = self.stream()
                if got != self.want:
                    self.problem = f"another stream: {got[-1:]}"
            except Exception as e:  # any: it is told in the main thread
                self.problem = repr(e)
            self.n_streams += 1


class HostileHttp(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(CMINFER, MODEL, "--idle-timeout", "3", "--slow-client-timeout", "3")
        cls.quiet = Quiet(cls.server)
        assert len(cls.quiet.want) > STREAM["max_tokens"], cls.quiet.want

    @classmethod
    def tearDownClass(cls):
        cls.quiet.stop.set()
        cls.quiet.thread.join()
        status = cls.server.stop()
        assert cls.quiet.problem is None, cls.quiet.problem
        assert cls.quiet.n_streams > 0
        assert status == 0, f"the server ended with {status}:\n{cls.server.log[-3000:]}"

    def expect_one(self, got, statuses):
        """At most one answer, well formed."""
        found = [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d+) ", got)]
        if len(found) == 2 and b"X-Request-Id" not in got:
            # libmicrohttpd 0.9.75 says what is wrong with a Content-Length twice, and closes.
            self.assertEqual(found[0], found[1])
            got, found = got[got.rindex(b"HTTP/1.1"):], found[1:]
        self.assertLessEqual(len(found), 1, got[:1000])
        self.assertIn(found[0] if found else CLOSED, statuses, got[:1000])
        if not found:
            self.assertEqual(got, b"")
            return
        head, _, body = got.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length:
            self.assertEqual(len(body), int(length[1]))
        if b"X-Request-Id" in head and found[0] >= 400:
            self.assertEqual(json.loads(body)["error"]["code"], found[0])

    def test_each_gets_one_clear_error_or_is_closed(self):
        self.assertGreaterEqual(len(CASES) + len(TRICKLES), 60)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = dict(zip(CASES, pool.map(lambda case: self.server.exchange(case[0]),
                                               CASES.values())))
        for name, (_, statuses) in CASES.items():
            with self.subTest(name):
                self.expect_one(answers[name], statuses)

    def test_cut_anywhere(self):
        """Half-closed, closed and reset after every byte of a good request's head, and more."""
        whole = post(BODY)
        for n in list(range(0, len(whole), 3)):
            for leave in (lambda s: s.shutdown(socket.SHUT_WR), lambda s: None,
                          lambda s: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                                 struct.pack("ii", 1, 0))):
                sock = self.server.connect()
                sock.sendall(whole[:n])
                leave(sock)
                sock.close()

    def test_a_half_closed_socket_has_left(self):
        sock = self.server.connect()
        sock.sendall(post(json.dumps({**STREAM, "max_tokens": 2000}).encode()))
        sock.shutdown(socket.SHUT_WR)
        got = read_until(sock)
        self.assertNotIn(b"[DONE]", got)
        sock.close()

    def test_pipelined_requests_are_answered_in_order(self):
        paths = ["/version", "/none", "/health", "/v1/models", "/none"]
        raw = b"".join(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % path.encode() for path in paths)
        raw += post_bytes(COMPLETIONS, GOOD) + post_bytes(COMPLETIONS, b"{") + GET + END
        got = self.server.exchange(raw + GET + b"\r\n")  # the last is behind the end
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+) ", got)]
        self.assertEqual(statuses, [200, 404, 200, 200, 404, 200, 400, 200])

    def test_what_follows_a_bad_request_is_not_served(self):
        for raw in (b"hello\r\n\r\n", CASES["both framings"][0], CASES["two lengths"][0],
                    CASES["length of 65 bits"][0], CASES["no chunk size"][0],
                    CASES["long URL"][0]):
            got = self.server.exchange(raw + (GET + b"\r\n") * 3)
            self.assertNotIn(b" 200 ", got)
            self.assertLessEqual(len(set(re.findall(rb"HTTP/1\.1 \d+ ", got))), 1, got)

    def test_what_trickles_is_ended(self):
        socks = {}
        for name, (start, _) in TRICKLES.items():
            socks[name] = self.server.connect()
            socks[name].sendall(start)
            socks[name].setblocking(False)
        end = time.monotonic() + DEADLINE_S
        got = dict.fromkeys(TRICKLES, b"")
        while socks:
            self.assertLess(time.monotonic(), end, f"still open: {list(socks)}")
            for name in list(socks):
                if self.is_over(socks[name], TRICKLES[name][1], got, name):
                    socks.pop(name).close()
            self.quiet.stop.wait(0.1)
        for name, bytes_got in got.items():
            with self.subTest(name):
                self.expect_one(bytes_got, {CLOSED, 400, 404, 413, 431})

    @staticmethod
    def is_over(sock, more, got, name):
        try:
            sock.send(more)
            chunk = sock.recv(65536)
            got[name] += chunk
            return not chunk
        except BlockingIOError:
            return False
        except OSError:
            return True


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
