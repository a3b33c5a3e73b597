#!/usr/bin/env python3
"""What a server answers depends on the request alone: 200 requests, mixed in every way, are
compared with each of them served alone. Tokens, logprobs and texts must be equal to the last digit.

  serving_bits.py CMINFER MODEL [--full] [--seed N] [--requests N] [--config NAME=VALUE,...]

Without --full, configurations are chosen so that every two values of two dimensions meet; --full
runs their whole product. Everything is drawn from --seed, and a failure prints the command that
runs its configuration again. --disaggregate and schemas take part once the server knows them.
"""
import argparse
import itertools
import json
import os
import random
import re
import shlex
import subprocess
import sys
import threading

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "server"))
from live_server import Server  # noqa: E402

CONFIGURATIONS_MAX = 16  # of the choice
TIGHT_TOKENS = 832       # of KV: the largest request below fits, and hardly a second one
OUTPUT_TOKENS_MAX = 160

# Of each dimension the values, and the options that they mean; of "order" how many requests are out
# at a time, and whether they are shuffled.
ORDERS = {"at_once": (None, False), "shuffled_64": (64, True), "shuffled_24": (24, True),
          "shuffled_8": (8, True)}
OPTIONS = {
    "cache": {"on": [], "off": ["--no-enable-prefix-caching"]},
    "drafts": {k: ["--num-speculative-tokens", k, "--speculate-always"] for k in ("0", "1", "2")},
    "chunk": {n: ["--max-num-batched-tokens", n] for n in ("16", "512")},
    "threads": {n: ["--threads", n] for n in ("1", "2")},
    "memory": {"ample": [], "tight": ["--max-total-tokens", str(TIGHT_TOKENS)]},
    "disaggregate": {"no": [], "yes": ["--disaggregate"]},
    "ranks": {"1": [], "2": ["--ep", "2", "--ep-microbatches", "2"],
              "3": ["--ep", "3", "--ep-num-redundant-experts", "5", "--ep-staged-prefill"]},
}
ALONE = ["--threads", "2", "--no-enable-prefix-caching"]


# ---- which configurations ------------------------------------------------------------------------

def dimensions(cminfer):
    knows = subprocess.run([cminfer, "serve", "--help"], capture_output=True, text=True, check=True)
    found = {"order": list(ORDERS), **{name: list(values) for name, values in OPTIONS.items()}}
    if not re.search(r"--disaggregate\b", knows.stdout):
        del found["disaggregate"]
    return found


def pairs_of(config):
    return set(itertools.combinations(sorted(config.items()), 2))


def goes_together(config):
    return config.get("disaggregate") != "yes" or config["ranks"] == "1"


def product(dims):
    every = (dict(zip(dims, values)) for values in itertools.product(*dims.values()))
    return [config for config in every if goes_together(config)]


def every_pair(dims):
    return set().union(*map(pairs_of, product(dims)))


def cover_pairs(dims, seed):
    """Greedy: the configuration with most pairs that are missing, ties by the seed."""
    rng = random.Random(seed)
    candidates, missing, chosen = product(dims), every_pair(dims), []
    rng.shuffle(candidates)
    while missing:
        chosen.append(max(candidates, key=lambda c: len(pairs_of(c) & missing)))
        missing -= pairs_of(chosen[-1])
    return chosen


def choose(dims, seed):
    """The smallest of some covers, checked."""
    best = min((cover_pairs(dims, f"{seed}/{i}") for i in range(20)), key=len)
    covered = set().union(*map(pairs_of, best))
    assert covered == every_pair(dims), every_pair(dims) - covered
    assert len(best) <= CONFIGURATIONS_MAX, f"{len(best)} configurations"
    return best


# ---- which requests ------------------------------------------------------------------------------

TEXTS = ("What is 457 + 825?", "The capital of", "Count: one two three four five six",
         "Sort these letters: q w e r t y")
SCHEMA = {"type": "object", "required": ["name", "n"], "additionalProperties": False,
          "properties": {"name": {"type": "string", "maxLength": 12}, "n": {"type": "integer"}}}
FORMATS = ({"type": "json_object"},
           {"type": "json_schema", "json_schema": {"name": "row", "strict": True,
                                                   "schema": SCHEMA}})


def ids(rng, n):
    return [rng.randrange(3, 2000) for _ in range(n)]


def draw_prompt(rng, families):
    """The path, and the fields that hold the prompt. Half of them begin like others."""
    kind = rng.choice(("ids", "ids", "family", "family", "family", "text", "chat", "chat"))
    if kind == "ids":
        return "/v1/completions", {"prompt": ids(rng, rng.choice((1, 3, 17, 64, 130, 300)))}
    if kind == "family":
        begin = rng.choice(families)[:rng.choice((64, 128, 256, 384, 520))]
        return "/v1/completions", {"prompt": begin + ids(rng, rng.choice((1, 8, 60)))}
    if kind == "text":
        return "/v1/completions", {"prompt": rng.choice(TEXTS)}
    system = [{"role": "system", "content": "You add numbers. " * rng.choice((1, 40))}]
    return "/v1/chat/completions", {
        "messages": system + [{"role": "user", "content": rng.choice(TEXTS)}]}


def draw_sampling(rng):
    fields = {"seed": rng.randrange(1 << 31), "temperature": rng.choice((0, 0, 0.3, 0.7, 1, 1.5)),
              "max_tokens": rng.choice((1, 2, 5, 9, 20, 20, 33, 70, OUTPUT_TOKENS_MAX))}
    some = {"top_p": rng.choice((0.5, 0.95)), "top_k": rng.choice((1, 20)),
            "min_p": rng.choice((0.02, 0.2)), "repetition_penalty": rng.choice((0.8, 1.3)),
            "frequency_penalty": rng.choice((-0.5, 0.8)), "presence_penalty": rng.choice((-1, 1.5)),
            "ignore_eos": True, "stop": rng.choice(("e", ["12", "the"])), "n": 2,
            "logit_bias": {str(i): rng.choice((-5, 3)) for i in ids(rng, 4)}}
    fields.update({k: v for k, v in some.items() if rng.random() < (0.5 if v is True else 0.2)})
    return fields


def draw_request(seed, number, with_schemas):
    """Each request has a generator of its own: leaving one out changes no other."""
    families = [ids(random.Random(f"{seed}/family {i}"), 520) for i in range(4)]
    rng = random.Random(f"{seed}/{number}")
    path, body = draw_prompt(rng, families)
    body.update(draw_sampling(rng))
    is_chat, n_top = path.endswith("chat/completions"), rng.choice((None, 0, 1, 5))
    if n_top is not None:
        body.update({"logprobs": True, "top_logprobs": n_top} if is_chat else {"logprobs": n_top})
    if not is_chat and n_top is not None and rng.random() < 0.15:
        body["echo"] = True  # logprobs of the prompt
    elif rng.random() < 0.4:
        body.update({"stream": True, "stream_options": {"include_usage": True}})
    form = rng.choice(FORMATS)
    if with_schemas and is_chat and rng.random() < 0.5:
        body.update({"response_format": form, "max_tokens": max(body["max_tokens"], 70)})
    return path, body


def takes_schemas(server):
    body = {"messages": [{"role": "user", "content": "a"}], "max_tokens": 4,
            "response_format": FORMATS[1]}
    return server.post("/v1/chat/completions", body).status == 200


# ---- answers -------------------------------------------------------------------------------------

def exact(answer, is_stream):
    """What must be equal: all of the answer but names and times. Numbers stay as they were written,
    and the chunks of a stream come to what the answer in one piece has."""
    def loads(text):
        return json.loads(text, parse_float=str, parse_int=int)
    text = answer.body.decode()
    assert answer.status == 200, text
    events = [e for e in text.split("\n\n") if e.startswith("data: ")] if is_stream else []
    assert not is_stream or events.pop() == "data: [DONE]", text[-300:]
    parts = [loads(e[len("data: "):]) for e in events] if is_stream else [loads(text)]
    choices, usage = {}, {}
    for part in parts:
        assert "error" not in part, part
        usage = part.get("usage") or usage
        for choice in part["choices"]:
            add_choice(choices.setdefault(choice["index"], {"texts": {}, "logprobs": {}}), choice)
    return {"choices": choices,
            "usage": {k: usage[k] for k in ("prompt_tokens", "completion_tokens")}}


def add_choice(to, choice):
    message = choice.get("message") or choice.get("delta") or {"text": choice.get("text")}
    for name in ("text", "content", "reasoning_content"):
        to["texts"][name] = to["texts"].get(name, "") + (message.get(name) or "")
    for name, values in (choice.get("logprobs") or {}).items():
        to["logprobs"].setdefault(name, []).extend(values or [])
    to["finish_reason"] = choice.get("finish_reason") or to.get("finish_reason")


def first_difference(want, got, path=""):
    """(path, expected, found) of the first values that differ; None."""
    if type(want) is type(got) and isinstance(want, dict) and want.keys() == got.keys():
        items = [(f"{path}.{k}", want[k], got[k]) for k in want]
    elif type(want) is type(got) and isinstance(want, list):
        n = min(len(want), len(got))
        items = [(f"{path}[{i}]", want[i], got[i]) for i in range(n)]
        items += [(f"{path}[{n}] and on", want[n:], got[n:])]
    else:
        return None if want == got else (path, want, got)
    if path.endswith("and on"):
        return None if want == got else (path, want, got)
    return next(filter(None, (first_difference(w, g, p) for p, w, g in items)), None)


def serve(server, requests, order, n_at_a_time):
    """The answers, by request; whatever goes wrong in a thread is raised here."""
    answers, failures, todo, lock = {}, [], iter(order), threading.Lock()

    def work():
        while not failures:
            with lock:
                number = next(todo, None)
            if number is None:
                return
            path, body = requests[number]
            try:
                answers[number] = exact(server.post(path, body), body.get("stream", False))
            except (OSError, AssertionError, ValueError, KeyError) as e:
                failures.append(f"request {number} {path} {json.dumps(body)[:300]}: {e!r}")
    threads = [threading.Thread(target=work) for _ in range(n_at_a_time)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise AssertionError("\n".join(failures[:3]))
    return answers


# ---- the run -------------------------------------------------------------------------------------

def ineffective(server, config, is_whole):
    """What the configuration should have made the server do, and did not."""
    def metric(name):
        return server.metric(name)
    tight = config["memory"] == "tight"
    rules = [
        (tight and is_whole and not metric("vllm:num_preemptions_total"), "nobody was preempted"),
        (config["cache"] == "on" and not tight and is_whole and
         not metric("vllm:prefix_cache_hits_total"), "nothing came from the prefix cache"),
        (config["cache"] == "off" and metric("vllm:prefix_cache_hits_total"),
         "the prefix cache was used"),
        (config["drafts"] != "0" and is_whole and
         not metric("vllm:spec_decode_num_accepted_tokens_total"), "no draft was right"),
        (metric("vllm:kv_cache_usage_perc"), "KV pages are in use at rest"),
    ]
    return [text for is_broken, text in rules if is_broken]


def text_of(config):
    return ",".join(f"{name}={value}" for name, value in config.items())


def run_config(opt, requests, want, config):
    """The findings of one configuration, as text."""
    options = [word for name, value in config.items() if name != "order"
               for word in OPTIONS[name][value]]
    n_at_a_time, is_shuffled = ORDERS[config["order"]]
    order = list(range(len(requests)))
    if is_shuffled:
        random.Random(f"{opt.seed}/{config['order']}").shuffle(order)
    server = Server(opt.cminfer, opt.model, *options)
    findings = []
    try:
        got = serve(server, requests, order, n_at_a_time or len(requests))
        for number in range(len(requests)):
            differs = first_difference(want[number], got[number])
            if differs:
                findings.append(
                    f"request {number} ({requests[number][0]}) at {differs[0].lstrip('.')}:\n"
                    f"  {str(differs[1])[:300]}\n    alone, {' '.join(ALONE)}\n"
                    f"  {str(differs[2])[:300]}\n    {config['order']}, {' '.join(options)}")
        findings += ineffective(server, config, opt.requests >= 100)
    except AssertionError as e:
        findings.append(str(e))
    status = server.stop()
    if "--ep-staged-prefill" in options and config["chunk"] == "512" and opt.requests >= 100 and \
            not re.search(rb"prompts were shared in [1-9]", server.log):
        findings.append("the ranks shared no prompt")
    return findings + ([f"the server's exit status is {status}"] if status != 0 else [])


def parse_config(dims, text):
    config = dict(part.split("=", 1) for part in text.split(","))
    if config.keys() != dims.keys() or any(v not in dims[k] for k, v in config.items()):
        sys.exit(f"--config takes NAME=VALUE of each of {dims}")
    return config


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cminfer")
    parser.add_argument("model")
    parser.add_argument("--full", action="store_true", help="the whole product")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--requests", type=int, default=16 if os.environ.get("CMI_FEW") else 200)
    parser.add_argument("--config", help="this one only")
    opt = parser.parse_args()
    dims = dimensions(opt.cminfer)
    configs = product(dims) if opt.full else choose(dims, opt.seed)
    if opt.config:
        configs = [parse_config(dims, opt.config)]
    elif os.environ.get("CMI_FEW"):
        configs = configs[:3]
    server = Server(opt.cminfer, opt.model, *ALONE)
    with_schemas = takes_schemas(server)
    requests = [draw_request(opt.seed, i, with_schemas) for i in range(opt.requests)]
    want = serve(server, requests, range(len(requests)), 1)
    assert server.stop() == 0, server.log.decode()
    n_failed = 0
    for i, config in enumerate(configs, 1):
        findings = run_config(opt, requests, want, config)
        n_failed += bool(findings)
        print(f"{i}/{len(configs)} {text_of(config)}: {'DIFFERS' if findings else 'same'}",
              flush=True)
        for finding in findings[:5]:
            print(finding)
        if findings:
            again = [sys.argv[0], opt.cminfer, opt.model, "--seed", str(opt.seed), "--requests",
                     str(opt.requests), "--config", text_of(config)]
            print(f"{len(findings)} findings; again: {shlex.join(again)}", flush=True)
    n_pairs = len(set().union(*map(pairs_of, configs)))
    print(f"{opt.requests} requests{' with schemas' if with_schemas else ''}, {len(configs)} "
          f"configurations, {n_pairs} of {len(every_pair(dims))} pairs, {n_failed} differ")
    return 1 if n_failed else 0


if __name__ == "__main__":
    sys.exit(main())
