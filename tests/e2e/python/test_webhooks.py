"""Webhooks: kept, called, signed so that the SDK's verifier accepts it, retried, silent when muted or paused."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from agentchatme._webhook_verify import VerifyWebhookOptions, WebhookVerificationError, verify_webhook

from harness import Peer, Server, befriend
from test_contract import invalid, ok, refused
from test_groups import knows

EVENTS = [
    "message.new", "message.read", "presence.update", "contact.blocked", "group.invite.received", "group.deleted",
]
CALL_DEADLINE_S = 15.0


class Receiver:
    """An HTTP server that writes down what it is called with. `refuse` answers that many calls with 503."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        self.refuse = 0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if receiver.refuse > 0:
                    receiver.refuse -= 1
                    self.send_response(503)
                else:
                    receiver.calls.put(({name.lower(): value for name, value in self.headers.items()}, body))
                    self.send_response(204)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/hook"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def call(self) -> tuple[dict[str, str], bytes]:
        return self.calls.get(timeout=CALL_DEADLINE_S)

    def event(self) -> dict[str, Any]:
        return json.loads(self.call()[1])


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.http.shutdown()


def hook(peer: Peer, receiver: Receiver, *events: str) -> dict[str, Any]:
    return ok(peer.call("POST", "/v1/webhooks", {"url": receiver.url, "events": list(events) or EVENTS}), 201)


def test_webhooks_are_kept(alice: Peer, bob: Peer, receiver: Receiver) -> None:
    made = hook(alice, receiver, "message.new", "message.read")
    assert set(made) == {"id", "url", "events", "active", "created_at", "secret"}
    assert made["id"].startswith("wh_") and made["secret"].startswith("whsec_") and len(made["secret"]) == 38
    kept = {name: value for name, value in made.items() if name != "secret"}
    assert ok(alice.call("GET", "/v1/webhooks")) == {"webhooks": [kept]}
    assert ok(alice.call("GET", f"/v1/webhooks/{made['id']}")) == kept
    for method in ("GET", "DELETE"):
        refused(bob.call(method, f"/v1/webhooks/{made['id']}"), 404, "WEBHOOK_NOT_FOUND")
        refused(bob.call(method, "/v1/webhooks/x"), 404, "WEBHOOK_NOT_FOUND")
    ok(alice.call("DELETE", f"/v1/webhooks/{made['id']}"))
    assert ok(alice.call("GET", "/v1/webhooks")) == {"webhooks": []}
    own = {"url": receiver.url, "events": ["message.new"], "secret": "a-secret-of-my-own"}
    assert ok(alice.call("POST", "/v1/webhooks", own), 201)["secret"] == "a-secret-of-my-own"
    for name, bad in [
        ("url", ""), ("url", "ftp://example.com"), ("url", "https://user:pass@example.com"), ("url", "https://" + "x" * 2048),
        ("events", []), ("events", ["x"]), ("events", ["message.new"] * 2), ("events", "message.new"), ("secret", "short"),
    ]:
        invalid(alice.call("POST", "/v1/webhooks", own | {name: bad}), name)
    for _ in range(9):
        hook(alice, receiver)
    invalid(alice.call("POST", "/v1/webhooks", own))


def test_private_addresses_are_refused_unless_allowed(limited: Any) -> None:
    from harness import enrol

    server: Server = limited()
    server.stop()
    server.settings.write_text(server.settings.read_text().replace("webhooks_allow_private = true", ""))
    server.start()
    alice = enrol(server, "alice")
    for url in ("http://example.com/", "https://127.0.0.1/", "https://localhost/", "https://[::1]/", "https://10.0.0.1/"):
        invalid(alice.call("POST", "/v1/webhooks", {"url": url, "events": ["message.new"]}), "url")
    alice.http.close()


def test_the_verifier_accepts_what_was_sent_and_nothing_else(alice: Peer, bob: Peer, receiver: Receiver) -> None:
    secret = hook(alice, receiver, "message.new")["secret"]
    sent = ok(bob.send(alice.handle, "hello"), 201)
    headers, body = receiver.call()
    assert headers["content-type"] == "application/json" and headers["user-agent"] == "agentchat-webhooks/1"
    assert headers["agentchat-event-id"]
    options = {"payload": body, "signature": headers["agentchat-signature"], "secret": secret}
    payload = verify_webhook(VerifyWebhookOptions(**options))
    assert payload["event"] == "message.new" and payload["data"]["id"] == sent["id"]
    assert set(payload["data"]) == set(sent), "the same payload as on a socket"
    for name, bad in [("payload", body.replace(b"hello", b"hellO")), ("secret", secret + "x")]:
        with pytest.raises(WebhookVerificationError):
            verify_webhook(VerifyWebhookOptions(**(options | {name: bad})))
    assert ok(alice.call("GET", "/v1/messages/sync"))[-1]["status"] == "stored", "a call delivers nothing"


def test_every_event_has_its_call(alice: Peer, bob: Peer, enrolled: Any, receiver: Receiver) -> None:
    conversation = befriend(alice, bob)
    hook(alice, receiver)
    mine = ok(alice.send(bob.handle, "read this"), 201)
    ok(bob.call("POST", f"/v1/messages/{mine['id']}/read"))
    read = receiver.event()
    assert (read["event"], read["data"]["message_id"], read["data"]["reader"]) == ("message.read", mine["id"], bob.handle)
    assert read["data"]["conversation_id"] == conversation
    ok(bob.call("PUT", "/v1/presence", {"status": "busy"}))
    assert receiver.event() | {"timestamp": ""} == {
        "event": "presence.update", "timestamp": "",
        "data": {"handle": bob.handle, "status": "busy", "custom_message": None},
    }
    ok(alice.call("DELETE", f"/v1/contacts/{bob.handle}"))
    group = ok(bob.call("POST", "/v1/groups", {"name": "g", "member_handles": [alice.handle]}), 201)["group"]["id"]
    invited = receiver.event()
    assert (invited["event"], invited["data"]["group_id"]) == ("group.invite.received", group)
    ok(alice.call("POST", f"/v1/groups/invites/{invited['data']['id']}/accept"))
    ok(bob.call("DELETE", f"/v1/groups/{group}"))
    assert [receiver.event()["event"] for _ in range(2)] == ["message.new", "group.deleted"]
    carol = enrolled("carol")
    ok(alice.call("POST", f"/v1/contacts/{carol.handle}/block"))
    blocked = receiver.event()
    assert (blocked["event"], blocked["data"]["handle"]) == ("contact.blocked", carol.handle)


def test_order_survives_refusals(alice: Peer, bob: Peer, receiver: Receiver) -> None:
    befriend(alice, bob)
    hook(alice, receiver, "message.new")
    receiver.refuse = 1
    sent = [ok(bob.send(alice.handle, f"n{n}"), 201)["id"] for n in range(3)]
    assert [receiver.event()["data"]["id"] for _ in sent] == sent, "the first is tried again before the second goes out"


def test_muted_and_paused_are_silent(server: Server, alice: Peer, bob: Peer, enrolled: Any, receiver: Receiver) -> None:
    befriend(alice, bob)
    carol = enrolled("carol")
    knows(alice, carol)
    hook(alice, receiver, "message.new")
    ok(alice.call("POST", "/v1/mutes", {"target_kind": "agent", "target_handle": bob.handle}), 201)
    ok(bob.send(alice.handle, "muted"), 201)
    server.operate("POST", f"agents/{alice.handle}/pause", {"mode": "full"})
    ok(carol.send(alice.handle, "paused"), 201)
    server.operate("POST", f"agents/{alice.handle}/pause", {"mode": "none"})
    ok(alice.call("DELETE", f"/v1/mutes/agent/{bob.handle}"))
    loud = ok(bob.send(alice.handle, "loud"), 201)
    assert receiver.event()["data"]["id"] == loud["id"]
