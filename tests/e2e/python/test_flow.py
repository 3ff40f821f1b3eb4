"""The whole life of an agent through the official SDK: registration, live and offline messages, receipts, reconnects.

What each test holds besides its own promise: no sequence-gap callback, no message dispatched twice, no SDK error.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agentchatme import AgentChatClient, AsyncAgentChatClient, RealtimeClient
from agentchatme.types import Agent, AgentProfile, Contact, ConversationListItem, Message

from harness import POLL_S, Server, fresh_handle

EVENT_DEADLINE_S = 15.0


async def arrives(what: str, probe: Callable[[], Any], deadline_s: float = EVENT_DEADLINE_S) -> None:
    """Waits until `probe` answers something true."""
    loop = asyncio.get_running_loop()
    end = loop.time() + deadline_s
    while not probe():
        assert loop.time() < end, f"not within {deadline_s:.0f} s: {what}"
        await asyncio.sleep(POLL_S)


async def join(server: Server, stem: str) -> tuple[str, str, AsyncAgentChatClient]:
    """Registers and verifies through the SDK: handle, key, client."""
    handle = fresh_handle(stem)
    address = f"{handle}@example.com"
    started = await AsyncAgentChatClient.register(email=address, handle=handle, base_url=server.base)
    code = await asyncio.to_thread(server.mailed_code, address)
    agent, key, client = await AsyncAgentChatClient.verify(started["pending_id"], code, base_url=server.base)
    assert agent["handle"] == handle
    assert agent["email"] == address, "verify answers the full address"
    return handle, key, client


class Listener:
    """A realtime client that writes down everything it is told."""

    def __init__(self, server: Server, key: str, client: AsyncAgentChatClient | None) -> None:
        self.messages: list[dict[str, Any]] = []
        self.receipts: list[dict[str, Any]] = []
        self.gaps: list[Any] = []
        self.errors: list[BaseException] = []
        self.connects = 0
        self.disconnects: list[dict[str, Any]] = []
        self.realtime = RealtimeClient(
            api_key=key, base_url=server.ws_base, client=client, on_sequence_gap=self.gaps.append
        )
        self.realtime.on("message.new", lambda frame: self.messages.append(frame["payload"]))
        self.realtime.on("message.read", lambda frame: self.receipts.append(frame["payload"]))
        self.realtime.on_error(self.errors.append)
        self.realtime.on_connect(self._connected)
        self.realtime.on_disconnect(self.disconnects.append)

    def _connected(self) -> None:
        self.connects += 1

    async def connect(self) -> Listener:
        await self.realtime.connect()
        await arrives("hello.ok", lambda: self.connects)
        return self

    def texts(self) -> list[str]:
        return [message["content"]["text"] for message in self.messages]

    def assert_calm(self) -> None:
        """No gap, no message dispatched twice, every frame a valid message, order of seq kept."""
        assert self.gaps == []
        ids = [message["id"] for message in self.messages]
        assert len(ids) == len(set(ids)), "a message was dispatched twice"
        last: dict[str, int] = {}
        for message in self.messages:
            Message.model_validate(message)
            assert message["seq"] > last.get(message["conversation_id"], 0), "dispatched out of order"
            last[message["conversation_id"]] = message["seq"]


async def synced_empty(client: AsyncAgentChatClient) -> None:
    """Waits until everything is acknowledged: acks travel after the handlers, so this may take a moment."""
    end = asyncio.get_running_loop().time() + EVENT_DEADLINE_S
    while rows := await client.sync():
        assert asyncio.get_running_loop().time() < end, f"still unacknowledged: {[row['id'] for row in rows]}"
        await asyncio.sleep(POLL_S)


def test_models_validate(server: Server) -> None:
    async def scenario() -> None:
        alice, _, alice_client = await join(server, "alice")
        bob, _, bob_client = await join(server, "bob")
        async with alice_client, bob_client:
            me = Agent.model_validate(await alice_client.get_me())
            assert (me.handle, me.status, me.paused_by_owner) == (alice, "active", "none")
            profile = AgentProfile.model_validate(await bob_client.get_agent(f"@{alice.upper()}"))
            assert profile.handle == alice
            renamed = Agent.model_validate(await alice_client.update_agent(alice, {"display_name": "Alice"}))
            assert renamed.display_name == "Alice"

            Contact.model_validate(await alice_client.add_contact(bob))
            listed = [Contact.model_validate(row) async for row in alice_client.contacts()]
            assert [contact.handle for contact in listed] == [bob]

            await alice_client.send_message(to=bob, text="hi")
            rows = [ConversationListItem.model_validate(row) for row in await bob_client.list_conversations()]
            assert [[person.handle for person in row.participants] for row in rows] == [[alice]]
            participants = await bob_client.get_conversation_participants(rows[0].id)
            assert [person["handle"] for person in participants] == [alice]

    asyncio.run(scenario())


def test_synchronous_client(server: Server) -> None:
    handle = fresh_handle("sync")
    address = f"{handle}@example.com"
    started = AgentChatClient.register(email=address, handle=handle, base_url=server.base)
    code = server.mailed_code(address)
    _, key, client = AgentChatClient.verify(started["pending_id"], code, base_url=server.base)
    with client:
        assert client.get_me()["handle"] == handle
        assert client.sync() == []

    recovery = AgentChatClient.recover(address, handle=handle, base_url=server.base)
    code = server.mailed_code(address, after=1)
    recovered, new_key, client = AgentChatClient.recover_verify(recovery["pending_id"], code, base_url=server.base)
    with client:
        assert (recovered, client.get_me()["handle"]) == (handle, handle)
    assert new_key != key


def test_live_reply_history_and_receipt(server: Server) -> None:
    async def scenario() -> None:
        alice, alice_key, alice_client = await join(server, "alice")
        bob, bob_key, bob_client = await join(server, "bob")
        async with alice_client, bob_client:
            at_alice = await Listener(server, alice_key, alice_client).connect()
            at_bob = await Listener(server, bob_key, bob_client).connect()

            first = (await alice_client.send_message(to=bob, text="one")).message
            Message.model_validate(first)
            assert (first["seq"], first["status"], first["sender"]) == (1, "stored", alice)
            await arrives("the first message, live", lambda: at_bob.texts() == ["one"])

            reply = (await bob_client.send_message(to=alice, text="two", metadata={"reply_to": first["id"]})).message
            assert (reply["conversation_id"], reply["seq"]) == (first["conversation_id"], 2)
            for number in range(3, 23):
                sender, peer = (alice_client, bob) if number % 3 else (bob_client, alice)
                await sender.send_message(to=peer, text=str(number))
            expected = ["one", "two", *(str(number) for number in range(3, 23))]
            # Own sends are echoed to own sockets, so that both sides see the conversation without holes.
            await arrives("both sides see everything", lambda: at_alice.texts() == at_bob.texts() == expected)

            for client in (alice_client, bob_client):
                rows = await client.get_messages(first["conversation_id"], after_seq=0, limit=200)
                assert [row["content"]["text"] for row in rows] == expected
                assert [row["seq"] for row in rows] == list(range(1, 23))
                newest = await client.get_messages(first["conversation_id"], limit=3)
                assert [row["seq"] for row in newest] == [22, 21, 20]

            await bob_client.mark_as_read(first["id"])
            await arrives("the receipt", lambda: at_alice.receipts)
            receipt = at_alice.receipts[0]
            assert (receipt["reader"], receipt["through_seq"]) == (bob, 1)
            assert receipt["conversation_id"] == first["conversation_id"]
            seen = (await alice_client.get_messages(first["conversation_id"], after_seq=0, limit=1))[0]
            assert (seen["status"], bool(seen["read_at"])) == ("read", True)

            await synced_empty(alice_client)
            await synced_empty(bob_client)
            for listener in (at_alice, at_bob):
                assert listener.errors == []
                listener.assert_calm()
                await listener.realtime.disconnect()

    asyncio.run(scenario())


async def offline_backlog(server: Server, size: int, with_rest: bool) -> Listener:
    """Bob is offline while `size` messages come, then connects: backlog first, then live, each once and in order.

    With a REST client the SDK pages `/v1/messages/sync` while the socket drains the same rows; without one it has only
    the socket. Either way everything ends acknowledged.
    """
    alice, _, alice_client = await join(server, "alice")
    bob, bob_key, bob_client = await join(server, "bob")
    async with alice_client, bob_client:
        opened = (await alice_client.send_message(to=bob, text="cold")).message
        await bob_client.send_message(to=alice, text="reply")
        row = (await bob_client.sync())[0]
        assert await bob_client.sync_ack(row["delivery_id"]) == {"acked": 1}

        expected = [str(number) for number in range(size)]
        for text in expected:
            await alice_client.send_message(to=bob, text=text)
        waiting = await bob_client.sync(limit=500)
        assert [row["content"]["text"] for row in waiting] == expected
        assert all(row["delivery_id"] for row in waiting)

        listener = await Listener(server, bob_key, bob_client if with_rest else None).connect()
        await arrives("the backlog", lambda: len(listener.messages) >= size, deadline_s=60)
        await synced_empty(bob_client)
        await alice_client.send_message(to=bob, text="live")
        await arrives("a live message after the backlog", lambda: "live" in listener.texts())
        assert listener.texts() == [*expected, "live"]
        await synced_empty(bob_client)
        assert listener.errors == []
        await listener.realtime.disconnect()
        newest = await alice_client.get_messages(opened["conversation_id"], limit=1)
        assert newest[0]["status"] == "delivered"
    return listener


def test_short_backlog_over_socket_and_rest_at_once(server: Server) -> None:
    # Within the server's window of unacknowledged frames, so that the two drains cannot race into a gap.
    asyncio.run(offline_backlog(server, size=10, with_rest=True)).assert_calm()


def test_long_backlog_over_the_socket_alone(server: Server) -> None:
    asyncio.run(offline_backlog(server, size=250, with_rest=False)).assert_calm()


def test_long_backlog_over_socket_and_rest_at_once(server: Server) -> None:
    listener = asyncio.run(offline_backlog(server, size=250, with_rest=True))
    # Rows that REST acknowledged are not pushed again; when that races with frames under way, the SDK may see a hole
    # in what it has already dispatched and fill it by itself. It must never stay unfilled.
    assert all(gap.recovered for gap in listener.gaps), listener.gaps
    listener.gaps.clear()
    listener.assert_calm()


def test_sync_and_ack_without_a_socket(server: Server) -> None:
    async def scenario() -> None:
        alice, _, alice_client = await join(server, "alice")
        bob, _, bob_client = await join(server, "bob")
        async with alice_client, bob_client:
            await alice_client.send_message(to=bob, text="0")
            await bob_client.send_message(to=alice, text="1")
            for number in range(2, 7):
                await alice_client.send_message(to=bob, text=str(number))
            page = await bob_client.sync(limit=4)
            assert len(page) == 4
            assert await bob_client.sync(limit=4) == page, "reading commits nothing"
            rest = await bob_client.sync(after=page[-1]["delivery_id"])
            assert [row["content"]["text"] for row in rest] == ["5", "6"]
            assert await bob_client.sync_ack(page[-1]["delivery_id"]) == {"acked": 4}
            assert await bob_client.sync_ack(page[-1]["delivery_id"]) == {"acked": 0}
            assert await bob_client.sync(after=page[-1]["delivery_id"]) == rest, "a cursor stays valid after its ack"
            assert await bob_client.sync_ack(rest[-1]["delivery_id"]) == {"acked": 2}
            assert await bob_client.sync() == []

    asyncio.run(scenario())


def test_client_reconnects_by_itself_over_a_restart(own_server: Server) -> None:
    async def scenario() -> None:
        alice, _, alice_client = await join(own_server, "alice")
        bob, bob_key, bob_client = await join(own_server, "bob")
        async with alice_client, bob_client:
            listener = await Listener(own_server, bob_key, bob_client).connect()
            await alice_client.send_message(to=bob, text="before")
            await bob_client.send_message(to=alice, text="answer")
            await arrives("the first messages", lambda: listener.texts() == ["before", "answer"])
            await synced_empty(bob_client)

            # An orderly stop closes with a code that clients retry, and everything is there afterwards.
            await asyncio.to_thread(own_server.stop)
            await arrives("the socket closed", lambda: listener.disconnects)
            assert listener.disconnects[0]["code"] not in (1008, 4401, 4403), "a terminal code for a restart"
            await asyncio.to_thread(own_server.start)
            await alice_client.send_message(to=bob, text="after")
            await arrives("the message after the restart", lambda: "after" in listener.texts(), deadline_s=45)
            assert listener.texts() == ["before", "answer", "after"]
            assert listener.connects >= 2
            await synced_empty(bob_client)
            listener.assert_calm()
            await listener.realtime.disconnect()

    asyncio.run(scenario())
