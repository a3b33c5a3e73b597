#!/usr/bin/env python3
"""What users see of the command line: help, exit statuses, one clear line for what is wrong.

  cli_test.py CMINFER MODELS
"""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest
import urllib.request

CMINFER, MODELS = map(os.path.abspath, sys.argv[1:3])
TINY = os.path.join(MODELS, "matrix-tiny")


def run(*args, **kwargs):
    return subprocess.run([CMINFER, *args], capture_output=True, text=True, timeout=120, **kwargs)


class Usage(unittest.TestCase):
    def test_help_and_version(self):
        commands = ("run", "serve", "score", "eval", "bench", "eplb")
        for args in (["help"], ["--help"], *(["help", command] for command in commands)):
            result = run(*args)
            self.assertEqual(result.returncode, 0)
            self.assertIn("Usage: cminfer", result.stdout)
            self.assertIn("Example", result.stdout)
        self.assertRegex(run("--version").stdout, r"^cminfer \d+\.\d+\.\d+\n$")

    def test_wrong_usage_is_status_2_and_one_line(self):
        for args, word in ((["nonsense"], "nonsense"), (["score", TINY], "--ids"),
                           (["score", TINY, "--idds", "1"], "--idds"),
                           (["score", TINY, "--top", "x"], "--top"),
                           (["serve"], "model"), (["serve", TINY, "--port", "70000"], "--port"),
                           (["eval", TINY], "--tasks"), (["run", TINY, "extra"], "extra"),
                           (["score", TINY, "--ids"], "--ids"), ([], "command"),
                           (["run"], "model"), (["score", "--ids", "1"], "model"),
                           (["run", TINY, "--seed", "-1"], "--seed"),
                           (["run", TINY, "--temperature", "-1"], "--temperature"),
                           (["run", TINY, "--top-p", "0"], "--top-p")):
            result = run(*args)
            self.assertEqual(result.returncode, 2, args)
            self.assertEqual(result.stderr.count("\n"), 1, args)
            self.assertIn(word, result.stderr)

    def test_hosts_that_ranks_cannot_be_on(self):
        slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "6"}
        hosts = ["--ep-hosts", "a:7000,b:7000"]
        for args, env, word in (
                (["--ep", "3", *hosts], {}, "evenly over the 2 hosts"),
                (["--ep", "2", "--ep-hosts", "a:7000,b"], {}, '"b" is not host:port'),
                (["--ep", "2", "--ep-hosts", "local:x"], {}, "not host:port"),
                (["--ep", "2", "--ep-hosts", "a:65534"], {}, "4 ports"),
                (["--ep", "2", "--node-rank", "0"], {}, "--ep-hosts"),
                (["--ep", "4", *hosts, "--node-rank", "2"], {}, "this is host 2"),
                (["--ep", "4", *hosts], slurm, "by Slurm this is host 5"),
                (["--ep", "4", *hosts], {}, "set CMINFER_CLUSTER_SECRET"),
                (["--ep", "2"], {"CMINFER_CLUSTER_SECRET": "short"}, "16 to 1024"),
                (hosts, {}, "--ep")):
            clean = {k: v for k, v in os.environ.items() if k != "CMINFER_CLUSTER_SECRET"}
            result = run("score", TINY, "--text", "hi", *args, env={**clean, **env})
            self.assertEqual(result.returncode, 1, args)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertIn(word, result.stderr)

    def test_kv_types_that_there_are_not(self):
        for args in (["fp8"], ["int8", "--dtype", "f32"], ["bf16", "--dtype", "f32"]):
            result = run("score", TINY, "--ids", "0,5", "--kv-cache-dtype", *args)
            self.assertNotEqual(result.returncode, 0, args)
            self.assertEqual(result.stdout, "", args)
            self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
            self.assertIn("--kv-cache-dtype", result.stderr)

    def test_kv_types_and_their_spellings(self):
        def score(*args):
            return run("score", TINY, "--ids", "0,5,6,7", "--top", "3", *args).stdout

        want = score()
        for name in ("auto", "bf16", "bfloat16"):
            self.assertEqual(score("--kv-cache-dtype", name), want, name)
        self.assertNotEqual(score("--kv_cache_dtype=int8"), want)

    def test_output_that_is_lost_is_a_failure(self):
        with open("/dev/full", "w") as full:
            result = subprocess.run([CMINFER, "help"], stdout=full, stderr=subprocess.PIPE,
                                    text=True, timeout=120)
        self.assertEqual(result.returncode, 1)
        self.assertIn("standard output", result.stderr)

    def test_spellings_of_other_servers(self):
        want = run("score", TINY, "--ids", "0,5", "--max-num-batched-tokens", "1").stdout
        self.assertTrue(want)
        for args in (["--model", TINY, "--ids", "0,5"], ["-m", TINY, "--ids=0,5"],
                     ["--model_path", TINY, "--ids", "0,5", "--chunked-prefill-size=7"],
                     [TINY, "--ids", "0,5", "--context_length", "64"]):
            self.assertEqual(run("score", *args).stdout, want, args)


class Score(unittest.TestCase):
    def test_lines(self):
        result = run("score", TINY, "--ids", "0,5,6", "--top", "3", "--generate", "2")
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual([line["pos"] for line in lines], [0, 1, 2, 3, 4])
        self.assertEqual([line["id"] for line in lines[:3]], [0, 5, 6])
        self.assertIsNone(lines[0]["logprob"])
        self.assertTrue(all(line["logprob"] < 0 for line in lines[1:]))
        self.assertTrue(all(len(line["top"]) == 3 for line in lines))
        self.assertEqual(lines[3]["id"], lines[2]["top"][0][0])
        for line in lines:
            self.assertEqual(line["top"], sorted(line["top"], key=lambda x: -x[1]))

    def test_text_gets_the_begin_token_once(self):
        plain = run("score", TINY, "--text", "Hello <｜User｜>").stdout
        given = run("score", TINY, "--text", "<｜begin▁of▁sentence｜>Hello <｜User｜>").stdout
        self.assertEqual(plain, given)
        ids = [json.loads(line)["id"] for line in plain.splitlines()]
        self.assertEqual(ids[0], 0)
        self.assertEqual(ids.count(0), 1)
        self.assertIn(2035, ids)

    def test_bad_prompts(self):
        for args in (["--ids", "1,x"], ["--ids", "2048"], ["--ids", ""], ["--ids", "-1"],
                     ["--ids", "1", "--generate", "3000"],
                     ["--ids", "1", "--max-model-len", "9000"]):
            result = run("score", TINY, *args)
            self.assertEqual(result.returncode, 1, args)
            self.assertEqual(result.stderr.splitlines()[-1].count("cminfer: "), 1, args)


class BrokenModels(unittest.TestCase):
    """A copy of the bundled model with one thing wrong: one line naming the file, exit status 1."""

    def setUp(self):
        self.dir = tempfile.mkdtemp()
        for name in os.listdir(TINY):
            os.symlink(os.path.join(TINY, name), os.path.join(self.dir, name))

    def tearDown(self):
        shutil.rmtree(self.dir)

    def replace(self, name, content):
        path = os.path.join(self.dir, name)
        os.unlink(path)
        with open(path, "wb") as f:
            f.write(content)

    def expect_line(self, *words, text="hi"):
        result = run("score", self.dir, "--text", text)
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertEqual(result.stderr.count("cminfer: "), 1, result.stderr)
        for word in words:
            self.assertIn(word, result.stderr)

    def config(self, **changes):
        with open(os.path.join(TINY, "config.json")) as f:
            config = json.load(f)
        config.update(changes)
        self.replace("config.json", json.dumps(config).encode())

    def test_symlinks_work(self):
        self.assertEqual(run("score", self.dir, "--text", "hi").returncode, 0)

    def test_missing_files(self):
        for name in ("config.json", "model.safetensors", "tokenizer.json"):
            os.rename(os.path.join(self.dir, name), os.path.join(self.dir, "away"))
            self.expect_line(name)
            os.rename(os.path.join(self.dir, "away"), os.path.join(self.dir, name))

    def test_config_that_contradicts_the_weights(self):
        for changes in ({"hidden_size": 128}, {"vocab_size": 4096}, {"n_routed_experts": 32},
                        {"num_hidden_layers": 4}, {"kv_lora_rank": 64},
                        {"num_attention_heads": 4, "num_key_value_heads": 4}):
            self.config(**changes)
            self.expect_line("model.safetensors")

    def test_model_larger_than_memory(self):
        self.config(hidden_size=16384, moe_intermediate_size=16384, n_routed_experts=2048,
                    num_hidden_layers=200)
        self.expect_line("does not fit in memory", "GiB of weights")

    def test_config_that_is_wrong(self):
        for field, value in (("hidden_size", "x"), ("hidden_size", -1), ("hidden_size", 2 ** 40),
                             ("model_type", "llama"), ("n_group", 3), ("num_experts_per_tok", 17),
                             ("rope_scaling", {"type": "dynamic"})):
            self.config(**{field: value})
            self.expect_line("config.json", field)
        self.replace("config.json", b"{\"a\": ")
        self.expect_line("config.json")

    def test_safetensors_that_lie(self):
        with open(os.path.join(TINY, "model.safetensors"), "rb") as f:
            good = f.read()
        (n,) = struct.unpack("<Q", good[:8])
        header = json.loads(good[8:8 + n])

        def with_header(h):
            text = json.dumps(h).encode()
            return struct.pack("<Q", len(text)) + text + good[8 + n:]

        name = "model.norm.weight"
        past = json.loads(json.dumps(header))
        past[name]["data_offsets"] = [len(good), len(good) + 512]
        huge = json.loads(json.dumps(header))
        huge[name]["shape"] = [2 ** 60, 2 ** 60]
        wrong = json.loads(json.dumps(header))
        wrong[name]["shape"] = [128]
        missing = {k: v for k, v in header.items() if k != name}
        for content in (b"", good[:100], good[:-1000], struct.pack("<Q", 2 ** 60) + good[8:],
                        with_header(past), with_header(huge), with_header(wrong),
                        with_header(missing)):
            self.replace("model.safetensors", content)
            self.expect_line("model.safetensors")

    def test_tokenizer_that_is_wrong(self):
        for content in (b"", b"[" * 100000, b"{}", b"\xff\xfe",
                        b'{"model": {"type": "WordPiece"}}'):
            self.replace("tokenizer.json", content)
            self.expect_line("tokenizer.json")

    def test_template_that_never_ends(self):
        with open(os.path.join(TINY, "tokenizer_config.json")) as f:
            config = json.load(f)
        loop = "{% for a in range(99999) %}"
        for template in (loop + loop + "{% endfor %}{% endfor %}",
                         "{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "{% if %}"):
            config["chat_template"] = template
            self.replace("tokenizer_config.json", json.dumps(config).encode())
            result = run("run", self.dir, "-p", "hi")
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertEqual(result.stderr.count("cminfer: "), 1, result.stderr)


class Run(unittest.TestCase):
    def test_one_answer(self):
        result = run("run", TINY, "-p", "What is 345 + 78?", "--temperature", "0")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("345 + 78 = 423", result.stdout)
        self.assertEqual(result.stderr, "")

    def test_a_conversation_remembers(self):
        lines = "My name is Anna.\nWhat is my name?\n"
        result = run("run", TINY, "--temperature", "0", input=lines)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("Anna", result.stdout.splitlines()[-2] + result.stdout.splitlines()[-1])


class Serve(unittest.TestCase):
    def names_of(self, path, **kwargs):
        server = subprocess.Popen([CMINFER, "serve", path, "--port", "0", "--threads", "1"],
                                  stderr=subprocess.PIPE, text=True, **kwargs)
        try:
            for line in server.stderr:
                found = re.search(r"serving .* at (http://\S+)", line)
                if found:
                    break
            with urllib.request.urlopen(found[1] + "/models", timeout=60) as answer:
                return [model["id"] for model in json.load(answer)["data"]]
        finally:
            server.terminate()
            server.communicate(timeout=60)

    def test_a_model_is_named_after_its_directory(self):
        self.assertEqual(self.names_of(TINY + "/")[0], "matrix-tiny")
        self.assertEqual(self.names_of(".", cwd=TINY)[0], "matrix-tiny")


class Eval(unittest.TestCase):
    def test_a_task_name_that_is_too_long_is_refused(self):
        item = {"task": "t" * 64, "messages": [{"role": "user", "content": "hi"}], "answer": ""}
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as tasks:
            tasks.write(json.dumps(item) + "\n")
            tasks.flush()
            result = run("eval", TINY, "--tasks", tasks.name)
        self.assertEqual(result.returncode, 1)
        self.assertIn("task is longer than 63 bytes", result.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
