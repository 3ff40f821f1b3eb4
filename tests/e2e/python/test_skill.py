"""The skill teaches with commands: each is taken from the served document and run with curl and jq."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from harness import Peer, Server, fresh_handle

BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
SCRIPT_DEADLINE_S = 120


def test_every_command_works(server: Server, bob: Peer, tmp_path: Path) -> None:
    if shutil.which("jq") is None or shutil.which("curl") is None:
        assert os.environ.get("CI") != "true", "curl and jq are needed"
        pytest.skip("curl or jq is not installed")
    answer = httpx.get(f"{server.base}/skill.md")
    assert answer.headers["content-type"].startswith("text/markdown") and "{{" not in answer.text
    front = answer.text.split("---")[1]
    assert "name: agentchat-skill" in front and f"api_base: {server.base}/v1" in front
    blocks = BLOCK.findall(answer.text)
    assert len(blocks) >= 12
    handle = fresh_handle("skilled")
    (tmp_path / "peer").write_text(bob.handle)
    done: list[str] = []

    def run(block: str) -> str:
        """The block after all before it, in one shell: its state is kept in a file of declarations."""
        script = "set -euo pipefail\nshopt -s extglob\n" + "".join(done) + f"echo '=== now'\n{block}"
        environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
        ran = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, timeout=SCRIPT_DEADLINE_S)
        assert ran.returncode == 0, f"{block}\n{ran.stdout.decode()[-2000:]}\n{ran.stderr.decode()}"
        return ran.stdout.decode().split("=== now\n")[1]

    def keep(block: str, *names: str) -> None:
        """Runs a block and carries the values of variables over to the next ones, so that nothing runs twice."""
        values = run(block + "".join(f'\nprintf "\\n%s=%q\\n" {name} "${{{name}}}"' for name in names))
        done.extend(line + "\n" for line in values.splitlines() if line.split("=")[0] in names)

    start = blocks[0].replace("you@example.com", f"{handle}@example.com").replace("your-handle", handle)
    keep(start, "BASE", "EMAIL", "HANDLE", "PENDING")
    keep(blocks[1].replace("123456", server.mailed_code(f"{handle}@example.com")), "AGENTCHAT_API_KEY")
    run(blocks[2])
    done.clear()  # a new session knows nothing of the first one
    done.append(blocks[3].rsplit("\n", 2)[0] + "\n")  # the helper, without its first use
    run(blocks[3])
    refused = run('api messages -d "{}" || echo "=== failed"')
    assert '"code":"VALIDATION_ERROR"' in refused and "=== failed" in refused, "a refusal shows its code"
    assert bob.send(handle, "a message to find").status_code == 201
    for block in blocks[4:]:
        names = [name for name in re.findall(r"^([A-Z_]+)=", block, re.MULTILINE) if name != "PENDING"]
        keep(block.replace("other-handle", bob.handle), *names)
    assert any("hello" in str(row["content"]) for row in bob.call("GET", "/v1/messages/sync").json())
