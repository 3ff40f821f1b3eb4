"""Limits and cooldowns, on servers that keep the published numbers unless a test lowers one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from harness import Peer, Server, befriend, enrol, fresh_handle
from registry import note

Limited = Callable[..., Server]


def slowed(answer: httpx.Response, code: str = "RATE_LIMITED") -> dict[str, Any]:
    """A 429 that says how long to wait, in the header and in the details."""
    assert (answer.status_code, answer.json()["code"]) == (429, code), answer.text
    assert int(answer.headers["retry-after"]) >= 1
    note(answer)
    details = answer.json()["details"]
    if code in ("RATE_LIMITED", "OTP_COOLDOWN"):
        assert details["retry_after_ms"] >= 1
        assert int(answer.headers["retry-after"]) * 1_000 >= details["retry_after_ms"]
    return details


def register(server: Server, email: str | None = None, handle: str | None = None) -> httpx.Response:
    body = {"email": email or f"{uuid.uuid4().hex}@example.com", "handle": handle or fresh_handle("lim")}
    return httpx.post(f"{server.base}/v1/register", json=body, timeout=30)


def test_registrations_per_ip(limited: Limited) -> None:
    server = limited()
    for body in ({}, {"email": "x", "handle": "y"}, {"email": "a@b.example", "handle": "admin"}):
        assert httpx.post(f"{server.base}/v1/register", json=body).status_code == 400, "malformed ones are not counted"
    assert [register(server).status_code for _ in range(5)] == [200] * 5
    assert slowed(register(server))["retry_after_ms"] <= 3_600_000


def test_one_code_per_minute_and_address(limited: Limited) -> None:
    server = limited()
    address = f"{uuid.uuid4().hex}@example.com"
    assert register(server, address).status_code == 200
    assert slowed(register(server, address), "OTP_COOLDOWN")["retry_after_ms"] <= 60_000
    assert register(server, f"plus+{address}").status_code == 200, "another address"


def test_verifications_per_ip(limited: Limited) -> None:
    server = limited()
    guess = {"pending_id": "pnd_0000000000000000", "code": "123456"}
    for path in ("/v1/register/verify", "/v1/agents/recover/verify"):
        answers = [httpx.post(f"{server.base}{path}", json=guess) for _ in range(11)]
        assert [answer.json()["code"] for answer in answers[:10]] == ["EXPIRED"] * 10
        slowed(answers[10])


def test_recovery_masks_its_cooldown_but_not_the_ip_limit(limited: Limited) -> None:
    server = limited()
    alice = enrol(server, "alice")
    answers = [httpx.post(f"{server.base}/v1/agents/recover", json={"email": alice.email}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert len({answer.json()["pending_id"] for answer in answers[:3]}) == 3
    slowed(answers[3])
    server.mailed_code(alice.email, after=1)
    assert len(server.mails(alice.email)) == 2, "one mail per cooldown"


def test_rotation_cooldown(limited: Limited) -> None:
    server = limited()
    alice = enrol(server, "alice")
    path = f"/v1/agents/{alice.handle}/rotate-key"
    assert alice.call("POST", path).status_code == 200
    slowed(alice.call("POST", path), "OTP_COOLDOWN")


def test_requests_per_agent(limited: Limited) -> None:
    server = limited(requests_per_second=3)
    alice, bob = enrol(server, "alice"), enrol(server, "bob")
    answers = [alice.call("GET", "/v1/agents/me") for _ in range(12)]
    codes = [answer.status_code for answer in answers]
    assert codes[:3] == [200, 200, 200] and 429 in codes
    slowed(answers[codes.index(429)])
    assert bob.call("GET", "/v1/agents/me").status_code == 200, "each agent has its own budget"


def test_sends_per_agent_and_replay_past_the_limit(limited: Limited) -> None:
    server = limited(sends_per_second=2, requests_per_second=0)
    alice, bob = enrol(server, "alice"), enrol(server, "bob")
    befriend(alice, bob)
    answers = [alice.send(bob.handle, "x", client_msg_id=f"c{number}") for number in range(12)]
    codes = [answer.status_code for answer in answers]
    assert codes[0] == 201 and 429 in codes
    slowed(answers[codes.index(429)])
    assert alice.send(bob.handle, "x", client_msg_id="c0").status_code == 200, "a replay precedes the limit"


def test_cold_allowance(limited: Limited) -> None:
    server = limited(cold_threads=2)
    alice = enrol(server, "alice")
    strangers = [enrol(server, "stranger") for _ in range(3)]
    assert [alice.send(stranger.handle, "hi").status_code for stranger in strangers[:2]] == [201, 201]
    details = slowed(alice.send(strangers[2].handle, "hi"))
    assert (details["rule"], details["limit"]) == ("cold_outreach", 2)
    assert strangers[0].send(alice.handle, "a reply gives the slot back").status_code == 201
    assert alice.send(strangers[2].handle, "hi").status_code == 201


def test_backlog_warning_and_cap(limited: Limited) -> None:
    server = limited(backlog_warn=3, backlog_max=5, requests_per_second=0)
    alice, bob = enrol(server, "alice"), enrol(server, "bob")
    befriend(alice, bob)
    answers = [alice.send(bob.handle, str(number)) for number in range(6)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429]
    warnings = [answer.headers.get("x-backlog-warning") for answer in answers[:5]]
    assert warnings == [None, None, f"{bob.handle}=3", f"{bob.handle}=4", f"{bob.handle}=5"]
    details = slowed(answers[5], "RECIPIENT_BACKLOGGED")
    assert details == {"recipient_handle": bob.handle, "undelivered_count": 5}
    rows = bob.call("GET", "/v1/messages/sync").json()
    assert bob.call("POST", "/v1/messages/sync/ack", {"last_delivery_id": rows[-1]["delivery_id"]}).json() == {"acked": 5}
    assert alice.send(bob.handle, "again").status_code == 201


def test_mail_that_cannot_be_handed_over(own_server: Server) -> None:
    alice = enrol(own_server, "alice")
    outbox = own_server.data / "outbox"
    outbox.rename(outbox.with_name("moved"))
    outbox.write_text("not a directory")
    for answer in (register(own_server), alice.call("POST", f"/v1/agents/{alice.handle}/rotate-key")):
        assert (answer.status_code, answer.json()["code"]) == (500, "OTP_FAILED")
        note(answer)
    outbox.unlink()
    outbox.with_name("moved").rename(outbox)
    assert register(own_server).status_code == 200


def pending(server: Server, email: str, handle: str, mails: int) -> dict[str, str]:
    started = register(server, email, handle)
    assert started.status_code == 200, started.text
    return {"pending_id": started.json()["pending_id"], "code": server.mailed_code(email, after=mails)}


def verify(server: Server, body: dict[str, str]) -> httpx.Response:
    answer = httpx.post(f"{server.base}/v1/register/verify", json=body, timeout=30)
    note(answer)
    return answer


@pytest.mark.parametrize(
    ("numbers", "code"),
    [({}, "EMAIL_LIMIT_REACHED"), ({"email_live": 9, "email_lifetime": 1}, "EMAIL_EXHAUSTED")],
)
def test_budgets_are_judged_again_at_verify(limited: Limited, numbers: dict[str, int], code: str) -> None:
    server = limited(otp_cooldown_seconds=0, **numbers)
    address = f"{uuid.uuid4().hex}@example.com"
    bodies = [pending(server, address, fresh_handle("race"), mails) for mails in range(2)]
    assert verify(server, bodies[0]).status_code == 201
    lost = verify(server, bodies[1])
    assert (lost.status_code, lost.json()["code"], lost.json()["details"]) == (409, code, {"limit": 1})


def test_recovery_of_an_email_with_several_agents(limited: Limited) -> None:
    server = limited(otp_cooldown_seconds=0, email_live=2)
    address = f"{uuid.uuid4().hex}@example.com"
    handles = [fresh_handle("twin") for _ in range(2)]
    for mails, handle in enumerate(handles):
        assert verify(server, pending(server, address, handle, mails)).status_code == 201

    def recovered(body: dict[str, str], mails: int) -> httpx.Response:
        started = httpx.post(f"{server.base}/v1/agents/recover", json=body).json()
        code = {"pending_id": started["pending_id"], "code": server.mailed_code(address, after=mails)}
        answer = httpx.post(f"{server.base}/v1/agents/recover/verify", json=code)
        note(answer)
        if answer.status_code == 409:
            again = httpx.post(f"{server.base}/v1/agents/recover/verify", json=code)
            assert again.json()["code"] == "EXPIRED", "the code is consumed"
        return answer

    unnamed = recovered({"email": address}, 2)
    assert (unnamed.status_code, unnamed.json()["code"]) == (409, "HANDLE_REQUIRED")
    assert unnamed.json()["details"] == {"handles": handles}, "oldest first"
    named = recovered({"email": address, "handle": handles[1]}, 3)
    assert named.status_code == 200 and named.json()["handle"] == handles[1]


def test_a_reply_needs_no_cold_slot(limited: Limited) -> None:
    server = limited(cold_threads=1)
    alice, bob, carol = (enrol(server, stem) for stem in ("alice", "bob", "carol"))
    assert alice.send(bob.handle, "takes the only slot").status_code == 201
    assert carol.send(alice.handle, "hello alice").status_code == 201
    assert alice.send(carol.handle, "a reply").status_code == 201
    assert carol.send(alice.handle, "and on").status_code == 201


def test_directory_limits_stack(limited: Callable[..., Server]) -> None:
    server = limited(directory_per_minute=5, directory_per_day=7, directory_anonymous_per_minute=2)
    alice, bob = enrol(server, "alice"), enrol(server, "bob")
    search = lambda peer: peer.call("GET", "/v1/directory?q=alice")  # noqa: E731
    assert [search(alice).status_code for _ in range(6)] == [200] * 5 + [429]
    assert search(bob).status_code == 200, "per agent"
    anonymous = [httpx.get(f"{server.base}/v1/directory?q=alice") for _ in range(3)]
    assert [answer.status_code for answer in anonymous] == [200, 200, 429]
    assert anonymous[2].json()["code"] == "RATE_LIMITED" and int(anonymous[2].headers["retry-after"]) >= 1
    for peer in (alice, bob):
        peer.http.close()


def test_a_group_has_one_budget_for_all(limited: Callable[..., Server]) -> None:
    server = limited(group_sends_per_second=3)
    alice, bob = enrol(server, "alice"), enrol(server, "bob")
    assert bob.call("POST", "/v1/contacts", {"handle": alice.handle}).status_code == 201
    body = {"name": "g", "member_handles": [bob.handle]}
    group = alice.call("POST", "/v1/groups", body).json()["group"]["id"]

    def say(peer: Peer, n: int) -> httpx.Response:
        message = {"conversation_id": group, "client_msg_id": str(n), "content": {"text": "x"}}
        return peer.call("POST", "/v1/messages", message)

    answers = [say(peer, n) for n, peer in enumerate([alice, bob, alice, bob, alice, bob])]
    refusals = [answer for answer in answers if answer.status_code == 429]
    assert refusals and len(refusals) >= 2, [answer.status_code for answer in answers]
    assert refusals[0].json()["details"]["rule"] == "group_aggregate"
    assert refusals[0].json()["details"]["retry_after_ms"] >= 1
    for peer in (alice, bob):
        peer.http.close()


def test_invitations_and_group_changes_have_limits(limited: Callable[..., Server]) -> None:
    server = limited(invites_per_day=2, group_changes_per_second=100)
    alice = enrol(server, "alice")
    strangers = [enrol(server, f"s{n}") for n in range(3)]
    group = alice.call("POST", "/v1/groups", {"name": "g"}).json()["group"]["id"]
    add = lambda peer: alice.call("POST", f"/v1/groups/{group}/members", {"handle": peer.handle})  # noqa: E731
    assert [add(peer).status_code for peer in strangers] == [200, 200, 429]
    assert add(strangers[0]).status_code == 200, "the open invitation costs nothing"
    for peer in (alice, *strangers):
        peer.http.close()
