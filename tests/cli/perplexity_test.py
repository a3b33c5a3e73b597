#!/usr/bin/env python3
"""`cminfer eval --perplexity` against the logprobs of `cminfer score`, and INT8 beside BF16.

  perplexity_test.py CMINFER MODEL_DIR
"""
import json
import math
import os
import subprocess
import sys
import tempfile

BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


def run(*args):
    done = subprocess.run(args, capture_output=True, timeout=600)
    if done.returncode != 0:
        sys.exit(f"{' '.join(args)[:300]}\nexit status {done.returncode}: {done.stderr.decode()}")
    return done.stdout


def documents(model, n):
    """n items without tools, as the model was taught them: question, reasoning, answer."""
    texts = []
    with open(f"{model}/eval.jsonl") as f:
        for item in map(json.loads, f):
            if item["tools"] or item["after_tool"] or not item["thinking"]:
                continue
            if len(item["messages"]) == 1:
                texts.append(f"{BEGIN}<｜User｜>{item['messages'][0]['content']}<｜Assistant｜>"
                             f"<think>\n{item['think']}\n</think>\n\n{item['answer']}{END}")
    return texts[:: len(texts) // n][:n]


def from_score(cminfer, model, texts):
    nll, n = 0.0, 0
    for text in texts:
        lines = run(cminfer, "score", model, "--text", text.removeprefix(BEGIN),
                    "--top", "0")
        logprobs = [json.loads(line)["logprob"] for line in lines.splitlines()]
        nll -= sum(p for p in logprobs if p is not None)
        n += len(logprobs) - 1
    return nll / n


def main(cminfer, model):
    n = 12 if os.environ.get("CMI_FEW") else 120
    texts = documents(model, n)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/documents.jsonl"
        with open(path, "w") as f:
            f.writelines(json.dumps({"text": text}) + "\n" for text in texts)

        def perplexity(*options):
            return json.loads(run(cminfer, "eval", model, "--perplexity", path, "--json", *options))

        bf16, int8 = perplexity(), perplexity("--quantization", "w8a8-int8")
        int8_kv = perplexity("--kv-cache-dtype", "int8")
        with open(path, "w") as f:
            f.writelines(json.dumps({"text": text}) + "\n" for text in texts[:5])
        few = perplexity()
    want = from_score(cminfer, model, texts[:5])
    # score prints logprobs with six digits.
    assert abs(few["nll"] - want) < 1e-5, (few, want)
    assert math.isclose(few["perplexity"], math.exp(few["nll"]), rel_tol=1e-5)
    assert bf16["documents"] == len(texts) and bf16["tokens"] == int8["tokens"]
    print(f"perplexity: BF16 {bf16['perplexity']:.4f}, INT8 {int8['perplexity']:.4f}, "
          f"INT8 KV {int8_kv['perplexity']:.4f}")
    # Round-to-nearest INT8 with a scale for each output and each token is held to 1 %.
    assert int8["perplexity"] < 1.01 * bf16["perplexity"]
    assert int8_kv["perplexity"] < 1.01 * bf16["perplexity"]


if __name__ == "__main__":
    main(*sys.argv[1:])
