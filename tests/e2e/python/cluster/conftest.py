"""Clusters of their own for tests that stop, cut or reconfigure nodes."""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Cluster


@pytest.fixture
def new_cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Nodes for one test that are not started yet, over a keyspace of their own."""
    store = os.environ["AGENTCHAT_E2E_STORE"].rsplit("/", 1)[0] + "/t" + uuid.uuid4().hex[:12]
    subprocess.run([os.environ["AGENTCHAT_BIN"], "migrate", "--store", store, "--replication", "1"], check=True)
    made = Cluster(tmp_path, store)
    yield made
    made.stop()


@pytest.fixture
def own_cluster(new_cluster: Cluster) -> Cluster:
    """Nodes for one test, over a keyspace of their own."""
    return new_cluster.start()
