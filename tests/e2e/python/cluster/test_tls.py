"""Links with TLS: the certificates that the documents tell to make work, and nobody is let in with others or none."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from test_nodes import cluster_address, greeting, next_message, refusals, sent, text_of

from harness import MOVED_DEADLINE_S, Cluster, Server, enrol, open_socket, until

ROOT = Path(os.environ.get("AGENTCHAT_ROOT", Path(__file__).parents[4]))
BLOCK = re.compile(r"```sh run\n(openssl .*?)```", re.DOTALL)
NAMES = "node-1 node-2 node-3"


def make_certificates(directory: Path, names: str = "node-0 node-1 node-2") -> Path:
    """Does what docs/cluster.md says, for nodes of these names; a directory for each."""
    block = BLOCK.search((ROOT / "docs/cluster.md").read_text())
    assert block and NAMES in block.group(1), "docs/cluster.md has no commands that make certificates"
    directory.mkdir()
    commands = block.group(1).replace(NAMES, names)
    subprocess.run(["sh", "-euc", commands], cwd=directory, check=True, capture_output=True, text=True)
    return directory


@pytest.fixture
def sealed(new_cluster: Cluster, tmp_path: Path) -> Cluster:
    """Three nodes whose links are encrypted."""
    made = make_certificates(tmp_path / "certificates")
    for node in new_cluster.nodes:
        node.more["AGENTCHAT_CLUSTER_TLS"] = str(made / node.more["AGENTCHAT_NODE"])
    return new_cluster.start()


def linked(node: Server) -> dict[str, bool]:
    return {row["name"]: row["linked"] for row in node.operate("GET", "cluster").json()["nodes"]}


def without_link(node: Server) -> list[str]:
    lines = re.findall(r"no link to another node.*", node.log.read_text())
    # A node that has its lease and does not listen yet refuses connections: another reason, and so another line.
    return [line for line in lines if "Connection refused" not in line]


def test_three_nodes_with_tls_carry_messages_and_refuse_strangers(sealed: Cluster, tmp_path: Path) -> None:
    first = sealed.nodes[0]
    for node in sealed.nodes:
        until("all are linked", MOVED_DEADLINE_S, lambda: linked(node) == dict.fromkeys(["node-0", "node-1", "node-2"], True))
    alice, bob = enrol(sealed, "alice"), enrol(sealed, "bob")
    assert sent(first.base, alice, bob.handle, "hello").status_code == 201
    assert sent(first.base, bob, alice.handle, "hello back").status_code in (200, 201)
    # Of three sockets and three senders at least some are not where the agents are.
    for holder in sealed.nodes:
        with open_socket(holder, bob) as held:
            for sender in sealed.nodes:
                text = f"from {sender.port} to {holder.port}"
                assert sent(sender.base, alice, bob.handle, text).status_code == 201
                while text_of(next_message(held)) != text:
                    pass

    foreign = make_certificates(tmp_path / "foreign", "stranger")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    shows_none = tls
    shows_other = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    shows_other.check_hostname, shows_other.verify_mode = False, ssl.CERT_NONE
    shows_other.load_cert_chain(foreign / "stranger/cert.pem", foreign / "stranger/key.pem")
    for context in (None, shows_none, shows_other):
        before = len(refusals(sealed))
        with socket.create_connection(cluster_address(sealed), timeout=10) as plain:
            try:
                stranger = context.wrap_socket(plain) if context else plain
                stranger.sendall(greeting())
                while piece := stranger.recv(4096):
                    assert b"AGENTCHAT-LINK" not in piece, "it greets nobody whom it does not trust"
                stranger.close()
            except (ssl.SSLError, ConnectionError):
                pass  # told why, or closed with bytes of ours unread
        until("the refusal is in the log", 10, lambda: len(refusals(sealed)) > before)
        new = refusals(sealed)[before:]
        assert len(new) == 1 and "TLS" in new[0], new
    assert all(linked(first).values()), "its links have noticed nothing"


@pytest.mark.parametrize("tls", ["other", "none"])
def test_a_node_with_certificates_of_others_or_none_stays_outside(sealed: Cluster, tmp_path: Path, tls: str) -> None:
    stranger, others = sealed.nodes[2], sealed.nodes[:2]
    stranger.stop()
    del stranger.more["AGENTCHAT_CLUSTER_TLS"]
    if tls == "other":
        stranger.more["AGENTCHAT_CLUSTER_TLS"] = str(make_certificates(tmp_path / "foreign") / "node-2")
    logs = {node.port: len(without_link(node)) for node in sealed.nodes}
    refused = lambda: sum(node.log.read_text().count("a connection to the cluster port was refused") for node in sealed.nodes)  # noqa: E731
    before = refused()
    stranger.start()
    # Whoever dials tries again and again.
    until("it is refused several times", MOVED_DEADLINE_S, lambda: refused() >= before + 6)
    until("two are linked", MOVED_DEADLINE_S, lambda: linked(others[0]) == {"node-0": True, "node-1": True, "node-2": False})
    assert not any(linked(stranger)[node.more["AGENTCHAT_NODE"]] for node in others)
    said = {node.port: without_link(node)[logs[node.port]:] for node in sealed.nodes}
    about_it = [(port, line) for port, lines in said.items() for line in lines if port == stranger.port or "node-2" in line]
    assert 2 <= len(about_it) == len(set(about_it)) <= 4, about_it  # each of two who dial says why, once for a reason
