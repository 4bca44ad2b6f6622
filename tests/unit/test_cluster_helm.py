"""How Helm is called, what its words become, and what stored releases hold."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster import helm as helm_module
from sandbox.cluster.errors import Invalid
from sandbox.cluster.helm import Helm, decode_release, helm_error, is_hook
from sandbox.cluster.helm_command import HelmCommand, helm_environment
from sandbox.cluster.tools import find_tool
from sandbox.model.errors import Busy, InvalidInput, OperationFailed, Refused, SandboxError, Unreachable
from sandbox.model.objects import Manifest

SECRET = "hunter2"


def program(path: Path, text: str) -> Path:
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def recorder(tmp_path: Path) -> Path:
    """A program in Helm's place that writes down how it was called."""
    text = f"""
import json, os, sys
words = sys.argv[1:]
read = sys.stdin.read() if "-" in words else ""
with open({str(tmp_path / "calls")!r}, "a") as calls:
    calls.write(json.dumps({{"argv": words, "stdin": read, "env": dict(os.environ)}}) + "\\n")
print({{"version": os.environ.get("VERSION", "v4.3.1"), "upgrade": '{{"version": 7}}'}}.get(words[0], ""))
"""
    return program(tmp_path / "helm", text)


def calls(recorder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (recorder.parent / "calls").read_text().splitlines()]


@pytest.fixture
def helm(recorder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Helm:
    async def nothing_stored(self: Helm, release: str, namespace: str) -> list[Any]:
        return []

    monkeypatch.setattr(Helm, "_stored", nothing_stored)
    return Helm(tmp_path / "kubeconfig", "ctx", str(recorder))


@pytest.mark.parametrize(("version", "forced"), [("v4.3.1", True), ("v3.17.0", False)])
async def test_an_upgrade_takes_over_fields_waits_for_nothing_and_shows_no_values(
    helm: Helm, recorder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, forced: bool
) -> None:
    monkeypatch.setenv("VERSION", version)
    values = {"password": SECRET}
    assert await helm.install_or_upgrade("web", tmp_path / "chart", values, "shop", timeout=90) == 7
    call = calls(recorder)[-1]
    argv = call["argv"]
    assert argv[:3] == ["upgrade", "web", str(tmp_path / "chart")]
    assert ("--force-conflicts" in argv) is forced
    assert ("--disable-openapi-validation" in argv) is forced
    assert argv[argv.index("--timeout") + 1] == "90s"
    assert argv[argv.index("--namespace") + 1] == "shop"
    assert argv[-4:] == ["--kubeconfig", str(tmp_path / "kubeconfig"), "--kube-context", "ctx"]
    assert not {"--wait", "--atomic", "--rollback-on-failure", "--create-namespace", "--force"} & set(argv)
    assert json.loads(call["stdin"]) == values
    assert SECRET not in " ".join(argv)
    assert SECRET not in json.dumps(call["env"])


async def test_a_helm_that_does_not_run_is_said(tmp_path: Path) -> None:
    broken = tmp_path / "helm"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    with pytest.raises(OperationFailed, match="helm does not say its version"):
        await Helm(tmp_path / "kubeconfig", "ctx", str(broken)).version()


async def test_nothing_is_a_shell(helm: Helm, recorder: Path, tmp_path: Path) -> None:
    name = "$(touch pwned); `id` 'quoted' \"double\""
    await helm.install_or_upgrade(name, tmp_path / "chart", {}, "shop", timeout=5)
    assert calls(recorder)[-1]["argv"][1] == name


async def test_a_rollback_and_an_uninstall(helm: Helm, recorder: Path) -> None:
    await helm.rollback("web", 3, "shop")
    argv = calls(recorder)[-1]["argv"]
    assert argv[:3] == ["rollback", "web", "3"]
    assert "--force-conflicts" in argv
    await helm.uninstall("web", "shop")
    assert calls(recorder)[-1]["argv"][:2] == ["uninstall", "web"]


def test_helm_is_not_led_elsewhere_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HELM_KUBEAPISERVER", "HELM_KUBETOKEN", "HELM_NAMESPACE", "HELM_DEBUG"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("HELM_DRIVER", "configmap")
    monkeypatch.setenv("HELM_CACHE_HOME", "/cache")
    monkeypatch.setenv("GOMEMLIMIT", "1GiB")
    environment = helm_environment()
    assert (environment["GOGC"], environment["GOMEMLIMIT"]) == ("off", "1GiB")
    assert not {name for name in environment if name.startswith("HELM_KUBE")}
    assert environment["HELM_DRIVER"] == "secret"
    assert environment["HELM_CACHE_HOME"] == "/cache"


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ([], None),
        ([(1, "deployed")], None),
        ([(1, "failed")], None),
        ([(1, "pending-install")], ["uninstall", "web"]),
        ([(1, "superseded"), (2, "deployed"), (3, "pending-upgrade")], ["rollback", "web", "2"]),
        ([(1, "superseded"), (2, "failed"), (3, "pending-rollback")], ["rollback", "web", "1"]),
        ([(1, "failed"), (2, "pending-upgrade")], ["uninstall", "web"]),
        ([(1, "deployed"), (2, "uninstalling")], ["uninstall", "web"]),
    ],
)
async def test_only_a_locked_release_is_unlocked(
    helm: Helm,
    recorder: Path,
    monkeypatch: pytest.MonkeyPatch,
    stored: list[tuple[int, str]],
    expected: list[str] | None,
) -> None:
    async def as_given(self: Helm, release: str, namespace: str) -> list[Any]:
        return [helm_module._Stored(*item) for item in stored]

    monkeypatch.setattr(Helm, "_stored", as_given)
    await helm.unlock("web", "shop")
    if expected is None:
        assert not (recorder.parent / "calls").exists()
        return
    argv = calls(recorder)[-1]["argv"]
    assert argv[: len(expected)] == expected
    assert "--no-hooks" in argv


async def test_a_cancelled_helm_is_told_to_end_with_its_children(tmp_path: Path) -> None:
    text = f"""
import os, signal, subprocess, sys, time
from pathlib import Path
child = subprocess.Popen(["sleep", "60"])
def end(number, frame):
    Path({str(tmp_path / "told")!r}).write_text(str(number))
    sys.exit(1)
signal.signal(signal.SIGTERM, end)
Path({str(tmp_path / "started")!r}).write_text(str(child.pid))
# In short turns: a signal just before a sleep begins does not end it.
for _ in range(600):
    time.sleep(0.1)
"""
    command = HelmCommand(
        executable=program(tmp_path / "helm", text), kubeconfig=tmp_path, context="c", force_conflicts=True
    )
    running = asyncio.create_task(command.run(["upgrade"]))
    child = int(await asyncio.to_thread(_content, tmp_path / "started"))
    running.cancel()
    began = time.monotonic()
    await asyncio.gather(running, return_exceptions=True)
    assert time.monotonic() - began < 30, "it waited for the child's sleep"
    assert (tmp_path / "told").read_text() == str(int(signal.SIGTERM))
    assert await asyncio.to_thread(_gone, child)


async def test_a_helm_that_is_cancelled_while_it_starts_ends_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"""
import subprocess, time
from pathlib import Path
child = subprocess.Popen(["sleep", "60"])
Path({str(tmp_path / "started")!r}).write_text(str(child.pid))
time.sleep(60)
"""
    create = asyncio.create_subprocess_exec

    async def slow(*argv: str, **options: Any) -> asyncio.subprocess.Process:
        process = await create(*argv, **options)
        await asyncio.to_thread(_content, tmp_path / "started")
        running.cancel()
        await asyncio.sleep(0)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", slow)
    command = HelmCommand(
        executable=program(tmp_path / "helm", text), kubeconfig=tmp_path, context="c", force_conflicts=True
    )
    running = asyncio.create_task(command.run(["upgrade"]))
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await asyncio.to_thread(_gone, int((tmp_path / "started").read_text()))


async def test_a_helm_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.cluster.helm_command._GRACE_S", 0.3)
    text = f"""
import os, signal, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
Path({str(tmp_path / "started")!r}).write_text(str(os.getpid()))
time.sleep(60)
"""
    command = HelmCommand(
        executable=program(tmp_path / "helm", text), kubeconfig=tmp_path, context="c", force_conflicts=True
    )
    running = asyncio.create_task(command.run(["upgrade"]))
    pid = int(await asyncio.to_thread(_content, tmp_path / "started"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert await asyncio.to_thread(_gone, pid)


def _content(path: Path) -> str:
    deadline = time.monotonic() + 20
    while not path.exists() or not path.read_text():
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.02)
    return path.read_text()


def _gone(pid: int) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(pid, 0)
            # A child that nobody waited for yet is dead all the same.
            if "State:\tZ" in Path(f"/proc/{pid}/status").read_text():
                return True
        except (ProcessLookupError, FileNotFoundError):
            return True
        time.sleep(0.02)
    return False


async def test_without_helm_it_is_said_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(OperationFailed, match="there is no helm") as caught:
        await Helm(tmp_path, "c", str(tmp_path / "none")).version()
    assert "install Helm" in caught.value.hint


# -- errors

CONFLICT = (
    'UPGRADE FAILED: conflict occurred while applying object shop/web apps/v1, Kind=Deployment: conflict with "kubectl"'
)
OWNERSHIP = "INSTALLATION FAILED: unable to continue with install: Deployment exists: invalid ownership metadata; label"
LOCKED = "UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress"
TEMPLATE = 'template: web/templates/deployment.yaml:12:20: executing "web" at <.Values.image.tag>: nil pointer'


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (CONFLICT, OperationFailed),
        (OWNERSHIP, Refused),
        (LOCKED, Busy),
        ("Kubernetes cluster unreachable: Get https://x: connection refused", Unreachable),
        ("UPGRADE FAILED: pods is forbidden: exceeded quota: sandbox", Refused),
    ],
)
def test_helms_words_stay_and_their_kind_is_known(text: str, kind: type[SandboxError]) -> None:
    noise = 'level=WARN msg="unable to find exact version"\nWARNING: config is group-readable\n'
    error = helm_error("it failed", f"{noise}Error: {text}\n")
    assert type(error) is kind
    assert error.why == text


def test_a_template_error_keeps_file_and_line() -> None:
    error = helm_error("it does not render", f"Error: {TEMPLATE}\n\nUse --debug flag\n", InvalidInput)
    assert isinstance(error, InvalidInput)
    assert "web/templates/deployment.yaml:12:20" in error.why


def test_values_of_secrets_are_hidden() -> None:
    text = f'Error: Secret "web" is invalid: data[password]: Invalid value: "{SECRET}": no'
    assert SECRET not in str(helm_error("it failed", text))


def test_silence_is_said() -> None:
    assert helm_error("it failed", "").why == "helm said nothing"


# -- charts that do not render, by the real Helm

needs_helm = pytest.mark.skipif(find_tool("helm") is None, reason="no helm here")


def write_chart(folder: Path, template: str, **chart: Any) -> Path:
    (folder / "templates").mkdir(parents=True)
    named = {"apiVersion": "v2", "name": folder.name, "version": "0.1.0", **chart}
    (folder / "Chart.yaml").write_text(json.dumps(named))
    (folder / "templates" / "a.yaml").write_text(template)
    return folder


@pytest.fixture
def real(tmp_path: Path) -> Helm:
    return Helm(tmp_path / "none", "none")


CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {v: {{ .Values.v | toJson }}}\n"


@needs_helm
@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .Values.a.b.c }}", "web/templates/a.yaml:1"),
        ('a: 1\nb: {{ fail "no tag was given" }}', "no tag was given"),
        ("a: b: c", "web/templates/a.yaml"),
        ("{{ if }}", "web/templates/a.yaml:1"),
        ('a: {{ required "image.tag is needed" .Values.tag }}', "image.tag is needed"),
    ],
)
async def test_a_chart_that_does_not_render(real: Helm, tmp_path: Path, template: str, expected: str) -> None:
    with pytest.raises(InvalidInput, match="the chart of release web does not render") as caught:
        await real.template("web", write_chart(tmp_path / "web", template), {}, "shop")
    assert expected in caught.value.why


@needs_helm
async def test_a_chart_is_rendered_as_the_cluster_would_see_it(real: Helm, tmp_path: Path) -> None:
    template = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: "{{ .Release.Namespace }}"}, data:
    {kube: "{{ .Capabilities.KubeVersion.Version }}", has: "{{ .Capabilities.APIVersions.Has "a.b/v1" }}",
     date: 2024-01-31, time: 1:30, truth: yes}}
---
apiVersion: v1
kind: Pod
metadata: {name: hook, annotations: {helm.sh/hook: pre-install}}
---
apiVersion: v1
kind: Pod
metadata: {name: test, annotations: {helm.sh/hook: test}}
"""
    chart = write_chart(tmp_path / "web", template)
    (chart / "crds").mkdir()
    crd = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: c}\n"
    (chart / "crds" / "c.yaml").write_text(crd)
    manifests, hooks = await real.template("web", chart, {}, "shop", kube_version="v1.33.1", api_versions=["a.b/v1"])
    assert [manifest["kind"] for manifest in manifests] == ["CustomResourceDefinition", "ConfigMap"]
    data = {"kube": "v1.33.1", "has": "true", "date": "2024-01-31", "time": "1:30", "truth": True}
    assert manifests[1]["data"] == data
    assert manifests[1]["metadata"]["namespace"] == "shop"
    assert [hook["metadata"]["name"] for hook in hooks] == ["hook"]


@needs_helm
@pytest.mark.parametrize("value", ["😀 done", "line\nline", "\\ud83d", "{{ not a template }}", "à", "\u2028"])
async def test_values_arrive_as_they_are(real: Helm, tmp_path: Path, value: str) -> None:
    [manifest], _ = await real.template("web", write_chart(tmp_path / "web", CONFIG), {"v": value}, "shop")
    assert manifest["data"] == {"v": value}


@needs_helm
async def test_sub_charts_of_the_same_tree_are_put_in_place(real: Helm, tmp_path: Path) -> None:
    def needs(name: str) -> list[dict[str, str]]:
        return [{"name": name, "version": "0.1.0", "repository": f"file://../{name}"}]

    write_chart(tmp_path / "inner", CONFIG.replace("name: a", "name: inner"))
    write_chart(tmp_path / "middle", CONFIG.replace("name: a", "name: middle"), dependencies=needs("inner"))
    web = write_chart(tmp_path / "web", CONFIG, dependencies=needs("middle"))
    outcomes = await asyncio.gather(*(real.template("web", web, {"v": "x"}, "shop") for _ in range(3)))
    for manifests, _ in outcomes:
        assert {manifest["metadata"]["name"] for manifest in manifests} == {"a", "middle", "inner"}


@needs_helm
async def test_sub_charts_that_are_not_to_be_had_are_said(real: Helm, tmp_path: Path) -> None:
    nowhere = [{"name": "gone", "version": "1.0.0", "repository": "file://../gone"}]
    web = write_chart(tmp_path / "web", CONFIG, dependencies=nowhere)
    with pytest.raises(InvalidInput, match="the sub-charts of web cannot be fetched") as caught:
        await real.template("web", web, {}, "shop")
    assert "gone" in caught.value.why


@pytest.mark.parametrize(
    ("file", "held"),
    [("redis", True), ("redis-1.2.3.tgz", True), ("redis-v1.tgz", True), ("redis-cluster-1.0.0.tgz", False)],
)
def test_sub_charts_are_known_by_their_files(file: str, held: bool) -> None:
    assert helm_module._holds(file, "redis") is held


# -- stored releases


def stored(release: dict[str, Any], *, squeeze: bool = True) -> Manifest:
    data = json.dumps(release).encode()
    packed = base64.b64encode(gzip.compress(data) if squeeze else data)
    secret = {"release": base64.b64encode(packed).decode()}
    return {"metadata": {"name": "sh.helm.release.v1.web.v2"}, "type": "helm.sh/release.v1", "data": secret}


def release(**more: Any) -> dict[str, Any]:
    template = {"name": "templates/a.yaml", "data": base64.b64encode(b"a: 1").decode()}
    return {
        "name": "web",
        "namespace": "shop",
        "version": 2,
        "info": {"status": "deployed", "description": "Upgrade complete", "last_deployed": "2030-01-01T12:00:00Z"},
        "config": {"a": 1},
        "manifest": "---\n# Source: web/templates/a.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n",
        "hooks": [
            {"events": ["pre-install"], "path": "web/templates/h.yaml", "manifest": "apiVersion: v1\nkind: Pod\n"},
            {"events": ["test"], "path": "web/templates/t.yaml", "manifest": "apiVersion: v1\nkind: Pod\n"},
        ],
        "chart": {"metadata": {"name": "web", "version": "1.2.3", "appVersion": "9"}, "templates": [template]},
        **more,
    }


@pytest.mark.parametrize("squeeze", [True, False])
def test_a_stored_release_is_read(squeeze: bool) -> None:
    found = decode_release(stored(release(), squeeze=squeeze))
    assert (found.name, found.namespace, found.revision, found.status) == ("web", "shop", 2, "deployed")
    assert (found.chart_name, found.chart_version, found.app_version) == ("web", "1.2.3", "9")
    assert found.values == {"a": 1}
    assert [manifest["kind"] for manifest in found.manifests] == ["ConfigMap"]
    assert len(found.hooks) == 1
    assert not found.sub_charts


@pytest.mark.parametrize(
    "change",
    [
        {"manifest": "---\n# Source: web/charts/redis/templates/a.yaml\napiVersion: v1\nkind: Pod\n"},
        {"chart": {"metadata": {"name": "web", "dependencies": [{"name": "redis"}]}}},
        {"hooks": [{"events": ["pre-install"], "path": "web/charts/redis/templates/h.yaml", "manifest": ""}]},
    ],
)
def test_sub_charts_are_noticed(change: dict[str, Any]) -> None:
    assert decode_release(stored(release(**change))).sub_charts


@pytest.mark.parametrize(
    "data", [{}, {"release": "!"}, {"release": base64.b64encode(base64.b64encode(b"\x1f\x8bjunk")).decode()}, None]
)
def test_a_broken_release_is_said(data: Any) -> None:
    with pytest.raises(OperationFailed, match=r"the Secret sh\.helm\.x does not hold a Helm release"):
        decode_release({"metadata": {"name": "sh.helm.x"}, "data": data})


def test_a_release_that_would_fill_the_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(helm_module, "_LARGEST_RELEASE", 1000)
    with pytest.raises(OperationFailed, match="more than any release holds"):
        decode_release(stored(release(manifest="# " + "x" * 10_000)))


async def test_a_chart_is_written_from_a_release(tmp_path: Path) -> None:
    helm = Helm(tmp_path, "c")
    folder = await helm.unpack_chart(decode_release(stored(release())), tmp_path / "out")
    assert (folder / "templates" / "a.yaml").read_text() == "a: 1"
    assert "version: 1.2.3" in (folder / "Chart.yaml").read_text()


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "templates/../../evil", "a\\..\\b"])
async def test_a_chart_cannot_write_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    chart = {"metadata": {"name": "web"}, "files": [{"name": name, "data": "aGk="}]}
    found = decode_release(stored(release(chart=chart)))
    with pytest.raises(OperationFailed, match="outside of itself"):
        await Helm(tmp_path, "c").unpack_chart(found, tmp_path / "out")
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize(
    ("manifest", "hook"),
    [
        ({"metadata": {"annotations": {"helm.sh/hook": "pre-install"}}}, True),
        ({"metadata": {"annotations": {"other": "x"}}}, False),
        ({"metadata": {"annotations": None}}, False),
        ({"metadata": None}, False),
        ({}, False),
    ],
)
def test_hooks_are_known_by_their_annotation(manifest: Manifest, hook: bool) -> None:
    assert is_hook(manifest) is hook


def test_invalid_is_an_input_error() -> None:
    assert issubclass(Invalid, InvalidInput)
