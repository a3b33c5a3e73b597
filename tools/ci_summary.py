#!/usr/bin/env python3
"""ci_summary.py RESULTS - adds up what .ci/run did, and prints "N passed, N failed, N skipped".

RESULTS has a line "STATUS BUILD_FOLDER COMMAND" a step, with "-" for a step without tests. The
tests stand in the test log of the build folder; a step that fails without a failed test there
counts as one failure more.
"""

import json
import sys
from collections import Counter
from pathlib import Path

PASSED = ('OK', 'EXPECTEDFAIL')
SKIPPED = ('SKIP',)


def count_tests(build):
    log = Path(build, 'meson-logs', 'testlog.json')
    counts = Counter()
    for line in log.read_text().splitlines() if log.exists() else []:
        test = json.loads(line)
        if test['result'] in PASSED:
            counts['passed'] += 1
        elif test['result'] in SKIPPED:
            counts['skipped'] += 1
        else:
            counts['failed'] += 1
            print(f'{build}: {test["name"]}: {test["result"]}')
    return counts


def main():
    total = Counter()
    for line in Path(sys.argv[1]).read_text().splitlines():
        status, build, command = line.split(' ', 2)
        counts = count_tests(build)
        if status != '0' and counts['failed'] == 0:
            print(f'{command}: status {status}')
            counts['failed'] = 1
        total += counts
    print(f'{total["passed"]} passed, {total["failed"]} failed, {total["skipped"]} skipped')
    return 1 if total['failed'] or not total['passed'] else 0


if __name__ == '__main__':
    sys.exit(main())
