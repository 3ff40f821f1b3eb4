"""The official Hermes plugin, loaded as its host would: every tool is called, the daemon receives and acknowledges."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import Peer, Server, befriend, until
from test_contract import ok
from test_groups import knows, post
from test_media import uploaded

Enrol = Callable[[str], Peer]
TOOLS = 47


class Plugin:
    """The plugin in a process of its own, with a home of its own."""

    def __init__(self, server: Server, peer: Peer, home: Path) -> None:
        (home / ".hermes").mkdir(exist_ok=True)  # as the host makes it: the daemon's lock lies in it
        environment = os.environ | {
            "HOME": str(home), "AGENTCHATME_API_KEY": peer.api_key, "AGENTCHATME_API_BASE": server.base,
            "_HERMES_GATEWAY": "1",
        }
        self.log = (home / "plugin.log").open("wb")
        command = [sys.executable, str(Path(__file__).parent / "hermes_host.py")]
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        self.tools: list[str] = json.loads(self.line())
        self.called: set[str] = set()

    def line(self) -> str:
        assert self.process.stdout is not None
        read = self.process.stdout.readline()
        assert read, "the plugin's process has ended"
        return read

    def call(self, tool: str, **args: Any) -> dict[str, Any]:
        name = f"agentchat_{tool}"
        self.called.add(name)
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"tool": name, "args": args}) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.line())
        assert answer["ok"] is True, f"{name}({args}): {answer}"
        return answer

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        self.log.close()


@pytest.fixture
def plugin(server: Server, alice: Peer, tmp_path: Path) -> Iterator[Plugin]:
    started = Plugin(server, alice, tmp_path)
    yield started
    started.end()


def test_every_tool_works_and_the_daemon_acknowledges(plugin: Plugin, alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    assert len(plugin.tools) == TOOLS
    carol = enrolled("carol")
    conversation = befriend_live(plugin, alice, bob)
    talk(plugin, alice, bob, conversation)
    people(plugin, bob)
    groups(plugin, alice, bob, carol)
    assert set(plugin.tools) - plugin.called == set(), "not called"


def befriend_live(plugin: Plugin, alice: Peer, bob: Peer) -> str:
    """A message arrives at the daemon, which acknowledges it: its sender sees it delivered."""
    sent = ok(bob.send(alice.handle, "hello"), 201)
    conversation = str(sent["conversation_id"])

    def delivered() -> bool:
        return ok(bob.call("GET", f"/v1/messages/{conversation}"))[-1]["status"] != "stored"

    until("the daemon's acknowledgement", 20, delivered)
    return conversation


def talk(plugin: Plugin, alice: Peer, bob: Peer, conversation: str) -> None:
    plugin.call("send_message", to=bob.handle, text="hello back")
    seen = plugin.call("get_conversation_messages", conversation_id=conversation)
    assert "hello back" in json.dumps(seen)
    message = ok(bob.send(alice.handle, "read me"), 201)["id"]
    plugin.call("mark_message_read", message_id=message)
    assert ok(bob.call("GET", f"/v1/messages/{conversation}"))[0]["status"] == "read"
    plugin.call("hide_message", message_id=message)
    assert conversation in json.dumps(plugin.call("list_conversations"))
    assert bob.handle in json.dumps(plugin.call("get_conversation_participants", conversation_id=conversation))
    plugin.call("close_local_thread", conversation_id=conversation)
    plugin.call("list_local_closed_threads")
    plugin.call("reopen_local_thread", conversation_id=conversation)
    plugin.call("list_unread_by_sender")
    plugin.call("list_needs_reply_candidates")
    plugin.call("hide_conversation", conversation_id=conversation)
    attachment = uploaded(bob, to=alice.handle)
    assert "http" in json.dumps(plugin.call("get_attachment_url", attachment_id=attachment))


def people(plugin: Plugin, bob: Peer) -> None:
    plugin.call("get_my_status")
    assert bob.handle in json.dumps(plugin.call("get_agent_profile", handle=f"@{bob.handle}"))
    plugin.call("update_my_profile", display_name="Alice")
    plugin.call("search_directory", q=bob.handle[:6])
    plugin.call("add_contact", handle=bob.handle)
    plugin.call("update_contact_notes", handle=bob.handle, notes="met here")
    assert "met here" in json.dumps(plugin.call("check_contact", handle=bob.handle))
    assert bob.handle in json.dumps(plugin.call("list_contacts"))
    plugin.call("set_presence", status="busy", custom_message="writing")
    plugin.call("get_presence", handle=bob.handle)
    plugin.call("get_presence_batch", handles=[bob.handle])
    plugin.call("mute_agent", handle=bob.handle)
    assert bob.handle in json.dumps(plugin.call("list_mutes"))
    plugin.call("unmute_agent", handle=bob.handle)
    plugin.call("block_agent", handle=bob.handle)
    plugin.call("unblock_agent", handle=bob.handle)
    plugin.call("report_agent", handle=bob.handle, reason="spam")
    plugin.call("unblock_agent", handle=bob.handle)
    plugin.call("remove_contact", handle=bob.handle)


def groups(plugin: Plugin, alice: Peer, bob: Peer, carol: Peer) -> None:
    knows(bob, alice)
    group = next(one for one in find(plugin.call("create_group", name="Engineering", member_handles=[bob.handle])))
    plugin.call("add_group_member", group_id=group, handle=carol.handle)
    invite = ok(carol.call("GET", "/v1/groups/invites"))[0]["id"]
    ok(carol.call("POST", f"/v1/groups/invites/{invite}/accept"))
    ok(post(carol, group, "hello all"), 201)
    for tool in (
        "get_group", "get_group_participants", "list_recent_group_speakers", "get_group_context",
        "check_group_reply_readiness",
    ):
        assert group in json.dumps(plugin.call(tool, group_id=group))
    plugin.call("update_group", group_id=group, name="Ops")
    plugin.call("promote_group_member", group_id=group, handle=bob.handle)
    plugin.call("demote_group_member", group_id=group, handle=bob.handle)
    plugin.call("remove_group_member", group_id=group, handle=carol.handle)
    plugin.call("delete_group", group_id=group)
    invites = []
    for name in ("First", "Second"):
        made = ok(carol.call("POST", "/v1/groups", {"name": name, "member_handles": [alice.handle]}), 201)
        invites.append((made["group"]["id"], made["add_results"][0]["invite_id"]))
    assert invites[0][1] in json.dumps(plugin.call("list_group_invites"))
    plugin.call("accept_group_invite", invite_id=invites[0][1])
    plugin.call("reject_group_invite", invite_id=invites[1][1])
    plugin.call("leave_group", group_id=invites[0][0])


def find(value: Any) -> Iterator[str]:
    """Every group id somewhere in an answer."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from find(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from find(inner)
    elif isinstance(value, str) and value.startswith("grp_"):
        yield value


def test_a_restart_of_the_plugin_finds_what_came_meanwhile(server: Server, alice: Peer, bob: Peer, tmp_path: Path) -> None:
    befriend(alice, bob)
    waiting = ok(bob.send(alice.handle, "while you were away"), 201)
    started = Plugin(server, alice, tmp_path)
    try:
        path = f"/v1/messages/{waiting['conversation_id']}"
        until("the drain", 20, lambda: ok(bob.call("GET", path))[0]["status"] != "stored")
    finally:
        started.end()
