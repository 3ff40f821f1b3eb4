"""Nothing acknowledged is lost, nothing is stored twice: SIGKILL in the middle of 2,000 concurrent sends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import httpx
from agentchatme import AsyncAgentChatClient, RetryPolicy

from harness import POLL_S, Peer, Server, befriend, enrol

PAIRS = 4
SENDS_PER_PAIR = 500
KILL_AFTER = 400
POOLS_PER_PAIR = 5
CONNECTIONS = 12
SENDS_DEADLINE_S = 240

# The retries must outlast the restart of a debug build on a busy machine.
PATIENT = RetryPolicy(max_retries=40, base_delay_ms=100, max_delay_ms=1_000)


async def history(client: AsyncAgentChatClient, conversation: str) -> list[dict]:
    """Every row of a conversation, oldest first."""
    rows: list[dict] = []
    while page := await client.get_messages(conversation, after_seq=rows[-1]["seq"] if rows else 0, limit=200):
        rows.extend(page)
    return rows


async def inbox(client: AsyncAgentChatClient) -> list[dict]:
    """Every stored delivery, oldest first, read without an ack."""
    rows: list[dict] = []
    while page := await client.sync(limit=500, after=rows[-1]["delivery_id"] if rows else None):
        rows.extend(page)
    return rows


def test_kill_loses_nothing_that_was_answered(own_server: Server) -> None:
    pairs: list[tuple[Peer, Peer, str]] = []
    for _ in range(PAIRS):
        sender, recipient = enrol(own_server, "sender"), enrol(own_server, "recipient")
        pairs.append((sender, recipient, befriend(sender, recipient)))
    asyncio.run(_scenario(own_server, pairs))
    for sender, recipient, _ in pairs:
        sender.http.close()
        recipient.http.close()


async def _scenario(server: Server, pairs: list[tuple[Peer, Peer, str]]) -> None:
    answered: dict[str, dict] = {}
    failed: list[str] = []

    async def send(client: AsyncAgentChatClient, to: str, client_msg_id: str) -> None:
        try:
            result = await client.send_message(to=to, text=client_msg_id, client_msg_id=client_msg_id)
            answered[client_msg_id] = result.message
        except Exception as error:  # an unknown outcome: the row may be there or not, but never twice
            failed.append(f"{client_msg_id}: {error!r}")

    # Many small pools: a pool of httpx looks at all its waiting requests whenever one of them moves. Waiting for a
    # connection is no failure, so that wait has no limit.
    limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
    async with contextlib.AsyncExitStack() as stack:
        clients = []
        for number in range(PAIRS * POOLS_PER_PAIR):
            timeout = httpx.Timeout(30.0, pool=None)
            pool = await stack.enter_async_context(httpx.AsyncClient(timeout=timeout, limits=limits))
            key = pairs[number % PAIRS][0].api_key
            clients.append(AsyncAgentChatClient(api_key=key, base_url=server.base, retry=PATIENT, http_client=pool))
        sends = [
            asyncio.create_task(
                send(clients[pair + PAIRS * (number % POOLS_PER_PAIR)], pairs[pair][1].handle, f"kill-{pair}-{number}")
            )
            for number in range(SENDS_PER_PAIR)
            for pair in range(PAIRS)
        ]
        while len(answered) < KILL_AFTER and not all(task.done() for task in sends):
            await asyncio.sleep(POLL_S / 10)
        before_kill = len(answered)
        server.kill()
        assert before_kill < PAIRS * SENDS_PER_PAIR, "the kill came after the last send"
        await asyncio.to_thread(server.start)
        await asyncio.wait_for(asyncio.gather(*sends), SENDS_DEADLINE_S)

    assert failed == [], f"{len(failed)} sends failed although they were retried: {failed[:3]}"
    assert len(answered) == PAIRS * SENDS_PER_PAIR
    for pair, (sender, recipient, conversation) in enumerate(pairs):
        expected = Counter(f"kill-{pair}-{number}" for number in range(SENDS_PER_PAIR))
        histories = []
        for peer in (sender, recipient):
            async with AsyncAgentChatClient(api_key=peer.api_key, base_url=server.base) as client:
                rows = await history(client, conversation)
                assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1)), "seq has a hole or a repeat"
                stored = Counter(row["client_msg_id"] for row in rows if row["client_msg_id"].startswith("kill-"))
                assert stored == expected, f"missing {expected - stored}, too many {stored - expected}"
                histories.append([(row["seq"], row["id"], row["client_msg_id"]) for row in rows])
                if peer is recipient:
                    delivered = Counter(row["client_msg_id"] for row in await inbox(client))
                    assert delivered == expected, f"inbox: missing {expected - delivered}, extra {delivered - expected}"
        assert histories[0] == histories[1], "the two sides see different logs"
        for seq, identity, client_msg_id in histories[0]:
            if client_msg_id in answered:
                reply = answered[client_msg_id]
                assert (reply["seq"], reply["id"]) == (seq, identity), "the answer named another message"
