"""What only several nodes can show: strangers on the cluster port, handover without reconnect, the death of a node."""

from __future__ import annotations

import itertools
import json
import re
import socket
import struct
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

from harness import MOVED_DEADLINE_S, OPERATOR_TOKEN, Cluster, Peer, enrol, open_socket, until

VERSION = 1


def cluster_address(cluster: Cluster, number: int = 0) -> tuple[str, int]:
    host, port = cluster.nodes[number].more["AGENTCHAT_CLUSTER_LISTEN"].split(":")
    return host, int(port)


def said_to(cluster: Cluster, what: bytes) -> bytes:
    """What a node answers to a stranger's first bytes, until it closes the connection."""
    with socket.create_connection(cluster_address(cluster), timeout=10) as stranger:
        stranger.sendall(what)
        answer = b""
        try:
            while piece := stranger.recv(4096):
                answer += piece
        except ConnectionResetError:
            pass  # closed with bytes of ours unread
        return answer


def greeting(version: int = VERSION, to: int = 0, name: bytes = b"stranger") -> bytes:
    return b"AGENTCHAT-LINK" + struct.pack(">HQQB", version, 4711, to, len(name)) + name


def refusals(cluster: Cluster) -> list[str]:
    return re.findall(r"a connection to the cluster port was refused.*", cluster.nodes[0].log.read_text())


def next_message(held: ClientConnection, timeout: float = MOVED_DEADLINE_S) -> dict[str, object]:
    while True:
        frame = json.loads(held.recv(timeout=timeout))
        if frame["type"] == "message.new":
            held.send(json.dumps({"type": "ack", "message_id": frame["payload"]["id"]}))
            return frame["payload"]


def sent(node: str, peer: Peer, to: str, text: str) -> httpx.Response:
    """A send as the SDKs make it: what is refused for the moment is sent again, under the same key."""
    body = {"to": to, "client_msg_id": text, "content": {"text": text}}
    answers: list[httpx.Response] = []

    def answered() -> bool:
        key = {"Authorization": f"Bearer {peer.api_key}"}
        answers.append(httpx.post(f"{node}/v1/messages", headers=key, json=body, timeout=20))
        return answers[-1].status_code != 503

    until(f"{text!r} is answered", MOVED_DEADLINE_S, answered)
    return answers[-1]


def text_of(message: dict[str, object]) -> str:
    content = message["content"]
    assert isinstance(content, dict)
    return content["text"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: cluster\r\n\r\n", "no node of a cluster"),
        (os.urandom(4096), "no node of a cluster"),
        (greeting(version=99), "speaks version 99"),
        (b"AGENTCHAT-LINK", "did not greet in time"),
    ],
    ids=["http", "garbage", "version", "half"],
)
def test_a_stranger_is_refused_with_one_line_and_no_effect(server: Cluster, what: bytes, reason: str) -> None:
    before = len(refusals(server))
    said_to(server, what)
    until("the refusal is in the log", 10, lambda: len(refusals(server)) > before)
    new = refusals(server)[before:]
    assert len(new) == 1 and reason in new[0], new
    assert httpx.get(f"{server.nodes[0].base}/readyz").status_code == 200


def test_a_greeting_is_not_enough(server: Cluster) -> None:
    """Somebody who knows the protocol, and even the process, but not the cookie; then frames of any size."""
    first = server.nodes[0]
    status = httpx.get(f"{first.base}/operator/cluster", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"}).json()
    here = next(int(node["incarnation"], 16) >> 16 for node in status["nodes"] if node["this"])
    before = len(refusals(server))
    # An empty name in ractor_cluster's handshake, a frame that claims to be enormous, and one that is no protobuf.
    for after in (b"", struct.pack(">Q", 1 << 60) + b"x" * 64, struct.pack(">Q", 16) + b"\xff" * 16):
        answer = said_to(server, greeting(to=here) + after)
        assert answer.startswith(b"AGENTCHAT-LINK"), "it greets whoever greets"
    until("three refusals are in the log", 15, lambda: len(refusals(server)) >= before + 3)
    assert all("did not prove" in line for line in refusals(server)[before:])
    nodes = httpx.get(f"{first.base}/operator/cluster", headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"}).json()["nodes"]
    assert len(nodes) == 3 and all(node["linked"] for node in nodes)


def test_a_node_with_another_cookie_stays_outside(own_cluster: Cluster) -> None:
    stranger = own_cluster.nodes[2]
    stranger.stop()
    stranger.more["AGENTCHAT_CLUSTER_COOKIE"] = "another-cookie-altogether"
    stranger.start()
    others = own_cluster.nodes[:2]
    logs = lambda: "\n".join(node.log.read_text() for node in own_cluster.nodes)  # noqa: E731
    until("the wrong cookie is named", MOVED_DEADLINE_S, lambda: "AGENTCHAT_CLUSTER_COOKIE" in logs())
    linked = lambda: {node["name"]: node["linked"] for node in others[0].operate("GET", "cluster").json()["nodes"]}  # noqa: E731
    # The link of the other two may just be on its way.
    until("two are linked", MOVED_DEADLINE_S, lambda: linked() == {"node-0": True, "node-1": True, "node-2": False})


def test_sockets_stay_while_their_agents_move(own_cluster: Cluster) -> None:
    first, second, third = own_cluster.nodes
    alice, bob = enrol(own_cluster, "alice"), enrol(own_cluster, "bob")
    opened = sent(first.base, alice, bob.handle, "one")
    assert opened.status_code == 201, opened.text
    with open_socket(third, bob) as held:
        assert text_of(next_message(held)) == "one"
        replied = sent(third.base, bob, alice.handle, "back")
        assert replied.status_code in (200, 201), replied.text
        # Both other nodes go, one after the other: whoever owned bob, somebody else does now.
        for node in (first, second):
            node.stop()
            answer = sent(third.base, alice, bob.handle, f"after {node.port}")
            assert answer.status_code in (200, 201), answer.text
            seen = [text_of(next_message(held))]
            while seen[-1] != f"after {node.port}":
                seen.append(text_of(next_message(held)))
        shards = lambda: third.operate("GET", "cluster").json()["shards"]  # noqa: E731
        until("the last node has all shards", MOVED_DEADLINE_S, lambda: shards()["free"] == 0)
    first.start()
    second.start()


def test_a_killed_node_is_replaced_and_its_sockets_are_offline(own_cluster: Cluster) -> None:
    first, second, third = own_cluster.nodes
    alice, bob = enrol(own_cluster, "alice"), enrol(own_cluster, "bob")
    alice.call("POST", "/v1/contacts", {"handle": bob.handle})
    bob.call("POST", "/v1/contacts", {"handle": alice.handle})
    key = {"Authorization": f"Bearer {alice.api_key}"}
    held = open_socket(third, bob)
    presence = lambda: httpx.get(f"{first.base}/v1/presence/{bob.handle}", headers=key, timeout=20).json()  # noqa: E731
    until("bob is online", 10, lambda: presence().get("status") == "online")
    third.kill()
    until("bob is offline", MOVED_DEADLINE_S, lambda: presence().get("status") == "offline")
    for node in (first, second):
        until("no shard is left to the dead", MOVED_DEADLINE_S, lambda: node.operate("GET", "cluster").json()["shards"]["free"] == 0)
        answer = sent(node.base, alice, bob.handle, f"from {node.port}")
        assert answer.status_code in (200, 201, 403), answer.text
    held.close()
    third.start()


def test_a_drained_node_gives_its_shards_away_and_its_sockets_come_back_elsewhere(own_cluster: Cluster) -> None:
    first, second, third = own_cluster.nodes
    alice, bob = enrol(own_cluster, "alice"), enrol(own_cluster, "bob")
    assert sent(first.base, alice, bob.handle, "hello").status_code == 201
    assert sent(second.base, bob, alice.handle, "hello back").status_code in (200, 201)
    share = lambda: {node["name"]: node["shards"] for node in first.operate("GET", "cluster").json()["nodes"]}  # noqa: E731
    until("every node has shards", MOVED_DEADLINE_S, lambda: len(share()) == 3 and all(share().values()))
    ended, statuses = threading.Event(), list[int]()

    def keep_sending(node: str) -> int:
        """Without the patience of an SDK: a drain is no reason for an error."""
        key = {"Authorization": f"Bearer {alice.api_key}"}
        for number in itertools.count():
            body = {"to": bob.handle, "client_msg_id": f"{node} {number}", "content": {"text": "meanwhile"}}
            statuses.append(httpx.post(f"{node}/v1/messages", headers=key, json=body, timeout=20).status_code)
            if ended.is_set():
                return number + 1
        raise AssertionError("itertools.count ends")

    held = open_socket(third, bob)
    with ThreadPoolExecutor() as senders:
        counts = [senders.submit(keep_sending, node.base) for node in (first, second)]
        try:
            drained = subprocess.run(
                [os.environ["AGENTCHAT_BIN"], "admin", "--url", third.base, "drain"],
                env={"PATH": os.environ["PATH"], "AGENTCHAT_OPERATOR_TOKEN": OPERATOR_TOKEN},
                capture_output=True, text=True, timeout=MOVED_DEADLINE_S,
            )
            assert drained.returncode == 0, drained.stderr
            assert json.loads(drained.stdout) == {"shards_left": 0}
            not_ready = httpx.get(f"{third.base}/readyz")
            assert (not_ready.status_code, not_ready.json()["reason"]) == (503, "this node drains")
            status = first.operate("GET", "cluster").json()
            assert [node["shards"] for node in status["nodes"] if node["draining"]] == [0]
            assert status["shards"]["free"] == 0, status["shards"]
            # It goes on with what it has, whose owners are elsewhere now.
            assert sent(third.base, alice, bob.handle, "through the drained").status_code == 201
            while text_of(next_message(held)) != "through the drained":
                pass
            third.stop()
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    held.recv(timeout=MOVED_DEADLINE_S)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012, closed.value
        finally:
            ended.set()
    assert all(count.result() > 1 for count in counts) and set(statuses) == {201}, statuses
    with open_socket(first, bob) as again:
        assert sent(second.base, alice, bob.handle, "after it").status_code == 201
        while text_of(next_message(again)) != "after it":
            pass
    third.start()
    until("it has shards again", MOVED_DEADLINE_S, lambda: share().get("node-2"))


def test_a_key_runs_once_on_whichever_nodes_it_arrives(server: Cluster) -> None:
    alice = enrol(server, "alice")
    headers = {"Authorization": f"Bearer {alice.api_key}"}
    rounds, meet = 8, threading.Barrier(len(server.nodes))

    def create(node: str, number: int) -> httpx.Response:
        with httpx.Client(base_url=node, headers=headers | {"Idempotency-Key": f"key-{number}"}, timeout=30) as client:
            client.get("/v1/agents/me")  # connected before the others begin
            meet.wait(30)
            return client.post("/v1/groups", json={"name": f"group {number}"})

    with ThreadPoolExecutor(len(server.nodes)) as clients:
        for number in range(rounds):
            answers = [pending.result() for pending in [clients.submit(create, node.base, number) for node in server.nodes]]
            done = [answer for answer in answers if answer.status_code == 201]
            refused = [answer for answer in answers if answer not in done]
            assert len({answer.json()["group"]["id"] for answer in done}) == 1, [answer.text for answer in answers]
            assert sum("idempotent-replay" not in answer.headers for answer in done) == 1, [answer.headers for answer in done]
            assert all(answer.json()["code"] == "IDEMPOTENT_IN_PROGRESS" for answer in refused), [answer.text for answer in refused]


def test_a_request_with_a_key_goes_on_when_its_client_is_gone(server: Cluster) -> None:
    alice = enrol(server, "alice")
    for number, node in enumerate(server.nodes * 3):
        body = json.dumps({"name": f"left {number}"}).encode()
        head = (
            f"POST /v1/groups HTTP/1.1\r\nHost: agentchat\r\nAuthorization: Bearer {alice.api_key}\r\n"
            f"Idempotency-Key: left-{number}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        with socket.create_connection(("127.0.0.1", node.port), timeout=10) as client:
            client.sendall(head.encode() + body)
        key = {"Authorization": f"Bearer {alice.api_key}", "Idempotency-Key": f"left-{number}", "Content-Type": "application/json"}

        def again() -> httpx.Response | None:
            answer = httpx.post(f"{server.base}/v1/groups", headers=key, content=body, timeout=30)
            return answer if answer.status_code != 409 else None

        answer = until("the first has ended", MOVED_DEADLINE_S, again)
        assert answer.status_code == 201, answer.text
    key = {"Authorization": f"Bearer {alice.api_key}"}
    groups = [row["group_name"] for row in httpx.get(f"{server.base}/v1/conversations", headers=key, timeout=30).json() if row.get("group_name")]
    assert sorted(groups) == [f"left {number}" for number in range(9)], groups
