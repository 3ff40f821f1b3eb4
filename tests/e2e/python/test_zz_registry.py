"""Last of all: what the registry promises and no test has seen. Meaningful only when the whole suite has run."""

from __future__ import annotations

import httpx
import pytest

from harness import Peer, Server
from registry import COMMON, ENDPOINTS, Endpoint

# Parts that are not built yet; an entry goes when its part comes.
NOT_BUILT = (
    "/v1/groups", "/v1/mutes", "/v1/presence", "/v1/directory", "/v1/uploads", "/v1/attachments", "/v1/webhooks",
    "/v1/reply", "{upload_url}", "/v1/agents/{handle}/avatar", "/v1/contacts/{handle}/report", "/v1/ws",
)
# Codes that need a part that is not built yet: enforcement, system agents, groups, owner pause.
NOT_REACHABLE = {"RESTRICTED", "SYSTEM_AGENT_PROTECTED", "GROUP_DELETED", "AGENT_PAUSED_BY_OWNER"}

BUILT = [endpoint for endpoint in ENDPOINTS if not endpoint.path.startswith(NOT_BUILT)]


def _path(endpoint: Endpoint, handle: str) -> str:
    values = {"{handle}": handle, "{id}": "conv_0000000000000000", "{conversation_id}": "conv_0000000000000000"}
    path = endpoint.path
    for name, value in values.items():
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize("endpoint", BUILT, ids=lambda endpoint: endpoint.name)
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


@pytest.mark.parametrize("endpoint", BUILT, ids=lambda endpoint: endpoint.name)
def test_other_verbs_are_named(server: Server, alice: Peer, endpoint: Endpoint) -> None:
    answer = alice.call("TRACE", _path(endpoint, alice.handle))
    assert (answer.status_code, answer.json()["code"]) == (405, "METHOD_NOT_ALLOWED")


def test_every_promise_was_seen(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("keyword") or request.config.getoption("maxfail") or request.config.args_source.name == "ARGS":
        pytest.skip("a part of the suite ran")
    missing = []
    for endpoint in BUILT:
        missing += [f"{endpoint.name}: {status}" for status in endpoint.ok if status not in endpoint.seen_ok]
        wanted = set(endpoint.errors) - NOT_REACHABLE
        missing += [f"{endpoint.name}: {code}" for code in sorted(wanted - endpoint.seen_errors)]
        unknown = endpoint.seen_errors - set(endpoint.errors) - COMMON - {"PAYLOAD_TOO_LARGE", "FORBIDDEN"}
        missing += [f"{endpoint.name}: {code} is not in the registry" for code in sorted(unknown)]
    assert not missing, "\n".join(missing)
