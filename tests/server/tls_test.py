#!/usr/bin/env python3
"""TLS: who can speak with the server, and that streams and cancellation work as without.

  tls_test.py CMINFER MODEL
"""
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import unittest

from live_server import DEADLINE_S, Answer, Server, post_bytes, read_until

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

COMPLETIONS = "/v1/completions"
SHORT = {"prompt": "a", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
LONG = {"prompt": "a", "ignore_eos": True, "max_tokens": 2000, "stream": True}


def make_certificate(folder, name):
    paths = [os.path.join(folder, name + end) for end in (".crt", ".key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


class TlsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.certificate, cls.key = make_certificate(cls.folder.name, "one")
        cls.server = Server(CMINFER, MODEL, "--ssl-certfile", cls.certificate,
                            "--ssl-keyfile", cls.key, "--idle-timeout", "5")
        cls.server.context = cls.trusting()

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()
        status = cls.server.stop()
        assert status == 0, f"the server ended with {status}:\n{cls.server.log[-3000:]}"

    @classmethod
    def trusting(cls):
        return ssl.create_default_context(cafile=cls.certificate)

    def connect(self, context=None):
        sock = self.server.connect()
        return (context or self.trusting()).wrap_socket(sock, server_hostname="127.0.0.1")

    def request(self, method, path, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", self.server.port,
                                                 timeout=DEADLINE_S, context=self.trusting())
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = Answer(connection.getresponse())
        connection.close()
        return answer

    def metric(self, name, labels=""):
        text = self.request("GET", "/metrics").body.decode()
        return sum(float(row.split()[-1]) for row in text.splitlines()
                   if row.startswith(name) and labels in row)

    def test_answers_and_streams_are_the_same(self):
        plain = Server(CMINFER, MODEL)
        want = plain.post(COMPLETIONS, SHORT).json()["choices"]
        self.assertEqual(plain.stop(), 0)
        self.assertEqual(self.request("POST", COMPLETIONS, SHORT).json()["choices"], want)
        chunks = self.request("POST", COMPLETIONS, {**SHORT, "stream": True}).chunks()
        self.assertEqual("".join(c["choices"][0]["text"] for c in chunks), want[0]["text"])
        long = self.request("POST", "/tokenize", {"prompt": "a " * 500000})
        self.assertGreater(long.json()["count"], 500000)

    def test_the_versions(self):
        for version, good in ((ssl.TLSVersion.TLSv1_2, True), (ssl.TLSVersion.TLSv1_3, True),
                              (ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1, False)):
            context = self.trusting()
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version = context.maximum_version = version
            with self.subTest(version):
                if good:
                    self.connect(context).close()
                else:
                    with self.assertRaises((ssl.SSLError, ConnectionError)):
                        self.connect(context)

    def test_what_is_not_tls_is_closed(self):
        for raw in (b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", b"\x16\x03\x01", bytes(1000), b""):
            got = self.server.exchange(raw)
            self.assertNotIn(b"HTTP", got)

    def test_a_client_that_leaves_is_cancelled(self):
        before = self.metric("vllm:request_success_total", 'finished_reason="abort"')
        sock = self.connect()
        sock.sendall(post_bytes(COMPLETIONS, LONG))
        read_until(sock, b"data: ")
        sock.close()
        self.server.wait_for("the abort", lambda: self.metric(
            "vllm:request_success_total", 'finished_reason="abort"') == before + 1)
        self.assertEqual(self.metric("vllm:num_requests_running"), 0)

    def expect_no_start(self, words, *options):
        ended = subprocess.run([CMINFER, "serve", MODEL, "--port", "0", *options],
                               capture_output=True, text=True, timeout=DEADLINE_S)
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
        self.assertIn(words, ended.stderr)

    def test_files_that_do_not_do(self):
        other = make_certificate(self.folder.name, "other")
        empty = os.path.join(self.folder.name, "empty")
        open(empty, "w").close()
        self.expect_no_start("go together", "--ssl-certfile", self.certificate)
        self.expect_no_start("go together", "--ssl-keyfile", self.key)
        self.expect_no_start("none.pem", "--ssl-certfile", "none.pem", "--ssl-keyfile", self.key)
        self.expect_no_start("go together", "--ssl-certfile", self.certificate,
                             "--ssl-keyfile", other[1])
        self.expect_no_start("no certificate", "--ssl-certfile", MODEL + "/config.json",
                             "--ssl-keyfile", self.key)
        self.expect_no_start("no key", "--ssl-certfile", self.certificate, "--ssl-keyfile", empty)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
