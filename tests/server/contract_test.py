#!/usr/bin/env python3
"""The shapes that clients of OpenAI's and vLLM's APIs rely on, from a real server.

  contract_test.py CMINFER MODEL
"""
import json
import os
import re
import sys
import unittest

from live_server import Server, read_answer

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
SUM = {"messages": [{"role": "user", "content": "What is 345 + 78?"}], "temperature": 0}
TOOL = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


class ContractTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Server(CMINFER, MODEL, "--served-model-name", "tiny", "--alias", "other")

    @classmethod
    def tearDownClass(cls):
        status = cls.server.stop()
        if status != 0:
            raise AssertionError(f"the server ended with {status}:\n{cls.server.log[-3000:]}")

    def ask(self, path, body, **more):
        answer = self.server.post(path, {**body, **more})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json()

    def stream(self, path, body, **more):
        answer = self.server.post(path, {**body, **more, "stream": True})
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.headers["Content-Type"], "text/event-stream; charset=utf-8")
        return answer.chunks()


class Chat(ContractTest):
    def test_answer(self):
        answer = self.ask(CHAT, SUM)
        self.assertRegex(answer["id"], r"^chatcmpl-[0-9a-f]{32}$")
        self.assertEqual((answer["object"], answer["model"]), ("chat.completion", "tiny"))
        (choice,) = answer["choices"]
        self.assertEqual((choice["index"], choice["logprobs"], choice["finish_reason"],
                          choice["stop_reason"]), (0, None, "stop", None))
        message = choice["message"]
        self.assertEqual((message["role"], message["refusal"]), ("assistant", None))
        self.assertEqual(message["reasoning"], message["reasoning_content"])
        self.assertIn("423", message["content"])
        usage = answer["usage"]
        self.assertEqual(usage["total_tokens"],
                         usage["prompt_tokens"] + usage["completion_tokens"])
        self.assertIn("cached_tokens", usage["prompt_tokens_details"])
        self.assertGreater(usage["completion_tokens_details"]["reasoning_tokens"], 0)

    def test_cached_tokens_are_those_of_the_same_salt(self):
        def cached(**salt):
            usage = self.ask(COMPLETIONS, {"prompt": [7] * 300, "max_tokens": 1}, **salt)["usage"]
            return usage["prompt_tokens_details"]["cached_tokens"]

        self.assertEqual([cached(), cached()], [0, 256])
        self.assertEqual([cached(cache_salt="a"), cached(cache_salt="b")], [0, 0])
        self.assertEqual([cached(cache_salt="a"), cached(cache_salt="b"), cached()], [256] * 3)

    def test_order_of_chunks(self):
        whole = self.ask(CHAT, SUM)
        chunks = self.stream(CHAT, SUM, stream_options={"include_usage": True})
        self.assertEqual(len({(c["id"], c["created"], c["model"], c["object"]) for c in chunks}), 1)
        self.assertEqual(chunks[0]["object"], "chat.completion.chunk")
        *parts, usage = chunks
        self.assertEqual((usage["choices"], usage["usage"]), ([], whole["usage"]))
        self.assertTrue(all(c["usage"] is None for c in parts))
        choices = [c["choices"][0] for c in parts]
        self.assertEqual(choices[0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual((choices[-1]["delta"], choices[-1]["finish_reason"]), ({}, "stop"))
        self.assertTrue(all(c["finish_reason"] is None for c in choices[:-1]))
        kinds = re.sub(r"(.)\1*", r"\1", "".join(
            "r" if "reasoning" in c["delta"] else "c" for c in choices[1:-1]))
        self.assertEqual(kinds, "rc")
        for field in ("content", "reasoning", "reasoning_content"):
            self.assertEqual("".join(c["delta"].get(field) or "" for c in choices),
                             whole["choices"][0]["message"][field])

    def test_usage_in_every_chunk(self):
        options = {"include_usage": True, "continuous_usage_stats": True}
        usages = [c["usage"] for c in self.stream(CHAT, SUM, stream_options=options)]
        counts = [u["completion_tokens"] for u in usages]
        self.assertEqual(counts, sorted(counts))
        self.assertEqual(counts[0], 0)
        self.assertEqual({u["prompt_tokens"] for u in usages}, {usages[0]["prompt_tokens"]})
        self.assertTrue(all("usage" not in c for c in self.stream(CHAT, SUM)))

    def test_tool_calls(self):
        body = {"messages": [{"role": "user", "content": "What is the weather in Paris?"}],
                "tools": [TOOL], "temperature": 0}
        (choice,) = self.ask(CHAT, body)["choices"]
        self.assertEqual(choice["finish_reason"], "tool_calls")
        (call,) = choice["message"]["tool_calls"]
        self.assertEqual((call["type"], call["function"]["name"]), ("function", "get_weather"))
        self.assertTrue(call["id"].startswith("call_"))
        self.assertEqual(json.loads(call["function"]["arguments"]), {"city": "Paris"})
        self.assertIsNone(choice["message"]["content"])
        choices = [c["choices"][0] for c in self.stream(CHAT, body)]
        self.assertEqual(choices[-1]["finish_reason"], "tool_calls")
        pieces = [c["delta"]["tool_calls"][0] for c in choices if "tool_calls" in c["delta"]]
        self.assertEqual((pieces[0]["index"], pieces[0]["type"], pieces[0]["function"]),
                         (0, "function", {"name": "get_weather", "arguments": ""}))
        self.assertTrue(all(set(p) == {"index", "function"} for p in pieces[1:]))
        self.assertEqual("".join(p["function"]["arguments"] for p in pieces),
                         call["function"]["arguments"])
        (choice,) = self.ask(CHAT, body, tool_choice="none")["choices"]
        self.assertNotIn("tool_calls", choice["message"])

    def test_logprobs(self):
        (choice,) = self.ask(CHAT, SUM, logprobs=True, top_logprobs=3, max_tokens=4)["choices"]
        entries = choice["logprobs"]["content"]
        self.assertEqual(len(entries), 4)
        for entry in entries:
            self.assertEqual(bytes(entry["bytes"]).decode(), entry["token"])
            tops = entry["top_logprobs"]
            self.assertEqual(len(tops), 3)
            self.assertEqual(tops, sorted(tops, key=lambda t: -t["logprob"]))
            self.assertEqual(entry, {**tops[0], "top_logprobs": tops})
        chunks = self.stream(CHAT, SUM, logprobs=True, top_logprobs=3, max_tokens=4)
        streamed = [e for c in chunks for e in (c["choices"][0]["logprobs"] or {"content": []})
                    ["content"]]
        self.assertEqual(streamed, entries)

    def test_finish_reasons(self):
        (choice,) = self.ask(CHAT, SUM, max_completion_tokens=3)["choices"]
        self.assertEqual((choice["finish_reason"], choice["stop_reason"]), ("length", None))
        (choice,) = self.ask(CHAT, SUM, stop=["never", "carry"])["choices"]
        self.assertEqual((choice["finish_reason"], choice["stop_reason"]), ("stop", "carry"))
        self.assertTrue(choice["message"]["reasoning"].endswith("write 3 "))
        self.assertIsNone(choice["message"]["content"])

    def test_choices_are_drawn_by_the_seed(self):
        body = {"messages": [{"role": "user", "content": "Tell me a story."}], "temperature": 1,
                "n": 3, "seed": 7, "max_tokens": 20}
        first = self.ask(CHAT, body)
        self.assertEqual([c["index"] for c in first["choices"]], [0, 1, 2])
        self.assertGreater(len({json.dumps(c["message"]) for c in first["choices"]}), 1)
        self.assertEqual(self.ask(CHAT, body)["choices"], first["choices"])
        texts = {}
        for chunk in self.stream(CHAT, body):
            (choice,) = chunk["choices"]
            delta = choice["delta"]
            texts[choice["index"]] = texts.get(choice["index"], "") + (
                delta.get("reasoning") or delta.get("content") or "")
        self.assertEqual([texts[i] for i in range(3)],
                         [(c["message"]["reasoning"] or "") + (c["message"]["content"] or "")
                          for c in first["choices"]])


class Completions(ContractTest):
    def test_answer(self):
        answer = self.ask(COMPLETIONS, {"prompt": "Hello", "temperature": 0})
        self.assertRegex(answer["id"], r"^cmpl-[0-9a-f]{32}$")
        self.assertEqual(answer["object"], "text_completion")
        self.assertEqual(answer["usage"]["completion_tokens"], 16)
        chunks = self.stream(COMPLETIONS, {"prompt": "Hello", "temperature": 0})
        self.assertEqual({c["object"] for c in chunks}, {"text_completion"})
        self.assertEqual("".join(c["choices"][0]["text"] for c in chunks),
                         answer["choices"][0]["text"])
        self.assertEqual(chunks[-1]["choices"][0]["finish_reason"], "length")

    def test_forms_of_a_prompt(self):
        body = {"max_tokens": 4, "temperature": 0}
        ids = self.ask("/tokenize", {"prompt": "Hello"})["tokens"]
        texts = [[c["text"] for c in self.ask(COMPLETIONS, body, prompt=prompt)["choices"]]
                 for prompt in ("Hello", ["Hello", "Hello"], ids, [ids, ids])]
        self.assertEqual(texts, [texts[0], texts[0] * 2, texts[0], texts[0] * 2])
        answer = self.ask(COMPLETIONS, body, prompt=["Hello", "a"], n=2)
        self.assertEqual([c["index"] for c in answer["choices"]], [0, 1, 2, 3])
        self.assertEqual([c["text"] for c in answer["choices"][:2]], texts[0] * 2)

    def test_echo_and_logprobs(self):
        (choice,) = self.ask(COMPLETIONS, {"prompt": "Hello 中", "temperature": 0, "echo": True,
                                           "logprobs": 2, "max_tokens": 3})["choices"]
        self.assertTrue(choice["text"].startswith("Hello 中"))
        lists = choice["logprobs"]
        n = len(lists["tokens"])
        self.assertTrue(all(len(lists[k]) == n for k in
                            ("token_logprobs", "top_logprobs", "text_offset")))
        self.assertIsNone(lists["token_logprobs"][0])
        self.assertTrue(all(x < 0 for x in lists["token_logprobs"][1:]))
        self.assertTrue(all(2 <= len(top) <= 3 for top in lists["top_logprobs"][1:]))
        self.assertEqual(lists["text_offset"], sorted(lists["text_offset"]))
        (only,) = self.ask(COMPLETIONS, {"prompt": "Hello 中", "echo": True, "max_tokens": 0}
                           )["choices"]
        self.assertEqual((only["text"], only["finish_reason"]), ("Hello 中", "length"))

    def test_stops(self):
        body = {"prompt": "Hello", "temperature": 0, "max_tokens": 10}
        (plain,) = self.ask(COMPLETIONS, body)["choices"]
        stop = plain["text"][3:5]
        (cut,) = self.ask(COMPLETIONS, body, stop=stop)["choices"]
        end = plain["text"].index(stop)
        self.assertEqual((cut["text"], cut["finish_reason"], cut["stop_reason"]),
                         (plain["text"][:end], "stop", stop))
        (kept,) = self.ask(COMPLETIONS, body, stop=stop, include_stop_str_in_output=True)["choices"]
        self.assertEqual(kept["text"], plain["text"][:end + len(stop)])
        chunks = self.stream(COMPLETIONS, body, stop=stop)
        self.assertEqual("".join(c["choices"][0]["text"] for c in chunks), cut["text"])
        ids = self.ask("/tokenize", {"prompt": plain["text"],
                                     "add_special_tokens": False})["tokens"]
        (by_id,) = self.ask(COMPLETIONS, body, stop_token_ids=ids[2:3])["choices"]
        self.assertEqual((by_id["finish_reason"], by_id["stop_reason"]), ("stop", ids[2]))


class Around(ContractTest):
    def test_models(self):
        models = self.server.get("/v1/models").json()
        self.assertEqual(models["object"], "list")
        self.assertEqual([m["id"] for m in models["data"]], ["tiny", "other"])
        for model in models["data"]:
            self.assertEqual((model["object"], model["max_model_len"], model["root"]),
                             ("model", 2048, MODEL))
            self.assertEqual(self.server.get("/v1/models/" + model["id"]).json(), model)
            self.assertEqual(self.ask(COMPLETIONS, {"prompt": "a", "max_tokens": 1,
                                                    "model": model["id"]})["model"], "tiny")

    def test_tokenize_and_detokenize(self):
        answer = self.ask("/tokenize", {"prompt": "Hello 中", "return_token_strs": True})
        self.assertEqual(set(answer), {"count", "max_model_len", "tokens", "token_strs"})
        self.assertEqual((answer["count"], answer["max_model_len"]), (len(answer["tokens"]), 2048))
        self.assertEqual(len(answer["token_strs"]), answer["count"])
        self.assertEqual(self.ask("/detokenize", {"tokens": answer["tokens"][1:]}),
                         {"prompt": "Hello 中"})
        chat = self.ask("/tokenize", {"messages": SUM["messages"]})
        self.assertEqual(chat["count"], self.ask(CHAT, SUM)["usage"]["prompt_tokens"])

    def test_request_ids(self):
        for method, path, body in (("GET", "/health", None), ("GET", "/none", None),
                                   ("POST", CHAT, b"{"), ("POST", COMPLETIONS, b'{"prompt":"a"}')):
            answer = self.server.request(method, path, body, {"X-Request-Id": "my-id_1"})
            self.assertEqual(answer.headers["X-Request-Id"], "my-id_1")
            made = self.server.request(method, path, body).headers["X-Request-Id"]
            self.assertRegex(made, "^[0-9a-f]{32}$")
        for bad in ("a b", "x" * 129, "\xff"):
            answer = self.server.get("/health", **{"X-Request-Id": bad})
            self.assertRegex(answer.headers["X-Request-Id"], "^[0-9a-f]{32}$")

    def test_head_and_options(self):
        for path in ("/health", "/v1/models", "/metrics", "/version"):
            get, head = self.server.get(path), self.server.request("HEAD", path)
            self.assertEqual((head.status, head.body), (200, b""))
            if path != "/metrics":  # which has grown in between
                self.assertEqual(head.headers["Content-Length"], get.headers["Content-Length"])
        origin = {"Origin": "http://a", "Access-Control-Request-Headers": "authorization"}
        answer = self.server.request("OPTIONS", CHAT, headers=origin)
        self.assertEqual((answer.status, answer.headers["Access-Control-Allow-Origin"],
                          answer.headers["Access-Control-Allow-Headers"]),
                         (204, "*", "authorization"))
        self.assertIn("POST", answer.headers["Access-Control-Allow-Methods"])
        self.assertEqual(self.server.request("GET", CHAT).headers["Allow"], "POST, OPTIONS")

    def test_connections_are_kept(self):
        sock = self.server.connect()
        for _ in range(3):
            sock.sendall(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
            self.assertRegex(read_answer(sock).json()["version"], r"^\d+\.\d+\.\d+$")
        sock.close()

    def test_metrics_have_their_names(self):
        self.ask(CHAT, SUM, max_tokens=2)
        text = self.server.get("/metrics").body.decode()
        for name in ("vllm:num_requests_running", "vllm:num_requests_waiting",
                     "vllm:kv_cache_usage_perc", "vllm:prompt_tokens_total",
                     "vllm:generation_tokens_total", "vllm:request_success_total",
                     "vllm:time_to_first_token_seconds_bucket", "http_requests_total",
                     "vllm:e2e_request_latency_seconds_count"):
            self.assertRegex(text, r'(?m)^%s\{.*\} [0-9.]+$' % name)
        rows = [line for line in text.splitlines() if not line.startswith("#")]
        self.assertEqual(len(rows), len({row.rsplit(" ", 1)[0] for row in rows}))


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
