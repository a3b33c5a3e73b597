#!/usr/bin/env python3
"""Each rule of tools/tidy.py finds what it is there for, and nothing in a good tree."""

import importlib.util
import subprocess
import tempfile
import unittest
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TIDY = REPOSITORY / 'tools' / 'tidy.py'
spec = importlib.util.spec_from_file_location('tidy', TIDY)
tidy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tidy)

# A tree that every rule lets pass; a test plants one fault in it.
GOOD = {
    'tools/layers.txt': '# comment\nbase:\nos: base\nserver: base os/team.h\n',
    'meson.build': "subdir('src/base')\n",
    'src/base/meson.build': "static_library('cmi_base', 'alloc.c', 'buf.c')\n",
    'src/base/alloc.c': '#include <stdlib.h>\n#include "base/alloc.h"\n\n'
                        'void cmi_free(void *p)\n{\n    free(p);\n}\n',
    'src/base/alloc.h': '#ifndef CMI_BASE_ALLOC_H\n#define CMI_BASE_ALLOC_H\n\n'
                        'void cmi_free(void *p);\n\n#endif\n',
    'src/base/buf.c': '#include "base/alloc.h"\n\n/* time( and free( in a comment */\n'
                      'static const char *const text = "malloc(";\n',
    'src/os/meson.build': "static_library('cmi_os', 'team.c')\n",
    'src/os/team.c': '#include "base/alloc.h"\n',
    'src/os/team.h': '#ifndef CMI_OS_TEAM_H\n#define CMI_OS_TEAM_H\n#endif\n',
    'src/os/team_internal.h': '#ifndef CMI_OS_TEAM_INTERNAL_H\n'
                              '#define CMI_OS_TEAM_INTERNAL_H\n#endif\n',
    'src/server/meson.build': "static_library('cmi_server', 'http.c')\n",
    'src/server/http.c': '#include "os/team.h"\n',
    'README.md': 'A line of prose may be long. ' * 10 + 'Yes.\n',
}


def function(name, n_lines):
    """A function of n_lines lines from its first to its last."""
    return f'void {name}(int a)\n{{\n' + '    a++;\n' * (n_lines - 3) + '}\n'


class TidyTest(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = Path(scratch.name)
        for path, content in GOOD.items():
            self.write(path, content)
        self.write('.clang-format', (REPOSITORY / '.clang-format').read_bytes())

    def write(self, path, content):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        file.write_bytes(content)

    def append(self, path, content):
        self.write(path, GOOD[path] + content)

    def findings(self, *rules, build=None):
        tree = tidy.Tree(self.root, build)
        return [(f.path, f.line, f.rule) for f in tidy.run(tree, rules)]

    def test_a_good_tree_has_no_findings(self):
        self.assertEqual(self.findings(*(r for r in tidy.RULES if r != 'prefix')), [])

    def test_layers_refuses_an_include_upwards(self):
        self.append('src/base/buf.c', '#include "os/team.h"\n')
        self.assertEqual(self.findings('layers'), [('src/base/buf.c', 5, 'layers')])

    def test_layers_grants_a_single_header_and_no_other(self):
        self.write('src/os/file.h', '')
        self.append('src/server/http.c', '#include "os/file.h"\n')
        self.assertEqual(self.findings('layers'), [('src/server/http.c', 2, 'layers')])

    def test_layers_keeps_internal_headers_inside_their_folder(self):
        self.append('src/os/team.c', '#include "os/team_internal.h"\n')
        self.assertEqual(self.findings('layers'), [])
        self.write('tools/layers.txt', 'base:\nos: base\nserver: base os\n')
        self.append('src/server/http.c', '#include "os/team_internal.h"\n')
        self.assertEqual(self.findings('layers'), [('src/server/http.c', 2, 'layers')])

    def test_layers_wants_headers_named_from_src(self):
        self.append('src/base/buf.c', '#include "alloc.h"\n')
        self.assertEqual(self.findings('layers'), [('src/base/buf.c', 5, 'layers')])

    def test_layers_wants_the_lowest_first(self):
        self.write('tools/layers.txt', 'base: os\nos: base\nserver: base os/team.h\n')
        self.assertEqual(self.findings('layers'), [('tools/layers.txt', 1, 'layers')])

    def test_layers_wants_every_folder_listed(self):
        self.write('tools/layers.txt', 'base:\nos: base\n')
        self.assertEqual(self.findings('layers'), [('src/server/http.c', 1, 'layers')])

    def test_prefix_finds_an_exported_name_without_it(self):
        folder = self.root / 'build' / 'src' / 'os'
        folder.mkdir(parents=True)
        subprocess.run(['cc', '-c', '-x', 'c', '-o', folder / 'x.o', '-'], check=True, text=True,
                       input='void cmi_a(void) {} static void b(void) {} void c(void) { b(); }')
        subprocess.run(['ar', 'rcs', folder / 'libcmi_os.a', folder / 'x.o'], check=True)
        tree = tidy.Tree(self.root, self.root / 'build')
        self.assertEqual([f.text.split()[0] for f in tidy.run(tree, ['prefix'])], ['c'])

    def test_size_limits_files(self):
        self.append('src/base/buf.c', '\n' * 1000)
        self.assertEqual(self.findings('size'), [('src/base/buf.c', 1, 'size')])

    def test_size_limits_functions(self):
        self.append('src/base/buf.c', '\n' + function('cmi_a', 80) + '\n' + function('cmi_b', 81))
        self.assertEqual(self.findings('size'), [('src/base/buf.c', 87, 'size')])

    def test_size_lets_kernels_be_longer(self):
        self.write('src/kernels/gemm.c', function('cmi_a', 150))
        self.assertEqual(self.findings('size'), [])
        self.write('src/kernels/gemm.c', function('cmi_a', 151))
        self.assertEqual(self.findings('size'), [('src/kernels/gemm.c', 1, 'size')])

    def test_an_exception_lets_pass_up_to_its_maximum(self):
        self.append('src/base/buf.c', function('cmi_a', 90))
        self.write(tidy.EXCEPTIONS, '# why\nsize src/base/buf.c:cmi_a 90: a table in code\n')
        self.assertEqual(self.findings('size'), [])
        self.append('src/base/buf.c', function('cmi_a', 91))
        self.assertEqual(self.findings('size'), [('src/base/buf.c', 5, 'size'),
                                                 (tidy.EXCEPTIONS, 2, 'exceptions')])

    def test_an_exception_that_nothing_needs_is_found(self):
        self.write(tidy.EXCEPTIONS, 'banned src/base/buf.c:free: a reason\n')
        self.assertEqual(self.findings('banned'), [(tidy.EXCEPTIONS, 1, 'exceptions')])

    def test_an_exception_without_a_reason_is_found(self):
        self.write(tidy.EXCEPTIONS, 'banned src/base/buf.c:free\n')
        self.assertEqual(self.findings('banned'), [(tidy.EXCEPTIONS, 1, 'exceptions')])

    def test_header_compiles_each_alone(self):
        self.append('src/os/team.h', 'uint32_t cmi_team_size(void);\n')
        self.assertEqual(self.findings('header'), [('src/os/team.h', 1, 'header')])

    def test_header_wants_an_include_guard(self):
        self.write('src/os/team.h', 'struct cmi_team {\n    int n;\n};\n')
        self.assertEqual(self.findings('header'), [('src/os/team.h', 1, 'header')])

    def test_banned_finds_every_call_outside_its_place(self):
        for banned in tidy.BANNED:
            for name in banned.names.split():
                with self.subTest(name):
                    self.append('src/server/http.c', f'int x = {name} (0);\n')
                    self.assertEqual(self.findings('banned'), [('src/server/http.c', 2, 'banned')])

    def test_banned_lets_members_and_longer_names_pass(self):
        self.append('src/server/http.c', 'int x = a->free(0) + a.time(0) + cmi_free(0);\n')
        self.assertEqual(self.findings('banned'), [])

    def test_banned_finds_sleeping_tests(self):
        self.write('tests/os/team_test.c', 'int x = usleep(1);\n')
        self.assertEqual(self.findings('banned'), [('tests/os/team_test.c', 1, 'banned')])

    def test_marks_finds_notes_to_oneself(self):
        for mark in ('FIX' 'ME', 'TO' 'DO', 'X' 'XX'):
            with self.subTest(mark):
                self.append('src/base/buf.c', f'/* {mark}: later */\n')
                self.assertEqual(self.findings('marks'), [('src/base/buf.c', 5, 'marks')])

    def test_text_finds_faults_of_lines(self):
        for line in ('int x; \n', 'int x;\r\n', '\tint x;\n', '/* ' + 'x' * 98 + ' */\n'):
            with self.subTest(line):
                self.append('src/base/buf.c', line)
                self.assertEqual(self.findings('text'), [('src/base/buf.c', 5, 'text')])

    def test_text_counts_characters_not_bytes(self):
        self.append('src/base/buf.c', '/* ' + '\u00e9' * 90 + ' */\n')
        self.assertEqual(self.findings('text'), [])

    def test_text_lets_long_literals_of_tests_pass(self):
        self.write('tests/os/team_test.c', 'const char *s = "' + 'x' * 100 + '";\n')
        self.assertEqual(self.findings('text'), [])
        self.write('src/os/team.c', 'const char *s = "' + 'x' * 100 + '";\n')
        self.assertEqual(self.findings('text'), [('src/os/team.c', 1, 'text')])

    def test_text_finds_faults_of_files(self):
        good = GOOD['src/base/buf.c']
        raw = good.encode()
        for content, line in ((good[:-1], 4), (good + '\n', 6), (b'\xef\xbb\xbf' + raw, 1),
                              (raw + b'/* \xff */\n', 5)):
            with self.subTest(content[-8:]):
                self.write('src/base/buf.c', content)
                self.assertEqual(self.findings('text'), [('src/base/buf.c', line, 'text')])

    def test_blob_finds_large_files_outside_models(self):
        self.write('models/tiny/model.safetensors', b'\0' * (tidy.BLOB_BYTES_MAX + 1))
        self.assertEqual(self.findings('blob'), [])
        self.write('docs/talk.pdf', b'\0' * (tidy.BLOB_BYTES_MAX + 1))
        self.assertEqual(self.findings('blob'), [('docs/talk.pdf', 0, 'blob')])

    def test_place_finds_paths_of_one_machine(self):
        for path in ('/ho' 'me/ann/x', '/ro' 'ot/x', '/wo' 'rk/x'):
            with self.subTest(path):
                self.append('README.md', f'see {path}\n')
                self.assertEqual(self.findings('place'), [('README.md', 2, 'place')])

    def test_place_finds_addresses_in_a_lock_file(self):
        self.write('tests/node/package-lock.json', '{\n"resol' 'ved": "a host"\n}\n')
        self.assertEqual(self.findings('place'), [('tests/node/package-lock.json', 2, 'place')])

    def test_listed_finds_files_that_nothing_builds(self):
        self.write('src/os/dead.c', '')
        self.assertEqual(self.findings('listed'), [('src/os/dead.c', 1, 'listed')])

    @unittest.skipUnless(tidy.find_clang_format(), 'no clang-format of the right version')
    def test_format_finds_what_clang_format_would_change(self):
        self.append('src/base/buf.c', 'int   x;\n')
        self.assertEqual(self.findings('format'), [('src/base/buf.c', 5, 'format')])

    def test_the_command_prints_the_place_and_fails(self):
        self.append('src/base/buf.c', 'int x = rand();\n')
        run = subprocess.run(['python3', TIDY, '--root', self.root, '--only', 'banned'],
                             capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 1)
        self.assertTrue(run.stdout.startswith('src/base/buf.c:5: banned: rand: use base/rng.h'))


if __name__ == '__main__':
    unittest.main()
