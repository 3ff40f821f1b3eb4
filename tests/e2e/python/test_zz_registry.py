"""Last of all: what the registry promises and no test has seen. Meaningful only when the whole suite has run."""

from __future__ import annotations

import httpx
import pytest

from harness import Peer, Server
from registry import COMMON, DASHBOARD, ENDPOINTS, Endpoint

# Endpoints that are no ordinary request: a socket, and a URL that carries its own right.
SPECIAL = ("/v1/ws", "{upload_url}")
# Only somebody who releases an agent while it is being released sees this.
RACES = {"DELETE /dashboard/agents/{handle}: CLAIM_NOT_FOUND"}

ORDINARY = [endpoint for endpoint in ENDPOINTS if not endpoint.path.startswith(SPECIAL)]
OWNERS = [endpoint for endpoint in DASHBOARD if not endpoint.path.startswith(SPECIAL)]


def _path(endpoint: Endpoint, handle: str) -> str:
    values = {"{handle}": handle, "{target}": handle, "{id}": "conv_0000000000000000", "{conversation_id}": "conv_0000000000000000"}
    path = endpoint.path
    for name, value in values.items():
        path = path.replace(name, value)
    return f"{path}?q=alice" if path == "/v1/directory" else path


@pytest.mark.parametrize("endpoint", ORDINARY, ids=lambda endpoint: endpoint.name)
def test_auth_class(server: Server, alice: Peer, endpoint: Endpoint) -> None:
    """Without key, with a bad key, with a good one: what each class has to answer."""
    url = f"{server.base}{_path(endpoint, alice.handle)}"
    bad = {"authorization": "Bearer ac_live_0000000000000000000000000000000000000000000"}
    anonymous = httpx.request(endpoint.method, url)
    wrong = httpx.request(endpoint.method, url, headers=bad)
    if endpoint.auth == "none":
        assert anonymous.status_code != 401 and wrong.status_code != 401
    elif endpoint.auth == "optional":
        assert anonymous.status_code == 200 and wrong.status_code == 401
    else:
        for answer in (anonymous, wrong):
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")
    if endpoint.auth == "self":
        foreign = alice.call(endpoint.method, _path(endpoint, "somebody-else"), {"display_name": "x", "code": "000000"})
        assert foreign.status_code in (400, 403), foreign.text


@pytest.mark.parametrize("endpoint", OWNERS, ids=lambda endpoint: endpoint.name)
def test_dashboard_auth_class(server: Server, alice: Peer, endpoint: Endpoint) -> None:
    """Without cookies, with bad ones, with a key in place of one: nobody is signed in."""
    cookies = {"cookie": "ac_dashboard_session=0000000000000000.x; ac_dashboard_refresh=0000000000000000.x"}
    for headers in ({}, cookies, {"authorization": f"Bearer {alice.api_key}"}):
        answer = httpx.request(endpoint.method, f"{server.base}{_path(endpoint, alice.handle)}", headers=headers)
        if endpoint.auth == "none":
            assert answer.status_code != 401
        else:
            assert (answer.status_code, answer.json()["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("endpoint", ORDINARY + OWNERS, ids=lambda endpoint: endpoint.name)
def test_other_verbs_are_named(server: Server, alice: Peer, endpoint: Endpoint) -> None:
    answer = alice.call("TRACE", _path(endpoint, alice.handle))
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_every_promise_was_seen(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("keyword") or request.config.getoption("maxfail") or request.config.args_source.name == "ARGS":
        pytest.skip("a part of the suite ran")
    missing = []
    for endpoint in ENDPOINTS + DASHBOARD:
        if endpoint.path.startswith("/v1/ws"):
            continue  # seen by the socket tests, whose answers are no HTTP responses
        missing += [f"{endpoint.name}: {status}" for status in endpoint.ok if status not in endpoint.seen_ok]
        missing += [f"{endpoint.name}: {code}" for code in sorted(set(endpoint.errors) - endpoint.seen_errors)]
        unknown = endpoint.seen_errors - set(endpoint.errors) - COMMON - {"PAYLOAD_TOO_LARGE", "FORBIDDEN"}
        missing += [f"{endpoint.name}: {code} is not in the registry" for code in sorted(unknown)]
        seen = [*map(str, sorted(endpoint.seen_ok)), *sorted(endpoint.seen_errors)]
        print(f"{endpoint.name:55} {' '.join(seen)}")
    missing = [promise for promise in missing if promise not in RACES]
    assert not missing, "\n".join(missing)
