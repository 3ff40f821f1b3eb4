"""A full disk: sends answer 503, nothing acknowledged is lost, and service resumes when there is room again."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from harness import Server, befriend, enrol, until
from test_contract import refused
from test_dashboard import sign_in

SIZE = 64 << 20
FILLER = 52 << 20
TEXT = "x" * 12_000
SENDS_MAX = 3_000
REFRESHES_MAX = 500
RESUME_DEADLINE_S = 20.0


def small_disk(server: Server) -> None:
    """The server gets a data directory on a small file system, in a mount namespace that ends with it."""
    server.data.mkdir(parents=True)
    mount = f"mount -t tmpfs -o size={SIZE} none '{server.data}'"
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*namespace, mount], capture_output=True).returncode != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("this machine allows no mount namespace of our own, and CI=true allows no skipping")
        pytest.skip("this machine allows no mount namespace of our own")
    server.wrapper = [*namespace, f'{mount} && exec "$0"']


def test_a_full_disk_refuses_and_resumes(tmp_path: Path) -> None:
    server = Server(tmp_path)
    small_disk(server)
    server.start()
    outside = server.data
    try:
        server.data = server.seen_by_server(outside)  # mails are read there
        alice, bob = enrol(server, "alice"), enrol(server, "bob")
        conversation = befriend(alice, bob)
        owner = sign_in(server)
        filler = server.data / "filler"
        filler.write_bytes(b"\0" * FILLER)
        acknowledged = []
        for number in range(SENDS_MAX):
            answer = alice.send(bob.handle, TEXT, client_msg_id=f"full-{number}")
            if answer.status_code != 201:
                break
            acknowledged.append(f"full-{number}")
        assert (answer.status_code, answer.json()["code"]) == (503, "INTERNAL_ERROR"), answer.text
        assert int(answer.headers["retry-after"]) >= 1
        assert acknowledged
        assert bob.call("GET", "/v1/messages/sync?limit=1").status_code == 200, "reads go on"

        # A sign-in that cannot be refreshed is not over: the same token works when there is room. What little the big
        # sends left is used up first, for a refresh writes little.
        rest = server.data / "rest"
        with pytest.raises(OSError), rest.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * 4_096)
        for _ in range(REFRESHES_MAX):
            answer = owner.call("POST", "auth/refresh")
            if answer.status_code != 200:
                break
        refused(answer, 503, "REFRESH_UNAVAILABLE")
        assert int(answer.headers["retry-after"]) >= 1 and "set-cookie" not in answer.headers

        rest.unlink()
        filler.unlink()
        until("a refresh works again", RESUME_DEADLINE_S, lambda: owner.call("POST", "auth/refresh").status_code == 200)
        retry = f"full-{len(acknowledged)}"
        until(
            "sends work again",
            RESUME_DEADLINE_S,
            lambda: alice.send(bob.handle, TEXT, client_msg_id=retry).status_code in (200, 201),
        )
        acknowledged.append(retry)
        rows: list[dict] = []
        while page := bob.call("GET", f"/v1/messages/{conversation}?limit=200&after_seq={len(rows)}").json():
            rows.extend(page)
        assert [row["seq"] for row in rows] == list(range(1, len(rows) + 1))
        assert [row["client_msg_id"] for row in rows[2:]] == acknowledged
        alice.http.close()
        bob.http.close()
    finally:
        server.data = outside
        server.stop()
