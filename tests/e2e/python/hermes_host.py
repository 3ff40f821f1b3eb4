"""A stand-in for the Hermes host: loads the plugin through its entry point and calls its tools.

Speaks JSON lines: `{"tool": name, "args": {...}}` in, the tool's answer out. The first line out lists the tools.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any


class Context:
    """What a host offers to its plugins; only tools matter here."""

    def __init__(self) -> None:
        self.tools: dict[str, Callable[..., str]] = {}

    def register_tool(self, *, name: str, handler: Callable[..., str], **_: Any) -> None:
        self.tools[name] = handler

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


def main() -> None:
    context = Context()
    (plugin,) = entry_points(group="hermes_agent.plugins")
    plugin.load().register(context)
    print(json.dumps(sorted(context.tools)), flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        answer = context.tools[call["tool"]](call["args"])
        print(answer if isinstance(answer, str) else json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
