#!/usr/bin/env python3
"""Whether a server keeps a TPOT target under too much load: p99 TPOT over the target, goodput
relative to that at the load the machine can carry, and how soon a request is refused.

The load that can be carried is measured first, as requests a second with --concurrency of them at a
time and no target. Then a server with each target gets 0.5, 1, 2 and 4 times as many a second.
Goodput counts answers whose TPOT is within the target (and TTFT, with --ttft-ms). Beside each load
one client asks again and again; how long a refusal (429) takes from the last byte of its request is
of those.

example:
  tools/measure/targets.py /data/DeepSeek-V2-Lite --tpot-ms 50 100 --ttft-ms 2000 --svg targets.svg
"""
import json
import socket
import statistics
import threading
import time

import measuring as m

PROBE_EVERY_S = 0.05


class Prober:
    """Asks for one token until stopped; refusals are the seconds that each 429 took."""

    def __init__(self, server, prompt):
        self.port, self.is_over, self.refusals, self.n_asked = server.port, False, [], 0
        body = json.dumps({"prompt": prompt, "max_tokens": 1}).encode()
        self.bytes = (b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
                      b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                      % (len(body), body))
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self):
        while not self.is_over:
            with socket.create_connection(("127.0.0.1", self.port), timeout=600) as sock:
                sock.sendall(self.bytes)
                sent = time.monotonic()
                head = sock.recv(64)
                self.n_asked += 1
                if head.startswith(b"HTTP/1.1 429"):
                    self.refusals.append(time.monotonic() - sent)
            time.sleep(PROBE_EVERY_S)

    def stop(self):
        self.is_over = True
        self.thread.join()


def lengths(opt):
    return {"random_input_len": opt.input, "random_output_len": opt.output}


def measure_capacity(opt):
    with m.Server(opt) as server:
        found = m.rounds(opt, ["capacity"], lambda side, i: m.load(
            opt, server, num_prompts=opt.requests, max_concurrency=opt.concurrency, seed=i,
            **lengths(opt)))
    return m.median(found["capacity"], "request_throughput")


def measure(opt, server, target, rate, number):
    limits = [f"tpot:{target}"] + ([f"ttft:{opt.ttft_ms}"] if opt.ttft_ms else [])
    prober = Prober(server, [5] * opt.input)
    n = max(int(rate * opt.seconds), 4)
    process = m.start_load(opt, server, num_prompts=n, request_rate=rate, seed=number + 1,
                           goodput=limits, **lengths(opt))
    result = m.end_load(*process)
    prober.stop()
    result["refused_percent"] = 100 * result["rejected"] / n
    result["refusal_ms"] = (1000 * statistics.median(prober.refusals) if prober.refusals else None)
    result["p99_over_target"] = result["p99_tpot_ms"] / target
    return result


def main():
    p = m.parser(__doc__)
    p.add_argument("--tpot-ms", type=float, nargs="+", default=[50], help="targets (default 50)")
    p.add_argument("--ttft-ms", type=float, help="a target, too")
    p.add_argument("--factors", type=float, nargs="+", default=[0.5, 1, 2, 4],
                   help="of the load that can be carried (default 0.5 1 2 4)")
    p.add_argument("--seconds", type=float, default=60, help="of each load (default 60)")
    p.add_argument("--requests", type=int, default=200,
                   help="to see what can be carried (default 200)")
    p.add_argument("--concurrency", type=int, default=32, help="for that (default 32)")
    p.add_argument("--input", type=int, default=256, help="tokens of a prompt (default 256)")
    p.add_argument("--output", type=int, default=64, help="tokens of an answer (default 64)")
    opt = m.arguments(p, {"tpot_ms": [50], "factors": [1, 4], "seconds": 0.5, "requests": 8,
                          "concurrency": 4, "input": 32, "output": 8})
    has_targets = m.serve_knows(opt.cminfer, "--tpot-ms")
    capacity, rows = measure_capacity(opt), []
    for target in opt.tpot_ms:
        options = ["--tpot-ms", f"{target:g}"] if has_targets else []
        if has_targets and opt.ttft_ms:
            options += ["--ttft-ms", f"{opt.ttft_ms:g}"]
        with m.Server(opt, *options) as server:
            found = m.rounds(opt, opt.factors, lambda f, i, t=target, s=server: measure(
                opt, s, t, f * capacity, i))
        at_1 = m.median(found[1], "request_goodput") if 1 in found else float("nan")
        for factor in opt.factors:
            good = m.median(found[factor], "request_goodput")
            rows.append([f"{target:g}", factor, m.median(found[factor], "p99_over_target"), good,
                         good / at_1 if at_1 else float("nan"),
                         m.median(found[factor], "refused_percent"),
                         m.median(found[factor], "refusal_ms")])
    unknown = "" if has_targets else "; this cminfer takes no targets, so nothing is held to them"
    m.print_table(f"{capacity:.3g} requests/s can be carried ({opt.input} + {opt.output} tokens), "
                  f"{opt.model}{unknown}",
                  ("target, ms", "load", "p99 TPOT / target", "goodput, requests/s",
                   "/ goodput at 1", "refused, %", "refusal after, ms"), rows)
    if opt.svg:
        m.write_svg(opt.svg, "Goodput under load", [f"{f:g}" for f in opt.factors], "requests/s",
                    {f"{t:g} ms": [r[3] for r in rows if r[0] == f"{t:g}"] for t in opt.tpot_ms})


if __name__ == "__main__":
    main()
