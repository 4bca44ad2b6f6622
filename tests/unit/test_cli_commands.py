"""What the commands that look at a sandbox decide without a cluster."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from typer.testing import CliRunner

from sandbox.cli.commands.events import summary
from sandbox.cli.commands.exec import choose_container, choose_pod
from sandbox.cli.commands.history import changed
from sandbox.cli.commands.open import rooted
from sandbox.cli.commands.port_forward import free_port, parse_port
from sandbox.cli.main import app
from sandbox.cli.reporter import LiveReporter, PlainReporter, reporter
from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.objects import Manifest
from tests.unit.test_provision_inspect import record, service_record, thing


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("8080", (None, "8080")),
        ("http", (None, "http")),
        ("8080:80", (8080, "80")),
        ("8080:http", (8080, "http")),
        (":80", (0, "80")),
        ("0:80", (0, "80")),
    ],
)
def test_ports(text: str, port: tuple[int | None, str]) -> None:
    assert parse_port(text) == port


@pytest.mark.parametrize("text", ["", ":", "80:", "x:80", "70000:80", "80:80:80", "-1:80", "HTTP", "a b", "８０"])
def test_what_is_no_port(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a port"):
        parse_port(text)


def test_a_port_that_is_taken_is_not_asked_for() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert free_port("127.0.0.1", port) == 0
    assert free_port("127.0.0.1", port) == port


@pytest.mark.parametrize(("path", "url"), [("/", "/"), ("x", "/x"), ("/x?y=1", "/x?y=1"), ("", "/")])
def test_rooted(path: str, url: str) -> None:
    assert rooted(path) == url


def a_pod(
    name: str, phase: str = "Running", *, ready: bool = True, annotations: dict[str, str] | None = None
) -> Manifest:
    return {
        **thing("Pod", name, annotations=annotations),
        "spec": {"containers": [{"name": "main"}, {"name": "side"}]},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": str(ready)}]},
    }


class TestWhereACommandRuns:
    def test_the_newest_ready_pod(self) -> None:
        pods = [a_pod("new", ready=False), a_pod("ready"), a_pod("old")]
        assert choose_pod(pods, "web", None)["metadata"]["name"] == "ready"

    def test_one_that_runs_where_none_is_ready(self) -> None:
        pods = [a_pod("done", "Succeeded"), a_pod("starting", ready=False)]
        assert choose_pod(pods, "web", None)["metadata"]["name"] == "starting"

    def test_the_named_one(self) -> None:
        assert choose_pod([a_pod("a"), a_pod("b")], "web", "b")["metadata"]["name"] == "b"

    def test_no_pod_of_that_name(self) -> None:
        with pytest.raises(InvalidInput, match="has no pod c") as caught:
            choose_pod([a_pod("a")], "web", "c")
        assert "a" in caught.value.why

    @pytest.mark.parametrize("pods", [[], [a_pod("a", "Pending")]])
    def test_nothing_runs(self, pods: list[Manifest]) -> None:
        with pytest.raises(OperationFailed, match="no pod of service web runs"):
            choose_pod(pods, "web", None)

    @pytest.mark.parametrize(
        ("pod", "name", "container"),
        [
            (a_pod("a"), None, "main"),
            (a_pod("a"), "side", "side"),
            (a_pod("a", annotations={"kubectl.kubernetes.io/default-container": "side"}), None, "side"),
            (a_pod("a", annotations={"kubectl.kubernetes.io/default-container": "gone"}), None, "main"),
        ],
    )
    def test_container(self, pod: Manifest, name: str | None, container: str) -> None:
        assert choose_container(pod, name) == container

    def test_no_container_of_that_name(self) -> None:
        with pytest.raises(InvalidInput, match="has no container x") as caught:
            choose_container(a_pod("a"), "x")
        assert "side" in caught.value.hint


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (
            {
                "involvedObject": {"kind": "Pod", "name": "a"},
                "message": " x\n",
                "count": 3,
                "source": {"component": "k"},
            },
            {"object": "pod/a", "message": "x", "count": 3, "source": "k"},
        ),
        (
            {
                "regarding": {"kind": "Deployment", "name": "a", "apiVersion": "apps/v1"},
                "note": "y",
                "series": {"count": 7},
                "reportingComponent": "c",
            },
            {"object": "deployment.apps/a", "message": "y", "count": 7, "source": "c"},
        ),
    ],
)
def test_events_of_both_forms(event: dict[str, Any], expected: dict[str, Any]) -> None:
    found = summary(event)
    assert {key: found[key] for key in expected} == expected


def test_what_a_deployment_changed() -> None:
    before = record(a=service_record(), b=service_record(), c=service_record())
    moved = service_record()
    moved = moved.model_copy(update={"lock": moved.lock.model_copy(update={"input_digest": "sha256:new"})})
    after = record(a=service_record(), b=moved, d=service_record())
    assert changed(None, before) == ["a", "b", "c"]
    assert changed(before, after) == ["b", "d", "-c"]


class TestWrongUsage:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["list", "-A", "--owner", "me"], "leave one of the two out"),
            (["list", "--phase", "Nice"], "'Nice' is not a phase"),
            (["list", "--expiring", "soon"], "'soon' is not a duration"),
            (["list", "--sort-by", "colour"], "cannot sort by 'colour'"),
            (["logs", "web", "--since", "1y"], "'1y' is not a duration"),
            (["logs", "web", "--tail", "-1"], "--tail"),
            (["exec", "web"], "COMMAND"),
            (["get"], "Usage"),
            (["open", "web", "--scheme", "ftp"], "'ftp' is not a scheme"),
            (["port-forward", "web", "x:y:z"], "'x:y:z' is not a port"),
            (["exec", "-t", "web", "--", "sh"], "no terminal to give"),
        ],
    )
    def test_it_is_said_before_anything_is_asked(
        self, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def connect(*_: Any, **__: Any) -> None:
            raise AssertionError("the cluster is not asked")

        monkeypatch.setattr("sandbox.cluster.client.Cluster.connect", connect)
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert result.stdout == ""


class TestPlainReporter:
    def test_a_step_its_news_and_its_end(self, capsys: pytest.CaptureFixture[str]) -> None:
        with PlainReporter(verbose=True) as talk:
            with talk.step("Build images") as step:
                step.detail("web: building")
                step.detail("web: building")
                step.detail("web: \x1b[31mpushed")
            talk.info("done")
            talk.warn("the tree is dirty")
        out, err = capsys.readouterr()
        lines = err.splitlines()
        assert out == ""
        assert lines[:3] == ["• Build images", "  Build images: web: building", r"  Build images: web: \x1b[31mpushed"]
        assert lines[3].startswith("✓ Build images (0.")
        assert lines[4:] == ["  done", "warning: the tree is dirty"]

    def test_a_step_that_fails(self, capsys: pytest.CaptureFixture[str]) -> None:
        with PlainReporter() as talk, pytest.raises(ValueError, match="x"), talk.step("Render"):
            raise ValueError("x")
        assert capsys.readouterr().err.splitlines()[1].startswith("✗ Render (")

    def test_a_step_that_is_interrupted(self, capsys: pytest.CaptureFixture[str]) -> None:
        with PlainReporter() as talk, pytest.raises(KeyboardInterrupt), talk.step("Wait"):
            raise KeyboardInterrupt
        assert capsys.readouterr().err.splitlines()[1].startswith("– Wait (")

    @pytest.mark.parametrize(("verbose", "shown"), [(False, ""), (True, "  $ helm upgrade web 'a b'\n")])
    def test_commands_are_shown_when_asked_for(
        self, verbose: bool, shown: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        PlainReporter(verbose=verbose).command(["helm", "upgrade", "web", "a b"])
        assert capsys.readouterr().err == shown


def test_without_a_terminal_the_reporter_is_plain() -> None:
    assert isinstance(reporter(), PlainReporter)


class TestLiveReporter:
    def report(self) -> tuple[LiveReporter, io.StringIO]:
        from rich.console import Console

        written = io.StringIO()
        return LiveReporter(console=Console(file=written, force_terminal=True, width=60, color_system=None)), written

    def test_what_ended_stays_with_its_inner_steps(self) -> None:
        live, written = self.report()
        with live as talk, talk.step("Deploy"), talk.step("web [red]not markup") as step:
            step.detail("1/2 \x1b[31mready")
        # Behind the last redrawing stands what stays.
        kept = written.getvalue().replace("\x1b[2K", "").replace("\x1b[1A", "")
        assert "✓ Deploy  0.0s" in kept
        assert "  ✓ web [red]not markup  0.0s" in kept
        assert "\x1b[31m" not in kept

    def test_a_failed_step_is_marked(self) -> None:
        live, written = self.report()
        with pytest.raises(ValueError, match="x"), live as talk, talk.step("Deploy"):
            raise ValueError("x")
        assert "✗ Deploy" in written.getvalue()

    async def test_steps_side_by_side_are_children_of_the_step_around_them(self) -> None:
        import asyncio

        live, written = self.report()
        with live as talk, talk.step("Deploy"):

            async def one(name: str) -> None:
                with talk.step(name):
                    await asyncio.sleep(0)

            await asyncio.gather(one("web"), one("orders"))
        kept = [line for line in written.getvalue().splitlines() if "✓" in line][-3:]
        assert [line[line.index("✓") - indent : -6] for line, indent in zip(kept, (0, 2, 2), strict=True)] == [
            "✓ Deploy",
            "  ✓ web",
            "  ✓ orders",
        ]


def test_json_of_a_list_is_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        context = "c"

        async def __aenter__(self) -> Nothing:
            return self

        async def __aexit__(self, *_: object) -> None:
            return None

    async def none(*_: Any, **__: Any) -> list[Any]:
        return []

    monkeypatch.setattr("sandbox.cluster.client.Cluster.connect", lambda *_: Nothing())
    monkeypatch.setattr("sandbox.provision.inspect.list_sandboxes", none)
    result = CliRunner().invoke(app, ["list", "-o", "json"])
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    table = CliRunner().invoke(app, ["list"])
    assert (table.stdout, table.stderr) == ("", "no sandboxes found\n")
