"""What the pages refer to is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from sandbox.cli.main import COMMANDS, app, load
from sandbox.cli.parameters import Group

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))

    assert [link for link in links if not (page.parent / link).exists()] == []


def test_files_of_the_repository_that_pages_name_are_there() -> None:
    path = re.compile(
        r"(?<![\w/.~-])((?:tests|docs|scripts|sandbox|quotas|charts|examples|embedded|benchmarks)/[\w./-]+\.\w+)"
    )
    named = {(page.name, file) for page in PAGES for file in path.findall(page.read_text(encoding="utf-8"))}

    assert len(named) > 20
    assert {(page, file) for page, file in named if not (ROOT / file).exists()} == set()


def _shown_commands(text: str) -> set[str]:
    """Every `sandbox …` of code blocks and between backticks, without what comes after it."""
    blocks = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    lines += [" ".join(words.split()) for words in re.findall(r"`([^`]+)`", prose)]
    found = {match[1] for line in lines if (match := re.match(r"(?:\$ )?(sandbox [a-z-].*)", line.strip()))}
    return {re.split(r" -- | #|[|;<>&]|…|  +", line)[0].strip() for line in found}


def _unknown(line: str) -> str:
    """What a command line names that there is not; empty where all of it is there."""
    words = line.split()[1:]
    command: Any = get_command(app)
    commands: Any = {entry.name: load(entry) for entry in COMMANDS}
    while words and not words[0].startswith("-") and isinstance(command, Group):
        name = words.pop(0)
        if name.isupper():
            return ""
        if name not in commands:
            return name
        command = commands[name]
        commands = getattr(command, "commands", {})
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return next((w for w in words if re.match(r"--?[a-zA-Z]", w) and w.partition("=")[0] not in {*known, "--help"}), "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_that_pages_show_are_there(page: Path) -> None:
    shown = _shown_commands(page.read_text(encoding="utf-8"))

    assert {line: unknown for line in shown if (unknown := _unknown(line))} == {}


def test_make_targets_that_pages_name_are_there() -> None:
    named = {
        target for page in PAGES for target in re.findall(r"`?\bmake ([a-z0-9-]+)`", page.read_text(encoding="utf-8"))
    }
    defined = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))

    assert named - defined == set()


def test_ci_runs_what_the_readme_says() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_locked_versions_are_exact_and_name_no_address() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    locked = [line for line in lines if not line.startswith("#")]

    assert [line for line in locked if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+]+", line)] == []
    assert len(locked) > 50
