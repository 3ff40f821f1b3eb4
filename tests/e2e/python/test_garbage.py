"""Hostile input: every endpoint and the socket get a mebibyte of garbage; the answers are envelopes, the server lives."""

from __future__ import annotations

import json
import random

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from harness import Peer, Server, befriend
from registry import ENDPOINTS

FRAME_MAX = 64 * 1024
MEBIBYTE = 1024 * 1024
ROUNDS = 3
# What an allocator may keep after a burst; the garbage itself would add up to far more if it were held.
SLACK = 48 * MEBIBYTE

MUTATING = [endpoint for endpoint in ENDPOINTS if endpoint.method != "GET" and endpoint.path.startswith("/v1/")]
SEEDS = [
    b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"to":', b'{"a":' * 5_000, b"[" * 60_000, b'"' + b"\\u0000" * 100,
    b'{"to":1,"client_msg_id":{},"content":[null]}', b'{"content":{"text":"\\ud800"},"to":"bob","client_msg_id":"x"}',
    b'{"email":"a@b\\r\\nBcc: c@d","handle":"header-injection"}', b'{"handle":"' + "é".encode() * 3_000 + b'"}',
    b'{"pending_id":"../../etc/passwd","code":"000000"}', b'{"last_delivery_id":"del_' + b"f" * 40_000 + b'"}',
]


# Every field of these is optional, or the answer is the same whatever was asked.
ANYTHING_GOES = ("/v1/agents/recover", "/v1/reply/active")


def is_envelope(answer: httpx.Response) -> None:
    body = answer.json()
    assert isinstance(body["code"], str) and isinstance(body["message"], str), body
    assert answer.headers["x-request-id"]


def test_a_mebibyte_of_garbage_on_every_endpoint(server: Server, alice: Peer) -> None:
    noise = random.Random(7).randbytes(MEBIBYTE)
    json_header = {"content-type": "application/json"}
    paths = [(one.method, one.path.replace("{handle}", "bob").replace("{id}", "conv_x")) for one in MUTATING]
    for method, path in paths:  # once to warm every path up
        alice.call(method, path, content=noise, headers=json_header)
    before = server.resident_bytes()
    for _ in range(ROUNDS):
        for method, path in paths:
            answer = alice.call(method, path, content=noise, headers=json_header)
            # A mebibyte is no more than an avatar may have: those are judged, and are no images of these agents.
            allowed = (400, 403, 404, 413) if path.endswith("/avatar") else (404, 405, 413)
            assert answer.status_code in allowed, f"{method} {path}: {answer.status_code}"
            is_envelope(answer)
    grown = server.resident_bytes() - before
    assert grown < SLACK, f"{grown} bytes more after {ROUNDS * len(paths)} MiB of garbage"


@pytest.mark.parametrize("seed", SEEDS, ids=range(len(SEEDS)))
def test_malformed_bodies_are_refused(server: Server, alice: Peer, seed: bytes) -> None:
    for endpoint in MUTATING:
        if "{" in endpoint.path or endpoint.path in ANYTHING_GOES:
            continue
        headers = {"content-type": "application/json", "authorization": f"Bearer {alice.api_key}"}
        answer = httpx.request(endpoint.method, f"{server.base}{endpoint.path}", content=seed, headers=headers)
        assert 400 <= answer.status_code < 500, f"{endpoint.name} {seed[:40]!r}: {answer.status_code} {answer.text}"
        is_envelope(answer)


def test_hostile_paths_and_queries(alice: Peer) -> None:
    for path in (
        "/v1/agents/%00", "/v1/agents/%ff%fe", "/v1/agents/" + "a" * 5_000, "/v1/messages/%2e%2e%2f", "/v1//messages",
        "/v1/messages/conv_%E2%82%AC%E2%82%AC%E2%82%AC", "/v1/messages/msg_\u00e9/read", "/v1/conversations/%00/context",
    ):
        answer = alice.call("GET", path)
        assert answer.status_code in (400, 404, 405), f"{path}: {answer.status_code}"
        is_envelope(answer)
    for query in ("limit=%ff", "limit=1e3", "limit=+5", "offset=99999999999999999999999", "after=%00", "after=del_%00"):
        answer = alice.call("GET", f"/v1/messages/sync?{query}")
        assert answer.status_code in (200, 400), query
    assert alice.call("GET", "/v1/agents/me").status_code == 200


def test_garbage_on_the_socket(server: Server, alice: Peer, bob: Peer) -> None:
    befriend(alice, bob)
    noise = random.Random(8)
    headers = {"Authorization": f"Bearer {alice.api_key}", "x-agentchat-capabilities": "ack"}
    with connect(f"{server.ws_base}/v1/ws", additional_headers=headers, proxy=None) as socket:
        assert json.loads(socket.recv(timeout=10))["type"] == "hello.ok"
        for _ in range(32):  # a mebibyte in all, each frame within the limit
            socket.send(noise.randbytes(32 * 1024))
        for text in ("{", "[]", "null", '{"type":7}', '{"type":"ack"}', '{"type":"ack","message_id":7}', "\u0000" * 60_000):
            socket.send(text)
        sent = bob.send(alice.handle, "still there").json()["id"]
        while (frame := json.loads(socket.recv(timeout=10)))["type"] != "message.new":
            assert frame["type"] == "error"
        assert frame["payload"]["id"] == sent
    for garbage in (noise.randbytes(FRAME_MAX + 1), "x" * (FRAME_MAX + 1), noise.randbytes(MEBIBYTE), "x" * MEBIBYTE):
        with connect(f"{server.ws_base}/v1/ws", additional_headers=headers, proxy=None) as socket:
            with pytest.raises(ConnectionClosed) as closed:
                socket.send(garbage)
                while True:
                    socket.recv(timeout=10)
            # A client that is still writing when the server has gone away may never read why: what is far too large is
            # not read to its end.
            told = closed.value.rcvd
            assert told.code == 1009 if told is not None else len(garbage) == MEBIBYTE
    assert alice.call("GET", "/v1/agents/me").status_code == 200
