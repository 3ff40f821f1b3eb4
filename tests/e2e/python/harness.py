"""One server process, and the agents that talk to it.

The server is the binary that AGENTCHAT_BIN names, on a free loopback port with a data directory of its own. A test sees
it only from outside: HTTP, WebSocket, the outbox files, signals and the exit code.
"""

from __future__ import annotations

import email
import itertools
import os
import re
import signal
import socket
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, TypeVar

import httpx
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

# Generous, because debug builds run on small shared machines; every wait polls and returns as soon as it can.
READY_DEADLINE_S = 30.0
STOP_DEADLINE_S = 20.0
MAIL_DEADLINE_S = 10.0
MOVED_DEADLINE_S = 30.0
POLL_S = 0.02

OPERATOR_TOKEN = "the-operator-token-of-these-tests"

CODE_LINE = re.compile(r"^\s*(\d{6})\s*$", re.MULTILINE)

T = TypeVar("T")


def until(what: str, deadline_s: float, probe: Callable[[], T | None]) -> T:
    """Polls `probe` until it answers something true; fails with `what` when the deadline has passed."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        answer = probe()
        if answer:
            return answer
        time.sleep(POLL_S)
    raise AssertionError(f"not within {deadline_s:.0f} s: {what}")


def free_port() -> int:
    """A loopback port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A server process. `stop` and `kill` keep port and data directory, so `start` brings the same node back."""

    def __init__(self, directory: Path, limits: str = "open", numbers: dict[str, int] | None = None) -> None:
        self.port = free_port()
        self.limits = limits
        self.settings = directory / "agentchat.toml"
        lines = ["webhooks_allow_private = true", "[numbers]", *(f"{name} = {value}" for name, value in (numbers or {}).items())]
        self.settings.write_text("\n".join(lines) + "\n")
        self.data = directory / "data"
        self.log = directory / "server.log"
        self.wrapper: list[str] = []
        self.more: dict[str, str] = {}
        self.base = f"http://127.0.0.1:{self.port}"
        self.ws_base = f"ws://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        binary = os.environ.get("AGENTCHAT_BIN")
        assert binary, "AGENTCHAT_BIN names no server binary"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("AGENTCHAT_")}
        settings = {
            "AGENTCHAT_LISTEN": f"127.0.0.1:{self.port}",
            "AGENTCHAT_DATA_DIR": str(self.data),
            "AGENTCHAT_LIMITS": self.limits,
            "AGENTCHAT_CONFIG": str(self.settings),
            "AGENTCHAT_OPERATOR_TOKEN": OPERATOR_TOKEN,
            "AGENTCHAT_LOG": os.environ.get("AGENTCHAT_LOG", "info"),
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.wrapper, binary], env=inherited | settings | self.more, stdout=log, stderr=subprocess.STDOUT, cwd=self.log.parent
            )
        try:
            until("the server is ready", READY_DEADLINE_S, self._ready)
        except BaseException:
            self.kill()
            raise
        return self

    def _ready(self) -> bool:
        assert self._process is not None
        code = self._process.poll()
        assert code is None, f"the server ended with {code} before it was ready:\n{self.tail()}"
        try:
            return httpx.get(f"{self.base}/readyz", timeout=2.0).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Asks the server to end; it must drain and leave with exit code 0."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_DEADLINE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"SIGTERM did not end the server in {STOP_DEADLINE_S:.0f} s:\n{self.tail()}") from None
        assert code == 0, f"exit code {code} after SIGTERM:\n{self.tail()}"

    def kill(self) -> None:
        """The crash: SIGKILL, no chance to finish anything."""
        assert self._process is not None
        process, self._process = self._process, None
        process.kill()
        process.wait(STOP_DEADLINE_S)

    def seen_by_server(self, path: Path) -> Path:
        """`path` as the server's process sees it, which may have mounts of its own."""
        assert self._process is not None
        return Path(f"/proc/{self._process.pid}/root{path}")

    def resident_bytes(self) -> int:
        """Memory that the process holds now."""
        assert self._process is not None
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found, status
        return int(found.group(1)) * 1024

    def tail(self) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])

    def operate(self, method: str, path: str, body: Any = None, token: str = OPERATOR_TOKEN) -> httpx.Response:
        """Commands the server as its operator."""
        headers = {"Authorization": f"Bearer {token}"}
        return httpx.request(method, f"{self.base}/operator/{path}", headers=headers, json=body, timeout=30)

    def mailed_code(self, address: str, after: int = 0) -> str:
        """The code in the newest mail to `address`; at least `after + 1` mails must have come."""
        mails = until(f"a mail to {address}", MAIL_DEADLINE_S, lambda: (found := self.mails(address))[after:] and found)
        match = CODE_LINE.search(mails[-1])
        assert match, f"no line of six digits in:\n{mails[-1]}"
        return match.group(1)

    def mails(self, address: str) -> list[str]:
        """The texts of all mails to `address`, oldest first (a file is `<millis>-<recipient>.eml`)."""
        texts = []
        for path in sorted((self.data / "outbox").glob("*.eml"), key=lambda path: path.name):
            message = email.message_from_bytes(path.read_bytes())
            if address in str(message["To"]):
                payload = message.get_payload(decode=True)
                assert isinstance(payload, bytes), f"{path.name} is not text/plain"
                texts.append(payload.decode())
        return texts


class Redis:
    """A redis-server on loopback that keeps nothing on disk. `kill` and `start` keep the port."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Redis:
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory), "--save", "", "--appendonly", "no"]
        with (self.directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(["redis-server", *options], stdout=log, stderr=subprocess.STDOUT)
        until("redis-server answers", READY_DEADLINE_S, lambda: self.ask("PING") == "+PONG")
        return self

    def kill(self) -> None:
        if self._process is not None:
            process, self._process = self._process, None
            process.kill()
            process.wait(STOP_DEADLINE_S)

    def pause(self, paused: bool) -> None:
        """Stops the process, so that it takes connections and commands and answers none; or lets it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def ask(self, command: str) -> str | None:
        """The first line of the answer to an inline command; `None` when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                connection.sendall(command.encode() + b"\r\n")
                return connection.makefile("rb").readline().decode().strip()
        except OSError:
            return None


class Cluster:
    """Nodes over one keyspace, one data directory and one outbox. Whoever asks for an address gets the next node's."""

    def __init__(self, directory: Path, store: str, size: int = 3) -> None:
        self.nodes: list[Server] = []
        for number in range(size):
            home = directory / f"node-{number}"
            home.mkdir()
            node = Server(home)
            node.data = directory / "data"
            node.more = {
                "AGENTCHAT_STORE": store,
                "AGENTCHAT_NODE": f"node-{number}",
                "AGENTCHAT_CLUSTER_LISTEN": f"127.0.0.1:{free_port()}",
                "AGENTCHAT_CLUSTER_COOKIE": "the-cookie-of-these-tests",
            }
            self.nodes.append(node)
        self.data = directory / "data"
        self._turn = itertools.cycle(self.nodes)

    def start(self) -> Cluster:
        for node in self.nodes:
            node.start()
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    @property
    def base(self) -> str:
        return next(self._turn).base

    @property
    def ws_base(self) -> str:
        return next(self._turn).ws_base

    def operate(self, *arguments: Any, **named: Any) -> httpx.Response:
        return next(self._turn).operate(*arguments, **named)

    def mailed_code(self, address: str, after: int = 0) -> str:
        return self.nodes[0].mailed_code(address, after)

    def mails(self, address: str) -> list[str]:
        return self.nodes[0].mails(address)


@dataclass
class Peer:
    """A registered agent with its key and a plain HTTP client; errors are answers here, never exceptions."""

    handle: str
    email: str
    api_key: str
    http: httpx.Client

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if body is not None:
            more["json"] = body
        return self.http.request(method, path, **more)

    def send(self, to: str, text: str, **more: Any) -> httpx.Response:
        body = {"to": to, "client_msg_id": str(uuid.uuid4()), "content": {"text": text}} | more
        return self.call("POST", "/v1/messages", body)


_numbers = itertools.count(1)


def fresh_handle(stem: str) -> str:
    """A handle nobody has used in this run."""
    return f"{stem}-{next(_numbers)}-{uuid.uuid4().hex[:6]}"


def enrol(server: Server | Cluster, stem: str = "peer") -> Peer:
    """Registers and verifies a new agent over plain HTTP."""
    handle = fresh_handle(stem)
    address = f"{handle}@example.com"
    started = httpx.post(f"{server.base}/v1/register", json={"email": address, "handle": handle}, timeout=30)
    assert started.status_code == 200, started.text
    body = {"pending_id": started.json()["pending_id"], "code": server.mailed_code(address)}
    done = httpx.post(f"{server.base}/v1/register/verify", json=body, timeout=30)
    assert done.status_code == 201, done.text
    key = done.json()["api_key"]
    client = httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {key}"}, timeout=30)
    return Peer(handle, address, key, client)


def befriend(first: Peer, second: Peer) -> str:
    """One message each way, so that the thread is established and both inboxes are empty; answers its id."""
    opened = first.send(second.handle, "hello")
    assert opened.status_code == 201, opened.text
    answered = second.send(first.handle, "hello back")
    assert answered.status_code == 201, answered.text
    for peer in (first, second):
        rows = peer.call("GET", "/v1/messages/sync").json()
        done = peer.call("POST", "/v1/messages/sync/ack", {"last_delivery_id": rows[-1]["delivery_id"]})
        assert done.status_code == 200, done.text
    return opened.json()["conversation_id"]


def open_socket(node: Server, peer: Peer) -> ClientConnection:
    """A socket that acks, opened as the SDKs do: a 503 of a shard that moves just now is tried again."""
    headers = {"Authorization": f"Bearer {peer.api_key}", "X-AgentChat-Capabilities": "ack"}

    def opened() -> ClientConnection | None:
        try:
            return connect(f"{node.ws_base}/v1/ws", additional_headers=headers, open_timeout=10, proxy=None)
        except InvalidStatus as refused:
            assert refused.response.status_code == 503, refused
            return None

    return until("the socket is open", MOVED_DEADLINE_S, opened)
