"""The console script ``sandbox``: which commands there are, each imported when it is called."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple, NoReturn

import typer

from sandbox import __version__
from sandbox.cli import errors
from sandbox.cli.options import Common, expand
from sandbox.cli.parameters import Command, Group
from sandbox.model.errors import Unreachable

# Objects made and not dropped again, before Python looks for those that only refer to each other.
_GARBAGE_THRESHOLD = 50_000


class Entry(NamedTuple):
    """A command: ``attribute`` of ``module`` is its function, or a ``typer.Typer`` with commands of its own.

    ``help`` is what ``sandbox --help`` shows and equals the first line of the function's docstring
    (a test holds them together): showing it must not import the command.
    """

    name: str
    module: str
    attribute: str
    help: str
    section: str
    hidden: bool = False


_CHANGE = "Make and change sandboxes"
_SHARE = "Deploy into shared environments"
_LIVE = "How long sandboxes live"
_LOOK = "Look at a sandbox"
_CAPTURE = "When something failed"
_PREPARE = "Prepare"

COMMANDS: tuple[Entry, ...] = (
    Entry("up", "sandbox.cli.commands.up", "up", "Deploy a commit into a sandbox of its own, or upgrade it.", _CHANGE),
    Entry(
        "deploy",
        "sandbox.cli.commands.deploy",
        "deploy",
        "Deploy this repository's services into a shared environment; roll back when it fails.",
        _SHARE,
    ),
    Entry(
        "promote",
        "sandbox.cli.commands.deploy",
        "promote",
        "Deploy what passed in one environment into the next one; nothing is built.",
        _SHARE,
    ),
    Entry(
        "rollback",
        "sandbox.cli.commands.rollback",
        "rollback",
        "Go back to an earlier deployment of a sandbox or a shared environment.",
        _CHANGE,
    ),
    Entry(
        "down", "sandbox.cli.commands.down", "down", "Delete sandboxes and everything that their records name.", _CHANGE
    ),
    Entry("extend", "sandbox.cli.commands.extend", "extend", "Let sandboxes live for a time from now on.", _LIVE),
    Entry("pin", "sandbox.cli.commands.pin", "pin", "Keep sandboxes until a date, whatever their expiry says.", _LIVE),
    Entry("unpin", "sandbox.cli.commands.pin", "unpin", "Let the expiry of sandboxes count again.", _LIVE),
    Entry(
        "sleep",
        "sandbox.cli.commands.sleep",
        "sleep",
        "Stop the pods of sandboxes until they are woken; everything else stays.",
        _LIVE,
    ),
    Entry("wake", "sandbox.cli.commands.sleep", "wake", "Start sandboxes again that were put to sleep.", _LIVE),
    Entry(
        "cleanup",
        "sandbox.cli.commands.cleanup",
        "cleanup",
        "Delete the sandboxes that have expired, and warn the owners of those that soon will.",
        _LIVE,
    ),
    Entry(
        "capture",
        "sandbox.cli.commands.capture",
        "app",
        "Keep everything about a namespace at a moment, and look at it later.",
        _CAPTURE,
    ),
    Entry(
        "reproduce",
        "sandbox.cli.commands.reproduce",
        "reproduce",
        "Bring a capture back in a sandbox, and say whether its failure shows again.",
        _CAPTURE,
    ),
    Entry(
        "bisect",
        "sandbox.cli.commands.bisect",
        "bisect",
        "Find which of the changes between two states makes a test fail.",
        _CAPTURE,
    ),
    Entry(
        "diff",
        "sandbox.cli.commands.diff",
        "diff",
        "Say what differs between captures, running places, records, locks and commits.",
        _CAPTURE,
    ),
    Entry(
        "data",
        "sandbox.cli.commands.data",
        "app",
        "Copy the contents of databases and caches, masked as sandbox.yaml says.",
        _CAPTURE,
    ),
    Entry("list", "sandbox.cli.commands.list", "list_", "List sandboxes.", _LOOK),
    Entry("ls", "sandbox.cli.commands.list", "list_", "List sandboxes.", _LOOK, hidden=True),
    Entry(
        "status",
        "sandbox.cli.commands.status",
        "status",
        "Show a sandbox's services, findings, quota and expiry.",
        _LOOK,
    ),
    Entry(
        "logs",
        "sandbox.cli.commands.logs",
        "logs",
        "Print the logs of a service, or of all services.",
        _LOOK,
    ),
    Entry(
        "events",
        "sandbox.cli.commands.events",
        "events",
        "Show the cluster's events in a sandbox, the newest last.",
        _LOOK,
    ),
    Entry(
        "port-forward",
        "sandbox.cli.commands.port_forward",
        "port_forward",
        "Forward local ports to a service until Ctrl-C.",
        _LOOK,
    ),
    Entry(
        "open",
        "sandbox.cli.commands.open",
        "open_",
        "Open a service in the browser, until Ctrl-C.",
        _LOOK,
    ),
    Entry(
        "exec",
        "sandbox.cli.commands.exec",
        "exec_",
        "Run a command in a service's container.",
        _LOOK,
    ),
    Entry("get", "sandbox.cli.commands.get", "get", "Show what was deployed: manifest, values, lock or record.", _LOOK),
    Entry(
        "history",
        "sandbox.cli.commands.history",
        "history",
        "Show the deployments into a sandbox or a shared environment, the newest last.",
        _LOOK,
    ),
    Entry(
        "lock",
        "sandbox.cli.commands.lock",
        "lock",
        "Resolve a project's services to commits, digests and versions.",
        _CHANGE,
    ),
    Entry(
        "doctor",
        "sandbox.cli.commands.doctor",
        "doctor",
        "Check client, cluster, permissions and tools, and say how to mend each.",
        _PREPARE,
    ),
    Entry("init", "sandbox.cli.commands.init", "init", "Write a first sandbox.yaml from what is found.", _PREPARE),
    Entry(
        "schema",
        "sandbox.cli.commands.schema",
        "schema",
        "Print the JSON Schema of sandbox.yaml, of quota profiles or of the platform configuration.",
        _PREPARE,
    ),
    Entry("quota", "sandbox.cli.commands.quota", "app", "Quota profiles: how much a sandbox may use.", _PREPARE),
    Entry(
        "cluster",
        "sandbox.cli.commands.cluster",
        "app",
        "Make, list and delete clusters to try things on.",
        _PREPARE,
    ),
    Entry(
        "version",
        "sandbox.cli.commands.version",
        "version",
        "Show the versions of sandbox and of the tools it uses.",
        _PREPARE,
    ),
)


class LazyGroup(Group):
    """A group whose commands are imported when they are called, and whose ends all become exit codes."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [entry.name for entry in COMMANDS if not entry.hidden]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.commands:
            entry = next((entry for entry in COMMANDS if entry.name == cmd_name), None)
            if entry is None:
                return None
            self.commands[cmd_name] = load(entry)
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        # Typer's own suggestions know only the commands that were imported.
        names = [entry.name for entry in COMMANDS if not entry.hidden]
        unknown = args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None
        if unknown and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(args[0], names)
            question = f" Did you mean {' or '.join(repr(name) for name in near)}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{question}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for section in dict.fromkeys(entry.section for entry in COMMANDS):
            rows = [(e.name, e.help) for e in COMMANDS if e.section == section and not e.hidden]
            if rows:
                with formatter.section(section):
                    formatter.write_dl(rows)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            # Typer takes it for a closed stdout (which output.py reports itself) and would end without a word.
            raise Unreachable("a connection was closed by the other side", why=str(error)) from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run and exit with the code of the contract; only shell completion leaves it to Typer."""
        arguments = list(sys.argv[1:] if args is None else args)
        own = arguments[: arguments.index("--")] if "--" in arguments else arguments

        def command() -> Any:
            return super(LazyGroup, self).main(arguments, prog_name, complete_var, False, windows_expand_args, **extra)

        sys.exit(errors.exit_code_of(command, debug="--debug" in own))


app = typer.Typer(
    name="sandbox",
    cls=LazyGroup,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Errors are shown by errors.py.
    pretty_exceptions_enable=False,
)


@functools.cache
def load(entry: Entry) -> Any:
    """Import a command (or a group of them) and build it."""
    found = getattr(importlib.import_module(entry.module), entry.attribute)
    group = found if isinstance(found, typer.Typer) else typer.Typer()
    if group is not found:
        group.command(entry.name, hidden=entry.hidden)(found)
    group.rich_markup_mode = None
    group._add_completion = False
    group.info.cls = Group
    for command in group.registered_commands:
        command.cls = Command
        if command.callback is not None:
            command.callback = expand(command.callback)
    built = typer.main.get_command(group)
    built.name = entry.name
    return built


def _show_version(wanted: bool) -> None:
    if wanted:
        from sandbox.cli.output import write

        write(f"sandbox {__version__}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    common: Common,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Any commit of any branch, live in a bounded namespace of a Kubernetes cluster."""
    ctx.obj = common


app.callback()(expand(_root))


def script() -> NoReturn:
    """The console script: :func:`main`, and the end of the process."""
    code: object = 0
    _open_what_is_closed()
    try:
        main()
    except SystemExit as ended:
        code = ended.code
    _leave(code)


def _open_what_is_closed() -> None:
    """Python has no stream for a descriptor that its caller closed (``>&-``), and gives its number to the next file or
    connection; what is written to one goes nowhere."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def _leave(code: object) -> NoReturn:
    """End the process. Python takes all that a command imported apart first, piece by piece, for a fifth of a second;
    only a thread that is still at work is worth waiting for."""
    if isinstance(code, int) and all(thread.daemon for thread in threading.enumerate()[1:]):
        atexit._run_exitfuncs()
        # Standard output may be closed by now: that is for Python's own end to judge.
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)  # type: ignore[arg-type]


def main() -> None:
    """Run the command that ``sys.argv`` names; always ends with ``SystemExit``."""
    # A command lives for seconds, and importing what it needs makes much and drops nothing: with Python's own bounds,
    # looking for garbage is a tenth of its CPU time.
    gc.set_threshold(_GARBAGE_THRESHOLD, 20, 20)
    app(prog_name="sandbox")
