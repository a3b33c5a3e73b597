"""A real `cminfer serve` for tests, and a client that says no more than it is told to."""
import http.client
import json
import os
import random
import re
import signal
import socket
import subprocess
import threading
import time

# Of anything that is waited for. Where items are few, a sanitizer makes each of them slow.
DEADLINE_S = 900 if "CMI_FEW" in os.environ else 120


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    def json(self):
        return json.loads(self.body)

    def chunks(self):
        """The JSON of each event of a stream; its end is checked and left out."""
        events = [e for e in self.body.decode().split("\n\n") if e and not e.startswith(":")]
        assert all(e.startswith("data: ") for e in events), events
        assert events[-1] == "data: [DONE]", events[-1]
        return [json.loads(e[len("data: "):]) for e in events[:-1]]


def free_ports(n):
    """The first of n ports in a row that nobody has."""
    for first in random.Random().sample(range(15000, 32000), 200):
        try:
            for port in range(first, first + n):
                with socket.socket() as taken:
                    taken.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    raise RuntimeError("no free ports")


class Server:
    """Runs in the background; stop() says what became of it."""

    def __init__(self, cminfer, model, *options, wait=True, env=None):
        self.process = subprocess.Popen(
            [cminfer, "serve", model, "--port", "0", *options], stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ, **(env or {})})
        self.pid = self.process.pid
        self.log = b""
        self.port = None
        self.serving = threading.Event()
        self.reader = threading.Thread(target=self._read_log, daemon=True)
        self.reader.start()
        if wait and (not self.serving.wait(DEADLINE_S) or self.port is None):
            self.process.kill()
            raise RuntimeError("no server: " + self.log.decode())

    def _read_log(self):
        for line in self.process.stderr:
            self.log += line
            found = re.search(rb"serving .* at https?://[^ ]*:(\d+)/v1", line)
            if found:
                self.port = int(found[1])
                self.serving.set()
        self.serving.set()

    def wait_for_port(self):
        """For a server that listens and does not serve yet."""
        end = time.monotonic() + DEADLINE_S
        while self.port is None:
            assert time.monotonic() < end and self.process.poll() is None, self.log.decode()
            self.port = next((port for _, port in self.listening()), None)

    def stop(self, signal_number=signal.SIGTERM):
        self.process.send_signal(signal_number)
        return self.wait()

    def wait(self):
        """The exit status; what sanitizers say in the log makes it a failure."""
        try:
            status = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            status = "hung"
        self.reader.join()
        self.process.stderr.close()
        bad = re.search(rb"(Sanitizer|runtime error|Assertion).*", self.log)
        return bad[0].decode() if bad else status

    def connect(self, receive_bytes=None):
        sock = socket.socket()
        if receive_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        sock.settimeout(DEADLINE_S)
        sock.connect(("127.0.0.1", self.port))
        return sock

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE_S)
        if isinstance(body, (dict, list)):
            body = json.dumps(body).encode()
        try:
            connection.request(method, path, body, headers or {})
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers=headers)

    def post(self, path, body, **headers):
        return self.request("POST", path, body, headers)

    def send(self, path, body):
        """A POST whose answer somebody may read, with read_answer(), or not."""
        sock = self.connect()
        sock.sendall(post_bytes(path, body))
        return sock

    def exchange(self, raw):
        """What comes back for these bytes until the server closes the connection."""
        sock = self.connect()
        got = b""
        try:
            sock.sendall(raw)
            while chunk := sock.recv(65536):
                got += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass
        sock.close()
        return got

    def abandon(self, raw):
        """Sends these bytes and goes."""
        sock = self.connect()
        sock.sendall(raw)
        sock.close()

    def metric(self, name):
        """The sum over the labels that are not told."""
        text = self.get("/metrics").body.decode()
        rows = re.findall(r"^%s[^ ]*\} (\S+)$" % re.escape(name), text, re.M)
        assert rows, name
        return sum(float(x) for x in rows)

    def wait_for(self, what, condition):
        """Each look is a request, so this does not spin."""
        end = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < end, what

    def wait_running(self, n_running, n_waiting):
        self.wait_for(f"{n_running} running and {n_waiting} waiting requests",
                      lambda: (self.metric("vllm:num_requests_running"),
                               self.metric("vllm:num_requests_waiting")) == (n_running, n_waiting))

    def resident_kib(self):
        with open(f"/proc/{self.pid}/status") as f:
            return int(re.search(r"VmRSS:\s*(\d+)", f.read())[1])

    def listening(self):
        """(address in hexadecimal, port) of every TCP socket that this process listens on."""
        inodes = set()
        for fd in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{self.pid}/fd/{fd}"))
            except OSError:
                continue
            if found:
                inodes.add(found[1])
        sockets = []
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{self.pid}/net/{table}") as f:
                rows = [line.split() for line in f.readlines()[1:]]
            for row in rows:
                if row[3] == "0A" and row[9] in inodes:
                    address, port = row[1].split(":")
                    sockets.append((address, int(port, 16)))
        return sockets


def post_bytes(path, body, headers=""):
    if isinstance(body, dict):
        body = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def read_answer(sock):
    response = http.client.HTTPResponse(sock)
    response.begin()
    answer = Answer(response)
    response.close()
    return answer


def read_until(sock, what=None):
    """What came up to the packet with these bytes, or up to the end."""
    got = b""
    while what is None or what not in got:
        chunk = sock.recv(65536)
        if what is None and not chunk:
            return got
        assert chunk, got
        got += chunk
    return got
