"""The documents teach with commands and programs: those marked `run` are taken out of them and run, page by page.

The README is a page as well. A page is one reader: its blocks run in order, in one directory, where `data` is the data directory of a server that keeps
no limits. Addresses of the page become those of the server. Shell blocks of a page share one shell's variables.

The reader is at the machine of an installed service: nothing of the service's settings is in the reader's environment. They are in the file that
`deploy/systemd` installs, with the address and the token of this server, and `sudo -u agentchat` gives a command nothing but that user's rights.
Every other block of commands says why it is not run, and settings that a page shows are ones that the server takes.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import OPERATOR_TOKEN, Server

BLOCK = re.compile(r"^( *)```(\w+) run\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
SETTINGS = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^ *```(?:sh|bash|shell|console|python|js)\b(.*)$", re.MULTILINE)
# What `sudo -u agentchat` does for a reader: no environment of the caller's, and no other user than the service's.
SUDO = """#!/bin/sh
[ "$1 $2" = "-u agentchat" ] || exit 1
shift 2
exec env -i PATH="$PATH" "$@"
"""
BLOCK_DEADLINE_S = 120
INSTALL_DEADLINE_S = 300
ROOT = Path(os.environ.get("AGENTCHAT_ROOT", Path(__file__).parents[3]))
TEXTS = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
PAGES = sorted(str(page.relative_to(ROOT)) for page in TEXTS if BLOCK.search(page.read_text()))
NODE_PACKAGES = "tests/e2e/typescript/package.json"


class Reader:
    """Somebody who follows one page to the letter."""

    def __init__(self, server: Server, home: Path) -> None:
        self.server = server
        self.home = home
        (home / "data").symlink_to(server.data)
        (home / "backups").mkdir()
        commands = home / "bin"
        commands.mkdir()
        (commands / "agentchat").symlink_to(os.environ["AGENTCHAT_BIN"])
        (commands / "sudo").write_text(SUDO)
        (commands / "sudo").chmod(0o755)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTCHAT_")} | {
            "HOME": str(home),
            "PATH": f"{commands}:{os.environ['PATH']}",
        }
        settings = self.local((ROOT / "deploy/systemd/agentchat.toml").read_text())
        assert '#operator_token = ""' in settings
        (home / "agentchat.toml").write_text(settings.replace('#operator_token = ""', f'operator_token = "{OPERATOR_TOKEN}"'))

    def local(self, text: str) -> str:
        """The block with the address and the directories of this server for those of the page."""
        places = {
            "127.0.0.1:8080": f"127.0.0.1:{self.server.port}",
            "/etc/agentchat/": f"{self.home}/",
            "/usr/local/bin/agentchat": f"{self.home}/bin/agentchat",
            "/var/lib/agentchat": str(self.server.data),
            "/var/backups/agentchat": f"{self.home}/backups",
        }
        for there, here in places.items():
            text = text.replace(there, here)
        return text

    def run(self, command: list[str], shown: str) -> str:
        done = subprocess.run(
            command, cwd=self.home, env=self.environment, capture_output=True, timeout=BLOCK_DEADLINE_S,
            text=True, errors="replace",  # curl shows the bytes that frame a socket's texts as well
        )
        assert done.returncode == 0, f"{shown}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}\n{self.server.tail()}"
        return done.stdout

    def sh(self, block: str) -> str:
        """In a shell that knows the variables and functions of the blocks before it."""
        state = self.home / "state.sh"
        before = f". '{state}'\n" if state.exists() else ""
        after = f"\n{{ declare -p | grep -vE '^declare -[a-z]*[rx]|^declare -[aA-]+ (BASH|DIRSTACK|FUNC|GROUPS|PIPESTATUS)'; declare -f; }} > '{state}'\n"
        return self.run(["bash", "-c", f"set -euo pipefail\n{before}{block}{after}"], block)

    def python(self, block: str) -> str:
        program = self.home / "program.py"
        program.write_text(block)
        return self.run([sys.executable, str(program)], block)

    def js(self, block: str) -> str:
        if not (self.home / "node_modules").exists():
            (self.home / "node_modules").symlink_to(node_modules())
        program = self.home / "program.mjs"
        program.write_text(block)
        return self.run(["node", str(program)], block)


def node_modules() -> Path:
    """The packages of the TypeScript suite, installed once beside this suite."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        assert os.environ.get("CI") != "true", "node and npm are needed"
        pytest.skip("node or npm is not installed")
    work = Path.cwd().parent / "docs-node"
    wanted = (ROOT / NODE_PACKAGES).read_text()
    stamp = work / "package.installed"
    if not stamp.exists() or stamp.read_text() != wanted:
        work.mkdir(exist_ok=True)
        (work / "package.json").write_text(wanted)
        install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]
        subprocess.run(install, cwd=work, check=True, timeout=INSTALL_DEADLINE_S)
        stamp.write_text(wanted)
    return work / "node_modules"


@pytest.fixture
def reader(own_server: Server, tmp_path: Path) -> Iterator[Reader]:
    home = tmp_path / "home"
    home.mkdir()
    yield Reader(own_server, home)


def blocks(page: str) -> list[tuple[str, str]]:
    """Language and text of the blocks to run; one inside a list loses its indentation."""
    found = []
    for indent, language, text in BLOCK.findall((ROOT / page).read_text()):
        found.append((language, "".join(line.removeprefix(indent) for line in text.splitlines(keepends=True))))
    return found


def test_pages_have_blocks_to_run() -> None:
    taught = {f"docs/{name}.md" for name in ("quickstart", "clients", "cluster", "operations", "self-hosting")}
    assert taught | {"README.md"} <= set(PAGES)
    languages = {language for page in PAGES for language, _ in blocks(page)}
    assert languages == {"sh", "python", "js"}


def test_every_other_block_of_commands_says_why_it_is_not_run() -> None:
    for page in TEXTS:
        for mark in COMMANDS.findall(page.read_text()):
            assert mark == " run" or re.fullmatch(r" not-run: \S.{9,}", mark), f"{page.name}: a block marked {mark!r}"


def test_settings_of_the_pages_are_settings(tmp_path: Path) -> None:
    shown = [text for page in TEXTS for text in SETTINGS.findall(page.read_text())]
    assert len(shown) >= 3
    for text in [*shown, (ROOT / "deploy/systemd/agentchat.toml").read_text(), "no_such_key = 1\n"]:
        (tmp_path / "agentchat.toml").write_text(text)
        command = [os.environ["AGENTCHAT_BIN"], "--config", "agentchat.toml", "--data-dir", "nowhere", "check"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTCHAT_")}
        said = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True).stderr
        assert ("settings: " in said) == ("no_such_key" in text) and said, f"{text}\n{said}"


def test_the_unit_runs_with_the_file_that_commands_are_given() -> None:
    unit = (ROOT / "deploy/systemd/agentchat.service").read_text()
    assert "ExecStart=/usr/local/bin/agentchat serve --config /etc/agentchat/agentchat.toml\n" in unit
    assert "\nUser=agentchat\n" in unit and not re.search(r"^(DynamicUser|Environment(File)?)=", unit, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_what_the_page_says_works(reader: Reader, page: str) -> None:
    said = [getattr(reader, language)(reader.local(block)) for language, block in blocks(page)]
    expected = {
        "README.md": ["hello bob", '"acked":1', '"type":"hello.ok"', '"type":"message.new"', "hello alice"],
        "docs/quickstart.md": ["hello bob", "carol says hello dave", "erin says hello frank"],
        "docs/clients.md": ["name: agentchat-skill"],
        "docs/operations.md": [" files, ", "0 faults in ", "/rehearsal/store"],
        "docs/cluster.md": ["one node on the embedded store"],
        "docs/self-hosting.md": ["0 failed", '"handle": "fleet-1"'],
    }.get(page, [])
    for text in expected:
        assert text in "".join(said), f"{page} did not say {text!r}:\n{''.join(said)[-3000:]}"
