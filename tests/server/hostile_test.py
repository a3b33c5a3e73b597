#!/usr/bin/env python3
"""The whole server under clients that are wrong, rude or gone.

  hostile_test.py CMINFER MODEL

What is promised: a 4xx in OpenAI's error shape or a closed connection, never a crash, a leak or a
hang, and others are served meanwhile. So after every test the same server gives the same answer as
before it, and in the end it exits with status 0 (which a leak under ASan makes another one).
"""
import json
import os
import re
import socket
import struct
import sys
import unittest

from live_server import Server, post_bytes, read_answer, read_until

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])
SANITIZED = "CMI_FEW" in os.environ  # memory and time say nothing then

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
# Nearly all of the context: seconds of work, so what comes after it finds it running.
LONG = {"prompt": "a", "ignore_eos": True, "max_tokens": 2000, "stream": True}
MIB = 1 << 20

# What is no value of a type; null is absent, and so no error.
NO_BOOL = [0, 1, "true", [], {}]
NO_INT = ["1", 1.5, True, [], {}, 1e300]
NO_NUMBER = ["1", True, [], {}]
NO_STRING = [1, True, [], {}]
NO_OBJECT = [1, True, "x", []]

FIELDS = {
    "stream": NO_BOOL, "ignore_eos": NO_BOOL, "skip_special_tokens": NO_BOOL, "echo": NO_BOOL,
    "include_stop_str_in_output": NO_BOOL, "add_special_tokens": NO_BOOL,
    "n": NO_INT + [0, -1, 129, 2 ** 62], "best_of": NO_INT + [0, 2, 129],
    "max_tokens": NO_INT + [0, -1, 2048, 2 ** 31, 2 ** 62],
    "max_completion_tokens": NO_INT + [0, -1, 2048, 2 ** 31],
    "min_tokens": NO_INT + [-1, 2, 2 ** 40], "seed": NO_INT,
    "top_k": NO_INT + [-2, 2 ** 31],
    "temperature": NO_NUMBER + [-0.1, 2.1, 1e300, -1e300],
    "top_p": NO_NUMBER + [0, -0.5, 1.01, 1e-300], "min_p": NO_NUMBER + [-0.1, 1.1],
    "frequency_penalty": NO_NUMBER + [-2.1, 2.1], "presence_penalty": NO_NUMBER + [-2.1, 2.1],
    "repetition_penalty": NO_NUMBER + [0, -1, 101],
    "user": NO_STRING, "priority": NO_INT + [2 ** 31, -2 ** 31 - 1], "speculative": NO_BOOL,
    "num_speculative_tokens": NO_INT + [-1, 5],
    "stop": [1, True, {}, [1], [None], [[]], "", [""], ["a"] * 17, "x" * 5000],
    "stop_token_ids": [1, "1", {}, ["1"], [1.5], [None], [-1], [2048], [2 ** 62], [1] * 1000],
    "logit_bias": [1, "x", [], {"x": 1}, {"-1": 1}, {"2048": 1}, {"99999999999999999999": 1},
                   {"1": "1"}, {"1": None}, {"1": 101}, {"1": -101}, {"1 ": 1}, {"": 1},
                   {str(i): 0 for i in range(2000)}],
    "stream_options": NO_OBJECT + [{"include_usage": True}],
    "response_format": [1, True, "x", [], {}, {"type": 1}, {"type": "structural_tag"},
                        {"type": "json_schema", "json_schema": {}},
                        {"type": "json_schema", "json_schema": {"schema": {"type": "x"}}}],
    "structured_outputs": [1, "x", [], {}, {"json": 1}, {"regex": "("}, {"grammar": "x"},
                           {"choice": [1]}, {"json": {}, "regex": "a"}],
    "guided_json": [1, "x", [], {"not": {}}], "guided_regex": [1, "(", [], "a{99999}", "\\b"],
    "guided_choice": [1, "x", [], [""], {}], "regex": [1, "(?=a)", []], "json_schema": [1, "{", []],
}
CHAT_FIELDS = {
    "logprobs": NO_BOOL, "top_logprobs": NO_INT + [-1, 21, 1], "parallel_tool_calls": NO_BOOL,
    "include_reasoning": NO_BOOL, "add_generation_prompt": NO_BOOL,
    "continue_final_message": NO_BOOL,
    "messages": [None, 1, True, "x", {}, [], [1], [[]], [None], [{}], [{"role": "user"}],
                 [{"role": 1, "content": "a"}], [{"role": "king", "content": "a"}],
                 [{"content": "a"}], [{"role": "user", "content": None}]] + [
                     [{"role": "user", "content": c}] for c in (
                         1, True, {}, [1], [None], [{}], [{"type": "text"}],
                         [{"type": 1, "text": "a"}], [{"type": "text", "text": 1}],
                         [{"type": "image_url", "image_url": {"url": "http://a/b"}}])] + [
                             [{"role": "assistant", "content": "a", "tool_calls": c}] for c in (
                                 1, "x", {}, [1], [{}], [{"function": 1}], [{"function": {}}],
                                 [{"function": {"name": 1}}],
                                 [{"function": {"name": "f", "arguments": {}}}],
                                 [{"type": "g", "function": {"name": "f"}}])] + [
                                     [{"role": "tool", "content": "a", "tool_call_id": 1}],
                                     [{"role": "user", "content": "a", "name": []}]],
    "tools": [1, "x", {}, [1], [None], [{}], [{"type": "function"}],
              [{"type": "function", "function": {}}], [{"function": {"name": ""}}],
              [{"type": "x", "function": {"name": "f"}}],
              [{"function": {"name": "f", "parameters": []}}]],
    "tool_choice": [1, True, [], "x", "auto", "required", {},
                    {"type": "function", "function": {"name": "f"}}],
    "chat_template_kwargs": NO_OBJECT + [{"messages": []}, {"tools": 1}],
    "reasoning_effort": NO_STRING + ["", "huge"],
    "chat_template": ["{{ 1 }}"],
}
COMPLETION_FIELDS = {
    "logprobs": ["1", 1.5, True, [], {}, -1, 21],
    "prompt": [None, 1, True, {}, "", [], [None], [True], [1.5], [{}], ["a", 1], [1, "a"], [[]],
               [[1], []], ["a", ""], [-1], [2048], [2 ** 62], [[1], [2048]], [["a"]], [[[1]]],
               ["a"] * 129, "a " * 2048, [5] * 2048, [[1], [5] * 3000]],
    "suffix": ["x"],
}

BAD_JSON = {
    "nothing": b"", "space": b" \n", "a number": b"1", "a string": b'"x"', "null": b"null",
    "an array": b"[]", "no JSON": b"hello", "form": b"prompt=a&n=1", "cut": b'{"prompt": "a',
    "cut later": b'{"prompt": "a",', "no brace": b'{"prompt": "a"', "two": b"{}{}",
    "rest": b'{"prompt": "a"} x', "quotes": b"{'prompt': 'a'}", "bare key": b'{prompt: "a"}',
    "comment": b'{"prompt": "a" /* b */}', "comma": b'{"prompt": "a",}', "no colon": b'{"a" 1}',
    "NaN": b'{"prompt": "a", "temperature": NaN}',
    "Infinity": b'{"prompt": "a", "temperature": Infinity}',
    "-Infinity": b'{"prompt": "a", "temperature": -Infinity}',
    "1e999": b'{"prompt": "a", "temperature": 1e999}',
    "-1e999": b'{"prompt": "a", "min_p": -1e999}',
    "65 bits": b'{"prompt": "a", "seed": 18446744073709551616}',
    "long number": b'{"prompt": "a", "seed": ' + b"9" * 100000 + b"}",
    "hexadecimal": b'{"prompt": "a", "n": 0x1}', "leading zero": b'{"prompt": "a", "n": 01}',
    "raw byte": b'{"prompt": "\xff"}', "cut UTF-8": b'{"prompt": "\xe4\xb8"}',
    "overlong": b'{"prompt": "\xc0\x80"}', "raw surrogate": b'{"prompt": "\xed\xa0\x80"}',
    "past Unicode": b'{"prompt": "\xf4\x90\x80\x80"}', "bad key": b'{"\xff": 1, "prompt": "a"}',
    "lone high": b'{"prompt": "\\ud800"}', "lone low": b'{"prompt": "\\udc00"}',
    "two high": b'{"prompt": "\\ud800\\ud800"}', "bad escape": b'{"prompt": "\\x41"}',
    "cut escape": b'{"prompt": "\\u12', "raw newline": b'{"prompt": "a\nb"}',
    "raw NUL": b'{"prompt": "a\0b"}', "UTF-16": '{"prompt": "a"}'.encode("utf-16"),
    "deep arrays": b'{"prompt": ' + b"[" * 100000, "deep objects": b'{"a":' * 100000,
    "deep and closed": b'{"x": ' + b"[" * 50000 + b"]" * 50000 + b', "prompt": "a"}',
}

BAD_HTTP = {
    "no HTTP": b"hello\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "version": b"GET /v1/models HTTP/9.9\r\n\r\n",
    "no colon": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "long line": b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    "long header": b"GET /v1/models HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 100000 + b"\r\n\r\n",
    "many headers": b"GET /v1/models HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 20000 + b"\r\n",
}
BAD_FRAMING = {  # headers of a POST, and what follows
    "negative": (b"Content-Length: -1", b"{}"), "no number": (b"Content-Length: x", b"{}"),
    "65 bits": (b"Content-Length: 99999999999999999999", b"{}"),
    "two lengths": (b"Content-Length: 2\r\nContent-Length: 3", b"{}x"),
    "both": (b"Content-Length: 2\r\nTransfer-Encoding: chunked", b"2\r\n{}\r\n0\r\n\r\n"),
    "gzip": (b"Transfer-Encoding: gzip", b"2\r\n{}\r\n0\r\n\r\n"),
    "two encodings": (b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
                      b"2\r\n{}\r\n0\r\n\r\n"),
    "no chunk": (b"Transfer-Encoding: chunked", b"zz\r\n{}\r\n0\r\n\r\n"),
    "huge chunk": (b"Transfer-Encoding: chunked", b"ffffffffffffffffff\r\n{}"),
    "long chunk": (b"Transfer-Encoding: chunked", b"1\r\n{}\r\n0\r\n\r\n"),
}
UNFINISHED = [  # the server may wait for the rest of these
    b"", b"\r\n", b"G", b"POST /v1/completions HTTP/1.1\r\n", bytes(1000),
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(600),
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
    b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10\r\n{}",
]


class HostileTest(unittest.TestCase):
    """One server for all tests of a class."""

    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(CMINFER, MODEL, *cls.options)
        cls.usual = cls.usual_answer()

    @classmethod
    def tearDownClass(cls):
        status = cls.server.stop()
        if status != 0:
            raise AssertionError(f"the server ended with {status}:\n{cls.server.log[-3000:]}")

    @classmethod
    def usual_answer(cls):
        answer = cls.server.post(CHAT, {**HI, "temperature": 0, "max_tokens": 5, "logprobs": True})
        return answer.json()["choices"]

    def tearDown(self):
        self.server.wait_running(0, 0)
        self.assertEqual(self.usual_answer(), self.usual)

    def expect_error(self, answer, status=400, param=None):
        self.assertEqual(answer.status, status, answer.body[:500])
        self.assertEqual(answer.headers["Content-Type"], "application/json")
        error = answer.json()
        self.assertEqual(list(error), ["error"])
        error = error["error"]
        self.assertEqual(set(error), {"message", "type", "param", "code"})
        self.assertEqual(error["code"], status)
        self.assertTrue(error["message"] and error["type"])
        self.assertLess(len(answer.body), 2000)
        if param is not None:
            self.assertTrue((error["param"] or "").startswith(param), error)

    def expect_refused(self, got):
        """Anything but an answer: what is no HTTP may find a connection that just closes."""
        for status in re.findall(rb"HTTP/1\.1 (\d+) ", got):
            self.assertGreaterEqual(int(status), 400, got[:300])


class BadInput(HostileTest):
    def test_every_field_of_a_wrong_type_or_out_of_range(self):
        endpoints = ((CHAT, HI, CHAT_FIELDS), (COMPLETIONS, {"prompt": "a", "max_tokens": 1},
                                               COMPLETION_FIELDS))
        for path, good, own in endpoints:
            for field, values in {**FIELDS, **own}.items():
                for value in values:
                    if field == "echo" and path == CHAT and value is None:
                        continue
                    body = {**good, field: value}
                    if field == "max_completion_tokens":
                        del body["max_tokens"]
                    with self.subTest(path=path, field=field, value=str(value)[:60]):
                        self.expect_error(self.server.post(path, body), param=field)

    def test_fields_that_are_unknown_or_null_are_ignored(self):
        for path, good, own in ((CHAT, HI, CHAT_FIELDS),
                                (COMPLETIONS, {"prompt": "a", "max_tokens": 1},
                                 COMPLETION_FIELDS)):
            nothing = {field: None for field in {**FIELDS, **own} if field not in good}
            body = {**nothing, **good, "no_such_field": [{"a": {}}], "": 1, "metadata": {}}
            self.assertEqual(self.server.post(path, body).status, 200)

    def test_bodies_that_are_not_json(self):
        for path in (CHAT, COMPLETIONS, "/tokenize", "/detokenize"):
            for name, body in BAD_JSON.items():
                with self.subTest(path=path, body=name):
                    self.expect_error(self.server.post(path, body))

    def test_unknown_models(self):
        for model in ("gpt-4", "", "../matrix-tiny", "matrix-tiny\0", "x" * 100000, "模型"):
            for path, body in ((CHAT, HI), (COMPLETIONS, {"prompt": "a"}),
                               ("/tokenize", {"prompt": "a"}), ("/detokenize", {"tokens": [1]})):
                self.expect_error(self.server.post(path, {**body, "model": model}), 404, "model")
        for model in (1, [], {}, True):
            self.expect_error(self.server.post(CHAT, {**HI, "model": model}), 400, "model")
        self.expect_error(self.server.get("/v1/models/gpt-4"), 404)

    def test_prompts_that_do_not_fit(self):
        for content in ("a " * 3000, "\0" * 3000, "中" * 3000, "7" * MIB, "<" * MIB, " " * MIB):
            message = {"role": "user", "content": content}
            self.expect_error(self.server.post(CHAT, {"messages": [message]}), 400, "messages")
            self.expect_error(self.server.post(COMPLETIONS, {"prompt": content}), 400, "prompt")

    def test_any_text_is_text(self):
        texts = ("a\0b", "\0", "\ufeff", "\ue000", "\U0010ffff", "e\u0301" * 50, "\u202e\u200b",
                 "<｜User｜>", "<think></think>", "{{ 1 }}{% raw %}", "</s>", "\r\n\t\x7f\x1b[0m")
        for text in texts:
            tokens = self.server.post("/tokenize", {"prompt": text}).json()["tokens"]
            back = self.server.post("/detokenize", {"tokens": tokens[1:]}).json()["prompt"]
            self.assertEqual(back, text)
            for path, body in ((CHAT, {**HI, "messages": [{"role": "user", "content": text}]}),
                               (COMPLETIONS, {"prompt": text, "max_tokens": 1, "stop": text})):
                self.assertEqual(self.server.post(path, body).status, 200, text)
        echo = self.server.post(COMPLETIONS, {"prompt": "a\0b", "echo": True, "max_tokens": 0})
        self.assertEqual(echo.json()["choices"][0]["text"], "a\0b")

    def test_the_last_of_duplicate_keys_counts(self):
        body = b'{"prompt": 1, "max_tokens": "x", "prompt": "a", "max_tokens": 1}'
        self.assertEqual(self.server.post(COMPLETIONS, body).status, 200)
        self.expect_error(self.server.post(COMPLETIONS, b'{"prompt": "a", "prompt": 1}'))

    def test_tokenize_and_detokenize_refuse(self):
        for body in ({}, {"prompt": 1}, {"prompt": None}, {"messages": []}, {"messages": 1},
                     {"prompt": "a", "add_special_tokens": 1},
                     {"prompt": "a", "return_token_strs": "x"}):
            self.expect_error(self.server.post("/tokenize", body))
        for body in ({}, {"tokens": 1}, {"tokens": "a"}, {"tokens": ["a"]}, {"tokens": [-1]},
                     {"tokens": [2048]}, {"tokens": [2 ** 62]}, {"tokens": [1.5]},
                     {"tokens": [None]}):
            self.expect_error(self.server.post("/detokenize", body), param="tokens")


class LargeBodies(HostileTest):
    def test_ten_megabytes_are_read_and_judged(self):
        size = 10 * MIB - 100
        for body in (b'{"prompt": "' + b"a" * size + b'"}', b"[" * size, b'{"a":' * (size // 5),
                     b'{"prompt": [' + b"1," * (size // 2 - 10) + b"1]}",
                     b'{"prompt": [' + b'"a",' * (size // 4 - 10) + b'"a"]}',
                     b'{"x": [' + b"{}," * (size // 3 - 10) + b"1]}",
                     b'{"seed": ' + b"9" * size + b"}", b"\xff" * size):
            self.expect_error(self.server.post(COMPLETIONS, body))
        message = {"role": "user", "content": "a " * (size // 2 - 100)}
        self.expect_error(self.server.post(CHAT, {"messages": [message]}))

    def test_more_is_413(self):
        for size in (10 * MIB + 1, 12 * MIB):
            self.expect_error(self.server.post(COMPLETIONS, b"x" * size), 413)
        # Far more: the answer comes before the body, and the connection closes.
        got = self.server.exchange(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
                                   b"Content-Length: 1000000000000\r\n\r\n{")
        self.assertIn(b" 413 ", got)

    def test_chunks_that_never_end_are_cut_off(self):
        sock = self.server.connect()
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n%s\r\n" % (MIB, b"x" * MIB)
        with self.assertRaises(OSError):
            for _ in range(100):
                sock.sendall(chunk)
        sock.close()

    @unittest.skipIf(SANITIZED, "sanitizers keep what is freed")
    def test_memory_goes_back_after_json_that_takes_much_of_it(self):
        """Each of these bodies is hundreds of times its size as a tree of values, if it is let."""
        before = self.server.resident_kib()
        for value in (b"{}", b"[]", b'""', b'{"a":1}'):
            body = b'{"prompt": [' + b",".join([value] * (8 * MIB // len(value))) + b"]}"
            self.expect_error(self.server.post(COMPLETIONS, body[:10 * MIB]))
        # 10 MiB body, 1 MiB values: what they leave behind must be less than one such tree
        self.assertLess(self.server.resident_kib() - before, 100 * 1024)


class BadHttp(HostileTest):
    def test_what_is_not_http(self):
        for name, raw in BAD_HTTP.items():
            with self.subTest(name):
                self.expect_refused(self.server.exchange(raw))

    def test_bodies_of_unclear_length(self):
        for name, (headers, rest) in BAD_FRAMING.items():
            for path in (b"/v1/completions", b"/health", b"/none"):
                with self.subTest(name, path=path):
                    head = b"POST " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                    got = self.server.exchange(head + headers + b"\r\n\r\n" + rest)
                    self.expect_refused(got)
                    self.assertLessEqual(got.count(b"X-Request-Id"), 1, got)

    def test_a_body_behind_its_length_is_no_request(self):
        got = self.server.exchange(post_bytes(COMPLETIONS, b"{}", "Connection: close\r\n") + b"xyz")
        self.expect_refused(got)
        self.assertEqual(got.count(b"X-Request-Id"), 1)

    def test_chunked_bodies(self):
        body = json.dumps({"prompt": "a", "max_tokens": 1}).encode()
        chunks = b"".join(b"1;x=y\r\n%c\r\n" % byte for byte in body) + b"0\r\nT: u\r\n\r\n"
        sock = self.server.connect()
        sock.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: a\r\n"
                     b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
        self.assertEqual(read_answer(sock).status, 200)
        sock.close()

    def test_methods_and_paths(self):
        for method in ("PUT", "DELETE", "PATCH", "TRACE", "BREW", "GET", "post"):
            self.expect_error(self.server.request(method, CHAT, b"{}"), 405)
        for path in ("/", "/v1", "/v1/", "//health", "/HEALTH", "/health/", "/v1/chat",
                     "/v1/models/../../etc/passwd", "/%2e%2e/etc/passwd", "/%ff%fe", "/%", "/%zz",
                     "/v1/embeddings", "/" + "a" * 5000, "/%0d%0aX:%20y", "*"):
            answer = self.server.request("GET", path)
            self.expect_error(answer, 404)
            self.assertIsNone(answer.headers["X"])
        self.expect_error(self.server.request("CONNECT", "a:1"), 404)

    def test_pipelined_requests_are_answered_in_order(self):
        bodies = [{"prompt": "a"}, {"prompt": 1}, b"{", {"prompt": "a", "n": 2}, {"model": "x"}]
        sock = self.server.connect()
        sock.sendall(b"".join(post_bytes(COMPLETIONS, b, f"X-Request-Id: {i}\r\n" +
                                         "Connection: close\r\n" * (i == len(bodies) - 1))
                              for i, b in enumerate(bodies)))
        got = read_until(sock)
        self.assertEqual(re.findall(rb"HTTP/1.1 (\d+) ", got),
                         [b"200", b"400", b"400", b"200", b"404"])
        self.assertEqual(re.findall(rb"X-Request-Id: (\d)", got), [b"0", b"1", b"2", b"3", b"4"])
        sock.close()

    def test_requests_that_never_end(self):
        for raw in UNFINISHED:
            self.server.abandon(raw)

    def test_half_sent_requests_block_nobody(self):
        whole = post_bytes(COMPLETIONS, {"prompt": "a", "max_tokens": 1})
        socks = [self.server.connect() for _ in range(200)]
        for i, sock in enumerate(socks):
            sock.sendall(whole[:i * len(whole) // len(socks)])
        self.assertEqual(self.server.post(CHAT, HI).status, 200)
        for i, sock in enumerate(socks[:100]):  # these go on byte by byte, and are answered
            for byte in whole[i * len(whole) // len(socks):]:
                sock.sendall(bytes([byte]))
        for sock in socks[:100]:
            self.assertEqual(read_answer(sock).status, 200)
        for sock in socks:
            sock.close()

    @unittest.skipIf(SANITIZED, "sanitizers keep what is freed")
    def test_memory_does_not_grow(self):
        """A leak of 100 bytes for each bad request would not show in 1,000 of them; one of a body
        or a connection (32 KiB) would. The bound is what malloc may leave unused in the arenas of
        the server's threads; the warm-up has filled most of it already."""
        def round_of_bad_requests():
            for body in BAD_JSON.values():
                self.server.post(COMPLETIONS, body)
            for field, values in {**FIELDS, **CHAT_FIELDS}.items():
                for value in values:
                    self.server.post(CHAT, {**HI, field: value})
            for raw in BAD_HTTP.values():
                self.server.exchange(raw)
            for raw in UNFINISHED:
                self.server.abandon(raw)

        for _ in range(2):
            round_of_bad_requests()
        before = self.server.resident_kib()
        for _ in range(4):
            round_of_bad_requests()
        self.assertLess(self.server.resident_kib() - before, 8 * 1024)


def reset(sock):
    """Closes with RST, as a client that died does, not with FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Leaving(HostileTest):
    options = ("--max-num-seqs", "1")  # the others wait

    def expect_cancelled(self, leave, n_started):
        """generation_tokens_total stops: no request runs, and it stays far from what was asked."""
        aborted = 'vllm:request_success_total{model_name="matrix-tiny",engine="0",' \
                  'finished_reason="abort"'
        before = self.server.metric("vllm:generation_tokens_total")
        aborts_before = self.server.metric(aborted)
        leave()
        self.server.wait_for("the aborts", lambda:
                             self.server.metric(aborted) == aborts_before + n_started)
        self.server.wait_running(0, 0)
        tokens = self.server.metric("vllm:generation_tokens_total")
        self.assertLess(tokens - before, n_started * LONG["max_tokens"])
        self.server.post(COMPLETIONS, {"prompt": "a", "max_tokens": 1})
        self.assertEqual(self.server.metric("vllm:generation_tokens_total"), tokens + 1)

    def test_in_the_middle_of_a_stream(self):
        for close in (socket.socket.close, reset):
            sock = self.server.send(COMPLETIONS, LONG)
            for _ in range(2):  # events come each in a chunk of its own, or several in one
                read_until(sock, b"data: ")
            self.expect_cancelled(lambda: close(sock), 1)

    def test_before_the_answer(self):
        for close in (socket.socket.close, reset):
            sock = self.server.send(COMPLETIONS, {**LONG, "stream": False})
            self.server.wait_running(1, 0)
            self.expect_cancelled(lambda: close(sock), 1)

    def test_while_queued(self):
        running = self.server.send(COMPLETIONS, LONG)
        read_until(running, b"data: ")
        queued = [self.server.send(path, {**body, "stream": stream}) for stream in (True, False)
                  for path, body in ((COMPLETIONS, LONG), (CHAT, HI)) for _ in range(5)]
        self.server.wait_running(1, 20)
        for sock in queued:
            sock.close()
        self.server.wait_running(1, 0)
        self.expect_cancelled(running.close, 1)

    def test_with_many_choices(self):
        sock = self.server.send(COMPLETIONS, {**LONG, "n": 50})
        read_until(sock, b"data: ")
        self.expect_cancelled(sock.close, 50)

    def test_a_client_that_never_reads(self):
        sock = self.server.connect(receive_bytes=4096)
        body = {**LONG, "n": 4, "logprobs": 5}
        sock.sendall(post_bytes(COMPLETIONS, body))
        self.server.wait_running(1, 3)
        # Others' requests are read and refused, and wait for their turn in the queue.
        self.expect_error(self.server.post(COMPLETIONS, {"prompt": 1}))
        self.assertEqual(self.server.get("/health").status, 200)
        other = self.server.send(CHAT, HI)
        sock.close()
        self.assertEqual(read_answer(other).status, 200)
        other.close()

    def test_a_client_that_only_sends(self):
        sock = self.server.connect(receive_bytes=4096)
        get = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
        sock.setblocking(False)
        try:
            for _ in range(10000):
                sock.send(get * 100)
            self.fail("the server reads requests whose answers nobody takes")
        except BlockingIOError:
            pass
        self.assertEqual(self.server.post(CHAT, HI).status, 200)
        sock.close()


class LeavingTogether(Leaving):
    options = ()

    def test_while_queued(self):
        """They all run at once."""
        streams = [self.server.send(COMPLETIONS, {**LONG, "seed": i}) for i in range(20)]
        for sock in streams:
            read_until(sock, b"data: ")
        self.server.wait_running(20, 0)
        self.expect_cancelled(lambda: [sock.close() for sock in streams], 20)

    def test_a_client_that_never_reads(self):
        """Nor do those that run beside it wait for it."""
        sock = self.server.connect(receive_bytes=4096)
        sock.sendall(post_bytes(COMPLETIONS, {**LONG, "n": 4, "logprobs": 5}))
        self.server.wait_running(4, 0)
        self.assertEqual(self.server.post(CHAT, HI).status, 200)
        sock.close()


class Crowds(HostileTest):
    options = ("--max-num-queued-reqs", "2", "--max-num-seqs", "1")

    def test_a_full_queue_is_429(self):
        running = self.server.send(COMPLETIONS, LONG)
        self.server.wait_running(1, 0)
        waiting = []
        for n_waiting in (1, 2):
            waiting.append(self.server.send(CHAT, HI))
            self.server.wait_running(1, n_waiting)
        for path, body in ((CHAT, HI), (COMPLETIONS, LONG), (COMPLETIONS, {**LONG, "n": 4})):
            answer = self.server.post(path, body)
            self.expect_error(answer, 429)
            self.assertGreater(int(answer.headers["Retry-After"]), 0)
        self.assertEqual(self.server.get("/readiness").status, 200)
        running.close()
        for sock in waiting:
            self.assertEqual(read_answer(sock).status, 200)
            sock.close()

    def test_a_request_of_which_a_part_fits_leaves_nothing_behind(self):
        running = self.server.send(COMPLETIONS, LONG)
        self.server.wait_running(1, 0)
        self.expect_error(self.server.post(COMPLETIONS, {**LONG, "n": 4}), 429)
        self.server.wait_running(1, 0)
        running.close()


class ManyClients(HostileTest):
    def test_two_hundred_at_once_are_all_answered(self):
        body = {"prompt": "a", "max_tokens": 4, "temperature": 0}
        want = self.server.post(COMPLETIONS, body).json()["choices"]
        socks = [self.server.send(COMPLETIONS, {**body, "stream": i % 2 == 1}) for i in range(200)]
        for i, sock in enumerate(socks):
            answer = read_answer(sock)
            self.assertEqual(answer.status, 200)
            if i % 2 == 0:
                self.assertEqual(answer.json()["choices"], want)
            else:
                text = "".join(c["choices"][0]["text"] for c in answer.chunks())
                self.assertEqual(text, want[0]["text"])
            sock.close()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
