"""Talks on standard error: the steps of an operation, live on a terminal, as plain lines otherwise."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from sandbox.cli.output import colours, paint, printable

if TYPE_CHECKING:
    from types import TracebackType

    from rich.console import Console
    from rich.live import Live

    from sandbox.provision.reporter import Reporter, Step

State = Literal["running", "done", "failed", "interrupted"]
_MARKS: dict[State, tuple[str, str]] = {
    "running": ("•", ""),
    "done": ("✓", "green"),
    "failed": ("✗", "red"),
    "interrupted": ("–", "yellow"),
}


class ClosableReporter(Protocol):
    """A reporter for the time of one command."""

    def __enter__(self) -> Reporter: ...

    def __exit__(self, *error: Any) -> None: ...


def reporter(*, verbose: bool = False) -> ClosableReporter:
    """A reporter for this standard error: live on a terminal, plain lines otherwise."""
    live = sys.stderr.isatty() and colours(sys.stderr)
    return LiveReporter(verbose=verbose) if live else PlainReporter(verbose=verbose)


def say(text: str, *, colour: str = "") -> None:
    """Write one line of talk."""
    sys.stderr.write(paint(printable(text, keep="\n\t"), colour, stream=sys.stderr) + "\n")
    sys.stderr.flush()


def command_line(argv: Sequence[str]) -> str:
    """An argv as one would type it."""
    return f"$ {shlex.join(argv)}"


@dataclass
class _Step:
    """One step and the steps inside it."""

    title: str
    started: float
    state: State = "running"
    text: str = ""
    ended: float = 0.0
    children: list[_Step] = field(default_factory=list)

    def detail(self, text: str) -> None:
        self.text = text

    @property
    def seconds(self) -> float:
        return (self.ended or time.monotonic()) - self.started

    def end(self, error: BaseException | None) -> None:
        self.ended = time.monotonic()
        if error is None:
            self.state = "done"
        else:
            self.state = "failed" if isinstance(error, Exception) else "interrupted"


# The step around the code that runs, in each asyncio task on its own.
_around: ContextVar[_Step | None] = ContextVar("around", default=None)


# How often a step's news is worth a line in a log; all of it with -v.
_NEWS_EVERY_S = 5.0


class PlainReporter:
    """A line when a step starts, when it ends, and now and then for the newest of it."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose

    def __enter__(self) -> Reporter:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def step(self, title: str) -> AbstractContextManager[Step]:
        return self._step(title)

    @contextlib.contextmanager
    def _step(self, title: str) -> Iterator[Step]:
        step = _PlainStep(title, time.monotonic(), pause=0.0 if self._verbose else _NEWS_EVERY_S)
        say(f"• {title}")
        try:
            yield step
        except BaseException as error:
            step.end(error)
            raise
        else:
            step.end(None)
        finally:
            mark, colour = _MARKS[step.state]
            say(f"{mark} {title} ({_seconds(step.seconds)})", colour=colour)

    def info(self, text: str) -> None:
        say(f"  {text}")

    def warn(self, text: str) -> None:
        say(f"warning: {text}", colour="yellow")

    def command(self, argv: Sequence[str]) -> None:
        if self._verbose:
            say(f"  {command_line(argv)}", colour="grey")


@dataclass
class _PlainStep(_Step):
    pause: float = 0.0
    told: float = 0.0

    def detail(self, text: str) -> None:
        # Polling repeats itself; the log of a CI job need not.
        now = time.monotonic()
        if text != self.text and now - max(self.told, self.started) >= self.pause:
            say(f"  {self.title}: {text}")
            self.told = now
        super().detail(text)


class LiveReporter:
    """A list of steps with their times, redrawn in place; those that ended stay above it."""

    def __init__(self, *, verbose: bool = False, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live

        self._verbose = verbose
        self._running: list[_Step] = []
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=False)
        self._live: Live = Live(
            console=self._console,
            get_renderable=self._render,
            refresh_per_second=8,
            transient=True,
            # Whoever prints data meanwhile does so through output.py, after the steps.
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Reporter:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._live.stop()

    def step(self, title: str) -> AbstractContextManager[Step]:
        return self._step(title)

    @contextlib.contextmanager
    def _step(self, title: str) -> Iterator[Step]:
        step = _Step(title, time.monotonic())
        outer = _around.get()
        (outer.children if outer else self._running).append(step)
        token = _around.set(step)
        try:
            yield step
        except BaseException as error:
            step.end(error)
            raise
        else:
            step.end(None)
        finally:
            _around.reset(token)
            if outer is None:
                self._running.remove(step)
                for line in self._lines(step):
                    self._console.print(line)

    def info(self, text: str) -> None:
        self._print(f"  {text}")

    def warn(self, text: str) -> None:
        self._print(f"warning: {text}", "yellow")

    def command(self, argv: Sequence[str]) -> None:
        if self._verbose:
            self._print(f"  {command_line(argv)}", "bright_black")

    def _print(self, text: str, style: str = "") -> None:
        from rich.text import Text

        self._console.print(Text(printable(text, keep="\n\t"), style=style), soft_wrap=True)

    def _render(self) -> Any:
        from rich.console import Group

        return Group(*(line for step in self._running for line in self._lines(step)))

    def _lines(self, step: _Step, depth: int = 0) -> list[Any]:
        from rich.text import Text

        mark, colour = _MARKS[step.state]
        line = Text("  " * depth, no_wrap=True, overflow="ellipsis")
        line.append(f"{mark} ", style=colour).append(printable(step.title))
        if step.text and step.state == "running":
            line.append(f"  {printable(step.text)}", style="bright_black")
        line.append(f"  {_seconds(step.seconds)}", style="bright_black")
        return [line, *(inner for child in step.children for inner in self._lines(child, depth + 1))]


def _seconds(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f}s"
    return f"{int(seconds // 60)}m{int(seconds % 60)}s"
