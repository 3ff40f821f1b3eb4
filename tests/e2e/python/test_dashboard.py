"""The owner dashboard over plain HTTP and its socket: sign-in, claims, what an owner sees, pauses, what happens live."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from harness import Cluster, Peer, Server, befriend, enrol, until
from registry import note_as
from test_contract import TIMESTAMP, invalid, ok, refused, wrong
from test_groups import knows, make, post
from test_media import DATA, uploaded
from test_socket import FRAME_DEADLINE_S, by_header, close_code, frame, tell
from test_webhooks import Receiver, hook, receiver  # noqa: F401

Enrol = Callable[[str], Peer]

CLAIMED_KEYS = {
    "handle", "display_name", "description", "avatar_url", "status", "paused_by_owner", "claimed_at", "created_at",
}
ROW_KEYS = {
    "id", "conversation_id", "client_msg_id", "is_own", "sender_handle", "sender_display_name", "sender_avatar_url",
    "seq", "type", "content", "metadata", "created_at", "delivery_id", "status", "delivered_at", "read_at",
}
LIST_KEYS = {
    "id", "type", "participants", "group_name", "group_avatar_url", "group_member_count", "last_message_at",
    "last_message_preview", "last_message_is_own", "last_message_type", "updated_at",
}
COOKIES = ("ac_dashboard_session", "ac_dashboard_refresh")
# Agents go by handle, owners by email: ids of ours are in no answer and in no frame.
INTERNAL = re.compile(r"\b(agt|own)_\w{16}")


class Owner:
    """A browser without a page: it keeps cookies and says where it comes from."""

    def __init__(self, server: Server | Cluster, email: str, http: httpx.Client, pages: str) -> None:
        self.server, self.email, self.http, self.pages = server, email, http, pages

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        if body is not None:
            more["json"] = body
        answer = self.http.request(method, f"/dashboard/{path}", **more)
        assert not INTERNAL.search(answer.text), answer.text
        return answer

    def claim(self, peer: Peer) -> httpx.Response:
        return self.call("POST", "agents/claim", {"api_key": peer.api_key})

    def agents(self) -> list[str]:
        return [agent["handle"] for agent in ok(self.call("GET", "agents"))["agents"]]

    def actions(self, peer: Peer) -> list[str]:
        """Actions of the feed but the messages, oldest first."""
        events = ok(self.call("GET", f"agents/{peer.handle}/events"))["events"]
        return [event["action"] for event in reversed(events) if not event["action"].startswith("message.")]

    def ticket(self) -> str:
        got = ok(self.call("POST", "ws/ticket"))
        assert got["expires_in"] == 30 and uuid.UUID(got["ticket"]).version == 4
        return str(got["ticket"])

    def watch(self) -> ClientConnection:
        socket = dial(self.server, self.ticket())
        assert json.loads(socket.recv(timeout=FRAME_DEADLINE_S)) == {"type": "hello.ok"}
        return socket


def dial(server: Server | Cluster, ticket: str, **headers: str) -> ClientConnection:
    url = f"{server.ws_base}/v1/ws/dashboard?ticket={ticket}"
    return connect(url, additional_headers=headers, proxy=None)


def live(socket: ClientConnection, *kinds: str) -> dict[str, Any]:
    """The next frame of one of these kinds; hints to read again come at any time."""
    while True:
        text = socket.recv(timeout=FRAME_DEADLINE_S)
        assert isinstance(text, str) and not INTERNAL.search(text), text
        read: dict[str, Any] = json.loads(text)
        if read["type"] in kinds:
            return read


def cookies_of(answer: httpx.Response) -> dict[str, str]:
    """Set-Cookie headers by name; each is for scripts of nobody and for our own site."""
    found = {}
    for header in answer.headers.get_list("set-cookie"):
        parts = [part.strip() for part in header.split(";")]
        name, value = parts[0].split("=", 1)
        assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(parts), header
        assert "Secure" not in parts, "plain HTTP on a loopback address"
        found[name] = value
    return found


def sign_in(server: Server | Cluster, email: str | None = None) -> Owner:
    email = email or f"owner-{uuid.uuid4().hex[:8]}@example.com"
    base = server.base
    owner = Owner(server, email, httpx.Client(base_url=base, headers={"origin": base}, timeout=30), base)
    before = len(server.mails(email))
    asked = ok(owner.call("POST", "auth/otp/request", {"email": f" {email.upper()} "}))
    assert asked["pending_id"].startswith("dpnd_") and asked["message"]
    code = server.mailed_code(email, before)
    answer = owner.call("POST", "auth/otp/verify", {"pending_id": asked["pending_id"], "code": code})
    body = ok(answer)["owner"]
    assert set(body) == {"email", "display_name", "created_at"} and body["email"] == email
    assert TIMESTAMP.fullmatch(body["created_at"])
    assert set(cookies_of(answer)) == set(COOKIES) and answer.headers["cache-control"] == "no-store"
    return owner


@pytest.fixture
def owners(server: Server) -> Iterator[Callable[..., Owner]]:
    made: list[Owner] = []

    def make_one(email: str | None = None) -> Owner:
        made.append(sign_in(server, email))
        return made[-1]

    yield make_one
    for owner in made:
        owner.http.close()


@pytest.fixture
def owner(owners: Callable[..., Owner]) -> Owner:
    return owners()


# Sign-in and sessions


def test_codes(server: Server) -> None:
    with httpx.Client(base_url=server.base, timeout=30) as http:
        def post_json(path: str, body: Any) -> httpx.Response:
            return http.post(f"/dashboard/auth/otp/{path}", json=body)

        invalid(post_json("request", {}), "email")
        invalid(post_json("request", {"email": "nobody"}), "email")
        email = f"codes-{uuid.uuid4().hex[:8]}@example.com"
        first = ok(post_json("request", {"email": email}))["pending_id"]
        first_code = server.mailed_code(email)
        second = ok(post_json("request", {"email": email}))["pending_id"]
        code = server.mailed_code(email, 1)
        refused(post_json("verify", {"pending_id": first, "code": first_code}), 400, "EXPIRED")
        invalid(post_json("verify", {"pending_id": second, "code": "12345"}), "code")
        invalid(post_json("verify", {"code": code}), "pending_id")
        refused(post_json("verify", {"pending_id": second, "code": "12345x"}), 400, "INVALID_CODE")
        ok(post_json("verify", {"pending_id": second, "code": code}))
        refused(post_json("verify", {"pending_id": second, "code": code}), 400, "EXPIRED")
        refused(post_json("verify", {"pending_id": "dpnd_0000000000000000", "code": code}), 400, "EXPIRED")
        burnt = ok(post_json("request", {"email": email}))["pending_id"]
        code = server.mailed_code(email, 2)
        for _ in range(5):
            refused(post_json("verify", {"pending_id": burnt, "code": wrong(code)}), 400, "INVALID_CODE")
        refused(post_json("verify", {"pending_id": burnt, "code": code}), 400, "EXPIRED")
        # Codes of agents and of owners are different things.
        handle = f"mixed-{uuid.uuid4().hex[:8]}"
        asked = http.post("/v1/register", json={"email": email, "handle": handle}).json()["pending_id"]
        code = server.mailed_code(email, 3)
        refused(post_json("verify", {"pending_id": asked, "code": code}), 400, "EXPIRED")
        made = http.post("/v1/register/verify", json={"pending_id": asked, "code": code})
        assert made.status_code == 201, "an owner's address may back an agent"


def test_a_sign_in_that_cannot_be_mailed(own_server: Server) -> None:
    outbox = own_server.data / "outbox"
    outbox.rename(outbox.with_name("elsewhere"))
    outbox.write_text("in the way")
    answer = httpx.post(f"{own_server.base}/dashboard/auth/otp/request", json={"email": "a@example.com"}, timeout=30)
    refused(answer, 500, "OTP_FAILED")


def test_who_is_signed_in(server: Server, owner: Owner) -> None:
    me = ok(owner.call("GET", "me"))
    assert me == ok(owner.call("GET", "bootstrap"))["owner"]
    assert ok(owner.call("GET", "bootstrap"))["agents"] == []
    again = sign_in(server, owner.email)
    assert ok(again.call("GET", "me")) == me, "the same owner, since the first time"
    for cookie in ("", "x", f"{'0' * 16}.secret", owner.http.cookies[COOKIES[1]]):
        headers = {"cookie": f"{COOKIES[0]}={cookie}"}
        refused(httpx.get(f"{server.base}/dashboard/me", headers=headers), 401, "UNAUTHORIZED")
    refused(owner.call("GET", "nothing/here"), 404, "NOT_FOUND")
    refused(owner.call("PUT", "me"), 405, "METHOD_NOT_ALLOWED")
    # A key is no cookie, and a cookie no key.
    refused(owner.http.get("/v1/agents/me"), 401, "UNAUTHORIZED")


def test_a_refresh_token_works_once_and_together_for_all(server: Server, owner: Owner) -> None:
    old = {name: owner.http.cookies[name] for name in COOKIES}

    def refresh(token: str) -> httpx.Response:
        headers = {"cookie": f"{COOKIES[1]}={token}"}
        return httpx.post(f"{server.base}/dashboard/auth/refresh", headers=headers, timeout=30)

    with ThreadPoolExecutor(8) as tabs:
        answers = list(tabs.map(refresh, [old[COOKIES[1]]] * 8))
    pairs = {tuple(sorted(cookies_of(answer).items())) for answer in answers}
    assert [ok(answer)["message"] for answer in answers] and len(pairs) == 1
    new = dict(pairs.pop())
    assert new[COOKIES[0]] != old[COOKIES[0]] and new[COOKIES[1]] != old[COOKIES[1]]
    for access in (old[COOKIES[0]], new[COOKIES[0]]):
        headers = {"cookie": f"{COOKIES[0]}={access}"}
        ok(httpx.get(f"{server.base}/dashboard/me", headers=headers))
    ok(refresh(new[COOKIES[1]]))
    for bad in ("", "x.y", new[COOKIES[1]][:-2] + "xx", new[COOKIES[0]]):
        answer = refresh(bad)
        refused(answer, 401, "UNAUTHORIZED")
        assert cookies_of(answer) == dict.fromkeys(COOKIES, "")
        assert all("Max-Age=0" in header for header in answer.headers.get_list("set-cookie"))


def test_sign_out_ends_one_browser_and_its_sockets(server: Server, owner: Owner) -> None:
    other = sign_in(server, owner.email)
    socket, others = owner.watch(), other.watch()
    kept = owner.http.cookies[COOKIES[0]]
    answer = owner.call("POST", "auth/logout")
    ok(answer)
    assert cookies_of(answer) == dict.fromkeys(COOKIES, "")
    assert close_code(socket) == 4401
    refused(httpx.get(f"{server.base}/dashboard/me", headers={"cookie": f"{COOKIES[0]}={kept}"}), 401, "UNAUTHORIZED")
    ok(other.call("GET", "me"))
    others.ping().wait(FRAME_DEADLINE_S)
    ok(owner.call("POST", "auth/logout"))  # nobody is signed in: as good
    # An expired access token is as good as none: the refresh token alone says which browser it is.
    alone = {"cookie": f"{COOKIES[1]}={other.http.cookies[COOKIES[1]]}"}
    ok(httpx.post(f"{server.base}/dashboard/auth/logout", headers=alone))
    refused(other.call("GET", "me"), 401, "UNAUTHORIZED")
    others.close()


def test_sign_out_everywhere_is_at_once(server: Server, owner: Owner) -> None:
    others = [sign_in(server, owner.email) for _ in range(2)]
    sockets = [one.watch() for one in (owner, *others)]
    unused = others[0].ticket()
    answer = owner.call("POST", "auth/logout/all")
    assert ok(answer)["sessions_revoked"] == 3
    assert cookies_of(answer) == dict.fromkeys(COOKIES, "")
    for one in (owner, *others):
        refused(one.call("GET", "me"), 401, "UNAUTHORIZED")
        refused(one.call("POST", "auth/logout/all"), 401, "UNAUTHORIZED")
    for one in others:
        refused(one.call("POST", "auth/refresh"), 401, "UNAUTHORIZED")
    assert [close_code(socket) for socket in sockets] == [4401] * 3
    assert close_code(dial(server, unused)) == 1008
    ok(sign_in(server, owner.email).call("GET", "me"))


def test_signing_in_outlives_a_restart(own_server: Server) -> None:
    owner = sign_in(own_server)
    own_server.kill()
    own_server.start()
    ok(owner.call("GET", "me"))
    ok(owner.call("POST", "auth/refresh"))


def test_only_our_own_pages_are_obeyed(server: Server, owner: Owner, alice: Peer) -> None:
    changes = [
        ("POST", "auth/otp/request"), ("POST", "auth/otp/verify"), ("POST", "auth/refresh"), ("POST", "auth/logout"),
        ("POST", "auth/logout/all"), ("POST", "agents/claim"), ("DELETE", f"agents/{alice.handle}"),
        ("POST", f"agents/{alice.handle}/pause"), ("POST", f"agents/{alice.handle}/unpause"), ("POST", "ws/ticket"),
    ]
    for method, path in changes:
        for origin in ("https://evil.example", "null", owner.pages.replace("127.0.0.1", "localhost")):
            refused(owner.call(method, path, {"api_key": alice.api_key}, headers={"origin": origin}), 403, "FORBIDDEN")
    ok(owner.call("GET", "me", headers={"origin": "https://evil.example"}))
    form = owner.call("POST", "agents/claim", data={"api_key": alice.api_key})
    invalid(form)
    plain = owner.call("POST", "agents/claim", content=json.dumps({"api_key": alice.api_key}), headers={"content-type": "text/plain"})
    invalid(plain)
    assert "access-control-allow-credentials" not in ok_headers(owner.call("GET", "me", headers={"origin": "https://evil.example"}))
    with pytest.raises(InvalidStatus) as refusal:
        dial(server, owner.ticket(), Origin="https://evil.example")
    assert refusal.value.response.status_code == 403
    here = server if isinstance(server, Server) else server.nodes[0]
    with dial(here, owner.ticket(), Origin=here.base) as socket:
        assert live(socket, "hello.ok")
    ok(owner.claim(alice), 201)


def ok_headers(answer: httpx.Response) -> httpx.Headers:
    ok(answer)
    return answer.headers


def test_limits_per_address(limited: Callable[..., Server]) -> None:
    server = limited(sign_in_per_hour=2, sign_in_verify_per_10_minutes=2, refresh_per_minute=2, claims_per_10_minutes=2)
    owner = sign_in(server, "limits@example.com")
    refused(owner.call("POST", "auth/otp/request", {"email": "limits@example.com"}), 429, "RATE_LIMITED")
    refused(owner.call("POST", "auth/otp/request", {"email": "other@example.com"}), 429, "RATE_LIMITED")
    limited_calls = [("auth/otp/verify", {"pending_id": "dpnd_0000000000000000", "code": "000000"}, 1), ("auth/refresh", None, 2)]
    limited_calls.append(("agents/claim", {"api_key": "ac_live_" + "0" * 43}, 2))
    for path, body, passes in limited_calls:
        for _ in range(passes):
            assert owner.call("POST", path, body).status_code in (200, 400, 404)
        answer = owner.call("POST", path, body)
        refused(answer, 429, "RATE_LIMITED")
        assert int(answer.headers["retry-after"]) >= 1


def test_codes_to_one_address_are_spaced_and_counted(limited: Callable[..., Server]) -> None:
    server = limited(sign_in_per_hour=0)
    email = {"email": "spaced@example.com"}
    first = ok(httpx.post(f"{server.base}/dashboard/auth/otp/request", json=email, timeout=30))
    details = refused(httpx.post(f"{server.base}/dashboard/auth/otp/request", json=email, timeout=30), 429, "RATE_LIMITED")
    assert 0 < details["retry_after_ms"] <= 60_000
    code = {"pending_id": first["pending_id"], "code": server.mailed_code(email["email"])}
    ok(httpx.post(f"{server.base}/dashboard/auth/otp/verify", json=code, timeout=30))
    ok(httpx.post(f"{server.base}/dashboard/auth/otp/request", json={"email": "other@example.com"}, timeout=30))


def test_cookies_travel_encrypted_unless_the_server_is_for_this_machine(own_server: Server) -> None:
    own_server.stop()
    own_server.more["AGENTCHAT_PUBLIC_URL"] = "https://chat.example.com"
    own_server.start()
    asked = httpx.post(f"{own_server.base}/dashboard/auth/otp/request", json={"email": "secure@example.com"}, timeout=30)
    body = {"pending_id": ok(asked)["pending_id"], "code": own_server.mailed_code("secure@example.com")}
    answer = httpx.post(f"{own_server.base}/dashboard/auth/otp/verify", json=body, timeout=30)
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2 and all({"Secure", "HttpOnly", "SameSite=Lax"} <= set(cookie.split("; ")) for cookie in cookies)


# Pages


PAGES = ["/", "/login", "/account", *(f"/agents/x{rest}" for rest in ("", "/conversations/y", "/contacts", "/blocks", "/activity", "/settings"))]


def test_pages_run_our_scripts_alone(server: Server) -> None:
    shells = set()
    for path in PAGES:
        page = httpx.get(server.base + path)
        ok_page(page)
        shells.add(page.text)
    assert len(shells) == 1, "a page holds no data"
    files = set(re.findall(r'(?:href|src)="(/[^"]+)"', shells.pop()))
    assert len(files) > 20
    for path in files:
        file = httpx.get(server.base + path)
        ok_page(file)
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    for path in ("/assets/x/none.js", "/agents", "/agents/x/y", "/dashboard", "/dashboard/"):
        refused(httpx.get(server.base + path), 404, "NOT_FOUND")


def ok_page(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    policy = dict(rule.strip().split(" ", 1) for rule in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in str(policy) and "http" not in str(policy)
    assert (answer.headers["x-content-type-options"], answer.headers["referrer-policy"]) == ("nosniff", "no-referrer")
    assert not re.search(r"<script(?![^>]*src=)|<style|style=|https?://(?!www\.w3\.org/2000/svg)", answer.text)


# Claims


def test_claim_and_release(server: Server, owner: Owner, owners: Callable[..., Owner], alice: Peer, bob: Peer) -> None:
    before = alice.call("GET", "/v1/agents/me").content
    claimed = ok(owner.claim(alice), 201)
    assert set(claimed) == CLAIMED_KEYS and claimed["handle"] == alice.handle
    assert TIMESTAMP.fullmatch(claimed["claimed_at"]) and claimed["paused_by_owner"] == "none"
    ok(owner.claim(bob), 201)
    assert owner.agents() == [alice.handle, bob.handle]
    assert ok(owner.call("GET", "bootstrap"))["agents"][0] == claimed
    assert alice.call("GET", "/v1/agents/me").content == before, "the agent cannot tell"

    refused(owner.claim(alice), 409, "ALREADY_CLAIMED")
    assert owner.actions(alice) == ["agent.created", "agent.claimed"]
    invalid(owner.call("POST", "agents/claim", {}), "api_key")
    for key in ("x", "ac_live_" + "0" * 43):
        refused(owner.call("POST", "agents/claim", {"api_key": key}), 404, "INVALID_API_KEY")

    stranger = owners()
    for _ in range(4):
        refused(stranger.claim(alice), 409, "ALREADY_CLAIMED")
    long = stranger.call("POST", "agents/claim", {"api_key": alice.api_key}, headers={"user-agent": "u" * 300})
    refused(long, 409, "ALREADY_CLAIMED")
    details = refused(stranger.claim(alice), 429, "TOO_MANY_CLAIMS")
    assert 0 < details["retry_after_ms"] <= 600_000
    refused(owner.claim(alice), 409, "ALREADY_CLAIMED")
    assert stranger.agents() == []
    attempts = [event for event in ok(owner.call("GET", f"agents/{alice.handle}/events"))["events"] if event["action"] == "agent.claim_attempted"]
    assert len(attempts) == 5 and set(attempts[0]["metadata"]) == {"ip", "user_agent"}
    assert attempts[0]["metadata"] == {"ip": "127.0.0.1", "user_agent": "u" * 200}
    assert attempts[1]["metadata"]["user_agent"].startswith("python-httpx")
    assert stranger.email not in json.dumps(attempts)

    for path in (alice.handle, f"@{alice.handle.upper()}"):
        shown = ok(owner.call("GET", f"agents/{path}"))
        assert set(shown) == CLAIMED_KEYS - {"claimed_at"} | {"email_masked"}
        assert shown["email_masked"] == "a****@example.com"
    ok(owner.call("DELETE", f"agents/{alice.handle}"))
    refused(owner.call("DELETE", f"agents/{alice.handle}"), 404, "AGENT_NOT_FOUND")
    assert owner.agents() == [bob.handle]
    assert alice.call("GET", "/v1/agents/me").content == before
    ok(stranger.claim(alice), 201)
    assert "agent.claim_attempted" not in stranger.actions(alice), "that is the incumbent's business"
    assert "agent.released" not in stranger.actions(alice)
    server.operate("POST", f"agents/{alice.handle}/pause", {"mode": "send"})
    assert stranger.actions(alice) == ["agent.created", "agent.claimed", "agent.paused"]
    ok(stranger.call("DELETE", f"agents/{alice.handle}"))
    ok(owner.claim(alice), 201)
    assert owner.actions(alice)[-1] == "agent.claimed" and "agent.unpaused" not in owner.actions(alice)


def test_whom_nobody_can_claim(server: Server, owner: Owner, alice: Peer, bob: Peer) -> None:
    server.operate("POST", f"agents/{bob.handle}/system")
    refused(owner.claim(bob), 409, "SYSTEM_AGENT_PROTECTED")
    ok(alice.call("DELETE", f"/v1/agents/{alice.handle}"))
    refused(owner.claim(alice), 404, "INVALID_API_KEY")


def test_one_of_many_claims_wins(server: Server, alice: Peer) -> None:
    racing = [sign_in(server) for _ in range(4)]
    with ThreadPoolExecutor(4) as at_once:
        codes = sorted(answer.status_code for answer in at_once.map(lambda one: one.claim(alice), racing))
    assert codes == [201, 409, 409, 409]
    assert sorted(len(one.agents()) for one in racing) == [0, 0, 0, 1]


def rotated(server: Server, peer: Peer) -> str:
    before = len(server.mails(peer.email))
    asked = ok(peer.call("POST", f"/v1/agents/{peer.handle}/rotate-key"))["pending_id"]
    body = {"pending_id": asked, "code": server.mailed_code(peer.email, before)}
    return str(ok(peer.call("POST", f"/v1/agents/{peer.handle}/rotate-key/verify", body))["api_key"])


def recovered(server: Server, peer: Peer) -> str:
    before = len(server.mails(peer.email))
    asked = httpx.post(f"{server.base}/v1/agents/recover", json={"email": peer.email, "handle": peer.handle}).json()
    body = {"pending_id": asked["pending_id"], "code": server.mailed_code(peer.email, before)}
    return str(ok(httpx.post(f"{server.base}/v1/agents/recover/verify", json=body))["api_key"])


@pytest.mark.parametrize("renew", [rotated, recovered])
def test_a_new_key_takes_the_agent_from_its_owner(
    server: Server, owner: Owner, owners: Callable[..., Owner], alice: Peer, renew: Callable[[Server, Peer], str]
) -> None:
    ok(owner.claim(alice), 201)
    ok(owner.call("POST", f"agents/{alice.handle}/pause", {"mode": "full"}))
    agent, page = by_header(server, alice), owner.watch()
    key = renew(server, alice)
    assert live(page, "agent.updated")["agent_handle"] == alice.handle
    assert close_code(agent) == 4401
    assert owner.agents() == []
    refused(owner.call("GET", f"agents/{alice.handle}"), 404, "AGENT_NOT_FOUND")
    refused(owner.claim(alice), 404, "INVALID_API_KEY")
    alice.api_key = key
    alice.http.headers["authorization"] = f"Bearer {key}"
    assert ok(alice.call("GET", "/v1/agents/me"))["paused_by_owner"] == "none"
    other = owners()
    ok(other.claim(alice), 201)
    assert other.actions(alice) == ["agent.created", "agent.key_rotated", "agent.claimed"], "nothing of an owner before"
    ok(other.call("DELETE", f"agents/{alice.handle}"))
    ok(owner.claim(alice), 201)
    events = ok(owner.call("GET", f"agents/{alice.handle}/events"))["events"]
    ended = [(event["action"], event["actor_type"], event["metadata"]) for event in reversed(events)]
    assert ended == [
        ("agent.created", "agent", {}), ("agent.claimed", "owner", {}), ("agent.paused", "owner", {"mode": "full"}),
        ("agent.key_rotated", "agent", {}), ("agent.claim_revoked", "system", {"reason": "key_rotated"}),
        ("agent.unpaused", "system", {}), ("agent.claimed", "owner", {}),
    ]
    page.close()


def test_a_key_that_nobody_claimed_leaves_no_loss(server: Server, owner: Owner, alice: Peer) -> None:
    alice.api_key = rotated(server, alice)
    ok(owner.claim(alice), 201)
    assert owner.actions(alice) == ["agent.created", "agent.key_rotated", "agent.claimed"]


def test_a_deleted_agent_is_nobodys(server: Server, owner: Owner, alice: Peer) -> None:
    ok(owner.claim(alice), 201)
    ok(alice.call("DELETE", f"/v1/agents/{alice.handle}"))
    assert owner.agents() == []
    refused(owner.call("GET", f"agents/{alice.handle}"), 404, "AGENT_NOT_FOUND")


# What an owner sees


def paths(peer: Peer, conversation: str, group: str, attachment: str) -> list[tuple[str, str, Any]]:
    """Everything under an agent."""
    under = f"agents/{peer.handle}"
    reads = [
        "", "/conversations", f"/messages?conversation_id={conversation}", "/contacts", "/blocks", "/events", "/presence",
        f"/profiles/{peer.handle}", f"/groups/{group}", f"/attachments/{attachment}",
    ]
    changes = [("POST", f"{under}/pause", {"mode": "send"}), ("POST", f"{under}/unpause", None), ("DELETE", under, None)]
    return [("GET", f"{under}{path}", None) for path in reads] + changes


def test_foreign_unclaimed_and_absent_agents_look_alike(
    server: Server, owner: Owner, owners: Callable[..., Owner], alice: Peer, bob: Peer, enrolled: Enrol
) -> None:
    conversation = befriend(alice, bob)
    group = make(alice, bob)["id"]
    attachment = uploaded(alice, to=bob.handle)
    ok(owner.claim(alice), 201)
    deleted = enrolled("deleted")
    ok(owners().claim(deleted), 201)
    ok(deleted.call("DELETE", f"/v1/agents/{deleted.handle}"))
    stranger = owners()
    differs = {"x-request-id", "date"}

    def shape(answer: httpx.Response) -> tuple[int, bytes, list[tuple[str, str]]]:
        refused(answer, 404, "AGENT_NOT_FOUND")
        return answer.status_code, answer.content, sorted(item for item in answer.headers.items() if item[0] not in differs)

    def table(peer: Peer) -> list[tuple[str, str, Any]]:
        return paths(peer, conversation, group, attachment)

    nobody = Peer("never-was-anybody", "", "", alice.http)
    rows = zip(table(alice), table(bob), table(deleted), table(nobody), strict=True)
    for foreign, unclaimed, gone, absent in rows:
        seen = [shape(stranger.call(*row)) for row in (foreign, unclaimed, gone, absent)]
        assert all(one == seen[0] for one in seen), foreign
    without = httpx.Client(base_url=server.base)
    for method, path, body in table(alice):
        refused(without.request(method, f"/dashboard/{path}", json=body), 401, "UNAUTHORIZED")
    assert ok(alice.call("GET", "/v1/agents/me"))["paused_by_owner"] == "none"


def test_conversations_and_messages_are_the_agents(owner: Owner, alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    carol = enrolled("carol")
    ok(owner.claim(alice), 201)
    conversation = befriend(alice, bob)
    for n in range(3):
        ok(alice.send(bob.handle, f"out {n}"), 201)
    received = ok(bob.send(alice.handle, "in"), 201)["id"]
    hidden = ok(alice.send(bob.handle, "hidden"), 201)["id"]
    ok(alice.call("DELETE", f"/v1/messages/{hidden}"))
    ok(bob.call("DELETE", f"/v1/messages/{received}"))

    group = make(carol)["id"]
    ok(post(carol, group, "before alice"), 201)
    knows(alice, carol)
    ok(carol.call("POST", f"/v1/groups/{group}/members", {"handle": alice.handle}))
    ok(post(carol, group, "for alice"), 201)

    listed = ok(owner.call("GET", f"agents/{alice.handle}/conversations"))["conversations"]
    assert [row["id"] for row in listed] == [group, conversation]
    assert all(set(row) == LIST_KEYS for row in listed)
    assert listed[1]["participants"][0]["handle"] == bob.handle and len(listed[1]["participants"]) == 1
    assert (listed[1]["last_message_preview"], listed[1]["last_message_is_own"]) == ("in", False)
    assert (listed[0]["group_name"], listed[0]["last_message_preview"]) == ("Engineering", "for alice")

    def messages(query: str) -> list[dict[str, Any]]:
        return ok(owner.call("GET", f"agents/{alice.handle}/messages?conversation_id={query}"))["messages"]

    rows = messages(conversation)
    own = ok(alice.call("GET", f"/v1/messages/{conversation}"))
    assert [row["id"] for row in rows] == [row["id"] for row in own] and received in [row["id"] for row in rows]
    assert all(set(row) == ROW_KEYS for row in rows)
    for row, same in zip(rows, own, strict=True):
        for key in ("seq", "type", "content", "metadata", "created_at", "status", "delivered_at", "read_at", "is_own", "sender_handle"):
            assert row[key] == same[key], key
        assert (row["delivery_id"] is None) == row["is_own"]
    waiting = ok(alice.call("GET", "/v1/messages/sync"))
    deliveries = {row["id"]: row["delivery_id"] for row in waiting}
    assert deliveries[received] == next(row["delivery_id"] for row in rows if row["id"] == received)
    assert [row["seq"] for row in messages(f"{conversation}&before_seq=3")] == [2, 1]
    assert messages(f"{conversation}&before_seq=0") == []
    texts = [row["content"].get("text") for row in messages(group)]
    assert "for alice" in texts and "before alice" not in texts

    here = f"agents/{alice.handle}/messages"
    invalid(owner.call("GET", here), "conversation_id")
    for bad in ("-1", "x", "1.5"):
        invalid(owner.call("GET", f"{here}?conversation_id={conversation}&before_seq={bad}"), "before_seq")
    for foreign in ("conv_0000000000000000", "x", make(carol)["id"]):
        refused(owner.call("GET", f"{here}?conversation_id={foreign}"), 404, "CONVERSATION_NOT_FOUND")

    detail = ok(owner.call("GET", f"agents/{alice.handle}/groups/{group}"))
    assert detail == ok(alice.call("GET", f"/v1/groups/{group}"))
    for foreign in (conversation, "grp_0000000000000000", "x"):
        refused(owner.call("GET", f"agents/{alice.handle}/groups/{foreign}"), 404, "CONVERSATION_NOT_FOUND")
    refused(owner.call("PUT", f"agents/{alice.handle}/groups/{group}/avatar"), 404, "NOT_FOUND")
    ok(alice.call("DELETE", f"/v1/conversations/{conversation}"))
    assert [row["id"] for row in ok(owner.call("GET", f"agents/{alice.handle}/conversations"))["conversations"]] == [group]
    ok(alice.call("POST", f"/v1/groups/{group}/leave"))
    assert ok(owner.call("GET", f"agents/{alice.handle}/conversations"))["conversations"] == []
    refused(owner.call("GET", f"agents/{alice.handle}/groups/{group}"), 404, "CONVERSATION_NOT_FOUND")


def test_books_presence_and_profiles(server: Server, owner: Owner, alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    carol, dave, gone = enrolled("carol"), enrolled("dave"), enrolled("gone")
    ok(owner.claim(alice), 201)
    befriend(alice, bob)
    ok(alice.call("PATCH", f"/v1/contacts/{bob.handle}", {"notes": "a friend"}))
    ok(bob.call("PATCH", f"/v1/agents/{bob.handle}", {"display_name": "Bob", "description": "builds"}))
    book = ok(owner.call("GET", f"agents/{alice.handle}/contacts"))
    assert (book["total"], book["limit"], book["offset"]) == (1, 100, 0)
    assert {name: book["contacts"][0][name] for name in ("handle", "display_name", "description", "notes", "avatar_url")} == {
        "handle": bob.handle, "display_name": "Bob", "description": "builds", "notes": "a friend", "avatar_url": None,
    }
    assert set(book["contacts"][0]) == {"handle", "display_name", "description", "notes", "avatar_url", "added_at"}

    for peer in (carol, gone):
        ok(alice.call("POST", f"/v1/contacts/{peer.handle}/block"))
    ok(gone.call("DELETE", f"/v1/agents/{gone.handle}"))
    blocks = ok(owner.call("GET", f"agents/{alice.handle}/blocks"))
    assert (blocks["total"], [block["handle"] for block in blocks["blocks"]]) == (1, [carol.handle])
    assert set(blocks["blocks"][0]) == {"handle", "display_name", "avatar_url", "blocked_at"}

    presence = f"agents/{alice.handle}/presence"
    assert ok(owner.call("GET", presence)) == {"handle": alice.handle, "status": "offline", "custom_message": None, "last_seen": None}
    ok(alice.call("PUT", "/v1/presence", {"status": "busy", "custom_message": "at lunch"}))
    shown = ok(owner.call("GET", presence))
    assert (shown["status"], shown["custom_message"]) == ("busy", "at lunch")

    ok(bob.call("PUT", "/v1/presence", {"status": "online", "custom_message": "secret"}))
    profile = ok(owner.call("GET", f"agents/{alice.handle}/profiles/@{bob.handle}"))
    assert set(profile) == {"handle", "display_name", "description", "avatar_url", "created_at", "is_own", "presence"}
    assert (profile["is_own"], profile["display_name"]) == (False, "Bob")
    assert set(profile["presence"]) == {"status", "last_seen", "custom_message"}
    assert (profile["presence"]["status"], profile["presence"]["custom_message"]) == ("online", None)
    assert ok(owner.call("GET", f"agents/{alice.handle}/profiles/{alice.handle}"))["is_own"] is True
    make(alice, dave)
    ok(owner.call("GET", f"agents/{alice.handle}/profiles/{dave.handle}"))
    for stranger in (carol.handle, gone.handle, "never-was-anybody"):
        refused(owner.call("GET", f"agents/{alice.handle}/profiles/{stranger}"), 404, "AGENT_NOT_FOUND")
    server.operate("POST", f"agents/{bob.handle}/suspend")
    refused(owner.call("GET", f"agents/{alice.handle}/profiles/{bob.handle}"), 404, "AGENT_NOT_FOUND")


def test_attachments(owner: Owner, alice: Peer, bob: Peer) -> None:
    ok(owner.claim(alice), 201)
    attachment = uploaded(bob, to=alice.handle)
    ok(bob.send(alice.handle, "", content={"text": "see", "attachment_id": attachment}), 201)
    here = f"agents/{alice.handle}/attachments"
    answer = owner.call("GET", f"{here}/{attachment}")
    note_as("GET /dashboard/agents/{handle}/attachments/{id}", answer)
    assert answer.status_code == 302 and httpx.get(answer.headers["location"]).content == DATA
    foreign = uploaded(bob)
    for absent in (foreign, "att_0000000000000000", "x"):
        refused(owner.call("GET", f"{here}/{absent}"), 404, "ATTACHMENT_NOT_FOUND")


def test_the_feed_merges_messages_and_pages_by_time(server: Server, owner: Owner, alice: Peer, bob: Peer, enrolled: Enrol) -> None:
    carol = enrolled("carol")
    conversation = befriend(alice, bob)
    ok(owner.claim(alice), 201)
    group = make(alice, bob)["id"]
    ok(post(alice, group, "to all"), 201)
    ok(post(bob, group, "to all as well"), 201)
    ok(alice.call("POST", f"/v1/contacts/{carol.handle}/report", {"reason": "private"}))
    ok(owner.call("POST", f"agents/{alice.handle}/pause", {"mode": "send"}))
    server.operate("POST", f"agents/{alice.handle}/suspend")
    server.operate("POST", f"agents/{alice.handle}/unsuspend")
    ok(owner.call("POST", f"agents/{alice.handle}/unpause"))
    hidden = ok(alice.send(bob.handle, "hidden"), 201)["id"]
    ok(alice.call("DELETE", f"/v1/messages/{hidden}"))

    def feed(before: str | None = None) -> list[dict[str, Any]]:
        query = httpx.QueryParams({"before": before} if before else {})
        return ok(owner.call("GET", f"agents/{alice.handle}/events?{query}"))["events"]

    events = feed()
    assert all(set(event) == {"id", "actor_type", "action", "metadata", "created_at"} for event in events)
    assert [event["created_at"] for event in events] == sorted((event["created_at"] for event in events), reverse=True)
    shown = [(event["action"], event["actor_type"], event["metadata"]) for event in reversed(events)]
    in_direct, in_group = {"conversation_id": conversation, "peer": bob.handle}, {"conversation_id": group, "peer": bob.handle}
    assert shown == [
        ("agent.created", "agent", {}),
        ("message.sent", "agent", in_direct),
        ("message.received", "agent", in_direct),
        ("agent.claimed", "owner", {}),
        ("message.sent", "agent", {"conversation_id": group, "peer": None}),
        ("message.received", "agent", in_group),
        ("agent.reported", "agent", {"handle": carol.handle}),
        ("agent.blocked", "agent", {"handle": carol.handle}),
        ("agent.paused", "owner", {"mode": "send"}),
        ("agent.status_changed", "system", {"from": "active", "to": "suspended", "reason": "operator"}),
        ("agent.status_changed", "system", {"from": "suspended", "to": "active", "reason": "operator"}),
        ("agent.unpaused", "owner", {}),
    ]
    assert "private" not in json.dumps(events)

    for n in range(130):
        ok((alice if n % 2 else bob).send((bob if n % 2 else alice).handle, str(n)), 201)
    collected: list[dict[str, Any]] = []
    while page := feed(collected[-1]["created_at"] if collected else None):
        assert len(page) >= 50 or len(collected) + len(page) == len(events) + 130
        collected += page
    assert len({event["id"] for event in collected}) == len(collected) == len(events) + 130
    assert [event["created_at"] for event in collected] == sorted((event["created_at"] for event in collected), reverse=True)
    for bad in ("x", "2026-01-01"):
        invalid(owner.call("GET", f"agents/{alice.handle}/events?before={bad}"), "before")
    assert feed("2020-01-01T00:00:00Z") == []


def test_a_page_of_the_feed_takes_from_every_conversation_what_is_newest(server: Server, owner: Owner, alice: Peer) -> None:
    ok(owner.claim(alice), 201)
    answer = server.operate("POST", "agents", {"prefix": f"crowd-{uuid.uuid4().hex[:6]}", "count": 60})
    crowd = [json.loads(line) for line in answer.text.splitlines()]
    told: list[tuple[str, str]] = []

    def told_by(sender: httpx.Client, to: str) -> None:
        body = {"to": to, "client_msg_id": uuid.uuid4().hex, "content": {"text": "x"}}
        message = ok(sender.post("/v1/messages", json=body), 201)
        told.append((message["created_at"], message["id"]))

    with ExitStack() as open_clients:
        clients = [
            open_clients.enter_context(httpx.Client(base_url=server.base, headers={"authorization": f"Bearer {one['api_key']}"}, timeout=30))
            for one in crowd
        ]
        for client in clients:
            told_by(client, alice.handle)
        # Old messages lie in conversations that are new again, some of them below a page of newer ones.
        for one, client in list(zip(crowd, clients, strict=True))[:20:4]:
            for _ in range(12):
                told_by(alice.http, one["handle"])
                told_by(client, alice.handle)

    collected: list[dict[str, Any]] = []
    pages = 0
    while True:
        query = httpx.QueryParams({"before": collected[-1]["created_at"]} if collected else {})
        page = ok(owner.call("GET", f"agents/{alice.handle}/events?{query}"))["events"]
        if not page:
            break
        collected += page
        pages += 1
    shown = [(event["created_at"], event["id"]) for event in collected if event["action"].startswith("message.")]
    assert sorted(shown) == sorted(told) and pages >= 3
    assert [at for at, _ in shown] == sorted((at for at, _ in told), reverse=True)


def test_an_owner_has_the_general_limit(limited: Callable[..., Server]) -> None:
    server = limited(requests_per_second=1)
    owner, other = sign_in(server), sign_in(server)
    answers = [owner.call("GET", "agents") for _ in range(20)]
    assert ok(answers[0]) == {"agents": []}
    refusals = [answer for answer in answers if answer.status_code != 200]
    refused(refusals[0], 429, "RATE_LIMITED")
    assert int(refusals[0].headers["retry-after"]) >= 1
    ok(other.call("GET", "agents"))


# Pause


def test_a_soft_pause_stops_sends_and_nothing_else(
    server: Server, owner: Owner, alice: Peer, bob: Peer, receiver: Receiver  # noqa: F811
) -> None:
    conversation = befriend(alice, bob)
    group = make(alice, bob)["id"]
    events = ok(alice.call("GET", "/v1/messages/sync"))
    ok(alice.call("POST", "/v1/messages/sync/ack", {"last_delivery_id": events[-1]["delivery_id"]}))
    ok(owner.claim(alice), 201)
    sent = {"to": bob.handle, "client_msg_id": "before-the-pause", "content": {"text": "x"}}
    ok(alice.call("POST", "/v1/messages", sent), 201)
    here = f"agents/{alice.handle}"
    for bad in ({}, {"mode": "none"}, {"mode": 1}):
        invalid(owner.call("POST", f"{here}/pause", bad), "mode")
    assert ok(owner.call("POST", f"{here}/pause", {"mode": "send"})) == {"handle": alice.handle, "paused_by_owner": "send"}
    assert ok(alice.call("GET", "/v1/agents/me"))["paused_by_owner"] == "send"
    assert "paused_by_owner" not in ok(bob.call("GET", f"/v1/agents/{alice.handle}"))
    refused(alice.send(bob.handle, "no"), 403, "AGENT_PAUSED_BY_OWNER")
    refused(alice.call("POST", "/v1/groups", {"name": "x"}), 403, "AGENT_PAUSED_BY_OWNER")
    refused(post(alice, group, "no"), 403, "AGENT_PAUSED_BY_OWNER")
    refused(alice.call("POST", f"/v1/groups/{group}/members", {"handle": bob.handle}), 403, "AGENT_PAUSED_BY_OWNER")
    replay = alice.call("POST", "/v1/messages", sent)
    assert ok(replay)["client_msg_id"] == "before-the-pause" and replay.headers["idempotent-replay"] == "true"
    webhook = hook(alice, receiver, "message.new")["id"]
    waiting = ok(bob.send(alice.handle, "before she connects"), 201)["id"]
    with by_header(server, alice) as socket:
        assert frame(socket)["payload"]["id"] == waiting, "what waited is drained"
        got = ok(bob.send(alice.handle, "live"), 201)["id"]
        assert frame(socket)["payload"]["id"] == got
    assert [receiver.event()["data"]["id"] for _ in range(2)] == [waiting, got]
    ok(alice.call("DELETE", f"/v1/webhooks/{webhook}"))
    ok(alice.call("PUT", "/v1/presence", {"status": "busy"}))
    assert ok(bob.call("GET", f"/v1/presence/{alice.handle}"))["status"] == "busy"
    ok(alice.call("POST", f"/v1/messages/{got}/read"))
    assert len(ok(alice.call("GET", f"/v1/messages/{conversation}"))) == 5
    rows = ok(alice.call("GET", "/v1/messages/sync"))
    assert [row["id"] for row in rows] == [waiting], "the other one was read"
    assert ok(alice.call("POST", "/v1/messages/sync/ack", {"last_delivery_id": rows[-1]["delivery_id"]})) == {"acked": 1}
    ok(owner.call("POST", f"{here}/pause", {"mode": "full"}))
    ok(owner.call("POST", f"{here}/pause", {"mode": "full"}))
    ok(owner.call("POST", f"{here}/pause", {"mode": "send"}))
    assert ok(owner.call("POST", f"{here}/unpause")) == {"handle": alice.handle, "paused_by_owner": "none"}
    ok(owner.call("POST", f"{here}/unpause"))
    ok(alice.send(bob.handle, "yes"), 201)
    assert owner.actions(alice)[2:] == ["agent.paused", "agent.paused", "agent.paused", "agent.unpaused"], "toggles, not calls"


def test_a_full_pause_parks_everything_and_lets_it_go_in_order(
    server: Server, owner: Owner, alice: Peer, bob: Peer, receiver: Receiver  # noqa: F811
) -> None:
    conversation = befriend(alice, bob)
    ok(owner.claim(alice), 201)
    hook(alice, receiver)
    page = owner.watch()
    # Webhooks are called beside the sockets: what was called before the pause must not be taken for a leak.
    first = ok(bob.send(alice.handle, "before"), 201)["id"]
    assert receiver.event()["data"]["id"] == first
    ok(alice.call("POST", "/v1/messages/sync/ack", {"last_delivery_id": ok(alice.call("GET", "/v1/messages/sync"))[-1]["delivery_id"]}))
    sockets = [by_header(server, alice), by_header(server, alice)]
    ok(owner.call("POST", f"agents/{alice.handle}/pause", {"mode": "full"}))
    assert live(page, "message.new")["payload"]["id"] == first

    parked = [ok(bob.send(alice.handle, str(n)), 201)["id"] for n in range(20)]
    for _ in parked:
        assert live(page, "message.new")["agent_handle"] == alice.handle, "the owner sees what the agent does not"
    mine = ok(alice.call("GET", f"/v1/messages/{conversation}"))
    assert mine[0]["id"] == parked[-1], "its history is open"
    group = make(bob, alice)["id"]
    ok(bob.call("DELETE", f"/v1/groups/{group}"))
    talker = by_header(server, bob)
    tell(talker, type="typing.start", payload={"conversation_id": conversation})
    ok(bob.call("PUT", "/v1/presence", {"status": "busy"}))
    read = next(row for row in ok(bob.call("GET", f"/v1/messages/{conversation}")) if row["sender"] == alice.handle)
    ok(bob.call("POST", f"/v1/messages/{read['id']}/read"))
    assert ok(alice.call("GET", "/v1/messages/sync")) == []
    for body in (b"{", b'{"last_delivery_id": 7}', b""):
        answer = alice.call("POST", "/v1/messages/sync/ack", content=body, headers={"content-type": "application/json"})
        assert ok(answer) == {"acked": 0}, "before the body is even parsed"
    late = by_header(server, alice)
    for socket in (*sockets, late):
        # A pong comes after whatever was pushed before: nothing was.
        assert socket.ping().wait(FRAME_DEADLINE_S)
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0)
    assert receiver.calls.empty()

    ok(owner.call("POST", f"agents/{alice.handle}/unpause"))
    newest = ok(bob.send(alice.handle, "after"), 201)["id"]
    for socket in (*sockets, late):
        got: list[str] = []
        while not got or got[-1] != newest:
            read_frame = frame(socket)
            if read_frame["type"] == "message.new" and read_frame["payload"]["conversation_id"] == conversation:
                got.append(read_frame["payload"]["id"])
        assert got == parked + [newest], "in the order in which they were sent, before anything newer"
    for socket in (*sockets, late, talker, page):
        socket.close()


def test_what_is_parked_counts_and_a_refused_send_costs_nothing(limited: Callable[..., Server]) -> None:
    server = limited(backlog_warn=2, backlog_max=3, cold_threads=1, requests_per_second=0, sends_per_second=0)
    alice, bob, carol = enrol(server, "alice"), enrol(server, "bob"), enrol(server, "carol")
    befriend(alice, bob)
    owner = sign_in(server)
    ok(owner.claim(alice), 201)
    ok(owner.call("POST", f"agents/{alice.handle}/pause", {"mode": "full"}))
    answers = [bob.send(alice.handle, str(n)) for n in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    warnings = [answer.headers.get("x-backlog-warning") for answer in answers]
    assert warnings[:3] == [None, f"{alice.handle}=2", f"{alice.handle}=3"], "as with any backlog"
    for _ in range(3):
        refused(alice.send(carol.handle, "cold"), 403, "AGENT_PAUSED_BY_OWNER")
    ok(owner.call("POST", f"agents/{alice.handle}/unpause"))
    ok(alice.send(carol.handle, "cold"), 201)


def test_release_ends_a_pause(server: Server, owner: Owner, alice: Peer, bob: Peer) -> None:
    befriend(alice, bob)
    ok(owner.claim(alice), 201)
    ok(owner.call("POST", f"agents/{alice.handle}/pause", {"mode": "full"}))
    with by_header(server, alice) as socket:
        parked = ok(bob.send(alice.handle, "parked"), 201)["id"]
        ok(owner.call("DELETE", f"agents/{alice.handle}"))
        assert frame(socket)["payload"]["id"] == parked
    assert ok(alice.call("GET", "/v1/agents/me"))["paused_by_owner"] == "none"
    ok(owner.claim(alice), 201)
    assert owner.actions(alice) == [
        "agent.created", "agent.claimed", "agent.paused", "agent.released", "agent.unpaused", "agent.claimed",
    ]


# Live


def test_tickets(server: Server, owner: Owner) -> None:
    ticket = owner.ticket()
    with dial(server, ticket) as socket:
        assert live(socket, "hello.ok")
        assert close_code(dial(server, ticket)) == 1008, "one use"
        tell(socket, type="message.send", payload={})
        socket.send(b"\x00binary")
        assert socket.ping().wait(FRAME_DEADLINE_S), "whatever it says is ignored"
    for bad in ("", "x", str(uuid.uuid4())):
        socket = dial(server, bad)
        assert close_code(socket) == 1008 and socket.close_reason == "Invalid ticket"
    answer = owner.http.get("/v1/ws/dashboard")
    invalid(answer)


def test_the_feed_shows_each_owned_agent_once_the_sender_first(
    server: Server, owner: Owner, owners: Callable[..., Owner], alice: Peer, bob: Peer, enrolled: Enrol
) -> None:
    carol = enrolled("carol")
    stranger = owners()
    for one, peer in ((owner, alice), (owner, bob), (stranger, carol)):
        ok(one.claim(peer), 201)
    ok(bob.call("PATCH", f"/v1/agents/{bob.handle}", {"display_name": "Bob"}))
    page, second, theirs = owner.watch(), owner.watch(), stranger.watch()
    sent = ok(bob.send(alice.handle, "hello"), 201)
    for socket in (page, second):
        views = [live(socket, "message.new") for _ in range(2)]
        assert [view["agent_handle"] for view in views] == [bob.handle, alice.handle]
        for view, own in zip(views, (True, False), strict=True):
            assert set(view) == {"type", "agent_handle", "conversation_id", "payload"} and set(view["payload"]) == ROW_KEYS
            row = view["payload"]
            assert (row["id"], row["is_own"], view["conversation_id"]) == (sent["id"], own, sent["conversation_id"])
            assert (row["sender_handle"], row["sender_display_name"], row["status"]) == (bob.handle, "Bob", "stored")
            assert (row["delivery_id"] is None) == own
    delivery = ok(alice.call("GET", "/v1/messages/sync"))[0]["delivery_id"]
    assert views[1]["payload"]["delivery_id"] == delivery
    group = make(carol, alice, bob)["id"]
    to_all = ok(post(carol, group, "to all"), 201)["id"]

    def until_message(socket: ClientConnection, message: str) -> dict[str, Any]:
        while (read := live(socket, "message.new"))["payload"]["id"] != message:
            pass
        return read

    handles = {until_message(page, to_all)["agent_handle"], until_message(page, to_all)["agent_handle"]}
    assert handles == {alice.handle, bob.handle}
    assert until_message(theirs, to_all)["payload"]["is_own"] is True
    ok(owner.call("POST", f"agents/{alice.handle}/pause", {"mode": "send"}))
    kinds: set[str] = set()
    while kinds != {"agent.updated", "activity.new"}:
        hint = live(page, "agent.updated", "activity.new")
        assert set(hint) == {"type", "agent_handle"}
        kinds |= {hint["type"]} if hint["agent_handle"] == alice.handle else set()
    with pytest.raises(TimeoutError):
        assert theirs.ping().wait(FRAME_DEADLINE_S)
        while True:
            read = json.loads(theirs.recv(timeout=0))
            assert read.get("agent_handle") == carol.handle, read
    for socket in (page, second, theirs):
        socket.close()


def test_a_stopping_server_sends_dashboards_away(own_server: Server) -> None:
    owner = sign_in(own_server)
    socket = owner.watch()
    own_server.stop()
    assert close_code(socket) == 1001


# Invisible


def observed(server: Server, watching: bool, receiver: Receiver, enrolled: Enrol) -> list[str]:  # noqa: F811
    """Everything that two agents can observe of one story, with names, ids and times made alike."""
    alice, bob = enrolled("seen"), enrolled("peer")
    owner = sign_in(server) if watching else None
    if owner:
        ok(owner.claim(alice), 201)
        refused(sign_in(server).claim(alice), 409, "ALREADY_CLAIMED")
        page = owner.watch()
    log: list[str] = []
    names: dict[str, str] = {}

    def alike(text: str) -> str:
        patterns = [
            r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", r"(?:agt|conv|grp|inv|wh|att)_\w{16}", r"msg_\w+", r"del_[0-9a-f]{32}",
            r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", r"req_\w{12}",
        ]
        for n, pattern in enumerate(patterns):
            for found in re.findall(pattern, text):
                names.setdefault(found, f"<{n}.{sum(name.startswith(f'<{n}.') for name in names.values())}>" if n else "<time>")
        for value in sorted(names, key=len, reverse=True):
            text = text.replace(value, names[value])
        return text.replace(alice.handle, "alice").replace(bob.handle, "bob")

    def look() -> None:
        if owner:
            for path in ("", "/conversations", "/contacts", "/blocks", "/events", "/presence"):
                ok(owner.call("GET", f"agents/{alice.handle}{path}"))
            for row in ok(owner.call("GET", f"agents/{alice.handle}/conversations"))["conversations"]:
                ok(owner.call("GET", f"agents/{alice.handle}/messages?conversation_id={row['id']}"))
                ok(owner.call("GET", f"agents/{alice.handle}/profiles/{bob.handle}"))

    def rest(peer: Peer, method: str, path: str, body: Any = None) -> Any:
        answer = peer.call(method, path, body)
        headers = sorted(item for item in answer.headers.items() if item[0] not in ("date", "content-length"))
        log.append(alike(f"{method} {path} {answer.status_code} {headers} {answer.text}"))
        look()
        return answer.json()

    def message(peer: Peer, to: Peer, text: str) -> Any:
        return rest(peer, "POST", "/v1/messages", {"to": to.handle, "client_msg_id": str(uuid.uuid4()), "content": {"text": text}})

    webhook = ok(alice.call("POST", "/v1/webhooks", {"url": receiver.url, "events": ["message.new", "message.read"]}), 201)["id"]
    sockets = [by_header(server, peer) for peer in (alice, bob)]
    for peer in (alice, bob):
        rest(peer, "GET", "/v1/agents/me")
    opened = message(alice, bob, "hello")
    message(bob, alice, "hello back")
    rest(bob, "POST", f"/v1/messages/{opened['id']}/read")
    for peer, other in ((alice, bob), (bob, alice)):
        for path in (
            "/v1/messages/sync", "/v1/conversations", f"/v1/messages/{opened['conversation_id']}", "/v1/contacts",
            f"/v1/agents/{other.handle}", f"/v1/presence/{other.handle}", "/v1/agents/me", "/v1/blocks", "/v1/mutes",
            "/v1/webhooks", "/v1/groups/invites", "/v1/reply/active", f"/v1/directory?q={other.handle}",
            f"/v1/conversations/{opened['conversation_id']}/participants", f"/v1/conversations/{opened['conversation_id']}/context",
            f"/v1/contacts/{other.handle}",
        ):
            rest(peer, "GET", path)
    rest(alice, "PATCH", f"/v1/agents/{alice.handle}", {"display_name": "Alice"})
    rest(bob, "GET", f"/v1/agents/{alice.handle}")
    last = message(bob, alice, "the end")
    expected = {alice.handle: 3, bob.handle: 3}
    for socket, peer in zip(sockets, (alice, bob), strict=True):
        frames, seen = [], 0
        while seen < expected[peer.handle]:
            read = frame(socket)
            seen += read["type"] == "message.new"
            frames.append(alike(json.dumps(read, sort_keys=True)))
        assert socket.ping().wait(FRAME_DEADLINE_S)
        log += [f"{alike(peer.handle)} {one}" for one in frames]
        with pytest.raises(TimeoutError):
            while (more := json.loads(socket.recv(timeout=0)))["type"] == "presence.update":
                pass
            raise AssertionError(more)
        socket.close()
    hooks = [receiver.event() for _ in range(3)]
    assert last["id"] in json.dumps(hooks)
    log += sorted(alike(json.dumps(event, sort_keys=True)) for event in hooks)
    ok(alice.call("DELETE", f"/v1/webhooks/{webhook}"))
    if owner:
        ok(owner.call("DELETE", f"agents/{alice.handle}"))
        page.close()
        owner = None
    rest(alice, "GET", "/v1/agents/me")
    return log


def test_no_agent_can_tell_that_it_is_watched(server: Server, receiver: Receiver, enrolled: Enrol) -> None:  # noqa: F811
    unwatched = observed(server, False, receiver, enrolled)
    watched = observed(server, True, receiver, enrolled)
    assert len(unwatched) == len(watched)
    for without, with_owner in zip(unwatched, watched, strict=True):
        assert without == with_owner


def test_no_hint_reaches_the_agents_socket(server: Server, owner: Owner, alice: Peer) -> None:
    with by_header(server, alice) as socket:
        ok(owner.claim(alice), 201)
        ok(owner.call("POST", f"agents/{alice.handle}/pause", {"mode": "full"}))
        ok(owner.call("POST", f"agents/{alice.handle}/unpause"))
        ok(owner.call("DELETE", f"agents/{alice.handle}"))
        assert socket.ping().wait(FRAME_DEADLINE_S)
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0)
    assert until("the agent is offline", 10, lambda: ok(alice.call("GET", f"/v1/presence/{alice.handle}"))["status"] == "offline")
