"""cli/main.py and cli/options.py: the table of commands, shared options, and what start-up costs."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from sandbox import __version__
from sandbox.cli import main, options
from sandbox.cli.main import COMMANDS, app, load
from sandbox.cli.options import Common, Selection, expand
from sandbox.model.errors import Refused

HEAVY = ("kubernetes", "git", "pydantic", "textual", "rich", "aiohttp", "yaml", "ruamel", "asyncio", "tenacity")


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    for name in ("SANDBOX_CONTEXT", "SANDBOX_NAME", "SANDBOX_NAMESPACE_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    return CliRunner()


@pytest.mark.parametrize("arguments", [[], ["--help"], ["--version"]])
def test_start_up_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from sandbox.cli.main import main\n"
        f"sys.argv = ['sandbox', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "import json; sys.stderr.write('MODULES' + json.dumps(sorted(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    modules = json.loads(done.stderr.rpartition("MODULES")[2])
    assert [name for name in modules if name.partition(".")[0] in HEAVY] == []
    assert [name for name in modules if name.startswith("sandbox.") and ".commands." in name] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [(["--version"], 0, f"sandbox {__version__}\n"), (["nonsense"], 2, "")],
)
@pytest.mark.parametrize("thread", ["a thread\n", ""])
def test_the_script_ends_with_its_code_and_all_that_was_written(
    arguments: list[str], code: int, said: str, thread: str
) -> None:
    program = (
        "import atexit, sys, threading, time\n"
        "from sandbox.cli.main import script\n"
        f"sys.argv = ['sandbox', *{arguments!r}]\n"
        "atexit.register(sys.stdout.write, 'at its end\\n')\n"
        "def late():\n"
        "    threading.main_thread().join()\n"
        f"    sys.stdout.write({thread!r})\n"
        f"if {thread!r}:\n    threading.Thread(target=late).start()\n"
        "script()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (code, f"{said}{thread}at its end\n")


def test_version(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"sandbox {__version__}\n")


def test_help_names_every_command_by_section(runner: CliRunner) -> None:
    result = runner.invoke(app, ["--help"])
    assert result.exit_code == 0
    for entry in COMMANDS:
        assert (f"  {entry.name} " in result.stdout) is not entry.hidden
        assert f"{entry.section}:" in result.stdout


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_each_command_loads_and_its_help_is_its_docstrings_first_line(entry: main.Entry, runner: CliRunner) -> None:
    command = load(entry)
    assert command.help.splitlines()[0] == entry.help
    result = runner.invoke(app, [entry.name, "--help"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"Usage: root {entry.name} ") or "Usage:" in result.stdout


def test_an_unknown_command_is_wrong_usage_and_names_the_near_one(runner: CliRunner) -> None:
    result = runner.invoke(app, ["lisst"])
    assert result.exit_code == 2
    assert "No such command 'lisst'. Did you mean 'list'?" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "arguments", [["list", "--nonsense"], ["list", "-o", "xml"], ["--nonsense"], ["status", "--context"]]
)
def test_wrong_usage_exits_with_2(arguments: list[str], runner: CliRunner) -> None:
    result = runner.invoke(app, arguments)
    assert (result.exit_code, result.stdout) == (2, "")


def test_commands_raise_errors_that_become_exit_codes(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise Refused("not yours", hint="ask")

    monkeypatch.setattr("sandbox.cluster.client.Cluster.connect", refuse)
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 4
    assert result.stderr == "error: not yours\nhint: ask\n"
    assert "Traceback" in runner.invoke(app, ["list", "--debug"]).stderr


def test_a_broken_connection_is_not_mistaken_for_a_closed_stdout(
    runner: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sandbox.cluster.client.Cluster.connect", broken)
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 5
    assert "connection was closed" in result.stderr


def test_no_kubeconfig_says_so(runner: CliRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 5, result.output
    assert "kubeconfig" in result.stderr


def _probe(seen: dict[str, Any]) -> typer.Typer:
    """The real app's frame around one command that tells what it got."""

    def command(
        common: Common,
        selection: Selection,
        name: Annotated[str | None, typer.Argument()] = None,
        flag: Annotated[bool, typer.Option("--flag")] = False,
    ) -> None:
        """Tell."""
        seen.update(common=common, selection=selection, name=name, flag=flag)

    probe = typer.Typer(rich_markup_mode=None)
    probe.callback()(expand(main._root))
    probe.command("tell")(expand(command))
    return probe


@pytest.mark.parametrize(
    ("arguments", "common"),
    [
        (["tell"], Common()),
        (["tell", "--context", "a"], Common(context="a")),
        (["--context", "a", "tell"], Common(context="a")),
        (["--context", "a", "tell", "--context", "b"], Common(context="b")),
        (["--kubeconfig", "/k", "-v", "tell", "--debug"], Common(kubeconfig=Path("/k"), verbose=True, debug=True)),
        (["tell", "--namespace-prefix", "sbx-"], Common(namespace_prefix="sbx-")),
        (["--namespace-prefix", "x-", "tell", "--namespace-prefix", ""], Common(namespace_prefix="")),
    ],
)
def test_shared_options_stand_before_or_after_the_command(
    arguments: list[str], common: Common, runner: CliRunner
) -> None:
    seen: dict[str, Any] = {}
    result = runner.invoke(_probe(seen), arguments)
    assert result.exit_code == 0, result.output
    assert seen["common"] == common


def test_groups_of_options_arrive_as_one_value(runner: CliRunner) -> None:
    seen: dict[str, Any] = {}
    runner.invoke(_probe(seen), ["tell", "-s", "dana-shop-main", "--owner", "dana", "web", "--flag"])
    assert seen["selection"] == Selection(sandbox="dana-shop-main", owner="dana")
    assert (seen["name"], seen["flag"]) == ("web", True)
    assert seen["selection"].given == "dana-shop-main"


def test_a_namespace_names_a_sandbox_too() -> None:
    assert Selection(namespace="sbx-a").given == "sbx-a"
    assert Selection().given is None


def test_expanding_twice_changes_nothing() -> None:
    def command(common: Common, name: str = "") -> None:
        """Nothing."""

    once = expand(command)
    assert set(inspect.signature(once).parameters) == set(inspect.signature(expand(once)).parameters)
    assert {"context", "kubeconfig", "namespace_prefix", "verbose", "debug"} <= set(inspect.signature(once).parameters)


def test_the_environment_gives_context_and_prefix(runner: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CONTEXT", "from-environment")
    seen: dict[str, Any] = {}
    runner.invoke(_probe(seen), ["tell"])
    assert seen["common"] == options.Common(context="from-environment")
