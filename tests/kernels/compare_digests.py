#!/usr/bin/env python3
"""compare_digests.py DIGEST [QEMU] - the same bits from every processor at hand.

Runs kernels_digest natively with each instruction set and, if QEMU (qemu-x86_64) is given, on an
emulated Nehalem, which has none of ours, and a Haswell, which has AVX2: a kernel with an
instruction that the processor lacks would die there. All must print the same hashes, and the
emulated ones must have recognized what they are.
"""

import subprocess
import sys

ISAS = ('ref', 'avx2', 'avx512', 'neon')
EMULATED = (('Nehalem', 'ref'), ('Haswell', 'avx2'))


def digests(command):
    """What a run of kernels_digest printed: the processor's best isa, and the hashes."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f'{" ".join(command)}: exit status {run.returncode}\n{run.stderr}')
    first, *rest = run.stdout.splitlines()
    return first.split()[1], dict(line.split() for line in rest)


def main():
    program, *qemu = sys.argv[1:]
    runs = {f'native {isa}': digests([program, '--isa', isa]) for isa in ISAS}
    for model, _ in EMULATED if qemu else ():
        runs[model] = digests([qemu[0], '-cpu', model, program, '--isa', 'avx512'])

    _, want = runs['native ref']
    findings = []
    for name, (_, hashes) in runs.items():
        findings += [f'{name}: {kernel} differs from the reference'
                     for kernel in want if hashes.get(kernel) != want[kernel]]
    findings += [f'{model}: recognized as {runs[model][0]}, want {best}'
                 for model, best in EMULATED if model in runs and runs[model][0] != best]
    print(f'{len(want)} kernels, {len(runs)} runs: {", ".join(runs)}')
    sys.exit('\n'.join(findings) if findings else 0)


if __name__ == '__main__':
    main()
