"""Nodes of one cluster with a Redis: pending codes, which the store shares, and presence snapshots, which follow owners."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.sync.client import ClientConnection

from harness import MOVED_DEADLINE_S, Cluster, Peer, Redis, Server, enrol, fresh_handle, open_socket, until

needs_redis = pytest.mark.skipif(
    shutil.which("redis-server") is None and os.environ.get("CI") != "true",
    reason="redis-server is not installed (on Debian: apt-get install redis-server)",
)


@pytest.fixture
def own_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nodes for one test, over a keyspace of their own and a Redis of their own."""
    store = os.environ["AGENTCHAT_E2E_STORE"].rsplit("/", 1)[0] + "/t" + uuid.uuid4().hex[:12]
    subprocess.run([os.environ["AGENTCHAT_BIN"], "migrate", "--store", store, "--replication", "1"], check=True)
    redis = Redis(tmp_path).start()
    running = Cluster(tmp_path, store)
    for node in running.nodes:
        node.more["AGENTCHAT_REDIS_URL"] = redis.url
    running.start()
    yield running
    running.stop()
    redis.kill()


def post(node: Server, path: str, **body: str) -> httpx.Response:
    return httpx.post(f"{node.base}/v1/{path}", json=body, timeout=30)


def code_of(answer: httpx.Response) -> str:
    return answer.json()["code"]


@needs_redis
def test_a_code_belongs_to_all_nodes_and_admits_five_mistakes_altogether(own_cluster: Cluster) -> None:
    first, second, third = own_cluster.nodes
    handle = fresh_handle("alice")
    address = f"{handle}@example.com"
    started = post(first, "register", email=address, handle=handle)
    assert started.status_code == 200, started.text
    code = own_cluster.mailed_code(address)
    # Begun again on another node: the code before it works nowhere any more.
    again = post(second, "register", email=address, handle=handle)
    newer = own_cluster.mailed_code(address, after=1)
    for node in own_cluster.nodes:
        assert code_of(post(node, "register/verify", pending_id=started.json()["pending_id"], code=code)) == "EXPIRED"
    done = post(third, "register/verify", pending_id=again.json()["pending_id"], code=newer)
    assert done.status_code == 201, done.text

    # Guesses on all nodes at once cost as much as guesses in a row on one.
    pending = post(first, "agents/recover", email=address).json()["pending_id"]
    right = own_cluster.mailed_code(address, after=2)
    wrong = "000000" if right != "000000" else "000001"
    guess = lambda node: code_of(post(node, "agents/recover/verify", pending_id=pending, code=wrong))  # noqa: E731
    with ThreadPoolExecutor(12) as pool:
        guesses = list(pool.map(guess, own_cluster.nodes * 4))
    # A race that the store could not settle in time answers a guess without saying anything about it.
    while guesses[-1] != "EXPIRED":
        guesses.append(guess(third))
    assert set(guesses) <= {"INVALID_CODE", "EXPIRED", "INTERNAL_ERROR"}, guesses
    assert 5 - guesses.count("INTERNAL_ERROR") <= guesses.count("INVALID_CODE") <= 5, guesses
    assert code_of(post(second, "agents/recover/verify", pending_id=pending, code=right)) == "EXPIRED"


def socket_of(node: Server, peer: Peer) -> ClientConnection:
    held = open_socket(node, peer)
    assert json.loads(held.recv(timeout=10))["type"] == "hello.ok"
    return held


def seen_at(node: Server, viewer: Peer, peers: list[Peer]) -> set[str]:
    answer = httpx.post(
        f"{node.base}/v1/presence/batch",
        headers={"Authorization": f"Bearer {viewer.api_key}"},
        json={"handles": [peer.handle for peer in peers]},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return {one["status"] for one in answer.json()["presences"]}


def found(node: Server) -> int:
    counted = re.search(r'agentchat_presence_snapshots_total\{outcome="found"\} (\d+)', httpx.get(f"{node.base}/metrics").text)
    return int(counted.group(1)) if counted else 0


@needs_redis
def test_snapshots_do_not_keep_anybody_online_when_a_node_dies(own_cluster: Cluster) -> None:
    first, second, third = own_cluster.nodes
    viewer = enrol(own_cluster, "viewer")
    # Enough that each node owns some of either kind.
    dying, staying = ([enrol(own_cluster, kind) for _ in range(6)] for kind in ("dying", "staying"))
    for peer in dying + staying:
        assert viewer.call("POST", "/v1/contacts", {"handle": peer.handle}).status_code == 201
    held = [socket_of(third, peer) for peer in dying] + [socket_of(first, peer) for peer in staying]

    def from_snapshots(node: Server) -> bool:
        before = found(node)
        return seen_at(node, viewer, dying + staying) == {"online"} and found(node) == before + 12

    for node in own_cluster.nodes:
        until("every node sees all of them online, by snapshots alone", MOVED_DEADLINE_S, lambda: from_snapshots(node))
    third.kill()
    for node in (first, second):
        until("its sockets are offline", MOVED_DEADLINE_S, lambda: seen_at(node, viewer, dying) == {"offline"})
        until("the others are online", MOVED_DEADLINE_S, lambda: seen_at(node, viewer, staying) == {"online"})
    for socket in held:
        socket.close()
    for node in (first, second):
        until("all of them are offline", MOVED_DEADLINE_S, lambda: seen_at(node, viewer, dying + staying) == {"offline"})
    third.start()
