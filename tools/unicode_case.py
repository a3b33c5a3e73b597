#!/usr/bin/env python3
"""Writes src/text/unicode_case_tables.h from Python's own Unicode database.

usage: tools/unicode_case.py > src/text/unicode_case_tables.h
"""
import unicodedata


def runs(pairs):
    """Code points with the same distance to their image, at a step of 1 or 2, become one row."""
    rows = []
    for cp, image in sorted(pairs.items()):
        delta = image - cp
        if rows:
            first, last, step, row_delta = rows[-1]
            gap = cp - last
            if row_delta == delta and (gap == step or (first == last and gap in (1, 2))):
                rows[-1] = (first, cp, gap, delta)
                continue
        rows.append((cp, cp, 1, delta))
    return rows


def mapping(images):
    one, many = {}, {}
    for cp, text in images.items():
        if len(text) == 1:
            one[cp] = ord(text)
        else:
            many[cp] = [ord(c) for c in text]
    return runs(one), many


def table(name, kind, items):
    print(f"static const {kind} {name}[] = {{")
    line = "   "
    for item in items:
        if len(line) + len(item) + 2 > 100:
            print(line)
            line = "   "
        line += f" {item},"
    print(line)
    print("};\n")


def run_row(first, last, step, delta):
    return f"{{0x{first:X}, 0x{last:X}, {step}, {delta}}}"


def long_row(cp, image):
    return f"{{0x{cp:X}, {{{', '.join(f'0x{i:X}' for i in image)}}}}}"


HEAD = """\
/* text/unicode_case_tables.h - written by tools/unicode_case.py from Unicode %s; do not edit.
 *
 * Code points from U+0080 on. `title` holds only what differs from `upper`. */
#ifndef CMI_TEXT_UNICODE_CASE_TABLES_H
#define CMI_TEXT_UNICODE_CASE_TABLES_H

#include "base/compiler.h"

/* Every step-th code point of first..last becomes itself plus delta. */
typedef struct case_run {
    uint32_t first, last;
    int32_t step, delta;
} case_run;

/* A code point that becomes two or three; 0 stands behind the last. */
typedef struct case_long {
    uint32_t from;
    uint32_t to[3];
} case_long;

/* clang-format off */"""


def main():
    upper, lower, title = {}, {}, {}
    for cp in range(0x80, 0x110000):
        if 0xD800 <= cp < 0xE000:
            continue
        c = chr(cp)
        if c.upper() != c:
            upper[cp] = c.upper()
        if c.lower() != c:
            lower[cp] = c.lower()
        if c.title() != c.upper():
            title[cp] = c.title()
    print(HEAD % unicodedata.unidata_version)
    for name, images in (("upper", upper), ("lower", lower), ("title", title)):
        rows, many = mapping(images)
        table(f"{name}_runs", "case_run", [run_row(*row) for row in rows])
        table(f"{name}_long", "case_long", [long_row(*row) for row in many.items()])
    print("/* clang-format on */\n\n#endif")


if __name__ == "__main__":
    main()
