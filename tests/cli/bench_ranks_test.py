#!/usr/bin/env python3
"""cminfer bench ep with processes as ranks: they meet, prove that rows arrive, one prints; and what
they say when somebody does not come, has another secret or other options, or is killed. Nothing
here looks at a clock.

  bench_ranks_test.py CMINFER
"""
import contextlib
import json
import os
import socket
import subprocess
import sys
import unittest

CMINFER = os.path.abspath(sys.argv[1])
SECRET = "a secret of this test"
SMALL = ("--rows", "5", "--hidden", "128", "--experts", "8", "--top-k", "2", "--rounds", "3")
LAUNCHERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_", "OMPI_", "PMI_", "SLURM_")


def free_ports(n):
    """Others may take them before they are used; whoever asks tries again then."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def start(*args, secret=SECRET, **variables):
    env = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    return subprocess.Popen([CMINFER, "bench", "ep", *args], stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env={**env, "CMINFER_CLUSTER_SECRET": secret, **variables})


def finish(processes):
    """[(exit status, standard output, standard error), ...]"""
    try:
        return [(*process.communicate(timeout=300), process.returncode) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.communicate()


def hosts_of(kind, n):
    if kind == "local":
        return ",".join(f"local:bench-ranks-{os.getpid()}-{i}" for i in range(n))
    return ",".join(f"127.0.0.1:{port}" for port in free_ports(n))


class Processes(unittest.TestCase):
    def run_ranks(self, n, *args, kind="ucx", **variables):
        """Rank 0's row."""
        for _ in range(5):
            hosts = hosts_of(kind, n)
            ended = finish([start("--ep-hosts", hosts, "--rank", str(i), "--fabric", kind, "--json",
                                  "--dist-timeout", "250", *SMALL, *args, **variables)
                            for i in range(n)])
            if not any("cannot listen" in error for _, error, _ in ended):
                break
        for i, (output, error, status) in enumerate(ended):
            self.assertEqual(status, 0, error)
            self.assertEqual(len(output.splitlines()), 1 if i == 0 else 0)
        return json.loads(ended[0][0])

    def test_they_meet_and_rows_arrive(self):
        for n, kind, way, variables in ((2, "local", "direct", {}), (2, "ucx", "put", {}),
                                        (3, "ucx", "put", {"UCX_TLS": "tcp,self"})):
            row = self.run_ranks(n, kind=kind, **variables)
            self.assertEqual((row["ranks"], row["fabric"], row["way"]), (n, kind, way))
            self.assertEqual((row["message_bytes"], row["result_bytes"]), (512, 256))
            self.assertEqual(row["combine_bytes"], 5 * 2 * 256)
            self.assertLessEqual(512 * 5, row["dispatch_bytes"])
            self.assertLessEqual(row["dispatch_bytes"], 512 * 10)
            for part in ("dispatch_seconds", "sort_seconds", "combine_seconds", "dispatch_share",
                         "dispatch_share_of_put", "combine_share", "combine_share_of_put"):
                self.assertGreater(row[part], 0, part)

    def test_by_puts(self):
        self.assertEqual(self.run_ranks(2, "--puts", kind="local")["way"], "put")

    def test_one_alone(self):
        self.assertEqual(self.run_ranks(1)["ranks"], 1)

    def test_a_launcher_says_who_is_who(self):
        for _ in range(5):
            port = free_ports(1)[0]
            ended = finish([start("--launch", "--json", "--dist-timeout", "250", *SMALL,
                                  RANK=str(i), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1",
                                  MASTER_PORT=str(port)) for i in range(2)])
            if not any("cannot listen" in error for _, error, _ in ended):
                break
        self.assertEqual([status for _, _, status in ended], [0, 0], ended)
        self.assertEqual(json.loads(ended[0][0])["ranks"], 2)
        self.assertEqual(ended[1][0], "")

    def test_nobody_comes(self):
        for secrets in ((SECRET,), (SECRET, "another secret than that")):
            hosts = hosts_of("local", 2)
            ended = finish([start("--ep-hosts", hosts, "--rank", str(i), "--fabric", "local",
                                  "--dist-timeout", "1", *SMALL, secret=secret)
                            for i, secret in enumerate(secrets)])
            for i, (output, error, status) in enumerate(ended):
                self.assertEqual((status, output), (1, ""), error)
                self.assertIn(f"for rank {1 - i}:", error.splitlines()[-1])

    def test_other_options(self):
        hosts = hosts_of("local", 2)
        ended = finish([start("--ep-hosts", hosts, "--rank", str(i), "--fabric", "local",
                              "--dist-timeout", "250", *SMALL, "--rows", str(5 + i))
                        for i in range(2)])
        self.assertEqual([status for _, _, status in ended], [1, 1])
        # the first to see it says so; the other may find it gone
        self.assertIn("other options", ended[0][1] + ended[1][1])

    def test_a_rank_is_killed(self):
        """In the middle, where the machine is fast enough; else while they meet."""
        hosts = hosts_of("local", 3)
        ranks = [start("--ep-hosts", hosts, "--rank", str(i), "--fabric", "local",
                       "--dist-timeout", "60", *SMALL, "--delay", "100000", "--rounds", "201")
                 for i in range(3)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            ranks[1].wait(2)  # all take minutes, of delays
        ranks[1].kill()
        ended = finish(ranks)
        self.assertLess(ended.pop(1)[2], 0)
        for output, error, status in ended:
            self.assertEqual((status, output), (1, ""), error)
            self.assertRegex(error.splitlines()[-1], r"rank \d")

    def test_wrong_usage(self):
        for args, variables in (
                (("--rank", "0"), {}), (("--launch",), {}), (("--ep-hosts", "a:1,b:2"), {}),
                (("--ep-hosts", "a:1", "--rank", "1"), {}),
                (("--ep-hosts", "a", "--rank", "0"), {}),
                (("--ep-hosts", "a:1", "--rank", "0", "--ranks", "2"), {}),
                (("--launch", "--fabric", "local"), {"RANK": "0", "WORLD_SIZE": "2"}),
                (("--launch",), {"RANK": "0", "WORLD_SIZE": "2"}),
                (("--launch", "--ep-hosts", "a:1"), {"RANK": "0", "WORLD_SIZE": "2"}),
                (("--ep-hosts", "a:1", "--rank", "0"), {"CMINFER_CLUSTER_SECRET": "short"})):
            with self.subTest(args=args):
                (output, error, status), = finish([start(*args, **variables)])
                self.assertEqual((status, output), (2, ""))
                self.assertEqual(len(error.splitlines()), 1, error)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
