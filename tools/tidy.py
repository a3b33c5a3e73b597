#!/usr/bin/env python3
"""tidy.py [--root DIR] [--build DIR] [--only RULE,...] - the project's habits, checked.

Prints one line a finding: file:line: rule: what to do. Exit status 1 when there is any.

Each rule is one function below, a generator of findings over a Tree; its docstring is its manual.
What a rule must let pass is data: the tables on top, tools/layers.txt, and for single places
tools/tidy_exceptions.txt, where each line carries its reason and stops the place from growing.
Python 3.9 and its standard library only.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Finding = namedtuple('Finding', 'path line rule text')

FILE_LINES_MAX = 1000
FUNCTION_LINES_MAX = 80
KERNEL_FUNCTION_LINES_MAX = 150  # unrolled by hand, with the register tile in view
COLUMNS_MAX = 100
BLOB_BYTES_MAX = 1 << 20
CLANG_FORMAT_MAJOR = 14

C_SUFFIXES = ('.c', '.h')
SOURCE_SUFFIXES = C_SUFFIXES + ('.py', '.sh', '.mjs', '.build')
SOURCE_NAMES = ('Makefile', 'run', 'pre-commit', 'meson_options.txt')
# Data as their makers wrote them, and models/making, the recipe beside its results.
NOT_OURS = ('models/', 'fuzz/corpus/', 'LICENSE', 'tests/node/package-lock.json')
SKIPPED_FOLDERS = ('.git', 'build', 'node_modules', '__pycache__')

# Functions, the paths where they are allowed, and what to use instead.
Banned = namedtuple('Banned', 'names allowed instead')
BANNED = (
    Banned('malloc calloc realloc reallocarray free aligned_alloc posix_memalign memalign strdup '
           'strndup asprintf vasprintf',
           ('src/base/alloc.c',), 'use base/alloc.h'),
    Banned('alloca', (), 'use a fixed array or base/alloc.h'),
    Banned('getenv secure_getenv setenv putenv', ('src/cli/', 'tests/'),
           'take an option: only cli/ reads the environment'),
    Banned('time clock gettimeofday clock_gettime',
           ('src/os/clock.c', 'src/base/log.c', 'tests/os/'),
           'take the time as an argument, or use os/clock.h in engine/ and above'),
    Banned('rand srand random srandom drand48 rand_r arc4random getrandom', ('src/os/',),
           'use base/rng.h, with a seed that the caller gives'),
    Banned('strcpy strcat strncpy strncat stpcpy sprintf vsprintf gets', (),
           'use cmi_buf (base/buf.h) or snprintf'),
    Banned('strtok strtok_r', (), 'walk the string with strcspn and strspn'),
    Banned('atoi atol atoll atof', (),
           'use strtoull or strtod and check the end pointer and errno'),
    Banned('printf vprintf puts putchar', ('src/cli/', 'tests/', 'fuzz/'),
           'return the text, or use base/log.h: only cli/ writes to standard output'),
    Banned('sleep usleep nanosleep clock_nanosleep', ('src/os/',),
           'wait for the event itself; in tests make time an argument'),
    Banned('exit _exit quick_exit', ('src/cli/', 'tests/', 'fuzz/'),
           'return a status: only cli/ ends the process'),
    Banned('system popen', (), 'do it in C: no shell is started'),
)

# What the headers of an instruction set's folder need to compile: the machine and the flags.
ISA_FLAGS = {
    'src/kernels/avx2/': ('x86_64', ['-mavx2', '-mfma']),
    'src/kernels/avx512/': ('x86_64', ['-mavx512f', '-mavx512bw', '-mavx512vl', '-mavx512dq']),
    'src/kernels/neon/': ('aarch64', []),
}

# Spelled with classes so that this file does not match itself.
MARKS = re.compile(r'\b(FIXM[E]|TOD[O]|XX[X])\b')
MACHINE_PATHS = re.compile(r'(?<![\w.])/(?:wor[k]|hom[e]/\w+|roo[t]|tmp/w[t])/')
LOCK_ADDRESS = re.compile(r'"resolve[d]":')


class Tree:
    """The files of a checkout, relative to root, each read once."""

    def __init__(self, root, build=None):
        self.root = Path(root)
        self.build = Path(build) if build else None
        self.notes = []  # what could not be checked here, and why
        self.files = sorted(f for f in self._list() if (self.root / f).is_file()
                            and not (self.root / f).is_symlink())
        self._bytes = {}
        self._code = {}

    def _list(self):
        if (self.root / '.git').exists():
            git = subprocess.run(['git', 'ls-files', '-co', '--exclude-standard', '-z'],
                                 cwd=self.root, capture_output=True, text=True, check=False)
            if git.returncode == 0:
                return set(git.stdout.split('\0')) - {''}
        found = set()
        for folder, subfolders, names in os.walk(self.root):
            subfolders[:] = [s for s in subfolders
                             if s not in SKIPPED_FOLDERS and not s.startswith('build-')]
            found.update(Path(folder, n).relative_to(self.root).as_posix() for n in names)
        return found

    def bytes(self, path):
        if path not in self._bytes:
            self._bytes[path] = (self.root / path).read_bytes()
        return self._bytes[path]

    def text(self, path):
        return self.bytes(path).decode('utf-8', 'replace')

    def lines(self, path):
        return self.text(path).split('\n')

    def code_lines(self, path):
        """The lines of a C file with comments and the content of literals blanked."""
        if path not in self._code:
            self._code[path] = blank_comments_and_literals(self.text(path)).split('\n')
        return self._code[path]

    def ours(self, *suffixes):
        """Our files with one of the suffixes; all of our files without."""
        return [f for f in self.files
                if not f.startswith(NOT_OURS) and (not suffixes or f.endswith(suffixes))]

    def sources(self):
        return [f for f in self.ours()
                if f.endswith(SOURCE_SUFFIXES) or f.rsplit('/', 1)[-1] in SOURCE_NAMES]


C_TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)


def blank_comments_and_literals(text):
    def blank(match):
        token = match.group()
        if token[0] == '/':
            return re.sub(r'[^\n]', ' ', token)
        return token[0] + ' ' * (len(token) - 2) + token[0]
    return C_TOKENS.sub(blank, text)


# ---- rules ---------------------------------------------------------------------------------------

def read_layers(tree):
    """tools/layers.txt as {folder: [granted folder or header]}, and its own findings."""
    path = 'tools/layers.txt'
    layers, findings = {}, []
    for number, line in enumerate(tree.lines(path), 1):
        if not line.strip() or line.startswith('#'):
            continue
        folder, colon, granted = line.partition(':')
        if not colon:
            findings.append(Finding(path, number, 'layers', 'write it as "folder: granted..."'))
            continue
        for grant in granted.split():
            if grant.split('/')[0] not in layers:
                findings.append(Finding(path, number, 'layers',
                                        f'{grant} must stand above {folder}: lowest first'))
            if grant.endswith('.h') and f'src/{grant}' not in tree.files:
                findings.append(Finding(path, number, 'layers',
                                        f'there is no src/{grant}: correct or remove the grant'))
        layers[folder] = granted.split()
    return layers, findings


INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def rule_layers(tree):
    """A file of src/ includes its own folder and what tools/layers.txt grants, and the
    x_internal.h of no other folder."""
    layers, findings = read_layers(tree)
    yield from findings
    for path in tree.ours(*C_SUFFIXES):
        if not path.startswith('src/'):
            continue
        folder = path.split('/')[1]
        if folder not in layers:
            yield Finding(path, 1, 'layers', f'add a line for {folder}/ to tools/layers.txt')
            continue
        for number, line in enumerate(tree.lines(path), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            header = match.group(1)
            target = header.split('/')[0]
            if f'src/{header}' not in tree.files:
                yield Finding(path, number, 'layers',
                              f'name the header from src/, as "folder/x.h": no src/{header}')
            elif target == folder:
                continue
            elif header.endswith('_internal.h'):
                yield Finding(path, number, 'layers',
                              f'{header} is for {target}/ only; use its public header')
            elif target not in layers[folder] and header not in layers[folder]:
                yield Finding(path, number, 'layers',
                              f'{folder}/ may not see {header}; move the code, or grant it in '
                              'tools/layers.txt with a reason in the commit')


def rule_prefix(tree):
    """Every symbol that a static library exports starts with cmi_."""
    libraries = sorted(tree.build.glob('src/**/*.a')) if tree.build else []
    if not libraries:
        tree.notes.append('prefix: not checked, no static libraries in the build folder')
        return
    for library in libraries:
        nm = subprocess.run(['nm', '-g', '--defined-only', str(library)],
                            capture_output=True, text=True, check=True)
        folder = library.parent.relative_to(tree.build).as_posix()
        for line in nm.stdout.splitlines():
            symbol = re.fullmatch(r'[0-9a-f]+ \w (\S+)', line)
            if symbol and not symbol.group(1).startswith('cmi_'):
                yield Finding(folder, 0, 'prefix', f'{symbol.group(1)} in {library.name}: make it '
                              'static or call it cmi_...')


def functions(tree, path):
    """(name, first line number, lines) of every function of a C file as clang-format writes it:
    the body's braces stand alone in the first column."""
    code = tree.code_lines(path)
    opened = None
    for number, line in enumerate(code):
        if line == '{':
            opened = number
        elif line == '}' and opened is not None:
            first = opened
            while first > 0 and code[first - 1].strip() and \
                    not code[first - 1].rstrip().endswith((';', '}')) and \
                    not code[first - 1].startswith('#'):
                first -= 1
            signature = ' '.join(code[first:opened])
            name = re.search(r'(\w+)\s*\((?:[^()]|\([^()]*\))*\)\s*$', signature)
            yield (name.group(1) if name else '?'), first + 1, number - first + 1
            opened = None


def rule_size(tree):
    """A file has at most 1000 lines, a function 80, one in src/kernels/ 150."""
    for path in tree.sources():
        n_lines = len(tree.lines(path)) - 1
        if n_lines > FILE_LINES_MAX:
            yield Finding(path, 1, 'size', f'{n_lines} lines, at most {FILE_LINES_MAX}: split it')
    for path in tree.ours(*C_SUFFIXES):
        limit = KERNEL_FUNCTION_LINES_MAX if path.startswith('src/kernels/') \
            else FUNCTION_LINES_MAX
        for name, line, n_lines in functions(tree, path):
            if n_lines > limit:
                yield Finding(path, line, 'size',
                              f'{name}: {n_lines} lines, at most {limit}: split it')


def rule_header(tree):
    """Every header compiles alone, and twice in a row."""
    flags = ['-std=gnu11', '-D_GNU_SOURCE', '-DCMI_VERSION=""', '-Wall', '-Wextra', '-Werror',
             '-fsyntax-only', '-I', str(tree.root / 'src'), '-I', str(tree.root)]
    modules = ['jansson', 'libmicrohttpd', 'libpcre2-8', 'libedit', 'hwloc', 'libsodium', 'ucx',
               'cmocka']
    module_flags = []
    for module in modules:
        found = subprocess.run(['pkg-config', '--cflags', module], capture_output=True, text=True,
                               check=False)
        module_flags += found.stdout.split() if found.returncode == 0 else []

    def compiler(path):
        """The command for a header, None where no compiler for its machine is installed."""
        for folder, (machine, isa_flags) in ISA_FLAGS.items():
            if path.startswith(folder):
                cross = f'{machine}-linux-gnu-gcc'
                name = 'cc' if platform.machine() == machine else shutil.which(cross)
                return [name, *flags, *isa_flags] if name else None
        return ['cc', *flags, *module_flags]

    def compile_alone(path):
        command = compiler(path)
        if command is None:
            return None
        include = f'#include "{path[4:] if path.startswith("src/") else path}"\n'
        cc = subprocess.run([*command, '-x', 'c', '-'], input=include * 2, capture_output=True,
                            text=True, check=False)
        if cc.returncode == 0:
            return None
        errors = [line for line in cc.stderr.splitlines() if 'error:' in line]
        return Finding(path, 1, 'header', 'make it compile alone: '
                       + (errors[0] if errors else cc.stderr.strip()))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from filter(None, pool.map(compile_alone, tree.ours('.h')))


def rule_banned(tree):
    """Calls that have a better replacement are made only where the table on top allows them."""
    for banned in BANNED:
        call = re.compile(r'(?<![\w.>])(' + '|'.join(banned.names.split()) + r')\s*\(')
        for path in tree.ours(*C_SUFFIXES):
            if path.startswith(banned.allowed):
                continue
            for number, line in enumerate(tree.code_lines(path), 1):
                for match in call.finditer(line):
                    yield Finding(path, number, 'banned', f'{match.group(1)}: {banned.instead}')


def rule_marks(tree):
    """No notes to oneself: what is known to be missing stands in the tracker or is done."""
    for path in tree.ours():
        if is_binary(tree, path):
            continue
        for number, line in enumerate(tree.lines(path), 1):
            match = MARKS.search(line)
            if match:
                yield Finding(path, number, 'marks', f'{match.group()}: do it or drop it')


def is_binary(tree, path):
    return b'\0' in tree.bytes(path)[:8000]


def is_long(path, line):
    if len(line) <= COLUMNS_MAX:
        return False
    if path.startswith('tests/') and path.endswith(C_SUFFIXES):
        # A long literal is test data, clearer unbroken.
        return len(re.sub(r'"(?:\\.|[^"\\])*"', '""', line)) > COLUMNS_MAX
    return True


def rule_text(tree):
    """Valid UTF-8, no tabs outside Makefile, no trailing space, 100 columns in sources, one newline
    at the end, no carriage returns."""
    for path in tree.ours():
        if is_binary(tree, path):
            continue
        data = tree.bytes(path)
        try:
            data.decode('utf-8')
        except UnicodeDecodeError as error:
            line = data[:error.start].count(b'\n') + 1
            yield Finding(path, line, 'text', 'save it as UTF-8')
            continue
        if data.startswith(b'\xef\xbb\xbf'):
            yield Finding(path, 1, 'text', 'remove the byte order mark')
        if data and (not data.endswith(b'\n') or data.endswith(b'\n\n')):
            yield Finding(path, data.count(b'\n') + 1, 'text', 'end the file with one newline')
        yield from line_findings(path, tree.lines(path), path in tree.sources())


def line_findings(path, lines, is_source):
    for number, line in enumerate(lines, 1):
        if '\r' in line:
            yield Finding(path, number, 'text', 'end lines with a newline only')
        elif line != line.rstrip():
            yield Finding(path, number, 'text', 'remove the trailing space')
        if '\t' in line and is_source and path != 'Makefile':
            yield Finding(path, number, 'text', 'indent with spaces')
        if is_source and path != 'Makefile' and is_long(path, line):
            yield Finding(path, number, 'text',
                          f'{len(line)} columns, at most {COLUMNS_MAX}: break the line')


def rule_blob(tree):
    """No file over 1 MB outside models/: history keeps it for ever."""
    for path in tree.files:
        n_bytes = (tree.root / path).stat().st_size
        if n_bytes > BLOB_BYTES_MAX and not path.startswith('models/'):
            yield Finding(path, 0, 'blob', f'{n_bytes} bytes, at most {BLOB_BYTES_MAX}: generate '
                          'it, or make it smaller')


def rule_place(tree):
    """Nothing names a path of the machine where it was written, or a package registry's host."""
    for path in tree.files:
        if path.startswith(('fuzz/corpus/', 'LICENSE')) or is_binary(tree, path):
            continue
        for number, line in enumerate(tree.lines(path), 1):
            match = MACHINE_PATHS.search(line)
            if match:
                yield Finding(path, number, 'place',
                              f'{match.group()}...: name it relative to the repository')
            if path.endswith('package-lock.json') and LOCK_ADDRESS.search(line):
                yield Finding(path, number, 'place', 'write the lock file with the .npmrc beside '
                              'it, which leaves addresses out')


def rule_listed(tree):
    """Every C file is built: a meson.build of its folder or one above names it."""
    for path in tree.ours('.c'):
        name = path.rsplit('/', 1)[-1][:-2]
        stems = {name, re.sub(r'_(test|fuzz)$', '', name)}
        folders = [str(p) for p in Path(path).parents]
        builds = [f'{f}/meson.build' if f != '.' else 'meson.build' for f in folders]
        text = ''.join(tree.text(b) for b in builds if b in tree.files)
        if not any(re.search(rf"\b{re.escape(stem)}(\.c)?'", text) for stem in stems):
            yield Finding(path, 1, 'listed', f'name it in {builds[0]}, or delete it')


def find_clang_format():
    for program in (f'clang-format-{CLANG_FORMAT_MAJOR}', 'clang-format'):
        try:
            version = subprocess.run([program, '--version'], capture_output=True, text=True,
                                     check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            continue
        if re.search(rf'version {CLANG_FORMAT_MAJOR}\.', version):
            return program
    return None


def rule_format(tree):
    """C files are as clang-format 14 writes them; other versions write differently."""
    program = find_clang_format()
    if program is None:
        tree.notes.append(f'format: not checked, no clang-format {CLANG_FORMAT_MAJOR}')
        return

    def check(path):
        return path, subprocess.run([program, '--dry-run', '--Werror', '--ferror-limit=1', path],
                                    cwd=tree.root, capture_output=True, text=True, check=False)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, run in pool.map(check, tree.ours(*C_SUFFIXES)):
            if run.returncode != 0:
                line = re.search(r':(\d+):\d+: error', run.stderr)
                yield Finding(path, int(line.group(1)) if line else 1, 'format',
                              'run "make format"')


RULES = {name[5:]: rule for name, rule in list(globals().items()) if name.startswith('rule_')}

# ---- exceptions and the command ------------------------------------------------------------------

EXCEPTIONS = 'tools/tidy_exceptions.txt'
EXCEPTION = re.compile(r'(\w+) (\S+)(?: (\d+))?: (\S.*)')


def apply_exceptions(tree, findings, rules):
    """Drops what an exception allows; an exception that nothing needs is a finding itself."""
    allowed = {}
    lines = tree.lines(EXCEPTIONS) if EXCEPTIONS in tree.files else []
    for number, line in enumerate(lines, 1):
        if not line or line.startswith('#'):
            continue
        match = EXCEPTION.fullmatch(line)
        if match is None or match.group(1) not in RULES:
            yield Finding(EXCEPTIONS, number, 'exceptions',
                          'write it as "RULE PATH[:NAME] [MAX]: REASON"')
            continue
        allowed[match.group(1), match.group(2)] = (number, match.group(3))
    used = set()
    for finding in findings:
        name = finding.text.split(':')[0]
        for key in ((finding.rule, finding.path), (finding.rule, f'{finding.path}:{name}')):
            if key in allowed and within(finding, allowed[key][1]):
                used.add(key)
                break
        else:
            yield finding
    for key, (number, _) in allowed.items():
        if key not in used and key[0] in rules:
            yield Finding(EXCEPTIONS, number, 'exceptions',
                          f'{key[1]} needs it no more, or has grown past it')


def within(finding, maximum):
    """A size must not exceed the exception's own maximum."""
    size = re.search(r'(\d+) lines', finding.text)
    return finding.rule != 'size' or int(size.group(1)) <= int(maximum or 0)


def run(tree, rules):
    findings = [f for name in rules for f in RULES[name](tree)]
    return sorted(apply_exceptions(tree, findings, rules))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split('\n', maxsplit=1)[0])
    parser.add_argument('--root', default=Path(__file__).resolve().parent.parent)
    parser.add_argument('--build', help='a build folder with the static libraries [ROOT/build]')
    parser.add_argument('--only', help='rules, separated by commas: ' + ','.join(RULES))
    options = parser.parse_args()
    rules = options.only.split(',') if options.only else list(RULES)
    if not set(rules) <= set(RULES):
        parser.error('--only knows ' + ','.join(RULES))
    tree = Tree(options.root, options.build or Path(options.root, 'build'))
    findings = run(tree, rules)
    for finding in findings:
        where = f'{finding.path}:{finding.line}' if finding.line else finding.path
        print(f'{where}: {finding.rule}: {finding.text}')
    for note in tree.notes:
        print(f'tidy: {note}', file=sys.stderr)
    print(f'tidy: {len(tree.files)} files, {len(findings)} findings', file=sys.stderr)
    return 1 if findings else 0


if __name__ == '__main__':
    sys.exit(main())
