#!/usr/bin/env python3
"""What administrators may do, and who is one.

  admin_test.py CMINFER MODEL
"""
import os
import sys
import unittest

from live_server import Server, read_answer, read_until, post_bytes

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

COMPLETIONS = "/v1/completions"
LONG = {"prompt": "a", "ignore_eos": True, "max_tokens": 2000, "stream": True}
PROMPT = {"prompt": [9] * 600, "max_tokens": 1}
FLUSH, RESET, ABORT = "/flush_cache", "/reset_prefix_cache", "/abort_request"
OPEN = ("/health", "/liveness", "/ping", "/readiness", "/ready")
USERS = (("GET", "/v1/models"), ("GET", "/version"), ("GET", "/metrics"),
         ("POST", "/tokenize"), ("GET", "/none"))
ADMIN = (("POST", FLUSH), ("POST", RESET), ("POST", ABORT))
GOOD = {"/none": 404, "/tokenize": 400, ABORT: 400}  # others: 200


class AdminTest(unittest.TestCase):
    def start(self, *options, **kwargs):
        server = Server(CMINFER, MODEL, *options, **kwargs)
        self.addCleanup(lambda: server.process.poll() is None and server.process.kill())
        return server

    def expect(self, server, requests, key, status=None):
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        for method, path in requests:
            answer = server.request(method, path, b"{}" if method == "POST" else None, headers)
            self.assertEqual(answer.status, status or GOOD.get(path, 200), (path, key))
            if status == 403:
                self.assertEqual(answer.json()["error"]["type"], "PermissionDeniedError")

    def expect_probes(self, server):
        for path in OPEN:
            self.assertEqual(server.get(path).status, 200)

    def test_without_keys_all_is_open(self):
        server = self.start(env={"CMINFER_API_KEY": "", "VLLM_API_KEY": ""})
        for key in (None, "x"):
            self.expect(server, USERS + ADMIN, key)
        self.assertEqual(server.stop(), 0)

    def test_users_keys_open_all_when_there_are_no_others(self):
        server = self.start(env={"VLLM_API_KEY": "user"})
        self.expect(server, USERS + ADMIN, "user")
        for key in (None, "", "use", "users", "admin"):
            self.expect(server, USERS + ADMIN, key, 401)
        self.expect_probes(server)
        self.assertEqual(server.stop(), 0)

    def test_both(self):
        server = self.start("--api-key", "user", "--api-key", "user2", "--admin-api-key", "admin",
                            "--admin-api-key", "root")
        for key in ("user", "user2"):
            self.expect(server, USERS, key)
            self.expect(server, ADMIN, key, 403)
        for key in ("admin", "root"):
            self.expect(server, USERS + ADMIN, key)
        for key in (None, "", "rooT", "admi", "useradmin"):
            self.expect(server, USERS + ADMIN, key, 401)
        self.expect_probes(server)
        self.assertEqual(server.stop(), 0)

    def test_only_administrators_have_keys(self):
        server = self.start(env={"CMINFER_ADMIN_API_KEY": "admin"})
        for key in (None, "x", "admin"):
            self.expect(server, USERS, key)
        for key in (None, "", "x"):
            self.expect(server, ADMIN, key, 401)
        self.expect(server, ADMIN, "admin")
        self.assertEqual(server.stop(), 0)

    def test_an_empty_key_opens_nothing(self):
        server = self.start("--api-key", "", "--admin-api-key", "")
        for key in (None, "", " "):
            self.expect(server, USERS + ADMIN, key, 401)
        self.assertEqual(server.stop(), 0)

    def test_flushing_the_prefix_cache(self):
        """With prefill apart its cache holds nothing for a request that is decoded."""
        for options, held in (((), 512), (("--disaggregate",), 0)):
            with self.subTest(options):
                self.expect_flushes(self.start(*options), held)

    def expect_flushes(self, server, held):
        def ask():
            return server.post(COMPLETIONS, PROMPT).json()["usage"]["prompt_tokens_details"]

        self.assertEqual(ask()["cached_tokens"], 0)
        self.assertEqual(ask()["cached_tokens"], 512)
        for path in (FLUSH, RESET):
            self.assertEqual(server.post(path, b"").json(), {"success": True})
            self.assertEqual(ask()["cached_tokens"], 0)
            self.assertEqual(ask()["cached_tokens"], 512)
        running = server.send(COMPLETIONS, {**LONG, **PROMPT, "max_tokens": 1400})
        read_until(running, b"data: ")
        self.assertEqual(server.post(FLUSH, b"").status, 200)
        self.assertEqual(ask()["cached_tokens"], held)
        running.close()
        self.assertEqual(server.stop(), 0)

    def expect_aborted(self, stream):
        rest = read_until(stream, b"data: [DONE]\n\n")
        self.assertIn(b'data: {"error":{"message":"The request was aborted by an administrator.',
                      rest)
        self.assertIn(b'"code":403', rest)
        stream.close()

    def test_aborting_by_id(self):
        server = self.start("--max-num-seqs", "1")
        one = server.connect()
        one.sendall(post_bytes(COMPLETIONS, LONG, "X-Request-Id: one\r\n"))
        head = read_until(one, b'"object"').decode()
        answer_id = head.partition('"id":"')[2].partition('"')[0]
        two = server.connect()
        two.sendall(post_bytes(COMPLETIONS, LONG, "X-Request-Id: two\r\n"))
        whole = server.connect()
        whole.sendall(post_bytes(COMPLETIONS, {**LONG, "stream": False, "n": 2},
                                 "X-Request-Id: whole\r\n"))
        server.wait_running(1, 3)
        for body, n in (({"rid": "three"}, 0), ({"rid": "tw"}, 0), ({"request_id": "two"}, 1),
                        ({"rid": answer_id}, 1), ({"rid": "whole"}, 1), ({"rid": "whole"}, 0)):
            self.assertEqual(server.post(ABORT, body).json(), {"success": True, "aborted": n}, body)
        self.expect_aborted(one)
        self.expect_aborted(two)
        answer = read_answer(whole)
        self.assertEqual((answer.status, answer.json()["error"]["code"]), (403, 403))
        whole.close()
        server.wait_running(0, 0)
        for body in (b"", b"{", b"[]", b"{}", b'{"rid": ""}', b'{"rid": 1}',
                     b'{"abort_all": false}', b'{"abort_all": 1}'):
            self.assertEqual(server.post(ABORT, body).status, 400, body)
        self.assertEqual(server.stop(), 0)

    def test_aborting_all(self):
        server = self.start("--max-num-seqs", "2")
        streams = [server.send(COMPLETIONS, {**LONG, "seed": i}) for i in range(5)]
        server.wait_running(2, 3)
        self.assertEqual(server.post(ABORT, {"abort_all": True}).json()["aborted"], 5)
        for stream in streams:
            self.expect_aborted(stream)
        server.wait_running(0, 0)
        self.assertEqual(server.post(COMPLETIONS, PROMPT).status, 200)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
