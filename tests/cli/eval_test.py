#!/usr/bin/env python3
"""`cminfer eval` on the bundled tasks, beside the float32 results that came with the model.

  eval_test.py CMINFER MODEL_DIR [OPTION...]

BF16 and INT8 round operands, so near-ties fall differently: at most 2 items fewer on any task and
1 % fewer over all of them.
"""
import json
import os
import subprocess
import sys

cminfer, model, *options = sys.argv[1:]
few = os.environ.get("CMI_FEW")
command = [cminfer, "eval", model, "--tasks", f"{model}/eval.jsonl", "--json", *options]
if few:
    command += ["--limit", "2"]
run = subprocess.run(command, capture_output=True, text=True, timeout=1500)
if run.returncode != 0:
    sys.exit(run.stderr)
ours = json.loads(run.stdout)["tasks"]
with open(f"{model}/eval_results.json") as f:
    wanted = json.load(f)["tasks"]
assert set(ours) == set(wanted)
all_ours = all_wanted = 0
for task, want in wanted.items():
    if few:
        assert ours[task]["n"] == 2
        continue
    n_exact = round(want["exact_match"] * want["n"])
    assert ours[task]["n"] == want["n"]
    print(f"{task}: {ours[task]['n_exact']} of {want['n']}, float32 {n_exact}")
    if ours[task]["n_exact"] < n_exact - 2:
        sys.exit(f"{task} is more than 2 items worse")
    all_ours += ours[task]["n_exact"]
    all_wanted += n_exact
print(f"all: {all_ours}, float32 {all_wanted}")
if all_ours < 0.99 * all_wanted:
    sys.exit("more than 1 % worse over all tasks")
