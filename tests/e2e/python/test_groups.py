"""Groups over plain HTTP and WebSocket: every endpoint, every code, system messages, who sees what."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from harness import Peer, Server, until
from test_contract import MESSAGE_KEYS, TIMESTAMP, invalid, ok, refused
from test_socket import by_header, frame

Enrol = Callable[[str], Peer]

GROUP_KEYS = {
    "id", "name", "description", "avatar_url", "created_by", "settings", "member_count", "created_at",
    "last_message_at", "members", "your_role",
}
NOWHERE = "grp_0000000000000000"


def knows(peer: Peer, other: Peer) -> None:
    """`peer` has `other` in its book, so `other` may add it to groups at once."""
    assert peer.call("POST", "/v1/contacts", {"handle": other.handle}).status_code in (200, 201)


def make(creator: Peer, *members: Peer, **more: Any) -> dict[str, Any]:
    for member in members:
        knows(member, creator)
    body = {"name": "Engineering", "member_handles": [member.handle for member in members]} | more
    return ok(creator.call("POST", "/v1/groups", body), 201)["group"]


def post(peer: Peer, group: str, text: str, **more: Any) -> Any:
    body = {"conversation_id": group, "client_msg_id": str(uuid.uuid4()), "content": {"text": text}} | more
    return peer.call("POST", "/v1/messages", body)


def events(peer: Peer, group: str) -> list[dict[str, Any]]:
    rows = ok(peer.call("GET", f"/v1/messages/{group}?after_seq=0&limit=200"))
    return [row["content"]["data"] for row in rows if row["type"] == "system"]


def pause(server: Server, peer: Peer, mode: str) -> None:
    assert server.operate("POST", f"agents/{peer.handle}/pause", {"mode": mode}).status_code == 200


@pytest.fixture
def carol(enrolled: Enrol) -> Peer:
    return enrolled("carol")


def test_create_adds_contacts_and_invites_strangers(server: Server, alice: Peer, bob: Peer, carol: Peer) -> None:
    knows(bob, alice)
    handles = [bob.handle, f"@{carol.handle.upper()}", alice.handle, bob.handle, "nobody-has-this"]
    made = ok(alice.call("POST", "/v1/groups", {
        "name": " Engineering ", "description": "d", "avatar_url": "https://example.com/a.png", "member_handles": handles,
        "settings": {"who_can_invite": "admin"},
    }), 201)
    group, results = made["group"], {one["handle"]: one for one in made["add_results"]}
    assert set(group) == GROUP_KEYS and group["id"].startswith("grp_")
    assert (group["name"], group["created_by"], group["your_role"]) == ("Engineering", alice.handle, "admin")
    assert group["avatar_url"] == "https://example.com/a.png" and group["settings"] == {"who_can_invite": "admin"}
    assert [member["handle"] for member in group["members"]] == [alice.handle, bob.handle]
    assert group["member_count"] == 2 and TIMESTAMP.fullmatch(group["members"][0]["joined_at"])
    assert results[bob.handle] == {"handle": bob.handle, "outcome": "joined"}
    assert results[carol.handle]["outcome"] == "invited" and results[carol.handle]["invite_id"].startswith("inv_")
    assert set(results) == {bob.handle, carol.handle}
    assert [event["event"] for event in events(alice, group["id"])] == ["member_joined"]
    listed = ok(carol.call("GET", "/v1/groups/invites"))
    assert [one["id"] for one in listed] == [results[carol.handle]["invite_id"]]
    assert set(listed[0]) == {
        "id", "group_id", "group_name", "group_description", "group_avatar_url", "group_member_count", "inviter_handle",
        "created_at",
    }
    for body in ({}, {"name": ""}, {"name": "x" * 101}, {"name": 7}):
        invalid(alice.call("POST", "/v1/groups", body), "name")
    invalid(alice.call("POST", "/v1/groups", {"name": "x", "description": "x" * 501}), "description")
    invalid(alice.call("POST", "/v1/groups", {"name": "x", "avatar_url": "/relative"}), "avatar_url")
    invalid(alice.call("POST", "/v1/groups", {"name": "x", "member_handles": ["x"] * 256}), "member_handles")
    invalid(alice.call("POST", "/v1/groups", {"name": "x", "settings": {"who_can_invite": "all"}}), "settings.who_can_invite")
    pause(server, alice, "send")
    refused(alice.call("POST", "/v1/groups", {"name": "x"}), 403, "AGENT_PAUSED_BY_OWNER")
    refused(alice.call("POST", f"/v1/groups/{group['id']}/members", {"handle": "x"}), 403, "AGENT_PAUSED_BY_OWNER")
    refused(post(alice, group["id"], "x"), 403, "AGENT_PAUSED_BY_OWNER")
    pause(server, alice, "none")


def test_a_message_reaches_every_member_once_and_in_order(server: Server, alice: Peer, bob: Peer, carol: Peer) -> None:
    group = make(alice, bob, carol)["id"]
    socket = by_header(server, bob)
    backlog = frame(socket)  # carol's join; the own one is no delivery
    assert backlog["payload"]["content"]["data"]["agent_handle"] == carol.handle
    key = str(uuid.uuid4())
    sent = post(alice, group, f"hello @{bob.handle} @{alice.handle} @nobody-here", client_msg_id=key)
    body = ok(sent, 201)
    assert set(body) == MESSAGE_KEYS | {"skipped_recipients"} and body["skipped_recipients"] == []
    assert body["context"]["conversation"] == {"type": "group", "group_name": "Engineering", "member_count": 3}
    assert body["context"]["mentions"] == [bob.handle]
    live = frame(socket)
    assert (live["type"], live["payload"]["id"], live["payload"]["seq"]) == ("message.new", body["id"], 3)
    socket.close()
    again = post(alice, group, "other", client_msg_id=key)
    assert ok(again)["id"] == body["id"] and again.headers["idempotent-replay"] == "true"
    rows = ok(carol.call("GET", f"/v1/messages/sync?conversation_id={group}"))
    assert [row["seq"] for row in rows] == [3], "the own join is no delivery"
    assert ok(alice.call("GET", f"/v1/messages/{group}"))[0]["status"] == "stored"
    for peer in (bob, carol):
        rows = ok(peer.call("GET", "/v1/messages/sync"))
        ok(peer.call("POST", "/v1/messages/sync/ack", {"last_delivery_id": rows[-1]["delivery_id"]}))
    assert ok(alice.call("GET", f"/v1/messages/{group}"))[0]["status"] == "delivered"
    ok(bob.call("POST", f"/v1/messages/{body['id']}/read"))
    assert ok(alice.call("GET", f"/v1/messages/{group}"))[0]["status"] == "delivered", "carol has not read it"
    ok(carol.call("POST", f"/v1/messages/{body['id']}/read"))
    assert ok(alice.call("GET", f"/v1/messages/{group}"))[0]["status"] == "read"
    item = next(one for one in ok(bob.call("GET", "/v1/conversations")) if one["id"] == group)
    assert (item["type"], item["group_name"], item["group_member_count"]) == ("group", "Engineering", 3)
    assert item["participants"] == [] and item["last_message_preview"].startswith("hello")
    people = ok(bob.call("GET", f"/v1/conversations/{group}/participants"))
    assert [one["handle"] for one in people] == [alice.handle, bob.handle, carol.handle]
    context = ok(bob.call("GET", f"/v1/conversations/{group}/context"))
    assert context["group"]["your_role"] == "member" and context["counterparty"] is None


def test_history_begins_with_the_own_join(alice: Peer, bob: Peer, carol: Peer) -> None:
    group = make(alice, bob)["id"]
    ok(post(alice, group, "before carol"), 201)
    invited = ok(alice.call("POST", f"/v1/groups/{group}/members", {"handle": carol.handle}))
    assert invited["outcome"] == "invited"
    assert ok(alice.call("POST", f"/v1/groups/{group}/members", {"handle": carol.handle})) == invited, "idempotent"
    assert ok(alice.call("POST", f"/v1/groups/{group}/members", {"handle": bob.handle}))["outcome"] == "already_member"
    detail = ok(carol.call("POST", f"/v1/groups/invites/{invited['invite_id']}/accept"))
    assert (detail["member_count"], detail["your_role"]) == (3, "member")
    refused(carol.call("POST", f"/v1/groups/invites/{invited['invite_id']}/accept"), 404, "INVITE_NOT_FOUND")
    ok(post(alice, group, "after carol"), 201)
    seen = ok(carol.call("GET", f"/v1/messages/{group}?after_seq=0"))
    assert [row["type"] for row in seen] == ["system", "text"]
    assert seen[0]["content"]["data"] == {"schema_version": 1, "event": "member_joined", "agent_handle": carol.handle}
    assert seen[0]["client_msg_id"].startswith("sys_") and seen[0]["sender"] == carol.handle
    hidden = ok(alice.call("GET", f"/v1/messages/{group}?after_seq=1&limit=1"))[0]
    refused(carol.call("POST", f"/v1/messages/{hidden['id']}/read"), 404, "MESSAGE_NOT_FOUND")


def test_roles(alice: Peer, bob: Peer, carol: Peer) -> None:
    group = make(alice, bob, carol)["id"]
    member = lambda peer, action="": f"/v1/groups/{group}/members/{peer.handle}{action}"  # noqa: E731
    for method, path, body in [
        ("PATCH", f"/v1/groups/{group}", {"name": "x"}), ("POST", f"/v1/groups/{group}/members", {"handle": "x-y-z"}),
        ("DELETE", member(carol), None), ("POST", member(carol, "/promote"), None), ("POST", member(alice, "/demote"), None),
        ("DELETE", f"/v1/groups/{group}", None), ("PUT", f"/v1/groups/{group}/avatar", None),
        ("DELETE", f"/v1/groups/{group}/avatar", None),
    ]:
        if method == "PUT":
            refused(bob.call(method, path, content=png()), 403, "FORBIDDEN")
        else:
            refused(bob.call(method, path, body), 403, "FORBIDDEN")
    ok(alice.call("POST", member(bob, "/promote")))
    ok(alice.call("POST", member(bob, "/promote")))
    for target in ("nobody-has-this", "x"):
        for action in ("/promote", "/demote", ""):
            method = "POST" if action else "DELETE"
            path = f"/v1/groups/{group}/members/{target}{action}"
            refused(alice.call(method, path), 404, "AGENT_NOT_FOUND")
    refused(bob.call("DELETE", member(alice)), 403, "FORBIDDEN")
    refused(bob.call("POST", member(alice, "/demote")), 403, "FORBIDDEN")
    invalid(alice.call("DELETE", member(alice)))
    ok(alice.call("POST", member(bob, "/demote")))
    ok(alice.call("POST", member(bob, "/demote")))
    ok(alice.call("DELETE", member(carol)))
    refused(carol.call("GET", f"/v1/groups/{group}"), 404, "CONVERSATION_NOT_FOUND")
    last = ok(carol.call("GET", "/v1/messages/sync"))[-1]["content"]["data"]
    assert last == {"schema_version": 1, "event": "member_removed", "agent_handle": carol.handle, "actor_handle": alice.handle}
    assert [one["event"] for one in events(alice, group)[2:]] == ["admin_promoted", "admin_demoted", "member_removed"]
    refused(alice.call("POST", f"/v1/groups/{group}/members", {"handle": "nobody-has-this"}), 404, "AGENT_NOT_FOUND")
    invalid(alice.call("POST", f"/v1/groups/{group}/members", {}), "handle")


def test_who_may_not_be_added(server: Server, enrolled: Enrol, alice: Peer, bob: Peer, carol: Peer) -> None:
    group = make(alice)["id"]
    add = lambda peer: alice.call("POST", f"/v1/groups/{group}/members", {"handle": peer.handle})  # noqa: E731
    ok(bob.call("POST", f"/v1/contacts/{alice.handle}/block"))
    refused(add(bob), 403, "BLOCKED")
    ok(carol.call("PATCH", f"/v1/agents/{carol.handle}", {"settings": {"group_invite_policy": "contacts_only"}}))
    assert refused(add(carol), 403, "INBOX_RESTRICTED") == {"handle": carol.handle}
    dave = enrolled("dave")
    invite = ok(add(dave))["invite_id"]
    ok(alice.call("POST", f"/v1/contacts/{dave.handle}/block"))
    refused(dave.call("POST", f"/v1/groups/invites/{invite}/accept"), 403, "BLOCKED")
    refused(bob.call("POST", f"/v1/groups/invites/{invite}/accept"), 404, "INVITE_NOT_FOUND")
    refused(bob.call("DELETE", "/v1/groups/invites/inv_x"), 404, "INVITE_NOT_FOUND")
    ok(dave.call("DELETE", f"/v1/groups/invites/{invite}"))
    assert ok(dave.call("GET", "/v1/groups/invites")) == []


def test_the_last_admin_leaves(alice: Peer, bob: Peer, carol: Peer) -> None:
    group = make(alice, bob, carol)["id"]
    left = ok(alice.call("POST", f"/v1/groups/{group}/leave"))
    assert left["promoted_handle"] == bob.handle
    assert [one["event"] for one in events(bob, group)[-2:]] == ["member_left", "admin_promoted"]
    assert events(bob, group)[-1]["actor_handle"] is None
    refused(alice.call("GET", f"/v1/messages/{group}"), 404, "CONVERSATION_NOT_FOUND")
    assert group not in [one["id"] for one in ok(alice.call("GET", "/v1/conversations"))]
    assert ok(carol.call("POST", f"/v1/groups/{group}/leave"))["promoted_handle"] is None
    assert ok(bob.call("POST", f"/v1/groups/{group}/leave"))["promoted_handle"] is None
    refused(bob.call("POST", f"/v1/groups/{group}/leave"), 404, "CONVERSATION_NOT_FOUND")


def test_changes_tell_of_themselves(alice: Peer, bob: Peer) -> None:
    group = make(alice, bob)["id"]
    assert ok(alice.call("PATCH", f"/v1/groups/{group}", {}))["name"] == "Engineering"
    assert ok(alice.call("PATCH", f"/v1/groups/{group}", {"name": "Engineering"}))["name"] == "Engineering"
    changed = ok(alice.call("PATCH", f"/v1/groups/{group}", {"name": 'A "new" name\\', "description": "d"}))
    assert (changed["name"], changed["description"]) == ('A "new" name\\', "d")
    ok(alice.call("PATCH", f"/v1/groups/{group}", {"description": None, "avatar_url": "https://example.com/x"}))
    told = events(bob, group)[1:]
    assert [one["event"] for one in told] == ["name_changed", "description_changed", "description_changed", "avatar_changed"]
    assert told[0] == {
        "schema_version": 1, "event": "name_changed", "new_name": 'A "new" name\\', "actor_handle": alice.handle,
    }
    invalid(alice.call("PATCH", f"/v1/groups/{group}", {"name": ""}), "name")
    shown = ok(alice.call("PUT", f"/v1/groups/{group}/avatar", content=png()))
    assert shown["avatar_url"].endswith(shown["avatar_key"])
    assert ok(bob.call("GET", f"/v1/groups/{group}"))["avatar_url"] == shown["avatar_url"]
    refused(alice.call("PUT", f"/v1/groups/{group}/avatar", content=b"x" * (5 * 1024 * 1024 + 1)), 413, "PAYLOAD_TOO_LARGE")
    ok(alice.call("DELETE", f"/v1/groups/{group}/avatar"))
    refused(alice.call("DELETE", f"/v1/groups/{group}/avatar"), 404, "AVATAR_NOT_FOUND")


def test_the_end_of_a_group(server: Server, alice: Peer, bob: Peer, carol: Peer) -> None:
    group = make(alice, bob)["id"]
    ok(post(alice, group, "never seen by bob"), 201)
    invite = ok(alice.call("POST", f"/v1/groups/{group}/members", {"handle": carol.handle}))["invite_id"]
    socket = by_header(server, bob)
    first = [frame(socket)["payload"]["seq"]]
    assert first == [2]
    deleted = ok(alice.call("DELETE", f"/v1/groups/{group}"))
    assert TIMESTAMP.fullmatch(deleted["deleted_at"])
    notice, end = frame(socket), frame(socket)
    assert notice["payload"]["content"]["data"] == {
        "schema_version": 1, "event": "group_deleted", "actor_handle": alice.handle,
    }
    expected = {"group_id": group, "deleted_by_handle": alice.handle, "deleted_at": deleted["deleted_at"]}
    assert (end["type"], end["payload"]) == ("group.deleted", expected)
    socket.close()
    drained = until("the flush", 5, lambda: len(rows := ok(bob.call("GET", "/v1/messages/sync"))) == 1 and rows)
    assert drained[0]["content"]["data"]["event"] == "group_deleted", "the notice is the last thing a member gets"
    calls: list[tuple[str, str, Any]] = [
        ("GET", f"/v1/messages/{group}", None), ("GET", f"/v1/conversations/{group}/participants", None),
        ("GET", f"/v1/conversations/{group}/context", None), ("DELETE", f"/v1/conversations/{group}", None),
        ("GET", f"/v1/groups/{group}", None), ("PATCH", f"/v1/groups/{group}", {"name": "x"}),
        ("DELETE", f"/v1/groups/{group}", None), ("DELETE", f"/v1/groups/{group}/avatar", None),
        ("POST", f"/v1/groups/{group}/members", {"handle": carol.handle}),
        ("DELETE", f"/v1/groups/{group}/members/{bob.handle}", None),
        ("POST", f"/v1/groups/{group}/members/{bob.handle}/promote", None),
        ("POST", f"/v1/groups/{group}/members/{bob.handle}/demote", None), ("POST", f"/v1/groups/{group}/leave", None),
        ("POST", "/v1/uploads", {
            "filename": "x", "content_type": "text/plain", "size": 1, "sha256": "0" * 64, "conversation_id": group,
        }),
    ]
    for method, path, body in calls:
        assert refused(alice.call(method, path, body), 410, "GROUP_DELETED") == expected, path
    assert refused(post(bob, group, "x"), 410, "GROUP_DELETED") == expected
    refused(alice.call("PUT", f"/v1/groups/{group}/avatar", content=png()), 410, "GROUP_DELETED")
    for method, path, body in calls:
        there = refused(carol.call(method, path, body), 404, "CONVERSATION_NOT_FOUND")
        elsewhere = body and {name: NOWHERE if value == group else value for name, value in body.items()}
        nowhere = refused(carol.call(method, path.replace(group, NOWHERE), elsewhere), 404, "CONVERSATION_NOT_FOUND")
        assert there == nowhere
    refused(post(carol, group, "x"), 404, "CONVERSATION_NOT_FOUND")
    refused(carol.call("PUT", f"/v1/groups/{group}/avatar", content=png()), 404, "CONVERSATION_NOT_FOUND")
    refused(carol.call("POST", f"/v1/groups/invites/{invite}/accept"), 404, "INVITE_NOT_FOUND")
    assert group not in [one["id"] for one in ok(bob.call("GET", "/v1/conversations"))]


def test_an_account_that_ends_leaves_its_groups(alice: Peer, bob: Peer) -> None:
    group = make(alice, bob)["id"]
    ok(alice.call("DELETE", f"/v1/agents/{alice.handle}"))
    assert [one["event"] for one in events(bob, group)[-2:]] == ["member_left", "admin_promoted"]
    assert ok(bob.call("GET", f"/v1/groups/{group}"))["your_role"] == "admin"
    ok(bob.call("DELETE", f"/v1/groups/{group}"))


def test_a_full_group(server: Server, alice: Peer, bob: Peer) -> None:
    """256 members: made in bulk, so that the 257th is refused everywhere."""
    prefix = f"crowd-{uuid.uuid4().hex[:6]}"
    lines = server.operate("POST", "agents", {"prefix": prefix, "count": 255}).text.splitlines()
    made = [json.loads(line) for line in lines]
    for one in made:
        headers = {"Authorization": f"Bearer {one['api_key']}"}
        assert httpx.post(f"{server.base}/v1/contacts", json={"handle": alice.handle}, headers=headers).status_code == 201
    knows(bob, alice)
    early = ok(alice.call("POST", "/v1/groups", {"name": "full"}), 201)["group"]["id"]
    ok(alice.call("POST", f"/v1/groups/{early}/members", {"handle": bob.handle}))
    ok(bob.call("POST", f"/v1/groups/{early}/leave"))
    ok(bob.call("DELETE", f"/v1/contacts/{alice.handle}"))
    invite = ok(alice.call("POST", f"/v1/groups/{early}/members", {"handle": bob.handle}))["invite_id"]
    for one in made:
        assert ok(alice.call("POST", f"/v1/groups/{early}/members", {"handle": one["handle"]}))["outcome"] == "joined"
    refused(bob.call("POST", f"/v1/groups/invites/{invite}/accept"), 409, "GROUP_FULL")
    ok(bob.call("DELETE", f"/v1/groups/invites/{invite}"))
    refused(alice.call("POST", f"/v1/groups/{early}/members", {"handle": bob.handle}), 409, "GROUP_FULL")
    sent = ok(post(alice, early, "to 255 others"), 201)
    headers = {"Authorization": f"Bearer {made[0]['api_key']}"}
    rows = httpx.get(f"{server.base}/v1/messages/sync?limit=500", headers=headers).json()
    assert rows[-1]["id"] == sent["id"] and sent["context"]["conversation"]["member_count"] == 256


def png() -> bytes:
    """A one-pixel image."""
    return base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    )
