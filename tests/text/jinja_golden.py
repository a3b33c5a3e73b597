#!/usr/bin/env python3
"""Writes jinja_golden.json: what Python's Jinja2, set up as Hugging Face transformers sets it up,
makes of jinja_cases.txt and of templates/*.jinja over the bundled conversations.

usage: tests/text/jinja_golden.py        (needs the Python package jinja2)

The texts are Python's own; where it raises, the golden file has the name of the exception, and any
error will do for the test."""
import datetime
import json
import os
import platform
from pathlib import Path

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent.parent / 'models' / 'matrix-tiny'
NOW_UNIX_S = 1700000000
VARS = {
    's': 'Héllo wörld',
    'n': 5,
    'f': 2.5,
    'l': [3, 1, 2],
    'd': {'a': 1, 'b': [1, {'x': None}], 'items': 7},
    'empty': '',
    'nothing': None,
    'yes': True,
    'no': False,
    'nul': 'a\u0000b',
    'msgs': [
        {'role': 'user', 'content': 'hi\n'},
        {'role': 'assistant', 'content': None, 'tool_calls': [
            {'function': {'name': 'f', 'arguments': {'a': 1.5, 'ü': 'x"y'}}}]},
    ],
}


class Generation(Extension):
    """The tag with which templates mark the model's words; transformers prints what is inside."""
    tags = {'generation'}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(['name:endgeneration'], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method('inside'), [], [], body).set_lineno(line)

    def inside(self, caller):
        return caller()


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def strftime_now(how):
    return datetime.datetime.fromtimestamp(NOW_UNIX_S, datetime.timezone.utc).strftime(how)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True,
                                        extensions=[Generation, loopcontrols])
    env.filters['tojson'] = tojson
    env.globals['raise_exception'] = raise_exception
    env.globals['strftime_now'] = strftime_now
    return env


def render(source, variables):
    try:
        return {'text': environment().from_string(source).render(**variables)}
    except Exception as error:  # whatever a template can cause
        return {'error': type(error).__name__}


def read_cases():
    parts = (HERE / 'jinja_cases.txt').read_text().split('\n===== ')[1:]
    for part in parts:
        name, _, source = part.partition('\n')
        yield name, source.removesuffix('\n') if part is parts[-1] else source


def chats():
    conversations = json.loads((MODEL / 'chat_golden.json').read_text())
    for path in sorted((HERE / 'templates').glob('*.jinja')):
        for conversation in conversations:
            variables = {
                'messages': conversation['messages'],
                'tools': conversation['tools'],
                'documents': None,
                'add_generation_prompt': conversation['add_generation_prompt'],
                'enable_thinking': conversation['enable_thinking'],
                'bos_token': '<｜begin▁of▁sentence｜>',
                'eos_token': '<｜end▁of▁sentence｜>',
                'pad_token': '<｜▁pad▁｜>',
            }
            yield {'template': path.name, 'conversation': conversation['name'],
                   **render(path.read_text(), variables)}


def main():
    golden = {
        'made_by': f'Jinja2 {jinja2.__version__}, Python {platform.python_version()}',
        'now_unix_s': NOW_UNIX_S,
        'vars': VARS,
        'cases': [{'name': name, 'template': source, **render(source, VARS)}
                  for name, source in read_cases()],
        'chats': list(chats()),
    }
    out = HERE / 'jinja_golden.json'
    out.write_text(json.dumps(golden, ensure_ascii=False, indent=1) + '\n')
    errors = sum('error' in case for case in golden['cases'])
    print(f"{out}: {len(golden['cases'])} cases, {errors} of them errors, "
          f"{len(golden['chats'])} chats")


if __name__ == '__main__':
    os.environ['TZ'] = 'UTC'
    main()
