#!/usr/bin/env python3
"""Options from a file: --config FILE.yaml.

  config_test.py CMINFER MODEL
"""
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../server"))
from live_server import DEADLINE_S, Server  # noqa: E402

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

# text: what the one line of the error says
BAD = {
    "prot: 1": 'line 1: unknown key "prot"',
    "\n\nport: x": 'line 3: port takes a number from 0 to 65535, not "x"',
    "port: 65536": "line 1: port takes",
    "port: [1, 2, x]": "line 1: port takes",
    "port: {a: 1}": "line 1: a key takes a value or a list of values",
    "api-key: [[a]]": "line 1: a list takes plain values",
    "port: 1\nport: 2": "line 2: a key that was there before",
    "a: &x 1\nb: *x": "line 1: unknown key",
    "host: &x a\napi-key: *x": "line 2: aliases are not taken",
    "port: 1\n---\nport: 2": "a second document",
    "- port": 'lines like "key: value"',
    "port": 'lines like "key: value"',
    "port: 'a": "no YAML",
    "\tport: 1": "no YAML",
    "\xff\xfe\x00": "no YAML",
    '"po\\0rt": 1': "line 1: a key with a NUL in it",
    'host: "a\\0b"': "line 1: a value with a NUL in it",
    "enable-prefix-caching: 1": "takes true or false",
    "config: other.yaml": "unknown key",
    "[" * 100000: "line 1",
    "api-key:\n" + "- a\n" * 65: "api-key: more than 64 values",
}


class ConfigTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def write(self, text):
        path = os.path.join(self.folder.name, "config.yaml")
        with open(path, "w", encoding="latin-1") as f:
            f.write(text)
        return path

    def run_it(self, *arguments):
        return subprocess.run([CMINFER, *arguments], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=DEADLINE_S)

    def models(self, server, key=None):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        answer = server.get("/v1/models", **headers)
        return [m["id"] for m in answer.json()["data"]] if answer.status == 200 else answer.status

    def serve(self, text, *options):
        server = Server(CMINFER, MODEL, "--config", self.write(text), *options)
        self.addCleanup(lambda: server.process.poll() is None and server.process.kill())
        return server

    def test_values_lists_and_flags(self):
        server = self.serve("# a comment\nserved_model_name:\n  - one\n  - two\n"
                            "api-key: ['k1', k2]\nmax-num-seqs: 2\nhost: null\n"
                            "log-requests: false\n"
                            "enable-prefix-caching: false\nshutdown-timeout: ~\n")
        for key in ("k1", "k2"):
            self.assertEqual(self.models(server, key), ["one", "two"])
        self.assertEqual(self.models(server), 401)
        text = server.get("/metrics", Authorization="Bearer k1").body.decode()
        self.assertIn('model_name="one"', text)
        for _ in range(2):
            answer = server.post("/v1/completions", {"prompt": [7] * 300, "max_tokens": 1},
                                 Authorization="Bearer k2")
            self.assertEqual(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertEqual(server.stop(), 0)
        self.assertNotIn(b"request id=", server.log)

    def test_the_command_line_wins(self):
        for options in (("--alias", "three", "--api-key=k3", "--api-key", "k4"),):
            server = self.serve("served-model-name: [one, two]\napi-key: [k1, k2]\n"
                                "port: 1\n", *options)  # live_server.py says --port 0
            self.assertNotEqual(server.port, 1)
            self.assertEqual(self.models(server, "k3"), ["three"])
            self.assertEqual(self.models(server, "k4"), ["three"])
            self.assertEqual(self.models(server, "k1"), 401)
            self.assertEqual(server.stop(), 0)

    def test_every_command_with_a_model_takes_it(self):
        config = self.write(f"model: {MODEL}\nthreads: 1\ntext: hello\n")
        by_file = self.run_it("score", "--config=" + config)
        by_hand = self.run_it("score", MODEL, "--text", "hello")
        self.assertEqual((by_file.returncode, by_file.stdout), (0, by_hand.stdout), by_file.stderr)
        other = self.run_it("score", MODEL, "--config", self.write("model: none"),
                            "--text", "hello")
        self.assertEqual(other.stdout, by_hand.stdout)
        self.assertTrue(json.loads(by_hand.stdout.splitlines()[0]))

    def test_empty_files(self):
        for text in ("", "\n", "# nothing\n", "---\n", "{}\n", "null\n"):
            done = self.run_it("score", MODEL, "--text", "a", "--config", self.write(text))
            self.assertEqual(done.returncode, 0, (text, done.stderr))

    def test_what_is_wrong_is_one_line(self):
        for text, words in BAD.items():
            path = self.write(text)
            done = self.run_it("serve", MODEL, "--config", path)
            with self.subTest(text[:40]):
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
                self.assertIn(words, done.stderr)
                self.assertIn(path, done.stderr)
        done = self.run_it("serve", MODEL, "--config", "/none.yaml")
        self.assertEqual(done.returncode, 2)
        self.assertIn("/none.yaml", done.stderr)
        self.assertEqual(self.run_it("serve", MODEL, "--config").returncode, 2)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
