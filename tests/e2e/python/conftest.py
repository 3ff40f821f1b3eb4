"""Fixtures: one server for the tests that only talk to it, a server of their own for those that stop or kill it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Cluster, Peer, Server, enrol


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server | Cluster]:
    """The shared server, or the nodes of a cluster that share the keyspace which AGENTCHAT_E2E_STORE names. Their orderly
    end, with exit code 0, is checked after the last test."""
    store, directory = os.environ.get("AGENTCHAT_E2E_STORE"), tmp_path_factory.mktemp("shared")
    running = Cluster(directory, store).start() if store else Server(directory).start()
    yield running
    running.stop()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server for one test, which may stop, kill and start it."""
    running = Server(tmp_path).start()
    yield running
    running.stop()


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Makes a server that keeps the published limits, but for the numbers that the test names."""
    made: list[Server] = []

    def make(**numbers: int) -> Server:
        made.append(Server(tmp_path, limits="contract", numbers=numbers).start())
        return made[-1]

    yield make
    for running in made:
        running.stop()


@pytest.fixture
def enrolled(server: Server) -> Iterator[Callable[[str], Peer]]:
    """Makes agents on the shared server and closes their connections afterwards."""
    made: list[Peer] = []

    def make(stem: str = "peer") -> Peer:
        made.append(enrol(server, stem))
        return made[-1]

    yield make
    for peer in made:
        peer.http.close()


@pytest.fixture
def alice(enrolled: Callable[[str], Peer]) -> Peer:
    return enrolled("alice")


@pytest.fixture
def bob(enrolled: Callable[[str], Peer]) -> Peer:
    return enrolled("bob")
