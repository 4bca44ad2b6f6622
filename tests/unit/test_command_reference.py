"""docs/commands.md says what the commands say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from sandbox.cli import errors as cli_errors
from sandbox.cli.main import COMMANDS
from sandbox.model import errors

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_commands", DOCS / "generate_commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_current(generator: ModuleType) -> None:
    written = (DOCS / "commands.md").read_text(encoding="utf-8")

    assert written == generator.render(), "docs/commands.md is not current: run `make docs`"


def test_every_command_is_in_it(generator: ModuleType) -> None:
    text = generator.render()

    assert [e.name for e in COMMANDS if not e.hidden and f"### sandbox {e.name}\n" not in text] == []


def test_every_exit_code_is_in_it(generator: ModuleType) -> None:
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", generator.render(), re.MULTILINE)}
    classes = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SandboxError)
    ]

    assert {kind.exit_code for kind in classes} <= listed
    assert {0, cli_errors.FAILED, cli_errors.USAGE, cli_errors.INTERRUPTED, cli_errors.OUTPUT_CLOSED} <= listed
