"""Mutes, presence, directory, reports and enforcement, reply coordination, Idempotency-Key, the operator's surface."""

from __future__ import annotations

import base64
import hmac
import json
import os
import subprocess
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import httpx

from harness import OPERATOR_TOKEN, Peer, Server, befriend, until
from test_contract import PROFILE_KEYS, invalid, ok, refused
from test_groups import knows
from test_socket import by_header, close_code, frame, tell

Enrol = Callable[[str], Peer]


def later(seconds: float) -> str:
    return (datetime.now(timezone.utc) + timedelta(seconds=seconds)).isoformat()


# --- mutes


def test_mutes_are_kept_listed_and_lifted(alice: Peer, bob: Peer) -> None:
    conversation = befriend(alice, bob)
    made = ok(alice.call("POST", "/v1/mutes", {"target_kind": "agent", "target_handle": f"@{bob.handle}"}), 201)
    assert made["target_kind"] == "agent" and made["target_id"] == made["target_handle"] == bob.handle
    assert made["muted_until"] is None and made["muter_agent_id"].startswith("agt_")
    again = ok(alice.call("POST", "/v1/mutes", {"kind": "agent", "handle": bob.handle, "muted_until": later(3600)}))
    assert again["created_at"] == made["created_at"] and again["muted_until"] is not None
    other = ok(alice.call("POST", "/v1/mutes", {"target_kind": "conversation", "target_id": conversation}), 201)
    assert other["target_id"] == conversation
    assert [one["target_kind"] for one in ok(alice.call("GET", "/v1/mutes"))["mutes"]] == ["conversation", "agent"]
    assert len(ok(alice.call("GET", "/v1/mutes?kind=agent"))["mutes"]) == 1
    invalid(alice.call("GET", "/v1/mutes?kind=x"), "kind")
    assert ok(alice.call("GET", f"/v1/mutes/agent/{bob.handle}"))["target_handle"] == bob.handle
    assert ok(alice.call("GET", f"/v1/mutes/conversation/{conversation}"))["target_handle"] is None
    item = ok(alice.call("GET", "/v1/conversations"))[0]
    assert item["is_muted"] is True
    ok(alice.call("DELETE", f"/v1/mutes/agent/{bob.handle}"))
    ok(alice.call("DELETE", f"/v1/mutes/conversation/{conversation}"))
    for method in ("GET", "DELETE"):
        refused(alice.call(method, f"/v1/mutes/agent/{bob.handle}"), 404, "AGENT_NOT_FOUND")
        refused(alice.call(method, f"/v1/mutes/conversation/{conversation}"), 404, "CONVERSATION_NOT_FOUND")
    assert ok(alice.call("GET", "/v1/conversations"))[0]["is_muted"] is False
    for body in ({}, {"target_kind": "x"}, {"target_kind": "agent"}, {"target_kind": "conversation"}):
        invalid(alice.call("POST", "/v1/mutes", body))
    self_mute = {"target_kind": "agent", "target_handle": alice.handle}
    invalid(alice.call("POST", "/v1/mutes", self_mute), "handle")
    past = {"target_kind": "agent", "target_handle": bob.handle, "muted_until": later(-1)}
    invalid(alice.call("POST", "/v1/mutes", past), "muted_until")
    nobody = {"target_kind": "agent", "target_handle": "nobody-has-this"}
    refused(alice.call("POST", "/v1/mutes", nobody), 404, "AGENT_NOT_FOUND")
    nowhere = {"target_kind": "conversation", "target_id": "conv_0000000000000000"}
    refused(alice.call("POST", "/v1/mutes", nowhere), 404, "CONVERSATION_NOT_FOUND")


def test_a_muted_peer_is_silent_and_drained(server: Server, alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    befriend(alice, bob)
    carol = enrolled("carol")
    befriend(alice, carol)
    socket = by_header(server, alice)
    ok(alice.call("POST", "/v1/mutes", {"target_kind": "agent", "target_handle": bob.handle}), 201)
    muted = ok(bob.send(alice.handle, "not now"), 201)
    loud = ok(carol.send(alice.handle, "now"), 201)
    assert frame(socket)["payload"]["id"] == loud["id"], "the muted message is passed over"
    assert muted["id"] in [row["id"] for row in ok(alice.call("GET", "/v1/messages/sync"))], "and still stored"
    ok(alice.call("DELETE", f"/v1/mutes/agent/{bob.handle}"))
    assert frame(socket)["payload"]["id"] == muted["id"], "it comes when the mute ends"
    after = ok(bob.send(alice.handle, "and now"), 201)
    assert frame(socket)["payload"]["id"] == after["id"]
    socket.close()


# --- presence


def test_presence_follows_sockets_and_words(server: Server, alice: Peer, bob: Peer) -> None:
    refused(bob.call("GET", f"/v1/presence/{alice.handle}"), 404, "AGENT_NOT_FOUND")
    knows(bob, alice)
    see = lambda: ok(bob.call("GET", f"/v1/presence/{alice.handle}"))  # noqa: E731
    assert see() == {"handle": alice.handle, "status": "offline", "custom_message": None, "last_seen": None}
    watcher = by_header(server, bob)
    read = lambda: json.loads(watcher.recv(timeout=10))  # noqa: E731
    socket = by_header(server, alice)
    assert read() == {
        "type": "presence.update", "payload": {"handle": alice.handle, "status": "online", "custom_message": None},
    }
    assert see()["status"] == "online"
    said = ok(alice.call("PUT", "/v1/presence", {"status": "busy", "custom_message": "writing"}))
    assert said["ok"] is True and (said["status"], said["custom_message"]) == ("busy", "writing")
    assert read()["payload"] == {"handle": alice.handle, "status": "busy", "custom_message": "writing"}
    ok(alice.call("PUT", "/v1/presence", {"status": "busy", "custom_message": "writing"}))  # no change, no frame
    tell(socket, type="presence.update", payload={"status": "online"})
    assert read()["payload"]["status"] == "online"
    tell(socket, type="presence.update", payload={"status": "away"}, id="p1")
    error = frame(socket)
    assert (error["type"], error["id"], error["payload"]["code"]) == ("error", "p1", "VALIDATION_ERROR")
    socket.close()
    assert read()["payload"]["status"] == "offline"
    assert see()["last_seen"] is not None
    assert ok(alice.call("GET", f"/v1/presence/{alice.handle}"))["handle"] == alice.handle
    watcher.close()
    batch = ok(bob.call("POST", "/v1/presence/batch", {"handles": [f"@{alice.handle}", "nobody-has-this", alice.handle]}))
    assert [one["handle"] for one in batch["presences"]] == [alice.handle, "nobody-has-this"]
    assert batch["results"]["nobody-has-this"]["status"] == "offline"
    ok(alice.call("POST", f"/v1/contacts/{bob.handle}/block"))
    refused(bob.call("GET", f"/v1/presence/{alice.handle}"), 404, "AGENT_NOT_FOUND")
    for body in ({}, {"status": "away"}, {"status": 7}):
        invalid(alice.call("PUT", "/v1/presence", body), "status")
    invalid(alice.call("PUT", "/v1/presence", {"status": "busy", "custom_message": "x" * 201}), "custom_message")
    for handles in ([], ["x"] * 101, "x", None):
        invalid(alice.call("POST", "/v1/presence/batch", {"handles": handles}), "handles")


# --- directory


def test_directory(server: Server, enrolled: Enrol, bob: Peer) -> None:
    stem = f"dir{uuid.uuid4().hex[:5]}"
    first, second, third = enrolled(stem), enrolled(stem), enrolled(stem)
    knows(bob, second)
    found = ok(bob.call("GET", f"/v1/directory?q={stem.upper()}&limit=100"))
    assert [one["handle"] for one in found["agents"]] == sorted(peer.handle for peer in (first, second, third))
    assert (found["total"], found["limit"], found["offset"]) == (3, 50, 0)
    assert set(found["agents"][0]) == PROFILE_KEYS | {"in_contacts"}
    assert {one["handle"]: one["in_contacts"] for one in found["agents"]}[second.handle] is True
    anonymous = httpx.get(f"{server.base}/v1/directory?q={stem}&limit=1&offset=1")
    assert len(ok(anonymous)["agents"]) == 1 and set(anonymous.json()["agents"][0]) == PROFILE_KEYS
    ok(first.call("DELETE", f"/v1/agents/{first.handle}"))
    server.operate("POST", f"agents/{second.handle}/suspend")
    assert [one["handle"] for one in ok(bob.call("GET", f"/v1/directory?q={stem}"))["agents"]] == [third.handle]
    assert ok(bob.call("GET", f"/v1/directory?q={stem}&offset=10001"))["agents"] == []
    for query in ("", "?q=a", "?q=" + "x" * 51, f"?q={stem}&limit=0"):
        invalid(bob.call("GET", f"/v1/directory{query}"))


# --- reports and enforcement


def crowd(server: Server, count: int) -> list[Peer]:
    prefix = f"crowd-{uuid.uuid4().hex[:6]}"
    answer = server.operate("POST", "agents", {"prefix": prefix, "count": count})
    assert answer.status_code == 201, answer.text
    made = []
    for one in map(json.loads, answer.text.splitlines()):
        client = httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {one['api_key']}"}, timeout=30)
        made.append(Peer(one["handle"], "", one["api_key"], client))
    return made


def status(peer: Peer) -> str:
    return str(ok(peer.call("GET", "/v1/agents/me"))["status"])


def test_reports(server: Server, alice: Peer, bob: Peer) -> None:
    ok(bob.send(alice.handle, "buy my things"), 201)
    ok(alice.call("POST", f"/v1/contacts/{bob.handle}/report", {"reason": "spam"}))
    refused(bob.send(alice.handle, "please"), 403, "BLOCKED")
    refused(alice.call("POST", f"/v1/contacts/{bob.handle}/report"), 409, "ALREADY_REPORTED")
    refused(alice.call("POST", "/v1/contacts/nobody-has-this/report"), 404, "AGENT_NOT_FOUND")
    invalid(alice.call("POST", f"/v1/contacts/{alice.handle}/report"), "handle")
    invalid(alice.call("POST", f"/v1/contacts/{bob.handle}/report", {"reason": "x" * 501}), "reason")
    listed = server.operate("GET", "reports?limit=1000").json()["reports"]
    assert {"reporter": alice.handle, "target": bob.handle, "reason": "spam"}.items() <= next(
        one for one in listed if one["target"] == bob.handle
    ).items()


def test_fifteen_blocks_restrict_until_one_is_lifted(server: Server, alice: Peer, bob: Peer) -> None:
    victims = crowd(server, 16)
    unprovoked = crowd(server, 15)
    for peer in unprovoked:  # alice never wrote to these
        ok(peer.call("POST", f"/v1/contacts/{alice.handle}/block"))
    for peer in victims:
        ok(alice.send(peer.handle, "hello"), 201)
    for peer in victims[:14]:
        ok(peer.call("POST", f"/v1/contacts/{alice.handle}/block"))
    assert status(alice) == "active"
    ok(victims[14].call("POST", f"/v1/contacts/{alice.handle}/block"))
    until("alice is restricted", 5, lambda: status(alice) == "restricted")
    refused(alice.send(bob.handle, "cold"), 403, "RESTRICTED")
    group = ok(alice.call("POST", "/v1/groups", {"name": "g"}), 201)["group"]["id"]
    refused(alice.call("POST", f"/v1/groups/{group}/members", {"handle": bob.handle}), 403, "RESTRICTED")
    knows(bob, alice)
    ok(alice.send(bob.handle, "known"), 201)
    ok(victims[0].call("DELETE", f"/v1/contacts/{alice.handle}/block"))
    until("it ends by itself", 5, lambda: status(alice) == "active")


def test_ten_reports_suspend(server: Server, alice: Peer) -> None:
    victims = crowd(server, 10)
    socket = by_header(server, alice)
    for peer in victims:
        ok(alice.send(peer.handle, "hello"), 201)
        ok(peer.call("POST", f"/v1/contacts/{alice.handle}/report"))
    assert close_code(socket) == 4403
    until("alice is suspended", 5, lambda: status(alice) == "suspended")
    for method, path in [("GET", "/v1/contacts"), ("POST", "/v1/messages"), ("GET", "/v1/ws"), ("GET", "/v1/mutes")]:
        refused(alice.call(method, path), 403, "AGENT_SUSPENDED")
    shown = ok(victims[0].call("GET", f"/v1/agents/{alice.handle}"))
    assert shown["status"] == "suspended", "both states are public"
    assert server.operate("POST", f"agents/{alice.handle}/unsuspend").json()["status"] == "active"
    assert status(alice) == "active"


def test_system_agents_are_protected(server: Server, alice: Peer, bob: Peer) -> None:
    assert server.operate("POST", f"agents/{bob.handle}/system").json()["is_system"] is True
    refused(alice.call("POST", f"/v1/contacts/{bob.handle}/block"), 409, "SYSTEM_AGENT_PROTECTED")
    refused(alice.call("POST", f"/v1/contacts/{bob.handle}/report"), 409, "SYSTEM_AGENT_PROTECTED")
    refused(bob.call("DELETE", f"/v1/agents/{bob.handle}"), 409, "SYSTEM_AGENT_PROTECTED")
    assert ok(bob.send(alice.handle, "welcome"), 201)["context"]["sender"]["kind"] == "system"
    ok(bob.send(alice.handle, "and again, unanswered"), 201)
    server.operate("DELETE", f"agents/{bob.handle}/system")


def test_an_owner_pause(server: Server, alice: Peer, bob: Peer) -> None:
    befriend(alice, bob)
    set_pause = lambda mode: server.operate("POST", f"agents/{alice.handle}/pause", {"mode": mode})  # noqa: E731
    socket = by_header(server, alice)
    set_pause("send")
    refused(alice.send(bob.handle, "x"), 403, "AGENT_PAUSED_BY_OWNER")
    live = ok(bob.send(alice.handle, "still arrives"), 201)
    assert frame(socket)["payload"]["id"] == live["id"]
    set_pause("full")
    parked = [ok(bob.send(alice.handle, f"parked {n}"), 201)["id"] for n in range(3)]
    assert ok(alice.call("GET", "/v1/messages/sync")) == []
    assert ok(alice.call("GET", "/v1/agents/me"))["paused_by_owner"] == "full"
    set_pause("none")
    assert [frame(socket)["payload"]["id"] for _ in parked] == parked, "in order, before anything newer"
    assert len(ok(alice.call("GET", "/v1/messages/sync"))) == 4
    socket.close()


# --- reply coordination


def test_reply_coordination(alice: Peer, bob: Peer) -> None:
    claim = lambda holder, **more: ok(  # noqa: E731
        alice.call("POST", "/v1/reply/claim", {"message_id": "msg_1", "holder": holder} | more)
    )
    assert ok(alice.call("GET", "/v1/reply/active")) == {"active": False}
    assert claim("one") == {"claimed": True, "deferred": False}
    assert claim("one")["claimed"] is True and claim("two")["claimed"] is False
    lease = ok(alice.call("PUT", "/v1/reply/active", {"session_id": "s", "ttl_seconds": 600}))
    assert lease["active"] is True and lease["expires_at"].endswith("Z")
    ok(alice.call("PUT", "/v1/reply/active"))
    assert claim("one", defer_if_active=True) == {"claimed": False, "deferred": True}
    assert ok(bob.call("GET", "/v1/reply/active")) == {"active": False}, "nothing is visible to others"
    assert ok(alice.call("DELETE", "/v1/reply/active"))["active"] is True
    assert ok(alice.call("DELETE", "/v1/reply/active", {"session_id": "s"})) == {"active": False}
    batch = lambda ids, holder: ok(  # noqa: E731
        alice.call("POST", "/v1/reply/claim-batch", {"message_ids": ids, "holder": holder})
    )
    assert batch(["msg_2", "msg_3", "msg_1", "msg_4"], "two") == {"claimed_count": 2, "deferred": False}
    assert batch([], "two")["claimed_count"] == 0
    invalid(alice.call("POST", "/v1/reply/claim", {"holder": "x"}), "message_id")
    invalid(alice.call("POST", "/v1/reply/claim", {"message_id": "x", "holder": "y" * 129}), "holder")
    invalid(alice.call("POST", "/v1/reply/claim-batch", {"message_ids": ["x"] * 201, "holder": "y"}), "message_ids")
    invalid(alice.call("PUT", "/v1/reply/active", {"ttl_seconds": 3601}), "ttl_seconds")
    invalid(alice.call("PUT", "/v1/reply/active", {"session_id": ""}), "session_id")
    invalid(alice.call("DELETE", "/v1/reply/active", {"session_id": 7}), "session_id")


# --- Idempotency-Key


def test_idempotency_key(own_server: Server, enrolled: Enrol) -> None:
    from harness import enrol

    alice = enrol(own_server, "alice")
    headers = {"Idempotency-Key": "key-1"}
    made = alice.call("POST", "/v1/groups", {"name": "once"}, headers=headers)
    assert made.status_code == 201 and "idempotent-replay" not in made.headers
    own_server.kill()
    own_server.start()
    again = alice.call("POST", "/v1/groups", {"name": "once"}, headers=headers)
    assert (again.status_code, again.json(), again.headers["idempotent-replay"]) == (201, made.json(), "true")
    refused(alice.call("POST", "/v1/groups", {"name": "other"}, headers=headers), 422, "IDEMPOTENCY_KEY_CONFLICT")
    missing = {"Idempotency-Key": "key-2"}
    for _ in range(2):
        refused(alice.call("DELETE", "/v1/contacts/nobody-has-this", headers=missing), 404, "AGENT_NOT_FOUND")
    for bad in ("", "x" * 256, "a b"):
        invalid(alice.call("POST", "/v1/groups", {"name": "x"}, headers={"Idempotency-Key": bad}))
    hook = {"url": "https://example.com/", "events": ["message.new"]}
    first = alice.call("POST", "/v1/webhooks", hook, headers={"Idempotency-Key": "key-3"}).json()
    replayed = alice.call("POST", "/v1/webhooks", hook, headers={"Idempotency-Key": "key-3"}).json()
    assert first["id"] == replayed["id"] and "secret" in first and "secret" not in replayed
    alice.http.close()


# --- operator


def test_the_operator_needs_the_token(server: Server, alice: Peer) -> None:
    for token in ("wrong", "", alice.api_key):
        assert server.operate("GET", f"agents/{alice.handle}", token=token or "x").status_code == 401
    shown = server.operate("GET", f"agents/{alice.handle}").json()
    assert shown["email"] == alice.email and "key_hash" not in shown
    assert server.operate("GET", "agents/nobody-has-this").status_code == 404
    assert server.operate("POST", "agents", {"prefix": "x" * 30, "count": 5}).status_code == 400
    assert server.operate("POST", "agents", {"prefix": "ok", "count": 0}).status_code == 400
    assert server.operate("POST", f"agents/{alice.handle}/pause", {"mode": "x"}).status_code == 400


def test_keys_from_a_seed(server: Server) -> None:
    prefix, seed = f"seed-{uuid.uuid4().hex[:6]}", uuid.uuid4().hex * 2
    made = server.operate("POST", "agents", {"prefix": prefix, "count": 2, "start": 7, "key_seed": seed})
    assert made.status_code == 201, made.text
    assert [json.loads(line) for line in made.text.splitlines()] == [{"handle": f"{prefix}-7"}, {"handle": f"{prefix}-8"}]
    label = b"agentchat provisioned key 1\n"
    digest = hmac.new(seed.encode(), label + f"{prefix}-8".encode(), "sha256").digest()
    key = "ac_live_" + base64.urlsafe_b64encode(digest).decode().rstrip("=")
    me = httpx.get(f"{server.base}/v1/agents/me", headers={"Authorization": f"Bearer {key}"}, timeout=30)
    assert (me.status_code, me.json()["handle"]) == (200, f"{prefix}-8")
    invalid(server.operate("POST", "agents", {"prefix": prefix, "count": 1, "key_seed": seed[:63]}), "key_seed")


def test_admin_commands(server: Server, alice: Peer, tmp_path: Path) -> None:
    # The public URL is a proxy's, which keeps /operator shut; the address says where the node itself listens.
    public = {"AGENTCHAT_OPERATOR_TOKEN": OPERATOR_TOKEN, "AGENTCHAT_PUBLIC_URL": "https://chat.example.com"}

    def run(listen: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        environment = os.environ | public | {"AGENTCHAT_LISTEN": listen}
        return subprocess.run([os.environ["AGENTCHAT_BIN"], "admin", *arguments], env=environment, capture_output=True)

    def admin(*arguments: str) -> str:
        done = run(f"0.0.0.0:{server.port}", *arguments)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    out, prefix = tmp_path / "keys.jsonl", f"bulk-{uuid.uuid4().hex[:6]}"
    admin("provision", "--count", "25", "--prefix", prefix, "--out", str(out))
    made = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["handle"] for one in made] == [f"{prefix}-{n}" for n in range(1, 26)]
    assert out.stat().st_mode & 0o077 == 0, "keys are for nobody else's eyes"
    headers = {"Authorization": f"Bearer {made[24]['api_key']}"}
    assert httpx.get(f"{server.base}/v1/agents/me", headers=headers).json()["handle"] == f"{prefix}-25"
    assert b"cannot reach the node at http://127.0.0.1:1:" in run("127.0.0.1:1", "show", alice.handle).stderr
    named = run("127.0.0.1:1", "--url", f"{server.base}/", "show", alice.handle)
    assert json.loads(named.stdout)["handle"] == alice.handle, named.stderr.decode()
    assert json.loads(admin("suspend", alice.handle))["status"] == "suspended"
    assert json.loads(admin("unsuspend", alice.handle))["status"] == "active"
    assert json.loads(admin("system", alice.handle))["is_system"] is True
    assert json.loads(admin("system", alice.handle, "--off"))["is_system"] is False
    assert json.loads(admin("pause", alice.handle, "full"))["paused_by_owner"] == "full"
    assert json.loads(admin("pause", alice.handle, "none"))["paused_by_owner"] == "none"
    admin("reports")
    ok(alice.call("DELETE", f"/v1/agents/{alice.handle}"))
    register = {"email": alice.email, "handle": f"{prefix}-again"}
    taken = [httpx.post(f"{server.base}/v1/register", json=register).status_code for _ in range(1)]
    assert json.loads(admin("release-email", alice.email)) == {"ok": True} and taken == [200]
