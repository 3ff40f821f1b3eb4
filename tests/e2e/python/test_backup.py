"""A backup of a live node, under load: restored, it holds every message that was acknowledged before it began."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

import httpx

from harness import OPERATOR_TOKEN, Peer, Server, befriend, enrol, until

SENDERS = 4
# Some before the backup begins, so that there is something to lose; the senders go on during it.
SENT_BEFORE = 60
DEADLINE_S = 120


def agentchat(server: Server, *arguments: str, data: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line of the binary, with the settings of the server."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTCHAT_")} | {
        "AGENTCHAT_LISTEN": f"127.0.0.1:{server.port}",
        "AGENTCHAT_OPERATOR_TOKEN": OPERATOR_TOKEN,
        "AGENTCHAT_DATA_DIR": str(data or server.data),
    }
    command = [os.environ["AGENTCHAT_BIN"], *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE_S)


class Sender(threading.Thread):
    """Sends one message after the other until it is told to stop, and remembers which were acknowledged."""

    def __init__(self, sender: Peer, recipient: Peer, conversation: str) -> None:
        super().__init__()
        self.sender, self.recipient, self.conversation = sender, recipient, conversation
        self.acknowledged: list[tuple[int, str]] = []
        self.ended = threading.Event()
        self.failed: str | None = None

    def run(self) -> None:
        number = 0
        while not self.ended.is_set():
            answer = self.sender.send(self.recipient.handle, "x" * 500, client_msg_id=f"m-{number}")
            if answer.status_code != 201:
                self.failed = answer.text
                return
            self.acknowledged.append((answer.json()["seq"], f"m-{number}"))
            number += 1


def rows(server: Server, peer: Peer, conversation: str) -> list[tuple[int, str]]:
    """The whole log of a conversation, oldest first."""
    found: list[tuple[int, str]] = []
    with httpx.Client(base_url=server.base, headers={"Authorization": f"Bearer {peer.api_key}"}, timeout=30) as http:
        while page := http.get(f"/v1/messages/{conversation}?limit=200&after_seq={len(found)}").json():
            found.extend((row["seq"], row["client_msg_id"]) for row in page)
    return found


def waiting(peer: Peer) -> list[str]:
    """What waits in an inbox, oldest first."""
    found: list[dict] = []
    more = ""
    while page := peer.call("GET", f"/v1/messages/sync?limit=500{more}").json():
        found.extend(page)
        more = f"&after={page[-1]['delivery_id']}"
    return [row["client_msg_id"] for row in found]


def test_a_backup_under_load_holds_what_was_acknowledged(own_server: Server, tmp_path: Path) -> None:
    senders = []
    for _ in range(SENDERS):
        alice, bob = enrol(own_server, "alice"), enrol(own_server, "bob")
        senders.append(Sender(alice, bob, befriend(alice, bob)))
    for sender in senders:
        sender.start()
    backup = tmp_path / "backup"
    try:
        until("enough is sent", DEADLINE_S, lambda: all(len(s.acknowledged) >= SENT_BEFORE or s.failed for s in senders))
        before = [list(sender.acknowledged) for sender in senders]
        taken = agentchat(own_server, "backup", str(backup))
        during = [len(sender.acknowledged) for sender in senders]
    finally:
        for sender in senders:
            sender.ended.set()
        for sender in senders:
            sender.join()
    assert taken.returncode == 0, taken.stderr
    assert [sender.failed for sender in senders] == [None] * SENDERS, "sending goes on while a backup is taken"
    assert all(count > len(known) for count, known in zip(during, before)), "nothing was sent meanwhile"
    own_server.kill()

    manifest = json.loads((backup / "MANIFEST.json").read_text())
    assert manifest["format"] == 1 and any(file["path"].startswith("store/log/") for file in manifest["files"])
    restored = tmp_path / "restored"
    put_back = agentchat(own_server, "restore", str(backup), data=restored)
    assert put_back.returncode == 0 and "0 faults" in put_back.stdout, put_back.stdout + put_back.stderr
    again = agentchat(own_server, "restore", str(backup), data=restored)
    assert again.returncode == 1 and "already" in again.stderr, "nothing is replaced"

    own_server.data = restored
    own_server.start()
    for sender, known in zip(senders, before):
        log = rows(own_server, sender.recipient, sender.conversation)
        assert [seq for seq, _ in log] == list(range(1, len(log) + 1)), "a hole"
        assert set(known) <= set(log), f"missing: {set(known) - set(log)}"
        # What came after the backup began is there whole or not at all, and in order; nothing is there twice.
        assert [name for _, name in log[2:]] == [f"m-{number}" for number in range(len(log) - 2)]
        assert {name for _, name in known} <= set(waiting(sender.recipient)), "an acknowledged message is in the inbox"
    # A send of which the backup knows nothing is stored now; one that it knows is answered from it.
    for sender in senders:
        repeated = sender.sender.send(sender.recipient.handle, "x" * 500, client_msg_id="m-0")
        assert (repeated.status_code, repeated.json()["seq"]) == (200, 3)
        fresh = sender.sender.send(sender.recipient.handle, "after", client_msg_id="after")
        assert fresh.status_code == 201
        # The last one of the backup may have been stored and not yet delivered: that was finished before this send.
        log = rows(own_server, sender.recipient, sender.conversation)
        assert waiting(sender.recipient) == [name for _, name in log[2:]], "in the inbox is what is in the log"
        sender.sender.http.close()
        sender.recipient.http.close()


def test_a_stopped_node_is_backed_up_without_a_token(own_server: Server, tmp_path: Path) -> None:
    alice, bob = enrol(own_server, "alice"), enrol(own_server, "bob")
    conversation = befriend(alice, bob)
    own_server.stop()
    taken = agentchat(own_server, "--operator-token", "", "backup", str(tmp_path / "backup"))
    assert taken.returncode == 0, taken.stderr
    assert agentchat(own_server, "restore", str(tmp_path / "backup"), data=tmp_path / "restored").returncode == 0
    own_server.data = tmp_path / "restored"
    own_server.start()
    assert [seq for seq, _ in rows(own_server, alice, conversation)] == [1, 2]
    alice.http.close()
    bob.http.close()


def test_the_node_says_what_it_does(own_server: Server, tmp_path: Path) -> None:
    """Doctor, readiness, completions, shards and metrics of a node that serves."""
    alice, bob = enrol(own_server, "alice"), enrol(own_server, "bob")
    befriend(alice, bob)
    doctor = agentchat(own_server, "doctor")
    assert doctor.returncode == 0, doctor.stdout
    assert "a node serves at" in doctor.stdout and "in use by the node that serves" in doctor.stdout, doctor.stdout
    assert agentchat(own_server, "ready").stdout == "ready\n"
    assert "_agentchat" in agentchat(own_server, "completions", "bash").stdout
    shards = agentchat(own_server, "admin", "shards")
    hosted = shards.stdout.count("this node")
    assert shards.returncode == 0 and hosted >= 4, shards.stdout[:500]
    text = httpx.get(f"{own_server.base}/metrics").text
    values = {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line[:1] not in ("", "#")}
    assert values["agentchat_shards_hosted"] == hosted
    assert values["agentchat_entities_resident"] >= 3, "two agents and their conversation"
    assert values["agentchat_batches_total"] > 0 and values["agentchat_store_batches_total"] > 0
    assert values["agentchat_requests_shed_total"] == 0 and values["agentchat_mailbox_waiting"] < 100
    assert values["agentchat_process_open_files"] > 5 and values["agentchat_batch_seconds_count"] > 0
    own_server.stop()
    unready = agentchat(own_server, "ready")
    assert unready.returncode == 1 and "no node answers" in unready.stdout
    alice.http.close()
    bob.http.close()
