"""Absent and hidden look alike: for each masked resource the two answers are byte-identical apart from the request id."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import httpx

from harness import Peer, befriend
from test_contract import ok
from test_groups import make, post
from test_media import uploaded

Enrol = Callable[[str], Peer]


def shape(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
    """Everything that a client can see of an answer, but for what differs between any two."""
    differs = {"x-request-id", "date"}
    return answer.status_code, answer.content, sorted(item for item in answer.headers.items() if item[0] not in differs)


def test_hidden_is_absent(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    stranger = enrolled("stranger")
    conversation = befriend(alice, bob)
    message = ok(alice.send(bob.handle, "secret"), 201)["id"]
    group = make(alice, bob)["id"]
    group_message = ok(post(alice, group, "secret"), 201)["id"]
    invite = ok(alice.call("POST", f"/v1/groups/{group}/members", {"handle": enrolled("invited").handle}))["invite_id"]
    attachment = uploaded(alice, to=bob.handle)
    announced = ok(alice.call("POST", "/v1/uploads", {
        "filename": "x", "content_type": "text/plain", "size": 1, "sha256": hashlib.sha256(b"x").hexdigest(),
    }), 201)["attachment_id"]
    hook = ok(alice.call("POST", "/v1/webhooks", {"url": "https://example.com/", "events": ["message.new"]}), 201)["id"]
    deleted = enrolled("deleted")
    ok(deleted.call("DELETE", f"/v1/agents/{deleted.handle}"))
    blocker = enrolled("blocker")
    ok(stranger.call("POST", "/v1/contacts", {"handle": blocker.handle}), 201)
    ok(blocker.call("POST", f"/v1/contacts/{stranger.handle}/block"))

    no_conversation, no_group = "conv_0000000000000000", "grp_0000000000000000"
    no_message = "msg_0000000000000000d1"
    rename = {"name": "x"}
    table: list[tuple[str, str, str, Any]] = [
        ("GET", f"/v1/messages/{conversation}", f"/v1/messages/{no_conversation}", None),
        ("GET", f"/v1/messages/{group}", f"/v1/messages/{no_group}", None),
        ("POST", f"/v1/messages/{message}/read", f"/v1/messages/{no_message}/read", None),
        ("POST", f"/v1/messages/{group_message}/read", f"/v1/messages/{no_message}/read", None),
        ("DELETE", f"/v1/messages/{message}", f"/v1/messages/{no_message}", None),
        ("GET", f"/v1/conversations/{conversation}/participants", f"/v1/conversations/{no_conversation}/participants", None),
        ("GET", f"/v1/conversations/{conversation}/context", f"/v1/conversations/{no_conversation}/context", None),
        ("DELETE", f"/v1/conversations/{conversation}", f"/v1/conversations/{no_conversation}", None),
        ("GET", f"/v1/groups/{group}", f"/v1/groups/{no_group}", None),
        ("PATCH", f"/v1/groups/{group}", f"/v1/groups/{no_group}", rename),
        ("DELETE", f"/v1/groups/{group}", f"/v1/groups/{no_group}", None),
        ("POST", f"/v1/groups/{group}/leave", f"/v1/groups/{no_group}/leave", None),
        ("POST", f"/v1/groups/{group}/members", f"/v1/groups/{no_group}/members", {"handle": bob.handle}),
        ("DELETE", f"/v1/groups/{group}/members/{bob.handle}", f"/v1/groups/{no_group}/members/{bob.handle}", None),
        ("POST", f"/v1/groups/invites/{invite}/accept", "/v1/groups/invites/inv_0000000000000000/accept", None),
        ("DELETE", f"/v1/groups/invites/{invite}", "/v1/groups/invites/inv_0000000000000000", None),
        ("GET", f"/v1/attachments/{attachment}", "/v1/attachments/att_0000000000000000", None),
        ("GET", f"/v1/attachments/{announced}", "/v1/attachments/att_0000000000000000", None),
        ("GET", f"/v1/webhooks/{hook}", "/v1/webhooks/wh_0000000000000000", None),
        ("DELETE", f"/v1/webhooks/{hook}", "/v1/webhooks/wh_0000000000000000", None),
        ("GET", f"/v1/agents/{deleted.handle}", "/v1/agents/never-was-anybody", None),
        ("POST", f"/v1/contacts/{deleted.handle}/block", "/v1/contacts/never-was-anybody/block", None),
        ("POST", f"/v1/contacts/{deleted.handle}/report", "/v1/contacts/never-was-anybody/report", None),
        ("GET", f"/v1/contacts/{alice.handle}", "/v1/contacts/never-was-anybody", None),
        ("GET", f"/v1/presence/{alice.handle}", "/v1/presence/never-was-anybody", None),
        ("GET", f"/v1/presence/{blocker.handle}", "/v1/presence/never-was-anybody", None),
        ("GET", f"/v1/mutes/agent/{alice.handle}", "/v1/mutes/agent/never-was-anybody", None),
        ("GET", f"/v1/mutes/conversation/{conversation}", f"/v1/mutes/conversation/{no_conversation}", None),
        ("PATCH", f"/v1/agents/{alice.handle}", "/v1/agents/never-was-anybody", {"display_name": "x"}),
    ]
    for method, hidden, absent, body in table:
        seen, unseen = (shape(stranger.call(method, path, body)) for path in (hidden, absent))
        assert seen[0] in (403, 404) and seen == unseen, f"{method} {hidden}\n{seen}\n{unseen}"
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"conversation_id": conversation}, {"conversation_id": no_conversation}),
        ({"conversation_id": group}, {"conversation_id": no_group}),
        ({"to": deleted.handle}, {"to": "never-was-anybody"}),
        ({"to": alice.handle, "content": {"attachment_id": attachment}}, {"to": alice.handle, "content": {"attachment_id": "att_0000000000000000"}}),
    ]
    for number, (hidden_body, absent_body) in enumerate(pairs):
        base = {"client_msg_id": f"probe-{number}", "content": {"text": "x"}}
        seen, unseen = (shape(stranger.call("POST", "/v1/messages", base | body)) for body in (hidden_body, absent_body))
        assert seen[0] == 404 and seen == unseen, f"{hidden_body}\n{seen}\n{unseen}"
    batch = ok(stranger.call("POST", "/v1/presence/batch", {"handles": [alice.handle, blocker.handle, "never-was"]}))
    assert {one["status"] for one in batch["presences"]} == {"offline"}
    assert all(one["last_seen"] is None for one in batch["presences"])
