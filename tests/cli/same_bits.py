#!/usr/bin/env python3
"""`cminfer score` prints the same bytes however it is run: twice, threads, chunks, ISAs.

  same_bits.py CMINFER MODEL_DIR [QEMU]

With QEMU (qemu-x86_64) the program also runs on an emulated processor without AVX, on fewer tokens:
that proves that dispatch emits nothing such a processor lacks, and that its bits are the same.
"""
import json
import os
import subprocess
import sys


def score(command, model, ids, generate, options):
    args = [*command, "score", model, "--ids", ",".join(map(str, ids)), "--top", "8",
            "--generate", str(generate), "--drafts", *options]
    run = subprocess.run(args, capture_output=True, timeout=900)
    if run.returncode != 0:
        sys.exit(f"{' '.join(args)[:300]}\nexit status {run.returncode}: {run.stderr.decode()}")
    return run.stdout


def main(cminfer, model, qemu=""):
    with open(f"{model}/golden.json") as f:
        prompts = {p["name"]: p["ids"] for p in json.load(f)["prompts"]}
    # three pages of KV; under a sanitizer two, and no emulator on top of it
    few = bool(os.environ.get("CMI_FEW"))
    ids = prompts["recall_long"][: 70 if few else 140]
    variants = [["--threads", "1"], ["--threads", "1"], ["--threads", "2"], ["--threads", "4"]]
    variants += [["--threads", "2", "--max-num-batched-tokens", n] for n in ("1", "7", "64", "512")]
    variants += [["--threads", "2", "--isa", isa] for isa in ("ref", "avx2", "avx512")]
    n_compared = 0
    for kind in (["--dtype", "bf16"], ["--dtype", "f32"], ["--quantization", "w8a8-int8"]):
        want = score([cminfer], model, ids, 8, kind)
        assert want.count(b"\n") == len(ids) + 8
        for variant in variants:
            got = score([cminfer], model, ids, 8, [*kind, *variant])
            if got != want:
                sys.exit(f"other bytes with {' '.join(kind + variant)}")
            n_compared += 1
        if qemu and not few:
            want = score([cminfer], model, ids[:20], 2, kind)
            for cpu in ("Nehalem", "Haswell"):
                got = score([qemu, "-cpu", cpu, cminfer], model, ids[:20], 2, kind)
                if got != want:
                    sys.exit(f"other bytes with {' '.join(kind)} on an emulated {cpu}")
                n_compared += 1
    print(f"{n_compared} runs gave the same bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
