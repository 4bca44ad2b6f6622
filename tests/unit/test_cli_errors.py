"""cli/errors.py and cli/run.py: how a command can end, and the exit code of each end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from sandbox import __version__
from sandbox.cli import errors, output
from sandbox.cli.run import run
from sandbox.cluster import errors as cluster_errors
from sandbox.model import errors as model
from sandbox.model.failure import Finding, NotReady

FINDING = Finding(reason="CrashLoopBackOff", message="", object="pod/web", log_tail=("boom",))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (model.OperationFailed("x"), 1),
        (NotReady("x", [FINDING]), 1),
        (model.InvalidInput("x"), 2),
        (model.Refused("x"), 4),
        (model.Unreachable("x"), 5),
        (model.PartlyDone("x"), 6),
        (model.Busy("x"), 7),
        (cluster_errors.NotFound("x"), 1),
        (cluster_errors.Invalid("x"), 2),
        (cluster_errors.Forbidden("x"), 4),
        (cluster_errors.QuotaExceeded("x"), 4),
        (cluster_errors.Unauthorized("x"), 5),
        (cluster_errors.ServerUnavailable("x"), 5),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 1),
        (typer.BadParameter("x"), 2),
        (ValueError("x"), 1),
        (OSError(28, "No space left on device"), 1),
    ],
)
def test_exit_codes(error: BaseException, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    assert errors.exit_code_of(command, debug=False) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err
    assert "Traceback" not in err


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (3, 3), (130, 130), ("text", 0)])
def test_what_a_command_returns(result: object, code: int) -> None:
    assert errors.exit_code_of(lambda: result, debug=False) == code


def test_an_error_says_what_why_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise model.Refused("cannot create it", why="line one\nline two", hint="ask for less")

    errors.exit_code_of(command, debug=False)
    assert capsys.readouterr().err == "error: cannot create it\n  line one\n  line two\nhint: ask for less\n"


def test_log_lines_in_an_error_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise NotReady("web failed", [Finding("Error", "\x1b[2J", "pod/\x07", log_tail=("\x1b]0;owned\x07",))])

    errors.exit_code_of(command, debug=False)
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\x07" not in err
    assert r"\x1b]0;owned\x07" in err


def test_an_unexpected_error_is_one_line_and_a_way_on(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise RuntimeError("several\n  lines")

    errors.exit_code_of(command, debug=False)
    assert capsys.readouterr().err.splitlines() == [
        "error: unexpected RuntimeError: several lines",
        "hint: this is a defect of sandbox; run the command with --debug for the traceback",
    ]


@pytest.mark.parametrize("error", [RuntimeError("x"), model.OperationFailed("x")])
def test_debug_shows_the_traceback(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    errors.exit_code_of(command, debug=True)
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_a_task_groups_only_error_is_shown_as_that_error(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ExceptionGroup("unhandled errors in a TaskGroup", [model.Unreachable("no cluster")])

    assert errors.exit_code_of(command, debug=False) == 5
    assert capsys.readouterr().err == "error: no cluster\n"


def test_several_errors_of_a_task_group_are_all_shown(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ExceptionGroup(
            "", [model.Refused("first"), ExceptionGroup("", [model.Unreachable("second"), model.Refused("first")])]
        )

    assert errors.exit_code_of(command, debug=False) == 4
    assert capsys.readouterr().err == "error: first\nerror: second\n"


def test_a_reader_that_leaves_tasks_side_by_side_gets_no_complaint(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "dup2", lambda *_: None)

    def command() -> None:
        raise ExceptionGroup("", [output.OutputClosed()])

    assert errors.exit_code_of(command, debug=False) == 141
    assert capfd.readouterr().err == ""


def test_run_gives_the_result() -> None:
    async def main() -> int:
        return 7

    assert run(main()) == 7


def test_run_lets_errors_through() -> None:
    async def main() -> None:
        raise model.Busy("x")

    with pytest.raises(model.Busy):
        run(main())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_and_cleans_up(number: signal.Signals) -> None:
    cleaned = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), number)
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run(main())
    assert cleaned == [True]


def test_a_second_signal_stops_a_clean_up_that_hangs() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(30)
        finally:
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
            await asyncio.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        run(main())


def test_a_cancellation_from_inside_is_no_interrupt() -> None:
    async def main() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run(main())


def test_a_reader_that_goes_away_gets_no_complaint(tmp_path: Path) -> None:
    script = tmp_path / "many_lines.py"
    script.write_text(
        "import sys\n"
        "from sandbox.cli import errors, output\n"
        "def command():\n"
        "    while True:\n"
        "        output.write('line')\n"
        "sys.exit(errors.exit_code_of(command, debug=False))\n"
    )
    child = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.wait(timeout=20) == 141
    assert child.stderr.read() == b""
    child.stderr.close()


_SANDBOX = str(Path(sys.executable).with_name("sandbox"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
@pytest.mark.parametrize("arguments", ["--help", "--version", "up --help", "schema", "--show-completion bash"])
def test_a_full_disk_under_the_output_is_no_defect(arguments: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [_SANDBOX, *arguments.split()], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )

    assert done.stderr == "error: standard output cannot be written\n  No space left on device\n"
    assert done.returncode == 1


@pytest.mark.parametrize(("closed", "said"), [(">&-", ""), (">&- 2>&-", ""), ("<&-", f"sandbox {__version__}\n")])
def test_a_stream_that_the_caller_closed_is_no_defect(closed: str, said: str) -> None:
    shell = ["sh", "-c", f'exec "$0" --version {closed}', _SANDBOX]
    done = subprocess.run(
        shell,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, said)


def test_help_that_nobody_reads_to_its_end_gets_no_complaint() -> None:
    child = subprocess.Popen([_SANDBOX, "up", "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert child.wait(timeout=60) == 141
    assert child.stderr.read() == b""
    child.stderr.close()
