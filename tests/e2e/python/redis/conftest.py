"""A Redis for each test, and servers that share it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness import Redis, Server

# Each test names its clients by this header, so that no test uses up the windows of another.
CLIENT_HEADER = "x-client"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    assert shutil.which("redis-server"), "redis-server is not installed"
    running = Redis(tmp_path).start()
    yield running
    running.kill()


@pytest.fixture
def nodes(tmp_path: Path, redis: Redis) -> Iterator[Callable[..., list[Server]]]:
    """Makes servers that share the Redis and nothing else, with the published limits but for the numbers named."""
    made: list[Server] = []

    def make(size: int, limits: str = "contract", **numbers: int) -> list[Server]:
        for number in range(size):
            home = tmp_path / f"node-{number}"
            home.mkdir()
            node = Server(home, limits=limits, numbers=numbers)
            node.more = {"AGENTCHAT_REDIS_URL": redis.url, "AGENTCHAT_CLIENT_IP_HEADER": CLIENT_HEADER}
            made.append(node.start())
        return made

    yield make
    for node in made:
        node.stop()
