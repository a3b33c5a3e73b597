#!/usr/bin/env python3
"""Dispatch and combine between ranks over TCP: `cminfer bench ep` with a process for each rank in a
network namespace of its own, beside the same ranks on shared memory, ucx_perftest between two of
the namespaces, and plain copies. All take turns; the medians of the rounds are shown. Ranks, and
ucx_perftest's two sides, each keep to one processor.

Ranks wait for each other all the time, so whatever else the machine does is in the figures: give
the script priority over it (chrt -r 50 SCRIPT).

Namespaces are joined by a bridge in one more; the host's own network is not touched. That needs
root, and iproute2. Whatever happens, they are gone at the end. ucx_perftest is of the Debian
package ucx-utils; without it its lines are left out.

example:
  tools/measure/ep_network.py --ranks 2 4 --rounds 5
"""
import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time

import measuring as m

TCP, UCX_SHM, LOCAL = "ucx, TCP", "ucx, shared memory", "local"
TIMEOUT_S = 600  # of a measurement, which takes seconds
PORT = 7000
PROCESSORS = sorted(os.sched_getaffinity(0))
PERF_TESTS = ("ucp_put_bw", "ucp_am_bw")
PERF_BYTES = 5 << 20  # that a ucx_perftest moves, at most, for each exchange of a run of ours
PERF_MESSAGES = 200  # likewise


class Failure(Exception):
    """Said to the user in a line."""


def ip(*words):
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Namespaces 0 .. n-1, in which 10.77.0.1 + i is reached from all others. `with` ends it."""

    def __init__(self, n):
        self.n, self.made, self.processes = n, [], []
        self.prefix = f"cminfer-{os.getpid()}-"

    def __enter__(self):
        try:
            self._make("bridge")
            ip("-n", self.name("bridge"), "link", "add", "name", "br0", "type", "bridge")
            ip("-n", self.name("bridge"), "link", "set", "br0", "up")
            for i in range(self.n):
                self._join(i)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _make(self, what):
        self.made.append(self.name(what))
        ip("netns", "add", self.name(what))

    def _join(self, i):
        self._make(i)
        bridge = self.name("bridge")
        ip("-n", self.name(i), "link", "add", "name", "eth0", "type", "veth", "peer", "name",
           f"port{i}", "netns", bridge)
        ip("-n", self.name(i), "addr", "add", self.address(i) + "/16", "dev", "eth0")
        for device in ("lo", "eth0"):
            ip("-n", self.name(i), "link", "set", device, "up")
        ip("-n", bridge, "link", "set", f"port{i}", "master", "br0", "up")

    def __exit__(self, *unused):
        self.end_processes()
        for name in self.made:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL, check=False)

    def end_processes(self):
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        self.processes.clear()

    def name(self, what):
        return f"{self.prefix}{what}"

    @staticmethod
    def address(i):
        return f"10.77.{(i + 1) // 256}.{(i + 1) % 256}"

    def start(self, i, rank, command, **variables):
        """Runs a command in namespace i (`ip netns exec` becomes it), as rank rank."""
        processor = PROCESSORS[rank % len(PROCESSORS)]
        self.processes.append(
            subprocess.Popen(["ip", "netns", "exec", self.name(i), *command], text=True,
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, env={**os.environ, **variables},
                             preexec_fn=lambda: os.sched_setaffinity(0, {processor})))

    def finish(self):
        """What the last one printed that was started, once all have ended well."""
        end, output = time.monotonic() + TIMEOUT_S, ""
        for process in self.processes:
            try:
                output, errors = process.communicate(timeout=max(end - time.monotonic(), 1))
            except subprocess.TimeoutExpired as late:
                raise Failure(f"no end within {TIMEOUT_S} s: {' '.join(late.cmd[4:])}") from late
            if process.returncode != 0:
                raise Failure(f"{' '.join(process.args[4:])}: {errors.strip()}")
        self.processes.clear()
        return output

    def wait_for_listener(self, i):
        """Until somebody listens at PORT in namespace i: the only process there is."""
        end = time.monotonic() + 60
        while self.processes[-1].poll() is None and time.monotonic() < end:
            shown = subprocess.run(["ip", "netns", "exec", self.name(i), "cat", "/proc/net/tcp"],
                                   capture_output=True, text=True, check=True)
            lines = [line.split() for line in shown.stdout.splitlines()[1:]]
            if any(f":{PORT:04X}" in line[1] and line[3] == "0A" for line in lines):
                return
            time.sleep(0.02)
        raise Failure("ucx_perftest does not listen")


def bench(opt, network, way, n):
    """One `cminfer bench ep` of n ranks: its row."""
    if way == TCP:
        hosts = [f"{network.address(i)}:{PORT}" for i in range(n)]
    elif way == UCX_SHM:
        hosts = [f"127.0.0.1:{PORT + i}" for i in range(n)]
    else:
        hosts = [f"local:{network.name(i)}" for i in range(n)]
    command = [opt.cminfer, "bench", "ep", "--ep-hosts", ",".join(hosts), "--json", "--rounds",
               str(opt.bench_rounds), "--rows", str(opt.rows), "--hidden", str(opt.hidden),
               "--fabric", "local" if way == LOCAL else "ucx"]
    variables = {"CMINFER_CLUSTER_SECRET": secrets.token_hex(16),
                 "UCX_TLS": "tcp,self" if way == TCP else "shm,self"}
    for rank in reversed(range(n)):  # the first prints
        network.start(rank if way == TCP else 0, rank, [*command, "--rank", str(rank)],
                      **variables)
    return json.loads(network.finish())


def perftest(opt, network, way, test, n_bytes):
    """Bytes a second of ucx_perftest, one way, between two ranks."""
    tls = "tcp,self" if way == TCP else "shm,self"
    address = network.address(0) if way == TCP else "127.0.0.1"
    n = opt.bench_rounds * min(max(PERF_BYTES // n_bytes, 1), PERF_MESSAGES)
    network.start(0, 0, ["ucx_perftest", "-p", str(PORT)], UCX_TLS=tls)
    network.wait_for_listener(0)
    # -O: with any number under way, as is its default, long puts over TCP are many times slower
    network.start(1 if way == TCP else 0, 1,
                  ["ucx_perftest", address, "-p", str(PORT), "-t", test, "-s", str(n_bytes), "-n",
                   str(n), "-w", str(max(n // 10, 2)), "-O", "2", "-f", "-v"], UCX_TLS=tls)
    line = network.finish().strip().splitlines()[-1]
    return float(line.split(",")[5]) * 1048576  # overall_bw, MB/s of 2^20


def measure(opt, network, side):
    if side[0] == "bench":
        return bench(opt, network, side[1], side[2])
    return {"bytes_per_s": perftest(opt, network, *side[1:])}


def message_bytes(opt):
    """(of a row, of a result), as in src/ep/layout.h."""
    return -(-(opt.hidden + 4) // 512) * 512, 2 * opt.hidden


def sides_of(opt):
    sides = [("bench", way, n) for n in opt.ranks for way in (TCP, UCX_SHM, LOCAL)]
    if not shutil.which("ucx_perftest"):
        print("ucx_perftest is not installed (Debian: ucx-utils): its lines are left out",
              file=sys.stderr)
        return sides
    row, result = message_bytes(opt)
    return sides + [("perftest", way, test, size) for way in (TCP, UCX_SHM)
                    for test in PERF_TESTS for size in (row, result, row * opt.rows)]


def medians(opt, found):
    """{side: {name: median}}; for TCP with what crosses the network a second, both ways, as a share
    of ucx_perftest's puts of such a length, which go one way but keep both sides busy, too."""
    out = {}
    for side, results in found.items():
        names = [name for name, value in results[0].items() if isinstance(value, (int, float))]
        out[side] = {name: m.median(results, name) for name in names}
    row, result = message_bytes(opt)
    for part, size in (("dispatch", row * opt.rows), ("combine", result)):
        perf = out.get(("perftest", TCP, "ucp_put_bw", size))
        for side in out:
            if perf and side[:2] == ("bench", TCP):
                out[side][part + "_share_of_perftest"] = (
                    out[side][part + "_bytes_per_s"] * (side[2] - 1) / perf["bytes_per_s"])
    return out


COLUMNS = [(f"{part} us", f"{part}_seconds", 1e6) for part in ("dispatch", "sort", "combine")]
for _part, _at in (("combine", 3), ("dispatch", 1)):
    COLUMNS[_at:_at] = [("GB/s", _part + "_bytes_per_s", 1e-9),
                        ("of puts, %", _part + "_share_of_put", 100),
                        ("of ucx_perftest, %", _part + "_share_of_perftest", 100),
                        ("of copies, %", _part + "_share", 100)]


def report(opt, found):
    m.print_table(f"{opt.rows} rows a rank of {opt.hidden} values, top-8 of 256 experts; GB/s are "
                  "of a rank's rows, those to itself included",
                  ("ranks, by", *(head for head, _, _ in COLUMNS)),
                  [[f"{side[2]}, {side[1]}",
                    *(values.get(name, float("nan")) * scale for _, name, scale in COLUMNS)]
                   for side, values in found.items() if side[0] == "bench"])
    perf = {}
    for side, values in found.items():
        if side[0] == "perftest":
            perf.setdefault(side[1:3], {})[side[3]] = values["bytes_per_s"] * 1e-9
    if perf:
        m.print_table("\nucx_perftest, GB/s one way; its one buffer may stay in a cache",
                      ("by", *(f"{size} bytes" for size in next(iter(perf.values())))),
                      [[", ".join(by), *by_size.values()] for by, by_size in perf.items()])


def as_json(opt, found):
    out = {"rows": opt.rows, "hidden": opt.hidden, "rounds": opt.rounds,
           "bench_rounds": opt.bench_rounds, "bench": [], "ucx_perftest": []}
    for side, values in found.items():
        if side[0] == "bench":
            out["bench"].append({**values, "ranks": side[2], "by": side[1]})
        else:
            out["ucx_perftest"].append({**values, "by": side[1], "test": side[2],
                                        "message_bytes": side[3]})
    print(json.dumps(out))


def parse():
    p = argparse.ArgumentParser(description=__doc__,
                                formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--cminfer", default=os.path.join(m.ROOT, "build", "cminfer"),
                   help="the program (default: build/cminfer)")
    p.add_argument("--ranks", type=int, nargs="+", default=[2, 4],
                   help="how many, at least 2 (default 2 4)")
    p.add_argument("--rounds", type=int, default=3, help="of everything in turn (default 3)")
    p.add_argument("--bench-rounds", type=int, default=51, help="exchanges of a run (default 51)")
    p.add_argument("--rows", type=int, default=128, help="of a rank (default 128)")
    p.add_argument("--hidden", type=int, default=7168, help="values of a row (default 7168)")
    p.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    opt = p.parse_args()
    if min(opt.ranks) < 2 or max(opt.ranks) > 64:
        p.error("--ranks: 2 to 64")
    return opt


def main():
    opt = parse()
    if os.geteuid() != 0:
        sys.exit("ep_network.py: network namespaces need root")
    if not shutil.which("ip"):
        sys.exit("ep_network.py: there is no ip command (Debian: iproute2)")
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    sides = sides_of(opt)
    try:
        with Network(max(opt.ranks)) as network:
            found = m.rounds(opt, sides, lambda side, unused: measure(opt, network, side))
    except Failure as failure:
        sys.exit(f"ep_network.py: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
    (as_json if opt.json else report)(opt, medians(opt, found))


if __name__ == "__main__":
    main()
