"""Attachments and avatars: announced, uploaded, referred to, fetched, and by whom."""

from __future__ import annotations

import hashlib
import socket
import struct
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from harness import Peer, Server
from registry import note_as
from test_contract import invalid, ok, refused
from test_groups import make, png, post

Enrol = Callable[[str], Peer]
DATA = b"some bytes \x00\xff"


def announce(peer: Peer, data: bytes = DATA, **more: Any) -> httpx.Response:
    body = {
        "filename": 'no"tes/é.txt', "content_type": "text/plain", "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }
    return peer.call("POST", "/v1/uploads", body | more)


def put(url: str, data: bytes) -> httpx.Response:
    answer = httpx.put(url, content=data, timeout=60)
    note_as("PUT {upload_url}", answer)
    return answer


def uploaded(peer: Peer, data: bytes = DATA, **more: Any) -> str:
    made = ok(announce(peer, data, **more), 201)
    assert put(made["upload_url"], data).json() == {"ok": True}
    return str(made["attachment_id"])


def fetch(peer: Peer, attachment: str) -> httpx.Response:
    answer = peer.call("GET", f"/v1/attachments/{attachment}")
    if answer.status_code == 302:
        note_as("GET /v1/attachments/{id}", answer)
        assert answer.content == b"" and answer.headers["location"].startswith("http")
    return answer


def test_from_announcement_to_download(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    made = ok(announce(alice, to=bob.handle), 201)
    assert made["attachment_id"].startswith("att_") and made["expires_in"] == 300
    attachment, url = made["attachment_id"], made["upload_url"]
    refused(fetch(alice, attachment), 404, "ATTACHMENT_NOT_FOUND")
    reference = {"content": {"text": "see", "attachment_id": attachment}}
    refused(alice.send(bob.handle, "", **reference), 404, "ATTACHMENT_NOT_FOUND")
    invalid(put(url, DATA[:-1]))
    invalid(put(url, DATA[::-1]))
    refused(put(url.replace("sig=", "sig=0"), DATA), 403, "FORBIDDEN")
    refused(put(url.split("?")[0], DATA), 403, "FORBIDDEN")
    refused(fetch(alice, attachment), 404, "ATTACHMENT_NOT_FOUND")
    assert put(url, DATA).status_code == 200 and put(url, DATA).status_code == 200
    for peer in (alice, bob):
        there = httpx.get(fetch(peer, attachment).headers["location"])
        assert (there.status_code, there.content) == (200, DATA)
        assert there.headers["content-type"] == "text/plain" and there.headers["content-length"] == str(len(DATA))
        disposition = "attachment; filename=\"no_tes__.txt\"; filename*=UTF-8''no%22tes_%C3%A9.txt"
        assert there.headers["content-disposition"] == disposition
        assert there.headers["x-content-type-options"] == "nosniff"
        assert there.headers["cache-control"] == "private, no-store"
    refused(fetch(enrolled("carol"), attachment), 404, "ATTACHMENT_NOT_FOUND")
    location = fetch(alice, attachment).headers["location"]
    assert httpx.get(location.replace("expires=", "expires=9")).status_code == 403
    assert httpx.put(location, content=DATA).status_code == 403, "one method only"
    sent = ok(alice.send(bob.handle, "", **reference), 201)
    assert sent["type"] == "file" and sent["content"]["attachment_id"] == attachment
    carol = enrolled("carol")
    refused(alice.send(carol.handle, "", **reference), 404, "ATTACHMENT_NOT_FOUND")
    refused(bob.send(alice.handle, "", **reference), 404, "ATTACHMENT_NOT_FOUND")


def test_the_first_message_binds(alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    carol, dave = enrolled("carol"), enrolled("dave")
    group = make(alice, bob, carol)["id"]
    attachment = uploaded(alice)
    refused(fetch(bob, attachment), 404, "ATTACHMENT_NOT_FOUND")
    content = {"text": "see", "attachment_id": attachment}
    ok(post(alice, group, "", content=content), 201)
    ok(post(alice, group, "", content=content), 201)
    assert fetch(bob, attachment).status_code == fetch(carol, attachment).status_code == 302
    refused(alice.send(bob.handle, "", content=content), 404, "ATTACHMENT_NOT_FOUND")
    refused(fetch(dave, attachment), 404, "ATTACHMENT_NOT_FOUND")
    ok(dave.call("POST", "/v1/contacts", {"handle": alice.handle}), 201)
    ok(alice.call("POST", f"/v1/groups/{group}/members", {"handle": dave.handle}))
    refused(fetch(dave, attachment), 404, "ATTACHMENT_NOT_FOUND")  # it came before the join
    ok(carol.call("POST", f"/v1/groups/{group}/leave"))
    refused(fetch(carol, attachment), 404, "ATTACHMENT_NOT_FOUND")


def test_announcements_are_judged(alice: Peer, bob: Peer) -> None:
    for name, value in [
        ("filename", ""), ("filename", "x" * 256), ("content_type", "application/octet-stream"),
        ("content_type", "text/plain; charset=utf-8"), ("size", 0), ("size", 26_214_401), ("size", "1"), ("size", 1.5),
        ("sha256", "A" * 64), ("sha256", "0" * 63), ("to", 7),
    ]:
        invalid(announce(alice, **{name: value}), name)
    invalid(announce(alice, to=bob.handle, conversation_id="grp_0000000000000000"), "to")
    refused(announce(alice, to="nobody-has-this"), 404, "AGENT_NOT_FOUND")
    refused(announce(alice, conversation_id="grp_0000000000000000"), 404, "CONVERSATION_NOT_FOUND")
    refused(announce(alice, to="grp_0000000000000000"), 404, "CONVERSATION_NOT_FOUND")
    for attachment in ("att_0000000000000000", "x", "%2e%2e"):
        refused(fetch(alice, attachment), 404, "ATTACHMENT_NOT_FOUND")


def test_large_uploads(alice: Peer) -> None:
    data = uuid.uuid4().bytes * (26_214_400 // 16)
    attachment = uploaded(alice, data, content_type="video/mp4")
    there = httpx.get(fetch(alice, attachment).headers["location"], timeout=60)
    assert hashlib.sha256(there.content).digest() == hashlib.sha256(data).digest()
    refused(put(ok(announce(alice), 201)["upload_url"], data + b"x"), 413, "PAYLOAD_TOO_LARGE")


def test_avatars(server: Server, alice: Peer, bob: Peer) -> None:
    path = f"/v1/agents/{alice.handle}/avatar"
    shown = ok(alice.call("PUT", path, content=png()))
    assert shown["avatar_url"] == f"{server.base}/avatars/{shown['avatar_key']}"
    picture = httpx.get(shown["avatar_url"])
    assert (picture.status_code, picture.headers["content-type"]) == (200, "image/webp")
    assert picture.content[:4] == b"RIFF" and picture.content[8:12] == b"WEBP"
    assert picture.headers["x-content-type-options"] == "nosniff" and "immutable" in picture.headers["cache-control"]
    assert ok(bob.call("GET", f"/v1/agents/{alice.handle}"))["avatar_url"] == shown["avatar_url"]
    assert ok(alice.call("GET", "/v1/agents/me"))["avatar_url"] == shown["avatar_url"]
    added = ok(bob.call("POST", "/v1/contacts", {"handle": alice.handle}), 201)
    assert added["avatar_url"] == shown["avatar_url"]
    assert ok(alice.call("PUT", path, content=png()))["avatar_key"] == shown["avatar_key"], "content-addressed"
    for bad in (b"", b"<svg/>", png()[:30]):
        invalid(alice.call("PUT", path, content=bad))
    bomb = bytearray(png())
    bomb[16:24] = struct.pack(">II", 20_000, 20_000)
    invalid(alice.call("PUT", path, content=bytes(bomb)))
    refused(alice.call("PUT", path, content=b"x" * (5 * 1024 * 1024 + 1)), 413, "PAYLOAD_TOO_LARGE")
    refused(bob.call("PUT", path, content=png()), 403, "FORBIDDEN")
    refused(bob.call("DELETE", path), 403, "FORBIDDEN")
    ok(alice.call("DELETE", path))
    refused(alice.call("DELETE", path), 404, "AVATAR_NOT_FOUND")
    assert ok(alice.call("GET", "/v1/agents/me"))["avatar_url"] is None
    for nothing in ("x", "..%2fobjects.key", "0" * 64 + ".webp"):
        assert httpx.get(f"{server.base}/avatars/{nothing}").status_code == 404


@pytest.mark.parametrize("limit", ["uploads_per_minute", "avatars_per_minute", "webhooks_per_minute"])
def test_each_has_a_limit(limited: Callable[..., Server], limit: str) -> None:
    from harness import enrol

    server = limited(**{limit: 1})
    alice = enrol(server, "alice")
    hook = {"url": "https://example.com/", "events": ["message.new"]}
    once = {
        "uploads_per_minute": lambda: announce(alice),
        "avatars_per_minute": lambda: alice.call("PUT", f"/v1/agents/{alice.handle}/avatar", content=png()),
        "webhooks_per_minute": lambda: alice.call("POST", "/v1/webhooks", hook),
    }[limit]
    assert once().is_success
    details = refused(once(), 429, "RATE_LIMITED")
    assert 50_000 < details["retry_after_ms"] <= 60_000
    alice.http.close()


def test_strangers_take_no_turn_of_large_bodies(server: Server, alice: Peer) -> None:
    """More slow uploads than turns, none of which may be large: an honest one goes through beside them."""
    stalled = []
    for number in range(12):
        connection = socket.create_connection(("127.0.0.1", server.port))
        path = "/objects/att_0000000000000000" if number % 2 else "/v1/agents/somebody/avatar"
        head = f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\nbeginning"
        connection.sendall(head.encode())
        stalled.append(connection)
    assert fetch(alice, uploaded(alice)).status_code == 302
    for connection in stalled:
        connection.close()
