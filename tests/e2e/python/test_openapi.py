"""The document holds: schemathesis makes requests out of it, good and bad ones, and judges every answer by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from harness import OPERATOR_TOKEN, Server, enrol
from test_contract import ok
from test_dashboard import COOKIES, sign_in

EXAMPLES = 50
DEADLINE_S = 600
# A socket is no exchange of one request and one answer; test_socket and test_dashboard cover them.
SOCKETS = "^/v1/ws"
# What ends the sign-in that the next request needs, or the claim: judged last, and alone.
ENDS = ("releaseClaim", "signOut", "refreshOwner", "signOutEverywhere")


def provision(server: Server, prefix: str) -> str:
    """A fresh agent's key."""
    answer = httpx.post(
        f"{server.base}/operator/agents",
        json={"prefix": prefix},
        headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"},
    )
    return json.loads(answer.text.splitlines()[0])["api_key"]


def judge(server: Server, header: str, tmp_path: Path, *chosen: str, owned: str = "nobody") -> None:
    """Runs every check (all are on unless the configuration says why not) on the chosen operations. `owned` is the agent
    whose owner asks."""
    config = Path(__file__).with_name("schemathesis.toml")
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run"]
    command += [f"{server.base}/openapi.json", "--header", header, "--workers", "2", *chosen]
    command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--continue-on-failure"]
    command += ["--no-color", "--exclude-path-regex", SOCKETS, "--request-timeout", "20"]
    environment = os.environ | {"OWNED_AGENT": owned}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Tested:" in done.stdout, done.stdout


def bearer(token: str) -> str:
    return f"Authorization: Bearer {token}"


def test_every_agent_operation_keeps_its_word(own_server: Server, tmp_path: Path) -> None:
    key = bearer(provision(own_server, "fuzz"))
    judge(own_server, key, tmp_path, "--exclude-path-regex", "^/(operator|dashboard)/", "--exclude-operation-id", "deleteAgent")
    # It ends its own agent when it finds its handle, so it comes last.
    judge(own_server, key, tmp_path, "--include-operation-id", "deleteAgent")


def test_every_operator_operation_keeps_its_word(own_server: Server, tmp_path: Path) -> None:
    judge(own_server, bearer(OPERATOR_TOKEN), tmp_path, "--include-path-regex", "^/operator/")


def test_every_dashboard_operation_keeps_its_word(own_server: Server, tmp_path: Path) -> None:
    """As the owner of an agent, with the cookies of a browser. Requests without an `Origin` come from no browser, so
    that nothing is to be forged here; test_dashboard forges."""
    agent, owner = enrol(own_server, "fuzz"), sign_in(own_server)
    ok(owner.claim(agent), 201)

    def cookies() -> str:
        return "Cookie: " + "; ".join(f"{name}={owner.http.cookies[name]}" for name in COOKIES)

    # The cookies come with every request: one that leaves them out, to see it refused, is no request of these. And one
    # worker: the parser of Python 3.11, which writes reports, counts its recursion for all threads together.
    alone = ["--generation-with-security-parameters", "false", "--workers", "1"]
    chosen = ["--include-path-regex", "^/dashboard/", *alone]
    for operation in ENDS:
        chosen += ["--exclude-operation-id", operation]
    judge(own_server, cookies(), tmp_path, *chosen, owned=agent.handle)
    assert owner.agents() == [agent.handle]
    for operation in ENDS:
        judge(own_server, cookies(), tmp_path, "--include-operation-id", operation, *alone, owned=agent.handle)
        owner = sign_in(own_server, owner.email)


def test_every_described_path_is_served_and_pages_need_nothing_from_elsewhere(server: Server) -> None:
    document = httpx.get(f"{server.base}/openapi.json").json()
    assert document["openapi"].startswith("3.1") and len(document["paths"]) > 50
    for path, item in document["paths"].items():
        for method in {"get", "post", "put", "patch", "delete"} & item.keys():
            url = server.base + path.replace("{", "").replace("}", "")
            answer = httpx.request(method, url, headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"} if "operator" in path else {})
            code = answer.json().get("code") if "json" in answer.headers.get("content-type", "") else None
            # An avatar that is not there, and what a summary says is not there on the embedded store.
            may_miss = path.startswith("/avatars/") or "404 on the embedded store" in item[method]["summary"]
            assert code not in ("METHOD_NOT_ALLOWED",) and (code != "NOT_FOUND" or may_miss), (method, path)
    for page in ("/docs", "/docs/docs.js", "/docs/docs.css"):
        answer = httpx.get(server.base + page)
        assert answer.status_code == 200 and "default-src 'none'" in answer.headers["content-security-policy"]
        assert "http://" not in answer.text and "https://" not in answer.text
