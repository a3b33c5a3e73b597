#!/usr/bin/env python3
"""purity_test.py LIBRARY - what the static library of src/policy/ calls outside of itself.

Decisions are made by object code that cannot read a clock, allocate, lock, log or do I/O: so a
simulation can call the same code with its own time, and a recorded run can be replayed. What may be
called is listed here by name; whatever else appears is a finding.
"""

import re
import subprocess
import sys

ALLOWED = re.compile(
    r'mem(cpy|move|set|cmp)|bcmp|strlen'    # bytes in, bytes out
    r'|__assert_fail'                       # ends the process
    r'|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_'  # compilers' own
    r'|cmi_blake2b_(init|update|final)'     # base/blake2b.h
    r'|cmi_crc32c'                          # base/crc32c.h
    r'|cmi_philox\w+|cmi_hash_bytes')       # base/rng.h, base/strmap.h


def symbols(library, option):
    nm = subprocess.run(['nm', option, library], capture_output=True, text=True, check=True)
    return {line.split()[-1] for line in nm.stdout.splitlines() if re.search(r' \w \S+$', line)}


def main():
    library = sys.argv[1]
    own = symbols(library, '--defined-only')
    foreign = symbols(library, '--undefined-only') - own
    impure = sorted(s for s in foreign if not ALLOWED.fullmatch(s))
    for symbol in impure:
        print(f'{library} calls {symbol}: take it as an argument, or move the code to engine/')
    if not own or 'cmi_blake2b_final' not in foreign:
        print(f'{library}: nm does not show what it should; the check is broken')
        return 1
    return 1 if impure else 0


if __name__ == '__main__':
    sys.exit(main())
