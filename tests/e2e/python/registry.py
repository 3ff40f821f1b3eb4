"""The contract's endpoint registry, and which of its promises this run has seen answered.

Every answer that a test accepts is noted under its route. After the last test `test_zz_registry.py` compares the notes
with the registry, so an endpoint or an error code without a test is a failure, not an oversight.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

REGISTRY = Path(__file__).parent / "contract"

# Codes that every authenticated endpoint shares; the registry does not repeat them.
COMMON = {
    "UNAUTHORIZED", "AGENT_SUSPENDED", "RATE_LIMITED", "VALIDATION_ERROR", "INTERNAL_ERROR", "IDEMPOTENCY_KEY_CONFLICT",
    "IDEMPOTENT_IN_PROGRESS",
}


@dataclass
class Endpoint:
    method: str
    path: str
    auth: str
    ok: list[int]
    errors: list[str]
    body: str | None
    pattern: re.Pattern[str]
    seen_ok: set[int] = field(default_factory=set)
    seen_errors: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"


def _endpoint(line: dict[str, Any]) -> Endpoint:
    pattern = re.sub(r"\\\{[a-z_]+\\\}", "[^/]+", re.escape(line["p"]))
    return Endpoint(line["m"], line["p"], line["auth"], line["ok"], line["e"], line.get("body"), re.compile(pattern))


def _endpoints(name: str) -> list[Endpoint]:
    return [_endpoint(json.loads(line)) for line in (REGISTRY / name).read_text().splitlines()]


ENDPOINTS = _endpoints("rest.jsonl")
DASHBOARD = _endpoints("dashboard.jsonl")


def endpoint_of(answer: httpx.Response) -> Endpoint | None:
    """The registered endpoint that answered. Literal segments win over placeholders, as in the server."""
    path = answer.request.url.raw_path.decode().split("?")[0]
    method = answer.request.method
    found = [one for one in ENDPOINTS + DASHBOARD if one.method == method and one.pattern.fullmatch(path)]
    return min(found, key=lambda one: one.path.count("{"), default=None)


def note(answer: httpx.Response) -> None:
    """Writes down an answer that a test has checked."""
    endpoint = endpoint_of(answer)
    if endpoint is not None:
        _write_down(endpoint, answer)


def note_as(name: str, answer: httpx.Response) -> None:
    """The same for an endpoint whose path the answer does not tell."""
    _write_down(next(one for one in ENDPOINTS + DASHBOARD if one.name == name), answer)


def _write_down(endpoint: Endpoint, answer: httpx.Response) -> None:
    if answer.status_code < 400:
        endpoint.seen_ok.add(answer.status_code)
    else:
        endpoint.seen_errors.add(answer.json()["code"])
