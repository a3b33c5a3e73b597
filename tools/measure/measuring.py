"""What the measuring scripts share: a server, a load, rounds that take turns, a table, a drawing.

Measurements of one question run on one machine, in turn (A B, B A, A B, ...), so that a machine
that becomes faster or slower meets all sides alike; tables hold the medians of the rounds.
"""
import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading

START_S = 3600  # to load a model
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def parser(text):
    """Arguments that every script has. text is the script's docstring."""
    p = argparse.ArgumentParser(description=text,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", help="a model directory")
    p.add_argument("--cminfer", default=os.path.join(ROOT, "build", "cminfer"),
                   help="the program (default: build/cminfer)")
    p.add_argument("--model-options", default="", metavar="TEXT",
                   help="of every program that runs the model: threads, quantization, ...")
    p.add_argument("--serve-options", default="", metavar="TEXT",
                   help="more options of cminfer serve, for all sides")
    p.add_argument("--rounds", type=int,
                   help="of which the median counts (default 3, 15 of mtp.py)")
    p.add_argument("--svg", metavar="FILE", help="draws the result, too")
    p.add_argument("--smoke", action="store_true",
                   help="a few seconds: shows that the script works, and nothing else")
    return p


def arguments(p, smoke):
    """Parses; in smoke mode what was not given takes the values of smoke."""
    given = p.parse_args()
    for name, value in (smoke if given.smoke else {}).items():
        setattr(given, name, value)
    given.rounds = given.rounds or (1 if given.smoke else 3)
    return given


def serve_knows(cminfer, option):
    text = subprocess.run([cminfer, "serve", "--help"], capture_output=True, text=True, check=True)
    return re.search(re.escape(option) + r"\b", text.stdout) is not None


class Server:
    """A `cminfer serve` of its own on a free port; `with` ends it."""

    def __init__(self, opt, *options):
        command = [opt.cminfer, "serve", opt.model, "--port", "0",
                   *opt.model_options.split(), *opt.serve_options.split(), *map(str, options)]
        self.log, self.port = [], None
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.is_up = threading.Event()
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()
        if not self.is_up.wait(START_S) or self.port is None:
            self.process.kill()
            sys.exit("no server: " + "".join(self.log[-3:]))

    def _read(self):
        for line in self.process.stderr:
            self.log.append(line)
            found = re.search(r"serving .* at http://[^ ]*:(\d+)/v1", line)
            if found:
                self.port = int(found[1])
                self.is_up.set()
        self.is_up.set()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.reader.join()
        self.process.stderr.close()
        if status != 0 and unused[0] is None:
            sys.exit(f"the server's exit status is {status}: " + "".join(self.log[-3:]))

    def request(self, method, path, body=None):
        """(status, body)."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            connection.request(method, path, json.dumps(body) if body else None)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def metrics(self):
        """{name: the sum over its labels}."""
        sums = {}
        for name, value in re.findall(r"^([\w:]+)\{.*\} (\S+)$", self.request("GET", "/metrics")[1],
                                      re.M):
            sums[name] = sums.get(name, 0) + float(value)
        return sums

    def resident_mib(self):
        with open(f"/proc/{self.process.pid}/status", encoding="ascii") as f:
            return int(re.search(r"VmRSS:\s*(\d+)", f.read())[1]) / 1024

    def n_descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))


def start_load(opt, server, **options):
    """Begins `cminfer bench serve` with --NAME VALUE of each option. True: a flag; a list: the
    option several times."""
    folder = tempfile.TemporaryDirectory()
    command = [opt.cminfer, "bench", "serve", "--port", str(server.port), "--save-result",
               "--result-filename", os.path.join(folder.name, "result.json")]
    if options.get("backend") != "openai-chat":
        command += ["--token-ids", "--vocab-size", str(vocab_size(opt.model))]
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            command += ["--" + name.replace("_", "-")] + ([] if one is True else [str(one)])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)
    return process, folder


def end_load(process, folder):
    """The result of a load, as bench serve writes it, when it is over."""
    errors = process.communicate()[1]
    try:
        with open(os.path.join(folder.name, "result.json"), encoding="utf-8") as f:
            return json.load(f)
    except OSError:
        sys.exit(f"cminfer bench serve failed: {errors}")
    finally:
        folder.cleanup()


def load(opt, server, **options):
    return end_load(*start_load(opt, server, **options))


def vocab_size(model):
    """For prompts of token ids; the model may also be a name in a cache, of which any has 1024."""
    try:
        with open(os.path.join(model, "config.json"), encoding="utf-8") as f:
            return json.load(f)["vocab_size"]
    except OSError:
        return 1024


def rounds(opt, sides, measure):
    """{side: [what measure(side, round number) gave, ...]}. Sides take turns, each round the other
    way round; on a terminal it says where it is."""
    found = {side: [] for side in sides}
    for number in range(opt.rounds):
        for side in sides if number % 2 == 0 else list(reversed(sides)):
            if sys.stderr.isatty():
                print(f"round {number + 1} of {opt.rounds}: {side}", file=sys.stderr)
            found[side].append(measure(side, number))
    return found


def median(results, key):
    """Of a list of dicts; keys without a value (null) are left out, NaN if all are."""
    values = [r[key] for r in results if r.get(key) is not None]
    return statistics.median(values) if values else float("nan")


def number(value, digits=3):
    """"12.3", "0.0123", "1234", "-" for what there is not."""
    if isinstance(value, str):
        return value
    if value != value:
        return "-"
    if abs(value) >= 10 ** digits - 0.5 or value == int(value):
        return f"{value:.0f}"
    return f"{value:.{digits}g}"


def print_table(title, heads, rows):
    print(f"{title}\n")
    print("| " + " | ".join(heads) + " |")
    print("|" + " --- |" + " ---: |" * (len(heads) - 1))
    for row in rows:
        print("| " + " | ".join(number(x) for x in row) + " |")
    sys.stdout.flush()


COLOURS = ("#1f6fb2", "#d1622b", "#3a8f4a", "#8b4fa3", "#8a6d3b", "#c0392b")


def write_svg(path, title, x_labels, y_label, lines):
    """Lines over equally spaced x_labels: lines is {name: [a value for each label]}."""
    width, height, left, bottom, top = 640, 360, 70, 50, 40
    values = [v for vs in lines.values() for v in vs if v == v]
    most = max(values, default=1) or 1
    step = (width - left - 150) / max(len(x_labels) - 1, 1)

    def at(i, value):
        return left + i * step, height - bottom - (height - bottom - top) * value / most
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
           'font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>',
           f'<text x="{left}" y="20" font-size="14">{escape(title)}</text>',
           f'<text x="14" y="{height / 2}" transform="rotate(-90 14 {height / 2})" '
           f'text-anchor="middle">{escape(y_label)}</text>']
    for i in range(5):
        y = at(0, most * i / 4)[1]
        out.append(f'<line x1="{left}" x2="{width - 150}" y1="{y:.1f}" y2="{y:.1f}" '
                   'stroke="#ddd"/>')
        out.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">'
                   f'{number(most * i / 4)}</text>')
    for i, label in enumerate(x_labels):
        out.append(f'<text x="{at(i, 0)[0]:.1f}" y="{height - bottom + 18}" '
                   f'text-anchor="middle">{escape(str(label))}</text>')
    for (name, vs), colour, row in zip(lines.items(), COLOURS, range(len(lines))):
        points = [at(i, v) for i, v in enumerate(vs) if v == v]
        text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        out.append(f'<polyline points="{text}" fill="none" stroke="{colour}" stroke-width="2"/>')
        out += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in points]
        out.append(f'<text x="{width - 140}" y="{top + 18 * row}" fill="{colour}">'
                   f'{escape(name)}</text>')
    with open(path, "w", encoding="utf-8") as f:
        f.write("\n".join(out + ["</svg>"]) + "\n")


def escape(text):
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
