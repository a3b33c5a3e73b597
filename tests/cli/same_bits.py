#!/usr/bin/env python3
"""`cminfer score` prints the same bytes however it is run: twice, threads, chunks, ISAs,
memory nodes.

  same_bits.py CMINFER MODEL_DIR [EMULATED_CMINFER QEMU [OPTION]...]

With QEMU (qemu-x86_64 or qemu-aarch64) a program also runs on emulated processors that lack
instruction sets, on fewer tokens: that proves that dispatch emits nothing such a processor lacks,
and that its bits are the same. If that is another program than CMINFER, compiled for another
architecture, CMINFER says what is right and its own variants are left to its own build's test.
"""
import json
import os
import platform
import subprocess
import sys

# Masks of each architecture.
ISAS = {
    "x86_64": ("ref", "avx2", "avx512"),
    "aarch64": ("ref", "neon_base", "neon_dotprod", "neon"),
}
# QEMU's programs, and processors from the one that lacks most.
CPUS = {"qemu-x86_64": ("Nehalem", "Haswell"), "qemu-aarch64": ("cortex-a53", "neoverse-n1", "max")}


# Hosts with several memory nodes, as hwloc makes them up; `cminfer` places threads and weights.
HOSTS = ("node:2 core:2 pu:1", "node:3 core:1 pu:1", "node:16 core:1 pu:1")


def score(command, model, ids, generate, options, host=None):
    args = [*command, "score", model, "--ids", ",".join(map(str, ids)), "--top", "8",
            "--generate", str(generate), "--drafts", *options]
    env = {**os.environ, "HWLOC_SYNTHETIC": host} if host else None
    run = subprocess.run(args, capture_output=True, timeout=900, env=env)
    if run.returncode != 0:
        sys.exit(f"{' '.join(args)[:300]}\nexit status {run.returncode}: {run.stderr.decode()}")
    if host and f"{host[5:].split()[0]} memory nodes".encode() not in run.stderr:
        sys.exit(f"nothing was placed on {host}: {run.stderr.decode()}")
    return run.stdout


def compare_variants(cminfer, model, ids, kind):
    variants = [["--threads", "1"], ["--threads", "1"], ["--threads", "2"], ["--threads", "4"]]
    variants += [["--threads", "2", "--max-num-batched-tokens", n] for n in ("1", "7", "64", "512")]
    variants += [["--threads", "2", "--isa", isa] for isa in ISAS.get(platform.machine(), ())]
    want = score([cminfer], model, ids, 8, kind)
    assert want.count(b"\n") == len(ids) + 8
    for variant in variants:
        if score([cminfer], model, ids, 8, [*kind, *variant]) != want:
            sys.exit(f"other bytes with {' '.join(kind + variant)}")
    for host in HOSTS:
        if score([cminfer], model, ids, 8, [*kind, "--threads", "3"], host) != want:
            sys.exit(f"other bytes with {' '.join(kind)} on {host}")
    return len(variants) + len(HOSTS)


def compare_emulated(cminfer, model, ids, kind, emulated, qemu, options):
    want = score([cminfer], model, ids, 2, kind)
    cpus = CPUS[os.path.basename(qemu)]
    for cpu in cpus:
        if score([qemu, *options, "-cpu", cpu, emulated], model, ids, 2, kind) != want:
            sys.exit(f"other bytes with {' '.join(kind)} on an emulated {cpu}")
    return len(cpus)


def main(cminfer, model, emulated=None, qemu=None, *options):
    with open(f"{model}/golden.json") as f:
        prompts = {p["name"]: p["ids"] for p in json.load(f)["prompts"]}
    # three pages of KV; under a sanitizer two, and no emulator on top of it
    few = bool(os.environ.get("CMI_FEW"))
    ids = prompts["recall_long"][: 70 if few else 140]
    n_compared = 0
    kinds = (["--dtype", "bf16"], ["--dtype", "f32"], ["--quantization", "w8a8-int8"],
             ["--quantization", "w8a8-int8", "--kv-cache-dtype", "int8"],
             ["--kv-cache-dtype", "int8"])
    for kind in kinds:
        if emulated in (None, cminfer):
            n_compared += compare_variants(cminfer, model, ids, kind)
        if emulated and not few:
            n_compared += compare_emulated(cminfer, model, ids[:20], kind, emulated, qemu, options)
    print(f"{n_compared} runs gave the same bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
