"""The WebSocket without an SDK: both ways to authenticate, close codes, frames that clients rarely send."""

from __future__ import annotations

import json
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from harness import Peer, Server, befriend, until

FRAME_DEADLINE_S = 10.0


def dial(server: Server, headers: dict[str, str] | None = None) -> ClientConnection:
    return connect(f"{server.ws_base}/v1/ws", additional_headers=headers, proxy=None)


def by_header(server: Server, peer: Peer, capabilities: str | None = "ack") -> ClientConnection:
    """Header mode: authenticated by the upgrade, greeted at once."""
    headers = {"Authorization": f"Bearer {peer.api_key}"}
    if capabilities is not None:
        headers["x-agentchat-capabilities"] = capabilities
    socket = dial(server, headers)
    greeting = frame(socket)
    assert greeting["type"] == "hello.ok"
    assert greeting["capabilities"] == (["ack"] if capabilities else [])
    return socket


def frame(socket: ClientConnection) -> dict[str, Any]:
    """The next frame that is not about presence, which may come at any time."""
    while (read := json.loads(socket.recv(timeout=FRAME_DEADLINE_S)))["type"] == "presence.update":
        pass
    return read


def tell(socket: ClientConnection, **fields: Any) -> None:
    socket.send(json.dumps(fields))


def close_code(socket: ClientConnection) -> int:
    """Reads to the end and answers the code the server closed with."""
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            socket.recv(timeout=FRAME_DEADLINE_S)
    assert closed.value.rcvd is not None, "the server closed without a close frame"
    return closed.value.rcvd.code


def test_header_mode(server: Server, alice: Peer) -> None:
    by_header(server, alice).close()
    by_header(server, alice, capabilities=None).close()
    with pytest.raises(InvalidStatus) as refused:
        dial(server, {"Authorization": "Bearer ac_live_not-a-key-of-anybody-at-all"})
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["code"] == "UNAUTHORIZED"


def test_hello_mode(server: Server, alice: Peer) -> None:
    for more, accepted in (({}, []), ({"capabilities": ["ack", "from-the-future"]}, ["ack"])):
        with dial(server) as socket:
            tell(socket, type="hello", api_key=alice.api_key, **more)
            greeting = frame(socket)
            assert (greeting["type"], greeting["capabilities"]) == ("hello.ok", accepted)


def test_hello_failures_are_terminal(server: Server) -> None:
    with dial(server) as socket:
        tell(socket, type="hello", api_key="ac_live_not-a-key-of-anybody-at-all")
        refusal = frame(socket)
        assert (refusal["type"], refusal["payload"]["code"]) == ("hello.error", "UNAUTHORIZED")
        assert close_code(socket) == 1008
    with dial(server) as socket:
        tell(socket, type="ack", message_id="msg_x")
        assert close_code(socket) == 1008


def test_backlog_order_echo_and_ack(server: Server, alice: Peer, bob: Peer) -> None:
    befriend(alice, bob)
    sent = [alice.send(bob.handle, str(number)).json()["id"] for number in range(5)]
    with by_header(server, bob) as socket:
        rows = [frame(socket)["payload"] for _ in sent]
        assert [row["id"] for row in rows] == sent
        assert all(row["delivery_id"].startswith("del_") for row in rows), "backlog frames carry the delivery"
        tell(socket, type="ack", message_id=sent[0])
        own = bob.send(alice.handle, "own").json()["id"]
        echo = frame(socket)
        assert (echo["type"], echo["payload"]["id"], echo["payload"]["sender"]) == ("message.new", own, bob.handle)
        assert "delivery_id" not in echo["payload"], "an echo has no delivery"
    # What was not acknowledged comes again, what was does not.
    with by_header(server, bob) as socket:
        assert [frame(socket)["payload"]["id"] for _ in sent[1:]] == sent[1:]


def test_legacy_socket_marks_on_send(server: Server, alice: Peer, bob: Peer) -> None:
    conversation = befriend(alice, bob)
    sent = alice.send(bob.handle, "legacy").json()["id"]
    with by_header(server, bob, capabilities=None) as first:
        assert frame(first)["payload"]["id"] == sent
        newest = f"/v1/messages/{conversation}?limit=1"
        until("it is delivered", 10, lambda: alice.call("GET", newest).json()[0]["status"] == "delivered")
    with by_header(server, bob, capabilities=None) as second:
        later = alice.send(bob.handle, "later").json()["id"]
        assert frame(second)["payload"]["id"] == later, "a delivered message was pushed again"


def test_typing_unknown_and_unsupported_frames(server: Server, alice: Peer, bob: Peer) -> None:
    conversation = befriend(alice, bob)
    with by_header(server, alice) as at_alice, by_header(server, bob) as at_bob:
        at_alice.send("no json")
        at_alice.send(b"\x00binary")
        tell(at_alice, type="from.the.future", payload={})
        tell(at_alice, type="message.send", id="7", payload={"to": bob.handle})
        error = frame(at_alice)
        assert (error["type"], error["id"], error["payload"]["code"]) == ("error", "7", "UNSUPPORTED_ACTION")
        tell(at_alice, type="typing.start", payload={"conversation_id": conversation})
        typing = frame(at_bob)
        assert typing["type"] == "typing.start"
        assert typing["payload"] == {"conversation_id": conversation, "sender": alice.handle}


def test_lost_account_closes_its_sockets(server: Server, alice: Peer) -> None:
    with by_header(server, alice) as socket:
        assert alice.call("DELETE", f"/v1/agents/{alice.handle}").status_code == 200
        assert close_code(socket) == 4401
