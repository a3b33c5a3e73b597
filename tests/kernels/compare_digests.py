#!/usr/bin/env python3
"""compare_digests.py DIGEST [EMULATED_DIGEST QEMU [OPTION]...] - the same bits from every processor
at hand.

Runs kernels_digest natively with each instruction set and, if QEMU (qemu-x86_64 or qemu-aarch64) is
given, a kernels_digest, this or one for another architecture, on emulated processors: a kernel with
an instruction that the processor lacks would die there. All must print the same hashes, and the
emulated ones must have recognized what they are.
"""

import platform
import subprocess
import sys

# Masks of each architecture; another one's would only select the reference.
ISAS = {
    'x86_64': ('ref', 'avx2', 'avx512'),
    'aarch64': ('ref', 'neon_base', 'neon_dotprod', 'neon'),
}
# QEMU's names of processors, and the best of our instruction sets that they have.
EMULATED = {
    'x86_64': {'Nehalem': 'ref', 'Haswell': 'avx2'},
    'aarch64': {'cortex-a53': 'neon_base', 'neoverse-n1': 'neon_dotprod', 'max': 'neon'},
}


def digests(command):
    """What a run of kernels_digest printed: the processor's best isa, and the hashes."""
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        sys.exit(f'{" ".join(command)}: exit status {run.returncode}\n{run.stderr}')
    first, *rest = run.stdout.splitlines()
    return first.split()[1], dict(line.split() for line in rest)


def main():
    program, *emulation = sys.argv[1:]
    native = ISAS.get(platform.machine(), ('ref',))
    runs = {f'native {isa}': digests([program, '--isa', isa]) for isa in native}
    emulated, qemu, *options = emulation or (None, '')
    machine = qemu.rpartition('qemu-')[2]
    models = EMULATED.get(machine, {})
    for model in models:
        for isa in ISAS[machine]:
            runs[f'{model} {isa}'] = digests([qemu, *options, '-cpu', model, emulated,
                                              '--isa', isa])

    _, want = runs['native ref']
    findings = []
    for name, (best, hashes) in runs.items():
        findings += [f'{name}: {kernel} differs from the reference'
                     for kernel in want if hashes.get(kernel) != want[kernel]]
        model = name.split()[0]
        if best != models.get(model, best):
            findings.append(f'{model}: recognized as {best}, want {models[model]}')
    print(f'{len(want)} kernels, {len(runs)} runs: {", ".join(runs)}')
    sys.exit('\n'.join(findings) if findings else 0)


if __name__ == '__main__':
    main()
