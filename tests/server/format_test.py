#!/usr/bin/env python3
"""Answers with a format, from a real server: they parse and fit, also where the model would say
something else; what cannot be kept to is a 400; nothing depends on drafts or company.

  format_test.py CMINFER MODEL
"""
import concurrent.futures
import json
import os
import re
import sys
import unittest

from live_server import Server

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
NO_THINKING = {"chat_template_kwargs": {"enable_thinking": False}}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"},
                   "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 2}},
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}


def say(text):
    return [{"role": "user", "content": text}]


def tool(name, properties, **more):
    return {"type": "function", "function": {
        "name": name, "parameters": {"type": "object", "properties": properties,
                                     "required": list(properties)}, **more}}


WEATHER = tool("get_weather", {"city": {"type": "string", "maxLength": 30},
                               "unit": {"enum": ["C", "F"]}})
ADD = tool("add", {"a": {"type": "integer"}, "b": {"type": "integer"}})


class FormatTest(unittest.TestCase):
    options = []

    @classmethod
    def setUpClass(cls):
        cls.server = Server(CMINFER, MODEL, *cls.options)

    @classmethod
    def tearDownClass(cls):
        status = cls.server.stop()
        if status != 0:
            raise AssertionError(f"the server ended with {status}:\n{cls.server.log[-3000:]}")

    def ask(self, path, **body):
        answer = self.server.post(path, {"temperature": 0, **body})
        self.assertEqual(answer.status, 200, answer.body)
        (choice,) = answer.json()["choices"]
        return choice

    def chat(self, text, **body):
        return self.ask(CHAT, messages=say(text), **body)

    def refused(self, path, param, says, **body):
        answer = self.server.post(path, {"prompt": "x", "messages": say("x"), **body})
        self.assertEqual(answer.status, 400, answer.body)
        error = answer.json()["error"]
        self.assertEqual((error["param"], error["code"]), (param, 400), error)
        self.assertIn(says, error["message"])

    def check_person(self, text):
        person = json.loads(text)
        self.assertEqual(list(person), ["name", "age", "tags"])
        self.assertTrue(isinstance(person["name"], str) and len(person["name"]) <= 20)
        self.assertIs(type(person["age"]), int)
        self.assertLessEqual(set(person["tags"]), {"a", "b"})
        self.assertLessEqual(len(person["tags"]), 2)


class Content(FormatTest):
    def test_a_schema_is_followed_that_the_model_would_not_follow(self):
        free = self.chat("What is 457 + 825?")["message"]["content"]
        with self.assertRaises(ValueError):
            json.loads(free)
        for more in ({}, NO_THINKING):
            for temperature in (0, 0.8):
                body = {"response_format": {"type": "json_schema", "json_schema": {
                    "name": "person", "schema": PERSON, "strict": True}}}
                choice = self.chat("What is 457 + 825?", **body, **more, temperature=temperature,
                                   seed=5)
                self.assertEqual(choice["finish_reason"], "stop")
                self.check_person(choice["message"]["content"])

    def test_reasoning_stays_free(self):
        free = self.chat("What is 457 + 825?")["message"]
        bound = self.chat("What is 457 + 825?", guided_json=PERSON)["message"]
        self.assertEqual(bound["reasoning"], free["reasoning"])
        self.assertIsNone(self.chat("What is 457 + 825?", guided_json=PERSON,
                                    **NO_THINKING)["message"]["reasoning"])

    def test_json_object(self):
        text = "Write as JSON: Karen is 34 years old and lives in Paris."
        choice = self.chat(text, response_format={"type": "json_object"}, max_tokens=300)
        if choice["finish_reason"] == "stop":
            self.assertIsInstance(json.loads(choice["message"]["content"]), dict)

    def test_every_spelling_on_both_endpoints(self):
        schema = {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}
        spellings = [
            ({"structured_outputs": {"json": schema}}, None),
            ({"structured_outputs": {"json": json.dumps(schema)}}, None),
            ({"guided_json": schema}, None),
            ({"json_schema": json.dumps(schema)}, None),
            ({"response_format": {"type": "json_object", "schema": schema}}, None),
            ({"structured_outputs": {"regex": "[a-c]{4}!"}}, r"[a-c]{4}!"),
            ({"guided_regex": "[a-c]{4}!"}, r"[a-c]{4}!"),
            ({"regex": "[a-c]{4}!"}, r"[a-c]{4}!"),
            ({"structured_outputs": {"choice": ["one way", "the other"]}}, r"one way|the other"),
            ({"guided_choice": ["one way", "the other"]}, r"one way|the other"),
        ]
        for body, pattern in spellings:
            choices = [self.chat("Hi", **body)["message"]["content"],
                       self.chat("Hi", **body, **NO_THINKING)["message"]["content"],
                       self.ask(COMPLETIONS, prompt="Hi", max_tokens=200, **body)["text"]]
            for text in choices:
                with self.subTest(body=body, text=text):
                    if pattern is None:
                        self.assertIs(type(json.loads(text)["x"]), bool)
                    else:
                        self.assertRegex(text, f"^({pattern})$")

    def test_streams_say_the_same(self):
        body = {"messages": say("What is 457 + 825?"), "guided_json": PERSON, "temperature": 0}
        whole = self.server.post(CHAT, body).json()["choices"][0]
        chunks = self.server.post(CHAT, {**body, "stream": True}).chunks()
        deltas = [c["choices"][0]["delta"] for c in chunks]
        for field in ("content", "reasoning"):
            self.assertEqual("".join(d.get(field) or "" for d in deltas), whole["message"][field])

    def test_limits_are_told_as_such(self):
        choice = self.ask(COMPLETIONS, prompt="Hi", guided_regex="a{50}", max_tokens=3)
        self.assertEqual(choice["finish_reason"], "length")
        choice = self.ask(COMPLETIONS, prompt="Hi", guided_regex="ab", max_tokens=50, min_tokens=40,
                          ignore_eos=True)
        self.assertEqual((choice["text"], choice["finish_reason"]), ("ab", "stop"))

    def test_logprobs_are_the_models_own(self):
        ask = {"prompt": "The", "max_tokens": 1, "logprobs": 3}
        free = self.ask(COMPLETIONS, **ask)["logprobs"]
        bound = self.ask(COMPLETIONS, **ask, guided_choice=["zebra"])["logprobs"]
        self.assertEqual(free["top_logprobs"][0], {k: v for k, v in bound["top_logprobs"][0].items()
                                                   if k in free["top_logprobs"][0]})
        self.assertLess(bound["token_logprobs"][0], free["token_logprobs"][0])

    def test_what_cannot_be_kept_to(self):
        def schema(value):
            return {"response_format": {"type": "json_schema", "json_schema": {"schema": value}}}

        for path in (CHAT, COMPLETIONS):
            self.refused(path, "response_format", '"not" is not supported',
                         **schema({"properties": {"a": {"not": {}}}}))
            self.refused(path, "response_format", "#/properties/a",
                         **schema({"properties": {"a": {"type": "strange"}}}))
            self.refused(path, "response_format", "response_format: ", **schema({"enum": []}))
            self.refused(path, "guided_json", "$ref", guided_json={"$ref": "#/nowhere"})
            self.refused(path, "regex", "look-around", regex="(?=x)")
            self.refused(path, "guided_regex", "guided_regex: ", guided_regex="(((a{999}){999}){9}")
            self.refused(path, "ebnf", "not supported", ebnf="root ::= x")
            self.refused(path, "structured_outputs", "not supported",
                         structured_outputs={"grammar": "root ::= x"})
            self.refused(path, "response_format", "not supported",
                         response_format={"type": "structural_tag"})
        deep = schema({"type": "object"})
        for _ in range(40):
            deep = schema({"items": deep["response_format"]["json_schema"]["schema"]})
        self.chat("Hi", max_tokens=2, **deep)


class Calls(FormatTest):
    def calls(self, text, **body):
        choice = self.chat(text, **body)
        self.assertEqual(choice["finish_reason"], "tool_calls", choice)
        calls = choice["message"]["tool_calls"]
        return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in calls]

    def check_weather(self, call):
        self.assertEqual(call[0], "get_weather")
        self.assertEqual(list(call[1]), ["city", "unit"])
        self.assertIn(call[1]["unit"], ("C", "F"))

    def test_a_call_is_forced(self):
        sum_ = "What is 457 + 825?"
        free = self.chat(sum_, tools=[WEATHER, ADD])
        self.assertNotIn("tool_calls", free["message"])
        for more in ({}, NO_THINKING):
            calls = self.calls(sum_, tools=[WEATHER, ADD], tool_choice="required", **more)
            self.assertIn(calls[0][0], ("get_weather", "add"))
            named = {"type": "function", "function": {"name": "add"}}
            for name, arguments in self.calls(sum_, tools=[WEATHER, ADD], tool_choice=named,
                                              **more):
                self.assertEqual((name, list(arguments)), ("add", ["a", "b"]))
                self.assertIs(type(arguments["a"]), int)
        calls = self.calls(sum_, tools=[WEATHER, ADD], tool_choice="required", temperature=1,
                           parallel_tool_calls=False, seed=3)
        self.assertEqual(len(calls), 1)

    def test_strict_calls_fit_their_schema(self):
        text = "What is the weather in Paris?"
        (free,) = self.calls(text, tools=[WEATHER])
        self.assertNotIn("unit", free[1])  # the model does not know of it
        strict = tool("get_weather", WEATHER["function"]["parameters"]["properties"], strict=True)
        for call in self.calls(text, tools=[strict, ADD]):
            self.check_weather(call)
        n_calls = 0
        for seed in range(8):
            choice = self.chat(text, tools=[strict], temperature=0.6, seed=seed)
            for call in choice["message"].get("tool_calls", []):
                self.assertIn(json.loads(call["function"]["arguments"])["unit"], ("C", "F"))
                n_calls += 1
        self.assertGreater(n_calls, 0)

    def test_strict_tools_need_not_be_called(self):
        strict = tool("get_weather", {"city": {"type": "string"}}, strict=True)
        choice = self.chat("What is 457 + 825?", tools=[strict])
        self.assertEqual(choice["finish_reason"], "stop")
        self.assertIn("1282", choice["message"]["content"])

    def test_an_answer_in_a_format_may_be_a_call(self):
        choice = self.chat("What is the weather in Paris?", tools=[WEATHER], guided_json=PERSON)
        if choice["finish_reason"] == "tool_calls":
            self.assertEqual(choice["message"]["tool_calls"][0]["function"]["name"], "get_weather")
        else:
            self.check_person(choice["message"]["content"])

    def test_what_cannot_be_kept_to(self):
        bad = tool("f", {"x": {"not": {}}}, strict=True)
        self.refused(CHAT, "tools", "f#/properties/x", tools=[ADD, bad])
        lax = tool("f", {"x": {"not": {}}})
        self.refused(CHAT, "tool_choice", "f#/properties/x", tools=[lax], tool_choice="required")
        lax["function"]["strict"] = False
        self.calls("Hi", tools=[lax], tool_choice="required", temperature=1, seed=2)
        self.chat("Hi", tools=[tool("f", {"x": {"not": {}}})])


class Same(FormatTest):
    options = ["--num-speculative-tokens", "2", "--speculate-always", "--max-num-seqs",
               "8"]

    def bodies(self):
        for i in range(16):
            ask = {"messages": say(f"What is {i * 37} + 825?"), "temperature": i % 3 / 2, "seed": i,
                   "logprobs": True, "max_tokens": 150}
            yield {**ask, **[{"guided_json": PERSON}, {"guided_regex": "[0-9]+( [a-z]+){2,5}"},
                             {"tools": [WEATHER, ADD], "tool_choice": "required"},
                             {"guided_choice": ["yes", "no", "nobody knows"]}][i % 4]}

    def test_alone_without_drafts_and_together_with_them(self):
        def ask(server, body):
            answer = server.post(CHAT, body)
            self.assertEqual(answer.status, 200, answer.body)
            text = re.sub(rb'"call_[0-9a-f]+"', b'""', answer.body)
            return json.loads(text)["choices"]

        bodies = list(self.bodies())
        alone = Server(CMINFER, MODEL, "--max-num-seqs", "1", "--threads", "1")
        try:
            want = [ask(alone, body) for body in bodies]
        finally:
            self.assertEqual(alone.stop(), 0)
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda body: ask(self.server, body), bodies))
        self.assertEqual(got, want)
        self.assertGreater(self.server.metric("vllm:spec_decode_num_accepted_tokens_total"), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]])
