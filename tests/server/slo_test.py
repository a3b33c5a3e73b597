#!/usr/bin/env python3
"""Latency targets, priorities, tenants and deadlines, as clients and operators see them.

No time is asserted: what a step takes here is not known. A target is so low that no machine keeps
it, or so high that every one does.

  slo_test.py CMINFER MODEL
"""
import os
import selectors
import sys
import unittest

from live_server import Server, post_bytes, read_answer

CMINFER, MODEL = map(os.path.abspath, sys.argv[1:3])
COMPLETIONS = "/v1/completions"
LONG = {"prompt": "a", "ignore_eos": True, "max_tokens": 400, "stream": True}
TIGHT, LOOSE = "0.001", "4000000"


class SloTest(unittest.TestCase):
    options = ()

    def setUp(self):
        self.server = Server(CMINFER, MODEL, *self.options)
        self.addCleanup(self.stop)

    def stop(self):
        self.assertEqual(self.server.stop(), 0)

    def send(self, body, **headers):
        lines = "".join(f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items())
        sock = self.server.connect()
        sock.sendall(post_bytes(COMPLETIONS, body, lines))
        return sock

    @staticmethod
    def answer(sock):
        answer = read_answer(sock)
        sock.close()
        return answer

    def metric(self, name):
        return self.server.metric("cminfer:" + name)


class Targets(SloTest):
    def test_durations_are_predicted_from_the_first_step_on(self):
        answer = self.server.post(COMPLETIONS, {"prompt": "a", "max_tokens": 8})
        self.assertEqual(answer.status, 200)
        self.assertGreaterEqual(self.metric("predicted_steps_total"), 8)
        self.assertGreater(self.metric("step_predicted_seconds_total"), 0)
        self.assertGreater(self.metric("step_measured_seconds_total"), 0)

    def test_a_target_that_all_keep_changes_nothing(self):
        socks = [self.send(LONG, x_llm_d_slo_tpot_ms=LOOSE) for _ in range(8)]
        self.server.wait_running(8, 0)
        for sock in socks:
            self.assertEqual(self.answer(sock).status, 200)
        self.assertEqual(self.metric("tpot_targets_total"), 8)
        self.assertEqual(self.metric("tpot_targets_missed_total"), 0)

    def test_bad_headers_are_400(self):
        for name in ("x-llm-d-slo-tpot-ms", "x-llm-d-slo-ttft-ms", "x-request-timeout-ms"):
            answer = self.server.post(COMPLETIONS, {"prompt": "a"}, **{name: "soon"})
            self.assertEqual(answer.status, 400)
            self.assertIn(name, answer.json()["error"]["message"])


class Admission(SloTest):
    def test_what_nobody_can_keep_is_refused_at_once(self):
        for name, reason in (("x-llm-d-slo-ttft-ms", "ttft"), ("x-llm-d-slo-tpot-ms", "tpot")):
            answer = self.server.post(COMPLETIONS, {"prompt": "a"}, **{name: TIGHT})
            self.assertEqual(answer.status, 429)
            self.assertEqual(answer.json()["error"]["type"], "RateLimitError")
            self.assertGreater(int(answer.headers["Retry-After"]), 0)
            self.assertEqual(self.metric('requests_refused_total{model_name="matrix-tiny",'
                                         f'engine="0",reason="{reason}"'), 1)
        self.assertEqual(self.server.post(COMPLETIONS, {"prompt": "a"}).status, 200)


class Overload(SloTest):
    """A target that a few together keep: what one alone needs is measured first."""
    options = ("--max-num-seqs", "64")

    def test_fewer_run_together_and_the_rest_is_refused(self):
        alone = self.server.post(COMPLETIONS, {**LONG, "max_tokens": 200})
        self.assertEqual(alone.status, 200)
        steps = self.metric("predicted_steps_total")
        step_ms = 1000 * self.metric("step_measured_seconds_total") / steps
        target = {"x_llm_d_slo_tpot_ms": f"{4 * step_ms:.3f}"}
        socks = [self.send({**LONG, "max_tokens": 1500}, **target) for _ in range(64)]
        answers = []
        most = 0
        for sock in socks:
            most = max(most, self.server.metric("vllm:num_requests_running"))
            answers.append(self.answer(sock))
        self.assertEqual({a.status for a in answers}, {200, 429})
        refused = [a for a in answers if a.status == 429]
        self.assertTrue(all(int(a.headers["Retry-After"]) >= 1 for a in refused))
        self.assertLess(most, 64)
        self.assertEqual(self.server.metric("vllm:num_requests_running"), 0)


class Timeouts(SloTest):
    options = ("--max-num-seqs", "1")

    def test_a_request_ends_when_its_time_is_up(self):
        body = {**LONG, "max_tokens": 2000}
        answer = self.server.post(COMPLETIONS, {**body, "stream": False},
                                  **{"x-request-timeout-ms": "30"})
        self.assertEqual(answer.status, 408)
        self.assertEqual(answer.json()["error"]["code"], 408)
        running = self.send(body)
        self.server.wait_running(1, 0)
        waiting = self.send({**body, "stream": False}, x_request_timeout_ms="30")
        self.assertEqual(self.answer(waiting).status, 408)
        running.close()
        self.assertEqual(self.metric("requests_timed_out_total"), 2)

    def test_a_stream_says_so_in_its_last_event(self):
        answer = self.server.post(COMPLETIONS, {**LONG, "max_tokens": 2000},
                                  **{"x-request-timeout-ms": "300"})
        if answer.status == 200:
            self.assertEqual(answer.chunks()[-1]["error"]["code"], 408)
        else:
            self.assertEqual(answer.status, 408)


class Turns(SloTest):
    """One request at a time: the order in which they begin is the order of their turns."""
    options = ("--max-num-seqs", "1")

    def expect_order(self, requests, order):
        """Sends all while one runs; those of `order` finish in it, by their place."""
        running = self.send(LONG)
        self.server.wait_running(1, 0)
        socks = []
        for n_waiting, (body, headers) in enumerate(requests):
            socks.append(self.send({"prompt": "a", "ignore_eos": True, "max_tokens": 40,
                                    "stream": False, **body}, **headers))
            self.server.wait_running(1, n_waiting + 1)
        running.close()
        ended = []
        with selectors.DefaultSelector() as ready:
            for i, sock in enumerate(socks):
                ready.register(sock, selectors.EVENT_READ, i)
            while len(ended) < len(socks):
                found = [key for key, _ in ready.select()]
                for key in sorted(found, key=lambda k: order.index(k.data)):
                    self.assertEqual(self.answer_and_forget(ready, key).status, 200)
                    ended.append(key.data)
        self.assertEqual(ended, order)

    def answer_and_forget(self, ready, key):
        ready.unregister(key.fileobj)
        return self.answer(key.fileobj)

    def test_priorities(self):
        self.expect_order([({"priority": p}, {}) for p in (3, 0, -2, 0)], [2, 1, 3, 0])

    def test_tenants_take_turns(self):
        a, b = ({"x_llm_d_inference_fairness_id": name} for name in "ab")
        self.expect_order([({}, a), ({}, a), ({}, a), ({}, b), ({}, b)], [0, 3, 1, 4, 2])


class Drafts(SloTest):
    options = ("--num-speculative-tokens", "2")

    def test_they_can_be_switched_off_and_change_no_answer(self):
        body = {"prompt": "Once upon", "max_tokens": 60, "ignore_eos": True, "temperature": 0}
        answers = [self.server.post(COMPLETIONS, {**body, **more})
                   for more in ({"speculative": False}, {"num_speculative_tokens": 0},
                                {"num_speculative_tokens": 1}, {})]
        self.assertEqual({a.status for a in answers}, {200})
        self.assertEqual(len({a.json()["choices"][0]["text"] for a in answers}), 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
