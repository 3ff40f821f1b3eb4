"""What nodes share through Redis: windows and spacing of codes, presence snapshots; and what is left without it.

The nodes have a store each, so whatever one knows of the other's clients came through Redis.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from websockets.sync.client import ClientConnection, connect

from harness import Peer, Redis, Server, enrol, until

CHANGE_DEADLINE_S = 15.0
SILENT = {"status": "offline", "custom_message": None, "last_seen": None}


def recover(node: Server, client: str) -> httpx.Response:
    """One request that its address is counted for: of all of them, the one that needs nothing and changes nothing."""
    body = {"email": f"{uuid.uuid4().hex}@example.com"}
    return httpx.post(f"{node.base}/v1/agents/recover", json=body, headers={"x-client": client}, timeout=30)


def passed(node: Server, client: str, times: int) -> list[bool]:
    return [recover(node, client).status_code == 200 for _ in range(times)]


def metric(node: Server, name: str) -> float:
    """The sum of a metric over its labels; 0 before it was ever counted."""
    lines = httpx.get(f"{node.base}/metrics", timeout=10).text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{re.escape(name)}(\{{| )", line))


def reaches(node: Server, reached: bool) -> None:
    until(f"Redis is {'' if reached else 'un'}reachable", CHANGE_DEADLINE_S, lambda: (metric(node, "agentchat_redis_up") == 1) == reached)


def state_lines(node: Server) -> list[str]:
    return re.findall(r"Redis is (\w+)", node.log.read_text())


def test_a_window_is_counted_over_two_nodes(nodes: Callable[..., list[Server]]) -> None:
    one, other = nodes(2, recover_per_hour=6)
    assert passed(one, "192.0.2.1", 3) + passed(other, "192.0.2.1", 3) == [True] * 6
    for node in (one, other):
        refused = recover(node, "192.0.2.1")
        assert (refused.status_code, refused.json()["code"]) == (429, "RATE_LIMITED")
        wait = refused.json()["details"]["retry_after_ms"]
        assert 500_000 < wait <= 600_000 and int(refused.headers["Retry-After"]) == -(-wait // 1000)
    assert passed(other, "192.0.2.2", 1) == [True], "another client has its own"
    assert passed(one, "2001:db8::1", 3) + passed(other, "2001:db8::2", 3) == [True] * 6
    assert passed(other, "2001:db8:0:0:ffff::3", 1) == [False], "one subscriber, whatever address of its network"


def test_codes_are_spaced_over_two_nodes(nodes: Callable[..., list[Server]]) -> None:
    one, other = nodes(2)
    address = f"{uuid.uuid4().hex}@example.com"
    register = lambda node, handle: httpx.post(  # noqa: E731
        f"{node.base}/v1/register", json={"email": address, "handle": handle}, headers={"x-client": "192.0.2.3"}, timeout=30
    )
    assert register(one, "first-handle").status_code == 200
    refused = register(other, "second-handle")
    assert (refused.status_code, refused.json()["code"]) == (429, "OTP_COOLDOWN")
    assert 0 < refused.json()["details"]["retry_after_ms"] <= 60_000
    assert other.mails(address) == []


def test_without_redis_requests_pass_and_each_node_counts_for_itself(redis: Redis, nodes: Callable[..., list[Server]]) -> None:
    one, other = nodes(2, recover_per_hour=6)
    assert passed(one, "192.0.2.1", 4) == [True] * 4
    redis.kill()
    for node in (one, other):
        reaches(node, False)
        assert httpx.get(f"{node.base}/readyz").status_code == 200
    # What a node admitted before still counts on it; the other one starts anew.
    assert passed(one, "192.0.2.1", 3) == [True, True, False]
    assert passed(other, "192.0.2.1", 7) == [True] * 6 + [False]
    redis.start()
    for node in (one, other):
        reaches(node, True)
    assert passed(one, "192.0.2.9", 3) + passed(other, "192.0.2.9", 4) == [True] * 6 + [False]
    for node in (one, other):
        assert state_lines(node) == ["reachable", "unreachable", "reachable"], "one line for each change"
        assert metric(node, "agentchat_redis_errors_total") >= 1


def test_a_redis_that_hangs_costs_a_few_requests_a_moment_each(redis: Redis, nodes: Callable[..., list[Server]]) -> None:
    [node] = nodes(1, recover_per_hour=0, profiles_per_minute=1000)
    look = lambda: httpx.get(f"{node.base}/v1/agents/nobody-is-called-so", headers={"x-client": "192.0.2.1"}, timeout=30)  # noqa: E731
    assert look().status_code == 404
    redis.pause(True)
    try:
        assert [look().status_code for _ in range(50)] == [404] * 50
        reaches(node, False)
        assert [look().status_code for _ in range(50)] == [404] * 50
        # Three in a row, and what was under way with them; the other requests did not even ask.
        assert 3 <= metric(node, "agentchat_redis_errors_total") < 10
    finally:
        redis.pause(False)
    reaches(node, True)
    assert look().status_code == 404


def test_a_node_starts_without_its_redis_and_finds_it_later(redis: Redis, nodes: Callable[..., list[Server]]) -> None:
    redis.kill()
    [node] = nodes(1, recover_per_hour=2)
    assert passed(node, "192.0.2.1", 3) == [True, True, False]
    assert state_lines(node) == ["unreachable"]
    redis.start()
    reaches(node, True)
    # An empty Redis knows nothing of what was counted here.
    assert passed(node, "192.0.2.1", 3) == [True, True, False]
    assert state_lines(node) == ["unreachable", "reachable"]


# --- presence


def acquainted(node: Server) -> tuple[Peer, Peer]:
    """Two agents with each other in their books."""
    alice, bob = enrol(node, "alice"), enrol(node, "bob")
    for agent, contact in ((alice, bob), (bob, alice)):
        assert agent.call("POST", "/v1/contacts", {"handle": contact.handle}).status_code == 201
    return alice, bob


def sees(viewer: Peer, *handles: str) -> list[dict[str, Any]]:
    answer = viewer.call("POST", "/v1/presence/batch", {"handles": list(handles)})
    assert answer.status_code == 200, answer.text
    presences = answer.json()["presences"]
    assert [one["handle"] for one in presences] == list(handles)
    assert answer.json()["results"] == {one["handle"]: one for one in presences}
    return [{key: value for key, value in one.items() if key != "handle"} for one in presences]


def online(node: Server, agent: Peer) -> ClientConnection:
    headers = {"Authorization": f"Bearer {agent.api_key}", "X-AgentChat-Capabilities": "ack"}
    socket = connect(f"{node.ws_base}/v1/ws", additional_headers=headers, proxy=None)
    assert json.loads(socket.recv(timeout=10))["type"] == "hello.ok"
    return socket


def found(node: Server) -> float:
    lines = httpx.get(f"{node.base}/metrics", timeout=10).text
    counted = re.search(r'agentchat_presence_snapshots_total\{outcome="found"\} (\d+)', lines)
    return float(counted.group(1)) if counted else 0.0


def shown(node: Server, viewer: Peer, whom: Peer, status: str) -> dict[str, Any]:
    """What a batch says, once it says this from a snapshot."""

    def probe() -> dict[str, Any] | None:
        before = found(node)
        [seen] = sees(viewer, whom.handle)
        return seen if seen["status"] == status and found(node) == before + 1 else None

    return until(f"a snapshot says {status}", CHANGE_DEADLINE_S, probe)


@pytest.fixture
def open_node(nodes: Callable[..., list[Server]]) -> Server:
    return nodes(1, limits="open")[0]


def test_a_batch_is_answered_from_snapshots_and_they_follow(open_node: Server, redis: Redis) -> None:
    alice, bob = acquainted(open_node)
    with online(open_node, bob):
        assert shown(open_node, alice, bob, "online") == {"status": "online", "custom_message": None, "last_seen": None}
        words = "in a meeting – back soon"
        assert bob.call("PUT", "/v1/presence", {"status": "busy", "custom_message": words}).status_code == 200
        seen = shown(open_node, alice, bob, "busy")
        assert seen["custom_message"] == words and seen["last_seen"] is not None
        assert sees(bob, bob.handle)[0]["custom_message"] == words, "its own, as its entity knows it"
        [left] = re.findall(r"^:(\d+)$", redis.ask(f"PTTL agentchat:presence:{agent_id(bob)}") or "")
        assert 0 < int(left) <= 60_000
    assert shown(open_node, alice, bob, "offline")["custom_message"] is None
    single = alice.call("GET", f"/v1/presence/{bob.handle}").json()
    assert sees(alice, bob.handle)[0]["last_seen"] == single["last_seen"]


def agent_id(agent: Peer) -> str:
    return agent.call("GET", "/v1/agents/me").json()["id"]


def test_snapshots_show_nothing_to_whom_an_entity_would_show_nothing(open_node: Server) -> None:
    alice, bob = acquainted(open_node)
    carol = enrol(open_node, "carol")
    with online(open_node, bob):
        shown(open_node, alice, bob, "online")
        assert sees(carol, bob.handle, "nobody-is-called-so") == [SILENT, SILENT], "bob is not in her book"
        for blocker, blocked in ((bob, alice), (alice, bob)):
            assert blocker.call("POST", f"/v1/contacts/{blocked.handle}/block").status_code == 200
            # At once, and whatever a snapshot says.
            assert [sees(alice, bob.handle) for _ in range(20)] == [[SILENT]] * 20
            assert blocker.call("DELETE", f"/v1/contacts/{blocked.handle}/block").status_code == 200
            assert sees(alice, bob.handle)[0]["status"] == "online"
        assert alice.call("DELETE", f"/v1/contacts/{bob.handle}").status_code == 200
        assert sees(alice, bob.handle) == [SILENT]


def test_a_snapshot_does_not_outlive_the_node_that_wrote_it(open_node: Server) -> None:
    alice, bob = acquainted(open_node)
    held = online(open_node, bob)
    shown(open_node, alice, bob, "online")
    open_node.kill()
    open_node.start()
    assert sees(alice, bob.handle)[0]["status"] == "offline", "its socket died with the node"
    held.close()


def test_without_redis_a_batch_asks_the_entities(open_node: Server, redis: Redis) -> None:
    alice, bob = acquainted(open_node)
    with online(open_node, bob):
        shown(open_node, alice, bob, "online")
        redis.kill()
        assert sees(alice, bob.handle)[0]["status"] == "online", "while it is not known yet that Redis is away"
        reaches(open_node, False)
        before = found(open_node)
        assert bob.call("PUT", "/v1/presence", {"status": "busy"}).status_code == 200
        assert sees(alice, bob.handle)[0]["status"] == "busy"
        assert found(open_node) == before
        redis.start()
        reaches(open_node, True)
        # What could not be written meanwhile is written now.
        shown(open_node, alice, bob, "busy")
