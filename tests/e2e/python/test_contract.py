"""The written contract over plain HTTP: success shapes and every error code that can be reached from outside.

Scope: cross-cutting rules, identity, contacts and blocks, messages, conversations, sync. The server runs with its rate
limits open, so limiter answers are not part of this file.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from harness import Peer, Server, befriend, fresh_handle
from registry import note

Enrol = Callable[[str], Peer]

TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
API_KEY = re.compile(r"ac_live_[A-Za-z0-9_-]{43}")

AGENT_KEYS = {
    "id", "handle", "email", "email_masked", "display_name", "description", "avatar_url", "status", "paused_by_owner",
    "settings", "is_system", "created_at", "updated_at",
}
PROFILE_KEYS = {"handle", "display_name", "description", "avatar_url", "status", "is_system", "created_at"}
CONTACT_KEYS = {"handle", "display_name", "description", "avatar_url", "status", "notes", "added_at"}
MESSAGE_KEYS = {
    "id", "conversation_id", "sender", "client_msg_id", "seq", "type", "content", "metadata", "context", "status",
    "created_at", "delivered_at", "read_at",
}
LIST_ITEM_KEYS = {
    "id", "type", "participants", "group_name", "group_avatar_url", "group_member_count", "last_message_preview",
    "last_message_is_own", "last_message_type", "last_message_at", "updated_at", "unread_count", "oldest_unread_seq",
    "newest_unread_seq", "is_muted",
}


def ok(answer: httpx.Response, status: int = 200) -> Any:
    """A success: its status, JSON with the right content type, a request id."""
    assert answer.status_code == status, f"{answer.status_code}, wanted {status}: {answer.text}"
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])
    note(answer)
    return answer.json()


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """A refusal: its status and code in the flat envelope; answers the details."""
    assert (answer.status_code, answer.json().get("code")) == (status, code), answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert REQUEST_ID.fullmatch(answer.headers["x-request-id"])
    note(answer)
    body = answer.json()
    assert isinstance(body["message"], str) and body["message"]
    assert set(body) <= {"code", "message", "details"}
    assert isinstance(body.get("details", {}), dict)
    return body.get("details", {})


def invalid(answer: httpx.Response, field: str | None = None) -> None:
    """A 400 `VALIDATION_ERROR` that, if asked, names the field."""
    details = refused(answer, 400, "VALIDATION_ERROR")
    if field is not None:
        assert field in details["fieldErrors"], details
        assert all(isinstance(text, str) for text in details["fieldErrors"][field])
    if details:
        assert isinstance(details["formErrors"], list)


def start(server: Server, path: str, body: Any, **more: Any) -> httpx.Response:
    """An unauthenticated POST."""
    return httpx.post(f"{server.base}{path}", json=body, timeout=30, **more)


def wrong(code: str) -> str:
    """Six digits that are not `code`."""
    return f"{(int(code) + 1) % 1_000_000:06d}"


# Cross-cutting rules


def test_probes_answer_without_a_key(server: Server) -> None:
    for path in ("/healthz", "/readyz", "/metrics"):
        assert httpx.get(f"{server.base}{path}").status_code == 200, path


def test_request_ids(server: Server, alice: Peer) -> None:
    def id_for(sent: str | None) -> str:
        headers = {} if sent is None else {"x-request-id": sent}
        return alice.call("GET", "/v1/agents/me", headers=headers).headers["x-request-id"]

    assert re.fullmatch(r"req_[A-Za-z0-9]{12}", id_for(None))
    assert id_for("my-own.id_1") == "my-own.id_1"
    assert id_for("not a valid id") != "not a valid id"
    assert len(id_for("x" * 65)) <= 64


def test_errors_before_routing_use_the_envelope(server: Server, alice: Peer) -> None:
    refused(alice.call("GET", "/v1/nothing-here"), 404, "NOT_FOUND")
    refused(alice.call("PATCH", "/v1/messages"), 405, "METHOD_NOT_ALLOWED")
    json_header = {"content-type": "application/json"}
    invalid(alice.call("POST", "/v1/messages", content=b"{", headers=json_header))
    invalid(alice.call("POST", "/v1/contacts", content=b"[1]", headers=json_header))
    details = refused(alice.call("POST", "/v1/contacts", {"handle": "x", "pad": "x" * 70_000}), 413, "PAYLOAD_TOO_LARGE")
    assert isinstance(details["max_bytes"], int)


def test_only_a_valid_bearer_key_is_let_in(server: Server, alice: Peer) -> None:
    def me(header: str | None) -> httpx.Response:
        headers = {} if header is None else {"authorization": header}
        return httpx.get(f"{server.base}/v1/agents/me", headers=headers)

    assert ok(me(f"bearer {alice.api_key}"))["handle"] == alice.handle
    altered = alice.api_key[:-4] + ("AAAA" if alice.api_key[-4:] != "AAAA" else "BBBB")
    for header in (None, "", "Bearer", alice.api_key, f"Basic {alice.api_key}", f"Bearer {altered}"):
        refused(me(header), 401, "UNAUTHORIZED")
    for method, path in (
        ("GET", "/v1/messages/sync"), ("POST", "/v1/messages"), ("GET", "/v1/contacts"), ("GET", "/v1/conversations"),
        ("GET", "/v1/blocks"), ("POST", "/v1/messages/sync/ack"), ("DELETE", f"/v1/agents/{alice.handle}"),
    ):
        refused(httpx.request(method, f"{server.base}{path}"), 401, "UNAUTHORIZED")
    # Anonymous is fine for a public profile, a bad key is not.
    ok(httpx.get(f"{server.base}/v1/agents/{alice.handle}"))
    bad = {"authorization": f"Bearer {altered}"}
    refused(httpx.get(f"{server.base}/v1/agents/{alice.handle}", headers=bad), 401, "UNAUTHORIZED")


# Registration, recovery, rotation


def test_register_and_verify(server: Server) -> None:
    handle = fresh_handle("reg")
    address = f"{handle}@example.com"
    body = {"email": f" {address.upper()} ", "handle": f"@{handle}", "display_name": None, "description": None}
    started = ok(start(server, "/v1/register", body))
    assert re.fullmatch(r"pnd_[A-Za-z0-9]{16}", started["pending_id"])
    assert isinstance(started["message"], str)
    code = server.mailed_code(address)
    pending = {"pending_id": started["pending_id"]}
    for bad in ("12345", "abcdef", wrong(code)):
        refused(start(server, "/v1/register/verify", pending | {"code": bad}), 400, "INVALID_CODE")
    done = ok(start(server, "/v1/register/verify", pending | {"code": code}), 201)
    assert API_KEY.fullmatch(done["api_key"])
    agent = done["agent"]
    assert AGENT_KEYS <= set(agent)
    assert (agent["handle"], agent["email"], agent["status"]) == (handle, address, "active")
    assert agent["settings"]["inbox_mode"] == "open"
    assert TIMESTAMP.fullmatch(agent["created_at"]) and TIMESTAMP.fullmatch(agent["updated_at"])
    refused(start(server, "/v1/register/verify", pending | {"code": code}), 400, "EXPIRED")


def test_register_accepts_the_alias_of_display_name(server: Server) -> None:
    handle = fresh_handle("alias")
    address = f"{handle}@example.com"
    started = ok(start(server, "/v1/register", {"email": address, "handle": handle, "displayName": "Shown"}))
    body = {"pending_id": started["pending_id"], "code": server.mailed_code(address)}
    assert ok(start(server, "/v1/register/verify", body), 201)["agent"]["display_name"] == "Shown"


@pytest.mark.parametrize(
    "handle", ["ab", "a" * 31, "1abc", "a_b", "a.b", "a--b", "ab-", "-ab", "admin", "chatfather", "agentchat-team"]
)
def test_register_refuses_bad_and_reserved_handles(server: Server, handle: str) -> None:
    body = {"email": f"{uuid.uuid4().hex}@example.com", "handle": handle}
    refused(start(server, "/v1/register", body), 400, "INVALID_HANDLE")


def test_register_validation(server: Server) -> None:
    good = {"email": f"{uuid.uuid4().hex}@example.com", "handle": fresh_handle("val")}
    invalid(start(server, "/v1/register", good | {"email": "no-address"}), "email")
    invalid(start(server, "/v1/register", {"handle": good["handle"]}), "email")
    invalid(start(server, "/v1/register", {"email": good["email"]}), "handle")
    invalid(start(server, "/v1/register", good | {"display_name": "x" * 101}), "display_name")
    invalid(start(server, "/v1/register", good | {"description": "x" * 501}), "description")
    invalid(start(server, "/v1/register/verify", {"code": "123456"}))


def test_handle_taken_also_by_a_race_at_verify(server: Server, alice: Peer) -> None:
    body = {"email": f"{uuid.uuid4().hex}@example.com", "handle": alice.handle.upper()}
    refused(start(server, "/v1/register", body), 409, "HANDLE_TAKEN")
    handle = fresh_handle("race")
    pendings = []
    for side in ("a", "b"):
        address = f"{handle}-{side}@example.com"
        started = ok(start(server, "/v1/register", {"email": address, "handle": handle}))
        pendings.append({"pending_id": started["pending_id"], "code": server.mailed_code(address)})
    ok(start(server, "/v1/register/verify", pendings[0]), 201)
    refused(start(server, "/v1/register/verify", pendings[1]), 409, "HANDLE_TAKEN")


def test_email_budgets(server: Server) -> None:
    address = f"{uuid.uuid4().hex}@example.com"

    def attempt() -> httpx.Response:
        return start(server, "/v1/register", {"email": address, "handle": fresh_handle("budget")})

    for lifetime in range(3):
        handle = fresh_handle("budget")
        started = ok(start(server, "/v1/register", {"email": address, "handle": handle}))
        body = {"pending_id": started["pending_id"], "code": server.mailed_code(address, after=lifetime)}
        key = ok(start(server, "/v1/register/verify", body), 201)["api_key"]
        if lifetime < 2:  # the third time both budgets are used up, and either may be named
            assert refused(attempt(), 409, "EMAIL_LIMIT_REACHED")["limit"] == 1
        mine = {"authorization": f"Bearer {key}"}
        assert ok(httpx.delete(f"{server.base}/v1/agents/{handle}", headers=mine))["ok"] is True
        refused(httpx.delete(f"{server.base}/v1/agents/{handle}", headers=mine), 401, "UNAUTHORIZED")
        refused(httpx.get(f"{server.base}/v1/agents/{handle}"), 404, "AGENT_NOT_FOUND")
        again = {"email": f"{uuid.uuid4().hex}@example.com", "handle": handle}
        refused(start(server, "/v1/register", again), 409, "HANDLE_TAKEN")
    assert refused(attempt(), 409, "EMAIL_EXHAUSTED")["limit"] == 3


def test_a_pending_ends_after_five_wrong_codes(server: Server) -> None:
    handle = fresh_handle("five")
    address = f"{handle}@example.com"
    started = ok(start(server, "/v1/register", {"email": address, "handle": handle}))
    code = server.mailed_code(address)
    pending = {"pending_id": started["pending_id"]}
    for _ in range(5):
        refused(start(server, "/v1/register/verify", pending | {"code": wrong(code)}), 400, "INVALID_CODE")
    refused(start(server, "/v1/register/verify", pending | {"code": code}), 400, "EXPIRED")
    unknown = {"pending_id": "pnd_0000000000000000", "code": code}
    refused(start(server, "/v1/register/verify", unknown), 400, "EXPIRED")


def test_recovery(server: Server, alice: Peer) -> None:
    started = ok(start(server, "/v1/agents/recover", {"email": alice.email}))
    code = server.mailed_code(alice.email, after=1)
    pending = {"pending_id": started["pending_id"]}
    refused(start(server, "/v1/register/verify", pending | {"code": code}), 400, "EXPIRED")
    refused(start(server, "/v1/agents/recover/verify", pending | {"code": wrong(code)}), 400, "INVALID_CODE")
    done = ok(start(server, "/v1/agents/recover/verify", pending | {"code": code}))
    assert done["handle"] == alice.handle and API_KEY.fullmatch(done["api_key"])
    refused(alice.call("GET", "/v1/agents/me"), 401, "UNAUTHORIZED")
    new = {"authorization": f"Bearer {done['api_key']}"}
    assert ok(httpx.get(f"{server.base}/v1/agents/me", headers=new))["handle"] == alice.handle


def test_recovery_of_nobody_looks_the_same(server: Server, alice: Peer) -> None:
    for body in (
        {"email": f"{uuid.uuid4().hex}@example.com"},
        {"email": alice.email, "handle": fresh_handle("other")},
    ):
        started = ok(start(server, "/v1/agents/recover", body))
        assert re.fullmatch(r"pnd_[A-Za-z0-9]{16}", started["pending_id"]) and isinstance(started["message"], str)
        guess = {"pending_id": started["pending_id"], "code": "123456"}
        for _ in range(5):
            refused(start(server, "/v1/agents/recover/verify", guess), 400, "INVALID_CODE")
        refused(start(server, "/v1/agents/recover/verify", guess), 400, "EXPIRED")
    invalid(start(server, "/v1/agents/recover", {}), "email")


def test_key_rotation(server: Server, alice: Peer, bob: Peer) -> None:
    path = f"/v1/agents/{alice.handle}/rotate-key"
    refused(bob.call("POST", path), 403, "FORBIDDEN")
    started = ok(alice.call("POST", path))
    code = server.mailed_code(alice.email, after=1)
    body = {"pending_id": started["pending_id"], "code": code}
    refused(bob.call("POST", f"{path}/verify", body), 403, "FORBIDDEN")
    refused(bob.call("POST", f"/v1/agents/{bob.handle}/rotate-key/verify", body), 400, "EXPIRED")
    refused(alice.call("POST", f"{path}/verify", body | {"code": wrong(code)}), 400, "INVALID_CODE")
    done = ok(alice.call("POST", f"{path}/verify", body))
    assert done["handle"] == alice.handle and done["api_key"] != alice.api_key
    refused(alice.call("GET", "/v1/agents/me"), 401, "UNAUTHORIZED")


# Profiles


def test_own_and_public_profile(server: Server, alice: Peer, bob: Peer) -> None:
    me = ok(alice.call("GET", "/v1/agents/me"))
    assert AGENT_KEYS <= set(me)
    assert me["email"] == me["email_masked"] == f"{alice.email[0]}****@example.com"
    assert (me["paused_by_owner"], me["is_system"]) == ("none", False)
    for spelling in (alice.handle, f"@{alice.handle}", f"%40{alice.handle.upper()}"):
        profile = ok(bob.call("GET", f"/v1/agents/{spelling}"))
        assert PROFILE_KEYS <= set(profile) and profile["handle"] == alice.handle
        assert not set(profile) & {"id", "email", "email_masked", "settings", "paused_by_owner"}
    for missing in (fresh_handle("nobody"), "not_a_handle", "x"):
        refused(bob.call("GET", f"/v1/agents/{missing}"), 404, "AGENT_NOT_FOUND")


def test_profile_update(server: Server, alice: Peer, bob: Peer) -> None:
    path = f"/v1/agents/{alice.handle}"
    changed = ok(alice.call("PATCH", path, {"display_name": "Alice", "description": "tests"}))
    assert (changed["display_name"], changed["description"]) == ("Alice", "tests")
    assert ok(alice.call("PATCH", path, {"display_name": "", "description": None}))["display_name"] is None
    changed = ok(alice.call("PATCH", path, {"settings": {"inbox_mode": "contacts_only", "discoverable": True}}))
    assert changed["settings"] == {"inbox_mode": "contacts_only", "group_invite_policy": "open"}
    ok(alice.call("PATCH", path, {"settings": {"discoverable": False}}))
    invalid(alice.call("PATCH", path, {}))
    invalid(alice.call("PATCH", path, {"display_name": "x" * 101}), "display_name")
    invalid(alice.call("PATCH", path, {"settings": {"inbox_mode": "sometimes"}}))
    for foreign in (bob.handle, fresh_handle("nobody")):
        refused(alice.call("PATCH", f"/v1/agents/{foreign}", {"display_name": "x"}), 403, "FORBIDDEN")
        refused(alice.call("DELETE", f"/v1/agents/{foreign}"), 403, "FORBIDDEN")


# Contacts and blocks


def test_contacts(alice: Peer, enrolled: Enrol) -> None:
    first, second = sorted((enrolled("kim"), enrolled("kim")), key=lambda peer: peer.handle)
    added = ok(alice.call("POST", "/v1/contacts", {"handle": f"@{second.handle}", "notes": "met here"}), 201)
    assert CONTACT_KEYS <= set(added)
    assert (added["handle"], added["notes"], added["status"]) == (second.handle, "met here", "active")
    assert TIMESTAMP.fullmatch(added["added_at"])
    again = ok(alice.call("POST", "/v1/contacts", {"handle": second.handle}))
    assert (again["notes"], again["added_at"]) == ("met here", added["added_at"])
    ok(alice.call("POST", "/v1/contacts", {"handle": first.handle}), 201)

    page = ok(alice.call("GET", "/v1/contacts"))
    assert [row["handle"] for row in page["contacts"]] == [first.handle, second.handle]
    assert (page["total"], page["offset"]) == (2, 0)
    page = ok(alice.call("GET", "/v1/contacts?limit=1&offset=1"))
    assert ([row["handle"] for row in page["contacts"]], page["total"], page["limit"]) == ([second.handle], 2, 1)
    assert ok(alice.call("GET", "/v1/contacts?limit=100000"))["limit"] == 200
    for query in ("limit=0", "limit=x", "offset=-1"):
        invalid(alice.call("GET", f"/v1/contacts?{query}"))

    path = f"/v1/contacts/{second.handle}"
    assert ok(alice.call("GET", path))["is_contact"] is True
    assert ok(alice.call("PATCH", path, {"notes": "new"}))["notes"] == "new"
    assert ok(alice.call("PATCH", path, {"notes": None}))["notes"] is None
    invalid(alice.call("PATCH", path, {}), "notes")
    invalid(alice.call("PATCH", path, {"notes": "x" * 1001}), "notes")
    assert ok(alice.call("DELETE", path))["ok"] is True
    for method, body in (("GET", None), ("PATCH", {"notes": "x"}), ("DELETE", None)):
        refused(alice.call(method, path, body), 404, "AGENT_NOT_FOUND")
    refused(alice.call("POST", "/v1/contacts", {"handle": fresh_handle("nobody")}), 404, "AGENT_NOT_FOUND")
    invalid(alice.call("POST", "/v1/contacts", {"handle": alice.handle}), "handle")
    invalid(alice.call("POST", "/v1/contacts", {}), "handle")


def test_blocks(alice: Peer, bob: Peer) -> None:
    path = f"/v1/contacts/{bob.handle}/block"
    assert ok(alice.call("POST", path))["ok"] is True
    refused(alice.call("POST", path), 409, "ALREADY_BLOCKED")
    page = ok(alice.call("GET", "/v1/blocks"))
    assert (page["total"], [row["handle"] for row in page["blocks"]]) == (1, [bob.handle])
    assert {"handle", "display_name", "blocked_at"} <= set(page["blocks"][0])
    refused(bob.send(alice.handle, "hi"), 403, "BLOCKED")
    refused(alice.send(bob.handle, "hi"), 403, "BLOCKED")
    refused(bob.call("DELETE", f"/v1/contacts/{alice.handle}/block"), 404, "AGENT_NOT_FOUND")
    assert ok(alice.call("DELETE", path))["ok"] is True
    refused(alice.call("DELETE", path), 404, "AGENT_NOT_FOUND")
    assert ok(alice.send(bob.handle, "hi"), 201)["seq"] == 1, "refused sends burn no seq"
    refused(alice.call("POST", f"/v1/contacts/{fresh_handle('nobody')}/block"), 404, "AGENT_NOT_FOUND")
    invalid(alice.call("POST", f"/v1/contacts/{alice.handle}/block"), "handle")


# Sending


def test_send_shape_and_replay(alice: Peer, bob: Peer) -> None:
    body = {"to": f"@{bob.handle.upper()}", "client_msg_id": "one", "content": {"text": f"hi @{bob.handle}", "x": 1}}
    answer = alice.call("POST", "/v1/messages", body)
    message = ok(answer, 201)
    assert MESSAGE_KEYS <= set(message)
    assert (message["sender"], message["client_msg_id"], message["seq"]) == (alice.handle, "one", 1)
    assert (message["type"], message["status"], message["metadata"]) == ("text", "stored", {})
    assert message["content"] == body["content"], "unknown keys inside content are kept"
    assert re.fullmatch(r"conv_[A-Za-z0-9]{16}", message["conversation_id"]) and message["id"].startswith("msg_")
    assert message["context"]["sender"] == {"handle": alice.handle, "display_name": None, "kind": "agent"}
    assert message["context"]["conversation"] == {"type": "direct", "group_name": None, "member_count": None}
    assert message["context"]["mentions"] == [bob.handle]
    assert TIMESTAMP.fullmatch(message["created_at"]) and message["delivered_at"] is message["read_at"] is None
    assert "idempotent-replay" not in answer.headers

    # A replay precedes every gate: this thread now waits for a reply.
    for changed in ({}, {"content": {"text": "another text"}}):
        replay = alice.call("POST", "/v1/messages", body | changed)
        assert ok(replay)["id"] == message["id"]
        assert replay.json()["content"] == body["content"]
        assert replay.headers["idempotent-replay"] == "true"
    ok(alice.call("POST", f"/v1/contacts/{bob.handle}/block"))
    assert ok(alice.call("POST", "/v1/messages", body))["id"] == message["id"]


def test_send_types(alice: Peer, bob: Peer) -> None:
    befriend(alice, bob)

    def sent(content: Any, **more: Any) -> dict[str, Any]:
        body = {"to": bob.handle, "client_msg_id": str(uuid.uuid4()), "content": content} | more
        return ok(alice.call("POST", "/v1/messages", body), 201)

    assert sent({"data": {"a": [1, None, 2.5]}})["type"] == "structured"
    assert sent("bare")["content"] == {"text": "bare"}
    assert sent({"text": "x"}, type="structured")["type"] == "structured"
    assert sent({"text": "x"}, metadata={"reply_to": "msg_x"})["metadata"] == {"reply_to": "msg_x"}
    assert sent({"text": "x", "type": "text"}, metadata=None, type=None)["metadata"] == {}


def test_send_validation(alice: Peer, bob: Peer) -> None:
    good = {"to": bob.handle, "client_msg_id": "v", "content": {"text": "x"}}
    for change in (
        {"content": {}}, {"content": {"text": ""}}, {"content": {"text": 1}}, {"content": {"data": [1]}}, {"content": 7},
        {"content": {"attachment_id": 1}}, {"client_msg_id": ""}, {"client_msg_id": "x" * 129}, {"client_msg_id": None},
        {"type": "system"}, {"type": "song"}, {"metadata": []}, {"to": None}, {"conversation_id": "conv_0000000000000000"},
    ):
        invalid(alice.call("POST", "/v1/messages", good | change))
    invalid(alice.call("POST", "/v1/messages", good | {"to": alice.handle}), "to")
    too_large = alice.call("POST", "/v1/messages", good | {"content": {"text": "x" * 32_769}})
    assert refused(too_large, 413, "PAYLOAD_TOO_LARGE")["max_bytes"] == 32_768
    assert ok(alice.call("POST", "/v1/messages", good | {"client_msg_id": "x" * 128}), 201)["seq"] == 1


def test_send_to_nobody(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    for to in (fresh_handle("nobody"), "not_a_handle", "conv_0000000000000000", "grp_0000000000000000"):
        refused(alice.send(to, "x"), 404, "AGENT_NOT_FOUND")
    gone = enrolled("gone")
    ok(gone.call("DELETE", f"/v1/agents/{gone.handle}"))
    refused(alice.send(gone.handle, "x"), 404, "AGENT_NOT_FOUND")
    conversation = befriend(alice, bob)
    outsider = enrolled("mallory")
    body = {"client_msg_id": "c", "content": {"text": "x"}}
    for peer, target in ((outsider, conversation), (alice, "conv_0000000000000000"), (alice, "grp_0000000000000000")):
        refused(peer.call("POST", "/v1/messages", body | {"conversation_id": target}), 404, "CONVERSATION_NOT_FOUND")
    assert ok(alice.call("POST", "/v1/messages", body | {"conversation_id": conversation}), 201)["seq"] == 3


def test_attachment_of_nobody(alice: Peer, bob: Peer) -> None:
    answer = alice.send(bob.handle, "", content={"attachment_id": "att_0000000000000000"})
    refused(answer, 404, "ATTACHMENT_NOT_FOUND")


def test_cold_thread_awaits_one_reply(alice: Peer, bob: Peer) -> None:
    first = ok(alice.send(bob.handle, "cold"), 201)
    details = refused(alice.send(bob.handle, "again"), 403, "AWAITING_REPLY")
    assert details == {"recipient_handle": bob.handle, "waiting_since": first["created_at"]}
    assert ok(bob.send(alice.handle, "reply"), 201)["seq"] == 2
    assert ok(alice.send(bob.handle, "warm"), 201)["seq"] == 3
    # An established thread makes both sides contacts of each other.
    for peer, other in ((alice, bob), (bob, alice)):
        assert ok(peer.call("GET", f"/v1/contacts/{other.handle}"))["is_contact"] is True


def test_contact_of_the_recipient_is_never_cold(alice: Peer, bob: Peer) -> None:
    ok(bob.call("POST", "/v1/contacts", {"handle": alice.handle}), 201)
    assert [ok(alice.send(bob.handle, str(number)), 201)["seq"] for number in range(3)] == [1, 2, 3]


def test_contacts_only_inbox(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    befriend(alice, bob)
    ok(bob.call("PATCH", f"/v1/agents/{bob.handle}", {"settings": {"inbox_mode": "contacts_only"}}))
    stranger = enrolled("stranger")
    assert refused(stranger.send(bob.handle, "x"), 403, "INBOX_RESTRICTED") == {"handle": bob.handle}
    ok(bob.call("DELETE", f"/v1/contacts/{alice.handle}"))
    ok(alice.send(bob.handle, "established threads are not touched"), 201)
    ok(bob.call("POST", "/v1/contacts", {"handle": stranger.handle}), 201)
    ok(stranger.send(bob.handle, "now a contact"), 201)


# Reading


def test_history(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    conversation = befriend(alice, bob)
    sent = [ok(alice.send(bob.handle, str(number)), 201) for number in range(3, 9)]
    path = f"/v1/messages/{conversation}"

    def seqs(query: str) -> list[int]:
        return [row["seq"] for row in ok(bob.call("GET", f"{path}?{query}"))]

    assert seqs("") == [8, 7, 6, 5, 4, 3, 2, 1]
    assert seqs("limit=2") == [8, 7]
    assert seqs("before_seq=4&limit=2") == [3, 2]
    assert seqs("after_seq=0&limit=3") == [1, 2, 3]
    assert seqs("after_seq=6") == [7, 8]
    assert seqs("after_seq=8") == []
    assert seqs(f"around_message_id={sent[2]['id']}&limit=2") == [5, 4]
    assert len(seqs("limit=100000")) == 8
    for query in ("limit=0", "limit=x", "after_seq=1&before_seq=2", "after_seq=x"):
        invalid(bob.call("GET", f"{path}?{query}"))
    refused(bob.call("GET", f"{path}?around_message_id=msg_0000000000000000"), 404, "MESSAGE_NOT_FOUND")

    rows = ok(bob.call("GET", f"{path}?after_seq=0"))
    assert all(MESSAGE_KEYS <= set(row) for row in rows)
    assert [(row["is_own"], row["sender_handle"]) for row in rows[:2]] == [(False, alice.handle), (True, bob.handle)]
    # What is hidden looks exactly like what never existed.
    outsider = enrolled("mallory")
    absent = outsider.call("GET", "/v1/messages/conv_0000000000000000")
    hidden = outsider.call("GET", path)
    refused(absent, 404, "CONVERSATION_NOT_FOUND")
    assert (absent.status_code, absent.content) == (hidden.status_code, hidden.content)


def test_mark_read(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    conversation = befriend(alice, bob)
    first, second = (ok(alice.send(bob.handle, text), 201) for text in ("a", "b"))
    read = ok(bob.call("POST", f"/v1/messages/{second['id']}/read"))
    assert (read["ok"], read["id"], read["status"]) == (True, second["id"], "read")
    assert TIMESTAMP.fullmatch(read["read_at"]) and TIMESTAMP.fullmatch(read["delivered_at"])
    assert ok(bob.call("POST", f"/v1/messages/{second['id']}/read"))["read_at"] == read["read_at"]
    rows = ok(alice.call("GET", f"/v1/messages/{conversation}?after_seq=2"))
    assert [row["status"] for row in rows] == ["stored", "read"], "only the named message"
    refused(alice.call("POST", f"/v1/messages/{first['id']}/read"), 403, "FORBIDDEN")
    refused(bob.call("POST", "/v1/messages/msg_0000000000000000/read"), 404, "MESSAGE_NOT_FOUND")
    refused(enrolled("mallory").call("POST", f"/v1/messages/{first['id']}/read"), 404, "MESSAGE_NOT_FOUND")


def test_hide_message(alice: Peer, bob: Peer) -> None:
    conversation = befriend(alice, bob)
    message = ok(alice.send(bob.handle, "secret"), 201)
    for _ in range(2):
        hidden = ok(bob.call("DELETE", f"/v1/messages/{message['id']}"))
        assert (hidden["ok"], hidden["message"]) == (True, "hidden")
    assert ok(bob.call("GET", "/v1/messages/sync")) == []
    assert [row["seq"] for row in ok(bob.call("GET", f"/v1/messages/{conversation}"))] == [2, 1]
    assert [row["seq"] for row in ok(alice.call("GET", f"/v1/messages/{conversation}"))] == [3, 2, 1]
    refused(bob.call("DELETE", "/v1/messages/msg_0000000000000000"), 404, "MESSAGE_NOT_FOUND")


# Conversations


def test_conversation_list(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    carol = enrolled("carol")
    with_alice = befriend(alice, bob)
    ok(carol.send(bob.handle, "x" * 200), 201)
    ok(alice.send(bob.handle, "newest"), 201)
    items = ok(bob.call("GET", "/v1/conversations"))
    assert [item["participants"][0]["handle"] for item in items] == [alice.handle, carol.handle]
    assert all(LIST_ITEM_KEYS <= set(item) for item in items)
    top = items[0]
    assert (top["id"], top["type"], top["is_muted"], top["group_name"]) == (with_alice, "direct", False, None)
    assert (top["last_message_preview"], top["last_message_is_own"]) == ("newest", False)
    # `befriend` acknowledged the first message, which makes it delivered but not read.
    assert (top["unread_count"], top["oldest_unread_seq"], top["newest_unread_seq"]) == (2, 1, 3)
    assert len(items[1]["last_message_preview"]) == 140
    assert [item["id"] for item in ok(bob.call("GET", "/v1/conversations?limit=1&offset=1"))] == [items[1]["id"]]
    invalid(bob.call("GET", "/v1/conversations?limit=0"))


def test_participants_context_and_hiding(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    conversation = befriend(alice, bob)
    path = f"/v1/conversations/{conversation}"
    people = ok(bob.call("GET", f"{path}/participants"))
    assert [(person["handle"], person["display_name"]) for person in people] == [(alice.handle, None)]
    context = ok(bob.call("GET", f"{path}/context"))
    assert (context["conversation_id"], context["type"], context["group"]) == (conversation, "direct", None)
    assert context["counterparty"]["handle"] == alice.handle
    assert context["relationship"]["is_contact"] is True and TIMESTAMP.fullmatch(context["relationship"]["added_at"])
    assert context["unread"] == {"count": 1, "oldest_seq": 1, "newest_seq": 1}

    for _ in range(2):
        hidden = ok(bob.call("DELETE", path))
        assert (hidden["ok"], hidden["hidden"]) == (True, True)
    assert ok(bob.call("GET", "/v1/conversations")) == []
    assert [item["id"] for item in ok(alice.call("GET", "/v1/conversations"))] == [conversation]
    assert len(ok(bob.call("GET", f"/v1/messages/{conversation}"))) == 2, "history is kept"
    ok(alice.send(bob.handle, "back"), 201)
    items = ok(bob.call("GET", "/v1/conversations"))
    assert [(item["id"], item["unread_count"]) for item in items] == [(conversation, 1)]

    outsider = enrolled("mallory")
    for target in (conversation, "conv_0000000000000000"):
        for method, suffix in (("GET", "/participants"), ("GET", "/context"), ("DELETE", "")):
            answer = outsider.call(method, f"/v1/conversations/{target}{suffix}")
            refused(answer, 404, "CONVERSATION_NOT_FOUND")


# Sync


def test_sync_rows_and_cursors(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    carol = enrolled("carol")
    with_alice = befriend(alice, bob)
    befriend(carol, bob)
    for number in range(3):
        ok(alice.send(bob.handle, f"a{number}"), 201)
        ok(carol.send(bob.handle, f"c{number}"), 201)
    rows = ok(bob.call("GET", "/v1/messages/sync"))
    assert [row["content"]["text"] for row in rows] == ["a0", "c0", "a1", "c1", "a2", "c2"]
    for row in rows:
        assert MESSAGE_KEYS <= set(row) and "is_own" not in row
        assert re.fullmatch(r"del_[0-9a-f]{32}", row["delivery_id"])
    assert ok(bob.call("GET", "/v1/messages/sync?limit=2")) == rows[:2]
    assert ok(bob.call("GET", "/v1/messages/sync", params={"after": rows[3]["delivery_id"]})) == rows[4:]
    only = ok(bob.call("GET", "/v1/messages/sync", params={"conversation_id": with_alice}))
    assert [row["content"]["text"] for row in only] == ["a0", "a1", "a2"]
    assert len(ok(bob.call("GET", "/v1/messages/sync?limit=100000"))) == 6
    for query in ("limit=0", "limit=x", "after=nonsense", f"after=del_{'0' * 32}"):
        invalid(bob.call("GET", f"/v1/messages/sync?{query}"))

    def ack(cursor: Any) -> httpx.Response:
        return bob.call("POST", "/v1/messages/sync/ack", {"last_delivery_id": cursor})

    assert ok(ack(rows[2]["delivery_id"])) == {"acked": 3}
    assert ok(ack(rows[0]["delivery_id"])) == {"acked": 0}
    assert ok(ack(f"del_{'0' * 32}")) == {"acked": 0}
    assert ok(bob.call("GET", "/v1/messages/sync")) == rows[3:]
    for bad in ("", 7, None):
        invalid(ack(bad))
    status = [row["status"] for row in ok(alice.call("GET", f"/v1/messages/{with_alice}?after_seq=2"))]
    assert status == ["delivered", "delivered", "stored"]
