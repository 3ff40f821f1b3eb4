"""Every public method of the official Python SDK, sync and async, against the real server."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from agentchatme import AgentChatClient, AsyncAgentChatClient
from agentchatme.errors import NotFoundError

from harness import Peer, Server, enrol, fresh_handle
from test_groups import png

Drive = Callable[[str], "Driver"]


class Driver:
    """Calls methods of either client alike, and writes down which were called."""

    def __init__(self, kind: type, client: Any, loop: asyncio.AbstractEventLoop, called: set[str]) -> None:
        self.kind, self.client, self.loop, self.called = kind, client, loop, called

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self.client, name)

        def call(*arguments: Any, **named: Any) -> Any:
            self.called.add(name)
            answer = method(*arguments, **named)
            if inspect.isawaitable(answer):
                return self.loop.run_until_complete(answer)
            if hasattr(answer, "__anext__"):
                return self.loop.run_until_complete(_collect(answer))
            return list(answer) if inspect.isgenerator(answer) else answer

        return call


async def _collect(answers: Any) -> list[Any]:
    return [one async for one in answers]


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    made = asyncio.new_event_loop()
    yield made
    made.close()


def static(kind: type, loop: asyncio.AbstractEventLoop, called: set[str], name: str, *arguments: Any, **named: Any) -> Any:
    called.add(name)
    answer = getattr(kind, name)(*arguments, **named)
    return loop.run_until_complete(answer) if inspect.isawaitable(answer) else answer


def field(value: Any, name: str) -> Any:
    return value[name] if isinstance(value, dict) else getattr(value, name)


@pytest.mark.parametrize("kind", [AgentChatClient, AsyncAgentChatClient])
def test_every_method(server: Server, kind: type, loop: asyncio.AbstractEventLoop) -> None:
    called: set[str] = set()
    drive = lambda peer: Driver(kind, kind(api_key=peer.api_key, base_url=server.base), loop, called)  # noqa: E731
    bob_peer, carol_peer = enrol(server, "bob"), enrol(server, "carol")
    alice, handle = join(server, kind, loop, called)
    bob, carol = drive(bob_peer), drive(carol_peer)
    profile(alice, bob_peer, handle)
    conversation = messages(alice, bob, handle, bob_peer.handle)
    relations(alice, bob, handle, bob_peer, conversation)
    groups(alice, bob, carol, handle, bob_peer.handle, carol_peer.handle)
    files(alice, bob_peer)
    keys(server, alice, kind, loop, called, handle)
    alice.delete_agent(handle)
    with pytest.raises(NotFoundError):
        bob.get_agent(handle)
    closing = "aclose" if kind is AsyncAgentChatClient else "close"
    for driver in (alice, bob, carol):
        getattr(driver, closing)()
    public = {name for name, value in inspect.getmembers(kind, inspect.isroutine) if not name.startswith("_")}
    assert public - called == set(), "not called"


def join(server: Server, kind: type, loop: asyncio.AbstractEventLoop, called: set[str]) -> tuple[Driver, str]:
    handle = fresh_handle("alice")
    email = f"{handle}@example.com"
    started = static(kind, loop, called, "register", email=email, handle=handle, base_url=server.base)
    code = server.mailed_code(email)
    made = static(kind, loop, called, "verify", field(started, "pending_id"), code, base_url=server.base)
    client = next(one for one in made if isinstance(one, kind)) if isinstance(made, tuple) else field(made, "client")
    return Driver(kind, client, loop, called), handle


def profile(alice: Driver, bob: Peer, handle: str) -> None:
    assert field(alice.get_me(), "handle") == handle
    assert field(alice.get_agent(bob.handle), "handle") == bob.handle
    alice.update_agent(handle, {"display_name": "Alice"})
    assert field(alice.get_me(), "display_name") == "Alice"
    avatar = alice.set_avatar(handle, png(), content_type="image/png")
    assert httpx.get(field(avatar, "avatar_url")).status_code == 200
    alice.remove_avatar(handle)
    assert field(alice.get_me(), "avatar_url") is None


def messages(alice: Driver, bob: Driver, handle: str, peer: str) -> str:
    sent = alice.send_message(to=peer, text="hello")
    message = field(sent, "message")
    conversation, first = field(message, "conversation_id"), field(message, "id")
    rows = bob.sync(limit=10)
    assert [field(row, "id") for row in rows] == [first]
    assert field(bob.sync_ack(field(rows[-1], "delivery_id")), "acked") == 1
    bob.mark_as_read(first)
    assert field(alice.get_messages(conversation)[0], "status") == "read"
    reply = field(bob.send_message(to=handle, text="hello back"), "message")
    alice.delete_message(field(reply, "id"))
    assert [field(row, "id") for row in alice.get_messages(conversation, limit=5)] == [first]
    assert [field(one, "handle") for one in alice.get_conversation_participants(conversation)] == [peer]
    assert conversation in [field(one, "id") for one in alice.list_conversations()]
    alice.hide_conversation(conversation)
    assert conversation not in [field(one, "id") for one in alice.list_conversations()]
    return str(conversation)


def relations(alice: Driver, bob: Driver, handle: str, peer: Peer, conversation: str) -> None:
    other = peer.handle
    alice.add_contact(other)
    alice.update_contact_notes(other, "met at work")
    assert field(alice.check_contact(other), "notes") == "met at work"
    assert field(alice.list_contacts(limit=10), "total") >= 1
    assert other in [field(one, "handle") for one in alice.contacts()]
    alice.update_presence({"status": "busy", "custom_message": "busy"})
    bob.add_contact(handle)
    assert field(bob.get_presence(handle), "status") == "busy"
    assert bob.get_presence_batch([handle, "nobody-has-this"])
    assert handle in [field(one, "handle") for one in field(bob.search_agents(handle[:8]), "agents")]
    assert handle in [field(one, "handle") for one in bob.search_agents_all(handle[:8])]
    alice.mute_agent(other)
    alice.mute_conversation(conversation)
    assert alice.get_agent_mute_status(other) is not None and alice.get_conversation_mute_status(conversation) is not None
    assert len(field(alice.list_mutes(), "mutes") if not isinstance(alice.list_mutes(), list) else alice.list_mutes()) == 2
    alice.unmute_agent(other)
    alice.unmute_conversation(conversation)
    assert alice.get_agent_mute_status(other) is None and alice.get_conversation_mute_status(conversation) is None
    alice.block_agent(other)
    alice.unblock_agent(other)
    alice.report_agent(other, "spam")
    alice.unblock_agent(other)
    alice.remove_contact(other)
    with pytest.raises(NotFoundError):
        alice.check_contact(other)


def groups(alice: Driver, bob: Driver, carol: Driver, handle: str, second: str, third: str) -> None:
    made = alice.create_group({"name": "Engineering", "member_handles": [second, third]})
    group = field(field(made, "group"), "id")
    outcomes = {field(one, "handle"): field(one, "outcome") for one in field(made, "add_results")}
    assert outcomes == {second: "joined", third: "invited"}
    invite = field(carol.list_group_invites()[0], "id")
    carol.reject_group_invite(invite)
    invite = field(alice.add_group_member(group, third), "invite_id")
    assert field(carol.accept_group_invite(invite), "member_count") == 3
    assert field(alice.get_group(group), "your_role") == "admin"
    assert field(alice.update_group(group, {"name": "Ops"}), "name") == "Ops"
    assert field(alice.set_group_avatar(group, png()), "avatar_url").endswith(".webp")
    alice.remove_group_avatar(group)
    sent = field(alice.send_message(conversation_id=group, text="hello all"), "message")
    assert field(bob.get_messages(group)[0], "id") == field(sent, "id")
    alice.promote_group_member(group, second)
    alice.demote_group_member(group, second)
    alice.remove_group_member(group, third)
    assert field(bob.leave_group(group), "promoted_handle") is None
    assert field(alice.delete_group(group), "deleted_at")


def files(alice: Driver, peer: Peer) -> None:
    data = b"attached"
    made = alice.create_upload({
        "filename": "a.txt", "content_type": "text/plain", "size": len(data), "to": peer.handle,
        "sha256": hashlib.sha256(data).hexdigest(),
    })
    assert httpx.put(field(made, "upload_url"), content=data).status_code == 200
    url = alice.get_attachment_download_url(field(made, "attachment_id"))
    assert httpx.get(url).content == data


def keys(
    server: Server, alice: Driver, kind: type, loop: asyncio.AbstractEventLoop, called: set[str], handle: str
) -> None:
    email = f"{handle}@example.com"
    mails = len(server.mails(email))
    started = alice.rotate_key(handle)
    rotated = alice.rotate_key_verify(handle, field(started, "pending_id"), server.mailed_code(email, mails))
    alice.client = kind(api_key=field(rotated, "api_key"), base_url=server.base)
    mails = len(server.mails(email))
    started = static(kind, loop, called, "recover", email, base_url=server.base)
    code = server.mailed_code(email, mails)
    recovered = static(kind, loop, called, "recover_verify", field(started, "pending_id"), code, base_url=server.base)
    key = field(recovered, "api_key") if not isinstance(recovered, tuple) else recovered[1]
    alice.client = kind(api_key=key, base_url=server.base)
    assert field(alice.get_me(), "handle") == handle
