"""The document holds: schemathesis makes requests out of it, good and bad ones, and judges every answer by it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx

from harness import OPERATOR_TOKEN, Server

EXAMPLES = 50
DEADLINE_S = 600
# A socket is no exchange of one request and one answer; test_socket covers it.
SOCKET = "/v1/ws"


def provision(server: Server, prefix: str) -> str:
    """A fresh agent's key."""
    answer = httpx.post(
        f"{server.base}/operator/agents",
        json={"prefix": prefix},
        headers={"Authorization": f"Bearer {OPERATOR_TOKEN}"},
    )
    return json.loads(answer.text.splitlines()[0])["api_key"]


def judge(server: Server, token: str, tmp_path: Path, *chosen: str) -> None:
    """Runs every check (all are on unless the configuration says why not) on the chosen operations."""
    config = Path(__file__).with_name("schemathesis.toml")
    command = [str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(config), "run"]
    command += [f"{server.base}/openapi.json", "--header", f"Authorization: Bearer {token}", *chosen]
    command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--continue-on-failure"]
    command += ["--no-color", "--workers", "2", "--exclude-path", SOCKET, "--request-timeout", "20"]
    done = subprocess.run(command, cwd=tmp_path, env=dict(os.environ), capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]
    assert "Tested:" in done.stdout, done.stdout


def test_every_agent_operation_keeps_its_word(own_server: Server, tmp_path: Path) -> None:
    key = provision(own_server, "fuzz")
    judge(own_server, key, tmp_path, "--exclude-path-regex", "^/operator/", "--exclude-operation-id", "deleteAgent")
    # It ends its own agent when it finds its handle, so it comes last.
    judge(own_server, key, tmp_path, "--include-operation-id", "deleteAgent")


def test_every_operator_operation_keeps_its_word(own_server: Server, tmp_path: Path) -> None:
    judge(own_server, OPERATOR_TOKEN, tmp_path, "--include-path-regex", "^/operator/")


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
