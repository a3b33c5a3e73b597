#!/usr/bin/env python3
"""--share-weights between real processes: who loads, who waits, what is left, the same bits.

  share_test.py CMINFER MODEL
"""
import os
import signal
import subprocess
import sys
import tempfile
import unittest

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])
DEADLINE_S = 120
HERE = "shared, loaded by this process"
ELSEWHERE = "shared, loaded by another process"


class Share(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(dir="/dev/shm", prefix="cmi_test_")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def start(self, *options, share=True):
        shared = ["--share-weights", "--share-weights-dir", self.folder] if share else []
        process = subprocess.Popen(
            [CMINFER, "score", MODEL, "--text", "It is", "--generate", "4", *options, *shared],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        return process

    def finish(self, process):
        out, log = process.communicate(timeout=DEADLINE_S)
        self.assertEqual(process.returncode, 0, log)
        return out, log

    def score(self, *options, **kwargs):
        return self.finish(self.start(*options, **kwargs))

    def serve(self):
        """A server that holds its weights until it is killed."""
        process = subprocess.Popen(
            [CMINFER, "serve", MODEL, "--port", "0", "--share-weights", "--share-weights-dir",
             self.folder], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(lambda: process.poll() is None and process.kill())
        log = ""
        while "serving" not in log:
            line = process.stderr.readline()
            self.assertTrue(line, log)
            log += line
        return process, log

    def files(self):
        return sorted(os.listdir(self.folder))

    def is_loading(self, pid):
        """It has said in the lock file that it loads, and the weights have no name yet."""
        files = self.files()
        if len(files) != 1 or not files[0].endswith(".lock"):
            return False
        with open(os.path.join(self.folder, files[0]), "rb") as lock:
            return pid.to_bytes(8, "little") in lock.read()

    def stop_while_loading(self):
        """A process that stands still between its first byte and its last."""
        while True:
            process = self.start()
            while process.poll() is None and not self.files():
                pass
            process.send_signal(signal.SIGSTOP)
            if process.returncode is None:
                os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if process.poll() is None and self.is_loading(process.pid):
                return process
            process.kill()  # too early or too late
            process.communicate()

    def test_one_loads_all_compute_the_same(self):
        want, log = self.score(share=False)
        self.assertNotIn("shared", log)
        server, log = self.serve()
        self.assertIn(HERE, log)
        with open(f"/proc/{server.pid}/maps") as maps:
            mapped = [line.split()[1] for line in maps
                      if self.folder in line and ".lock" not in line]
        self.assertEqual(set(mapped), {"r--s"})
        out, log = self.score()
        self.assertIn(ELSEWHERE, log)
        self.assertEqual(out, want)
        others = [self.start() for _ in range(3)]
        for other in others:
            out, log = self.finish(other)
            self.assertIn(ELSEWHERE, log)
            self.assertEqual(out, want)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(DEADLINE_S), 0)
        self.assertEqual(self.files(), [])

    def test_all_at_once(self):
        want, _ = self.score(share=False)
        for process in [self.start() for _ in range(4)]:
            out, log = self.finish(process)
            self.assertEqual(out, want)
            self.assertRegex(log, "shared, loaded by")
        self.assertEqual(self.files(), [])

    def test_other_options_do_not_share(self):
        server, _ = self.serve()
        for options in (["--dtype", "f32"], ["--quantization", "w8a8-int8"]):
            want, _ = self.score(*options, share=False)
            out, log = self.score(*options)
            self.assertIn(HERE, log)
            self.assertEqual(out, want)
        server.kill()
        server.wait()

    def test_a_loader_that_is_killed_is_replaced(self):
        want, _ = self.score(share=False)
        first = self.stop_while_loading()
        second = self.start()
        said = second.stderr.readline()
        self.assertIn(f"waiting for process {first.pid}", said)
        first.kill()
        out, log = self.finish(second)
        self.assertIn(HERE, log)
        self.assertEqual(out, want)
        self.assertEqual(self.files(), [])
        first.communicate()

    def test_what_killed_users_left_is_used_or_removed(self):
        want, _ = self.score(share=False)
        server, _ = self.serve()
        server.kill()
        server.wait()
        self.assertEqual(len(self.files()), 2)
        out, log = self.score()
        self.assertIn(ELSEWHERE, log)
        self.assertEqual(out, want)
        self.assertEqual(self.files(), [])
        server, _ = self.serve()
        server.kill()
        server.wait()
        left = self.files()
        _, log = self.score("--dtype", "f32")
        self.assertIn(f"removed {self.folder}/{left[0]}", log)
        self.assertEqual(self.files(), [])

    def test_a_place_that_is_none(self):
        result = subprocess.run([CMINFER, "score", MODEL, "--ids", "1", "--share-weights",
                                 "--share-weights-dir", "/proc"], capture_output=True, text=True,
                                timeout=DEADLINE_S)
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertIn("/proc", result.stderr)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
