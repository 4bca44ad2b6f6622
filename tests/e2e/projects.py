"""What the tests of `sandbox up` are made of: small git repositories, manifests, and the installed command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from sandbox.cluster.providers import ClusterInfo, embedded_bin_dir
from sandbox.model import labels
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.preloaded import Preloaded

Manifest = dict[str, Any]

_GIT_IDENTITY = {
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_SYSTEM": os.devnull,
}
# No command of the tool may take longer in these tests, whatever goes wrong (seconds).
_LONGEST = 150


class GitProject:
    """A git repository of a project; its name is unlike that of any other test's."""

    def __init__(self, parent: Path) -> None:
        self.name = f"t{uuid.uuid4().hex[:9]}"
        # A project without sandbox.yaml is called as its folder.
        self.folder = parent / self.name
        self.folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str) -> str:
        """Run git in the repository, as somebody without any configuration."""
        command = ["git", *arguments]
        environment = {**os.environ, **_GIT_IDENTITY}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
        return done.stdout.strip()

    def write(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            target = self.folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)

    def remove(self, *paths: str) -> None:
        for path in paths:
            (self.folder / path).unlink()

    def commit(self, message: str = "Change something") -> str:
        """Commit everything; the SHA."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def branch(self, name: str) -> None:
        """Make a branch and switch to it."""
        self.git("switch", "--quiet", "--create", name)

    def tag(self, name: str) -> None:
        self.git("tag", name)

    def bare(self, folder: Path) -> str:
        """A bare repository with everything that is here; its address."""
        subprocess.run(
            ["git", "clone", "--quiet", "--bare", str(self.folder), str(folder)],
            check=True,
            timeout=30,
            env={**os.environ, **_GIT_IDENTITY},
        )
        return f"file://{folder}"

    def manifests(self, service: str, *manifests: Manifest) -> Manifest:
        """Write a service's manifests; what sandbox.yaml says of it."""
        self.write({f"k8s/{service}.yaml": documents(*manifests)})
        return {"manifests": {"paths": [f"k8s/{service}.yaml"]}}

    def chart(self, service: str, *templates: str, values: Manifest | None = None) -> Manifest:
        """Write a chart; what sandbox.yaml says of it."""
        about = {"apiVersion": "v2", "name": service, "version": "0.1.0", "appVersion": "1.0"}
        self.write({f"charts/{service}/Chart.yaml": documents(about)})
        self.write({f"charts/{service}/values.yaml": documents(values or {})})
        for number, template in enumerate(templates):
            self.write({f"charts/{service}/templates/{number}.yaml": template})
        return {"chart": {"path": f"charts/{service}"}}

    def declare(self, services: Mapping[str, Manifest], **more: Any) -> None:
        """Write sandbox.yaml."""
        about = {"apiVersion": "sandbox.dev/v1", "project": self.name}
        self.write({"sandbox.yaml": documents({**about, **more, "services": dict(services)})})


@contextmanager
def temporary_project(cluster: ClusterInfo, folder: Path) -> Iterator[GitProject]:
    """An empty git repository; its sandboxes are deleted afterwards, without waiting for it."""
    made = GitProject(folder)
    try:
        yield made
    finally:
        api_of(cluster).delete_namespaces(f"{labels.PROJECT}={made.name}")


def documents(*contents: Manifest) -> str:
    return yaml.safe_dump_all(contents, sort_keys=False)


def deployment(name: str, image: str, *arguments: str, replicas: int = 1, **container: Any) -> Manifest:
    """A Deployment whose pods end at once when told to; ``container`` adds to its only container."""
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": pods(
            name, image, *arguments, **container
        )},
    }  # fmt: skip


def job(name: str, image: str, *arguments: str, annotations: Mapping[str, str] | None = None) -> Manifest:
    template = pods(name, image, *arguments)
    template["spec"]["restartPolicy"] = "Never"
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "annotations": dict(annotations or {})},
        "spec": {"backoffLimit": 0, "template": template},
    }


def pods(name: str, image: str, *arguments: str, **container: Any) -> Manifest:
    return {
        "metadata": {"labels": {"app": name}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": image, "args": list(arguments), **container}],
        },
    }


def service(name: str, port: int = 8080) -> Manifest:
    ports = [{"name": "http", "port": port, "targetPort": port}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": ports},
    }


def config_map(name: str, **data: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


@dataclass(frozen=True)
class Ended:
    """A command that ended, and when (seconds of the clock)."""

    code: int
    out: str
    err: str
    at: float

    @property
    def data(self) -> Any:
        """What it wrote with ``-o json``."""
        return json.loads(self.out)

    def ok(self) -> Ended:
        assert self.code == 0, f"exit code {self.code}\n{self.err}"
        return self

    def failed(self, code: int, *said: str) -> Ended:
        """It ended with a code, said these things, and did not fall over."""
        assert self.code == code, f"exit code {self.code}, not {code}\n{self.err}\n{self.out}"
        assert "Traceback" not in self.err, self.err
        assert "unexpected" not in self.err, self.err
        for words in said:
            assert words in self.err, f"{words!r} is not in:\n{self.err}"
        return self


class Running:
    """A command that runs; a thread reads its standard error."""

    def __init__(self, process: subprocess.Popen[str], out: Path) -> None:
        self.process = process
        self._out = out
        self._lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)

    def read_until(self, text: str, bound: float = 60) -> None:
        """Wait until it has said something."""

        def said() -> bool | None:
            ended = not self._reader.is_alive()
            if any(text in line for line in self._lines):
                return True
            assert not ended, f"it ended without saying {text!r}:\n{''.join(self._lines)}"
            return None

        until(said, f"it says {text!r}", bound, every=0.01)

    def kill(self) -> list[int]:
        """SIGKILL; the processes that it had started."""
        # Stopped first: a process that starts others meanwhile would not have all of them seen.
        os.kill(self.process.pid, signal.SIGSTOP)
        children = descendants(self.process.pid)
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        return children

    def wait(self, timeout: float = 60) -> Ended:
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        ended = time.time()
        self._reader.join(5)
        return Ended(self.process.returncode, self._out.read_text(), "".join(self._lines), ended)


@dataclass(frozen=True)
class Tool:
    """The installed command, run as a user would who has nothing but a kubeconfig."""

    cluster: ClusterInfo
    home: Path
    preloaded: Preloaded
    overrides: Mapping[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        programs = [str(folder) for folder in (embedded_bin_dir(),) if folder]
        kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
        return {
            **kept,
            "PATH": os.pathsep.join([*programs, os.environ["PATH"]]),
            "HOME": str(self.home),
            "KUBECONFIG": str(self.cluster.kubeconfig),
            "SANDBOX_CONTEXT": self.cluster.context,
            "SANDBOX_CACHE_DIR": str(self.home / "cache"),
            **self.overrides,
        }

    def with_environment(self, **overrides: str) -> Tool:
        return replace(self, overrides={**self.overrides, **overrides})

    def run(self, *arguments: str, cwd: Path | None = None, timeout: float = _LONGEST) -> Ended:
        code, out, err = self.preloaded.run(
            arguments, cwd=cwd or self.home, environment=self.environment, timeout=timeout
        )
        return Ended(code, out, err, time.time())

    def start(self, *arguments: str, cwd: Path | None = None) -> Running:
        out = self.home / f"stdout-{uuid.uuid4().hex}"
        with out.open("w") as stdout:
            process = subprocess.Popen(
                [_executable(), *arguments],
                cwd=cwd or self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        return Running(process, out)

    def up(self, project: GitProject, *arguments: str, cwd: Path | None = None, timeout: float = _LONGEST) -> Ended:
        """`up` of the branch that is checked out, into the sandbox that is called as the project."""
        return self.run(*self._up(project, *arguments), cwd=cwd or project.folder, timeout=timeout)

    def start_up(self, project: GitProject, *arguments: str) -> Running:
        """The same, by the installed command itself and with every line that it has to say."""
        return self.start(*self._up(project, "-v", *arguments), cwd=project.folder)

    def plan(self, project: GitProject, *arguments: str, cwd: Path | None = None) -> Manifest:
        """What `up --dry-run` says it would do."""
        words = ("up", "--dry-run", "-o", "json", *arguments)
        data: Manifest = self.run(*words, cwd=cwd or project.folder).ok().data
        return data

    def _up(self, project: GitProject, *arguments: str) -> Sequence[str]:
        return ("up", "--name", project.name, "-o", "json", "--timeout", "90s", *arguments)


@dataclass(frozen=True)
class Namespace:
    """A namespace as kubectl sees it."""

    cluster: ClusterInfo
    name: str

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return kubectl(self.cluster, *arguments, "--namespace", self.name, stdin=stdin)

    def get(self, kind: str, name: str) -> Manifest:
        found = api_of(self.cluster).get(kind, name, self.name)
        assert found is not None, f"there is no {kind} {name} in {self.name}"
        return found

    def list(self, kinds: str) -> list[Manifest]:
        return api_of(self.cluster).list(kinds, self.name)

    def names(self, kind: str) -> set[str]:
        return {item["metadata"]["name"] for item in self.list(kind)}

    def itself(self) -> Manifest | None:
        """The Namespace object; None where it is not there."""
        return api_of(self.cluster).get("namespace", self.name)

    def annotations(self) -> dict[str, str]:
        itself = self.itself()
        assert itself is not None, f"there is no namespace {self.name}"
        found: dict[str, str] = itself["metadata"].get("annotations", {})
        return found

    def versions(self) -> dict[str, str]:
        """The resourceVersion of everything in it that does not change by itself."""
        kinds = (
            "deployments,replicasets,pods,services,configmaps,secrets,serviceaccounts,jobs,"
            "resourcequotas,limitranges,networkpolicies,leases,roles,rolebindings"
        )
        return {
            f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"]
            for item in self.list(kinds)
        }

    def first_shown(self, *reasons: str) -> float:
        """When an event of one of these reasons was first seen (seconds of the clock)."""
        events = [event for event in self.list("events") if event.get("reason") in reasons]
        assert events, f"no event {' or '.join(reasons)} in {self.name}"
        times = [
            event.get("firstTimestamp") or event.get("eventTime") or event["metadata"]["creationTimestamp"]
            for event in events
        ]
        return min(datetime.fromisoformat(text).timestamp() for text in times)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that these did (Linux)."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = list(children.get(pid, []))
    for child in found:
        found += children.get(child, [])
    return found


def wait_ended(pids: Sequence[int], bound: float = 10) -> None:
    """Wait until processes are gone."""

    def ended() -> bool | None:
        return True if not [pid for pid in pids if _lives(pid)] else None

    until(ended, f"processes {pids} end", bound)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _executable() -> str:
    return str(Path(sys.executable).parent / "sandbox")
