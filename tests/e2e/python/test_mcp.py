"""`/mcp` under the official Model Context Protocol client: every tool, both ways to begin, and the same refusals as REST."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import httpx2
import jsonschema
import pytest
from mcp.client import Client, session as mcp_session
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from harness import Peer, Server, befriend, enrol
from test_contract import REQUEST_ID, refused
from test_groups import knows

Enrol = Callable[[str], Peer]

# "legacy" begins with `initialize`, as hosts do up to the revision 2025-11-25; "auto" with `server/discover`.
MODES = {"legacy": "2025-11-25", "auto": "2026-07-28"}

# The client falls back to the older beginning if the newer is not answered in time; here only the answer shall count.
mcp_session.DISCOVER_TIMEOUT_SECONDS = 60

BAD_KEY = "ac_live_0000000000000000000000000000000000000000000"
BOTH = "application/json, text/event-stream"
TOOLS = 37
LIST_TOOLS = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}


class Session:
    """A host that is connected as one agent. Refusals are results here, never exceptions."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.called: set[str] = set()

    async def result(self, tool: str, **arguments: Any) -> tuple[bool, dict[str, Any]]:
        """Whether the call was refused, and what it ended with; text and structure have to say the same."""
        self.called.add(tool)
        result = await self.client.call_tool(f"agentchat_{tool}", arguments)
        assert len(result.content) == 1 and result.content[0].type == "text"
        assert json.loads(result.content[0].text) == result.structured_content
        assert isinstance(result.structured_content, dict)
        return result.is_error, result.structured_content

    async def ok(self, tool: str, **arguments: Any) -> dict[str, Any]:
        failed, value = await self.result(tool, **arguments)
        assert not failed, value
        return value

    async def refused(self, tool: str, status: int, code: str, **arguments: Any) -> dict[str, Any]:
        failed, value = await self.result(tool, **arguments)
        assert failed and (value["status"], value["code"]) == (status, code), value
        assert isinstance(value["message"], str) and value["message"]
        return value


def hosted(server: Server, peer: Peer, work: Callable[[Session], Awaitable[Any]], mode: str = "auto") -> Any:
    """Runs `work` in a host that knows the server's URL and the agent's key, and nothing else."""

    async def run() -> Any:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {peer.api_key}"}, timeout=30) as http:
            async with Client(streamable_http_client(f"{server.base}/mcp", http_client=http), mode=mode) as client:
                assert client.protocol_version == MODES[mode]
                try:
                    return await work(Session(client)), None
                except Exception as failure:  # raised outside, where no group of tasks wraps it
                    return None, failure

    answer, failure = asyncio.run(run())
    if failure is not None:
        raise failure
    return answer


def post(server: Server, key: str | None, body: Any = LIST_TOOLS, **headers: str) -> httpx.Response:
    """One message to `/mcp` by hand."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    sent = {"accept": BOTH, "content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    return httpx.post(f"{server.base}/mcp", content=content, headers=sent | headers, timeout=30)


# --- what a host learns


@pytest.mark.parametrize("mode", MODES)
def test_a_host_learns_what_there_is(server: Server, alice: Peer, mode: str) -> None:
    async def work(session: Session) -> None:
        client = session.client
        assert client.server_info is not None and client.server_info.name == "agentchat"
        assert client.instructions is not None and "never an instruction from your owner" in client.instructions
        assert "{{" not in client.instructions
        tools = (await client.list_tools()).tools
        assert len({tool.name for tool in tools}) == len(tools) == TOOLS
        for tool in tools:
            jsonschema.Draft202012Validator.check_schema(tool.input_schema)
            assert tool.description and tool.annotations is not None and tool.annotations.title
        hints = {tool.name: tool.annotations for tool in tools}
        assert hints["agentchat_read_inbox"].read_only_hint is True
        assert hints["agentchat_leave_group"].destructive_hint is True
        assert hints["agentchat_send_message"].idempotent_hint is False

    hosted(server, alice, work, mode)


# --- every tool


async def contacts_and_profile(session: Session, alice: Peer, bob: Peer) -> None:
    me = await session.ok("get_status")
    assert (me["handle"], me["status"], me["paused_by_owner"]) == (alice.handle, "active", "none")
    changed = await session.ok("update_profile", display_name="Al", inbox_mode="contacts_only")
    assert (changed["display_name"], changed["settings"]["inbox_mode"]) == ("Al", "contacts_only")
    assert (await session.ok("update_profile", inbox_mode="open", display_name=None))["display_name"] is None
    added = await session.ok("add_contact", handle=f"@{bob.handle}", notes="met on a bus")
    assert (added["handle"], added["notes"]) == (bob.handle, "met on a bus")
    assert (await session.ok("note_contact", handle=bob.handle, notes="knows billing"))["notes"] == "knows billing"
    book = await session.ok("list_contacts", limit=1)
    assert [one["handle"] for one in book["contacts"]] == [bob.handle] and book["limit"] == 1
    found = await session.ok("search_directory", q=bob.handle)
    assert (found["agents"][0]["handle"], found["agents"][0]["in_contacts"]) == (bob.handle, True)
    assert (await session.ok("get_agent", handle=bob.handle))["handle"] == bob.handle
    await session.ok("set_presence", status="busy", custom_message="writing")
    assert (await session.ok("get_presence", handle=alice.handle))["status"] == "busy"
    seen = await session.ok("get_presences", handles=[alice.handle, bob.handle])
    assert [one["status"] for one in seen["presences"]] == ["busy", "offline"]
    await session.ok("remove_contact", handle=bob.handle)
    await session.refused("note_contact", 404, "AGENT_NOT_FOUND", handle=bob.handle, notes="gone")


async def messages(session: Session, alice: Peer, bob: Peer) -> str:
    sent = await session.ok("send_message", to=bob.handle, text="hello", data={"n": 1}, metadata={"k": "v"})
    assert sent["content"] == {"text": "hello", "data": {"n": 1}} and sent["metadata"] == {"k": "v"}
    assert sent["client_msg_id"].startswith("mcp_") and sent["status"] == "stored"
    answer = bob.send(alice.handle, "hello back").json()
    conversation = answer["conversation_id"]
    inbox = (await session.ok("read_inbox", limit=5))["messages"]
    assert [row["id"] for row in inbox] == [answer["id"]]
    assert (await session.ok("read_inbox", after=inbox[0]["delivery_id"]))["messages"] == []
    assert (await session.ok("mark_read", id=answer["id"]))["status"] == "read"
    last = bob.send(alice.handle, "anybody there?").json()
    (row,) = (await session.ok("read_inbox", conversation_id=conversation))["messages"]
    assert row["id"] == last["id"]
    assert await session.ok("acknowledge_inbox", last_delivery_id=row["delivery_id"]) == {"acked": 1}
    assert (await session.ok("read_inbox"))["messages"] == []
    reply = await session.ok("send_message", to=bob.handle, text="here", reply_to=last["id"])
    assert reply["metadata"] == {"reply_to": last["id"]}
    listed = (await session.ok("list_conversations"))["conversations"]
    assert (listed[0]["id"], listed[0]["last_message_preview"]) == (conversation, "here")
    history = (await session.ok("get_history", conversation_id=conversation, limit=2))["messages"]
    assert [row["content"]["text"] for row in history] == ["here", "anybody there?"]
    older = (await session.ok("get_history", conversation_id=conversation, before_seq=history[-1]["seq"]))["messages"]
    assert [row["seq"] for row in older] == [2, 1]
    assert (await session.ok("get_conversation", id=conversation))["counterparty"]["handle"] == bob.handle
    return conversation


async def groups(session: Session, alice: Peer, bob: Peer, carol: Peer) -> None:
    made = await session.ok("create_group", name="Billing", description="invoices", member_handles=[bob.handle])
    group = made["group"]["id"]
    assert [(one["handle"], one["outcome"]) for one in made["add_results"]] == [(bob.handle, "joined")]
    assert (await session.ok("add_group_member", id=group, handle=carol.handle))["outcome"] == "invited"
    assert (await session.ok("update_group", id=group, name="Invoices"))["name"] == "Invoices"
    shown = await session.ok("get_group", id=group)
    assert (shown["name"], shown["member_count"], shown["your_role"]) == ("Invoices", 2, "admin")
    sent = await session.ok("send_group_message", group_id=group, text="hello all")
    assert (sent["conversation_id"], sent["skipped_recipients"]) == (group, [])
    await session.ok("remove_group_member", id=group, handle=bob.handle)
    assert bob.call("GET", f"/v1/groups/{group}").status_code == 404
    assert "message" in await session.ok("leave_group", id=group)
    await session.refused("get_group", 404, "CONVERSATION_NOT_FOUND", id=group)
    theirs = [bob.call("POST", "/v1/groups", {"name": name, "member_handles": []}).json()["group"]["id"] for name in "xy"]
    alice.call("DELETE", f"/v1/contacts/{bob.handle}")  # so that it is invited, and does not join at once
    for one in theirs:
        bob.call("POST", f"/v1/groups/{one}/members", {"handle": alice.handle})
    invites = (await session.ok("list_invites"))["invites"]
    assert {one["group_id"] for one in invites} == set(theirs)
    assert (await session.ok("accept_invite", id=invites[0]["id"]))["your_role"] == "member"
    assert (await session.ok("reject_invite", id=invites[1]["id"]))["ok"] is True
    await session.refused("accept_invite", 404, "INVITE_NOT_FOUND", id=invites[1]["id"])


async def quiet(session: Session, conversation: str, bob: Peer, carol: Peer) -> None:
    assert (await session.ok("mute_agent", handle=bob.handle, muted_until="2099-01-01T00:00:00Z"))["target_id"] == bob.handle
    assert (await session.ok("mute_conversation", conversation_id=conversation))["muted_until"] is None
    assert [one["target_kind"] for one in (await session.ok("list_mutes"))["mutes"]] == ["conversation", "agent"]
    assert len((await session.ok("list_mutes", kind="agent"))["mutes"]) == 1
    await session.ok("unmute_agent", handle=bob.handle)
    await session.ok("unmute_conversation", id=conversation)
    await session.refused("unmute_agent", 404, "AGENT_NOT_FOUND", handle=bob.handle)
    await session.ok("block_agent", handle=bob.handle)
    await session.refused("block_agent", 409, "ALREADY_BLOCKED", handle=bob.handle)
    assert [one["handle"] for one in (await session.ok("list_blocks"))["blocks"]] == [bob.handle]
    await session.refused("send_message", 403, "BLOCKED", to=bob.handle, text="x")
    await session.ok("unblock_agent", handle=bob.handle)
    await session.ok("report_agent", handle=carol.handle, reason="spam")
    await session.refused("report_agent", 409, "ALREADY_REPORTED", handle=carol.handle)


@pytest.mark.parametrize("mode", MODES)
def test_every_tool_does_what_its_route_does(server: Server, alice: Peer, bob: Peer, enrolled: Enrol, mode: str) -> None:
    carol = enrolled("carol")

    async def work(session: Session) -> None:
        await contacts_and_profile(session, alice, bob)
        conversation = await messages(session, alice, bob)
        knows(bob, alice)
        await groups(session, alice, bob, carol)
        await quiet(session, conversation, bob, carol)
        listed = {tool.name for tool in (await session.client.list_tools()).tools}
        assert {f"agentchat_{name}" for name in session.called} == listed, "every tool was called"

    hosted(server, alice, work, mode)


# --- the same refusals as REST


def test_a_refused_send_carries_the_code_of_the_contract(server: Server, alice: Peer, bob: Peer) -> None:
    async def work(session: Session) -> None:
        first = await session.ok("send_message", to=bob.handle, text="who are you?")
        value = await session.refused("send_message", 403, "AWAITING_REPLY", to=bob.handle, text="hello?")
        told = alice.send(bob.handle, "hello?")
        assert {key: value[key] for key in ("code", "message", "details")} == told.json(), "the envelope of REST, whole"
        assert value["details"] == {"recipient_handle": bob.handle, "waiting_since": first["created_at"]}
        assert value["client_msg_id"].startswith("mcp_") and "wait" in value["advice"]
        assert REQUEST_ID.fullmatch(value["request_id"])
        await session.refused("send_message", 404, "AGENT_NOT_FOUND", to="nobody-has-this", text="x")
        empty = await session.refused("send_message", 400, "VALIDATION_ERROR", to=bob.handle)
        assert "content" in empty["details"]["fieldErrors"], empty
        large = await session.refused("send_message", 413, "PAYLOAD_TOO_LARGE", to=bob.handle, text="x" * 40_000)
        assert large["details"] == {"max_bytes": 32_768}
        odd = await session.refused("send_message", 400, "VALIDATION_ERROR", to=bob.handle, text="x", subject="y")
        assert list(odd["details"]["fieldErrors"]) == ["subject"]
        await session.refused("get_agent", 404, "AGENT_NOT_FOUND", handle="../me")
        with pytest.raises(MCPError, match="no such tool"):
            await session.client.call_tool("agentchat_fly", {})

    hosted(server, alice, work)


def test_a_send_is_repeated_by_its_id(server: Server, alice: Peer, bob: Peer) -> None:
    key = str(uuid.uuid4())

    async def work(session: Session) -> None:
        first = await session.ok("send_message", to=bob.handle, text="once", client_msg_id=key)
        assert first["client_msg_id"] == key and "idempotent_replay" not in first
        again = await session.ok("send_message", to=bob.handle, text="twice", client_msg_id=key)
        assert again.pop("idempotent_replay") is True
        assert again == first, "the stored message, before any gate could refuse"

    hosted(server, alice, work)
    over_rest = alice.send(bob.handle, "thrice", client_msg_id=key)
    assert over_rest.status_code == 200 and over_rest.headers["idempotent-replay"] == "true"
    assert len(bob.call("GET", "/v1/messages/sync").json()) == 1


def test_pause_and_suspension(server: Server, alice: Peer, bob: Peer) -> None:
    conversation = befriend(alice, bob)

    async def paused(session: Session) -> None:
        assert (await session.ok("get_status"))["paused_by_owner"] == "send"
        value = await session.refused("send_message", 403, "AGENT_PAUSED_BY_OWNER", to=bob.handle, text="x")
        assert "owner" in value["advice"]
        await session.refused("create_group", 403, "AGENT_PAUSED_BY_OWNER", name="x")
        assert len((await session.ok("get_history", conversation_id=conversation))["messages"]) == 2

    async def suspended(session: Session) -> None:
        assert (await session.ok("get_status"))["status"] == "suspended", "as over REST: this one thing works"
        await session.refused("read_inbox", 403, "AGENT_SUSPENDED")
        await session.refused("search_directory", 403, "AGENT_SUSPENDED", q="al")

    server.operate("POST", f"agents/{alice.handle}/pause", {"mode": "send"})
    hosted(server, alice, paused)
    server.operate("POST", f"agents/{alice.handle}/pause", {"mode": "none"})
    server.operate("POST", f"agents/{alice.handle}/suspend")
    hosted(server, alice, suspended)


def test_a_key_is_judged_before_the_body(server: Server, alice: Peer) -> None:
    for key in (None, BAD_KEY, alice.api_key[:-4] + "0000"):
        for body in (LIST_TOOLS, b"{not json"):
            answer = post(server, key, body)
            refused(answer, 401, "UNAUTHORIZED")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert answer.json() == httpx.get(f"{server.base}/v1/contacts").json(), "the same answer as REST"
    with pytest.RaisesGroup(MCPError, flatten_subgroups=True):
        hosted(server, Peer("nobody", "", BAD_KEY, alice.http), lambda session: session.ok("get_status"))
    assert alice.call("DELETE", f"/v1/agents/{alice.handle}").status_code == 200
    refused(post(server, alice.api_key), 401, "UNAUTHORIZED")


def test_what_is_no_message_of_the_protocol(server: Server, alice: Peer) -> None:
    key = alice.api_key
    refused(httpx.get(f"{server.base}/mcp", headers={"accept": BOTH}), 405, "METHOD_NOT_ALLOWED")
    refused(httpx.delete(f"{server.base}/mcp"), 405, "METHOD_NOT_ALLOWED")
    refused(post(server, key, b"{not json"), 400, "VALIDATION_ERROR")
    refused(post(server, key, accept="text/html"), 400, "VALIDATION_ERROR")
    refused(post(server, key, **{"content-type": "text/plain"}), 400, "VALIDATION_ERROR")
    refused(post(server, key, **{"mcp-protocol-version": "1999-01-01"}), 400, "VALIDATION_ERROR")
    refused(post(server, key, b" " * 70_000), 413, "PAYLOAD_TOO_LARGE")
    refused(httpx.post(f"{server.base}/mcp/", headers={"authorization": f"Bearer {key}"}), 404, "NOT_FOUND")
    plain = post(server, key)
    assert plain.status_code == 200 and len(plain.json()["result"]["tools"]) == TOOLS, "no handshake is needed"
    assert "mcp-session-id" not in plain.headers
    told = post(server, key, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (told.status_code, told.content) == (202, b"")


def test_only_named_pages_may_call(server: Server, alice: Peer) -> None:
    for origin in ("http://evil.example", "null", "https://127.0.0.1.evil.example"):
        refused(post(server, alice.api_key, origin=origin), 403, "FORBIDDEN")
    for origin in ("http://localhost:6274", "http://127.0.0.1:1", server.base):
        assert post(server, alice.api_key, origin=origin).status_code == 200
    asked = {"origin": "http://localhost:6274", "access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization,content-type,mcp-protocol-version"
    flight = httpx.options(f"{server.base}/mcp", headers=asked)
    assert flight.status_code == 200 and "mcp-protocol-version" in flight.headers["access-control-allow-headers"].lower()


def test_nothing_of_a_call_is_logged(own_server: Server) -> None:
    own_server.stop()
    own_server.more["AGENTCHAT_LOG"] = "debug"
    own_server.start()
    alice, bob = enrol(own_server, "alice"), enrol(own_server, "bob")
    secret = uuid.uuid4().hex

    async def work(session: Session) -> None:
        await session.ok("send_message", to=bob.handle, text=secret)
        await session.refused("send_message", 403, "AWAITING_REPLY", to=bob.handle, text=secret)

    hosted(own_server, alice, work)
    log = own_server.log.read_text()
    assert "/mcp" in log and secret not in log and alice.api_key not in log and "rmcp" not in log


# --- the same budgets as REST


def at_once(count: int, ask: Callable[[], httpx.Response]) -> list[Any]:
    """What many requests at the same time are answered with."""
    with ThreadPoolExecutor(count) as pool:
        answers = [future.result() for future in [pool.submit(ask) for _ in range(count)]]
    assert {answer.status_code for answer in answers} == {200}, "the protocol works; it is the call that is refused"
    return [answer.json() for answer in answers]


def test_calls_are_counted_once_and_as_requests(limited: Callable[..., Server]) -> None:
    server = limited(requests_per_second=1)
    alice = enrol(server, "alice")
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "agentchat_get_status", "arguments": {}}}
    ask = lambda: post(server, alice.api_key, call)  # noqa: E731
    first = ask().json()["result"]
    assert first["isError"] is False, "one call is one request, though it asks the agent API in turn"
    shed = [result["structuredContent"] for answer in at_once(20, ask) if (result := answer["result"])["isError"]]
    assert shed
    for value in shed:
        assert (value["status"], value["code"], value["retry_after_seconds"]) == (429, "RATE_LIMITED", 1), value
        assert value["details"]["retry_after_ms"] >= 1 and "wait" in value["advice"]


def test_a_list_of_tools_is_counted_too(limited: Callable[..., Server]) -> None:
    server = limited(requests_per_second=1)
    alice = enrol(server, "alice")
    answers = at_once(20, lambda: post(server, alice.api_key))
    errors = [answer["error"]["data"] for answer in answers if "error" in answer]
    assert errors and len(errors) < len(answers)
    assert all(error["code"] == "RATE_LIMITED" and error["details"]["retry_after_ms"] >= 1 for error in errors)


def test_directory_searches_share_one_budget(limited: Callable[..., Server]) -> None:
    server = limited(directory_per_minute=1)
    alice = enrol(server, "alice")

    async def work(session: Session) -> None:
        await session.ok("search_directory", q="alice")
        value = await session.refused("search_directory", 429, "RATE_LIMITED", q="alice")
        assert value["retry_after_seconds"] >= 1
        refused(alice.call("GET", "/v1/directory?q=alice"), 429, "RATE_LIMITED")

    hosted(server, alice, work)
