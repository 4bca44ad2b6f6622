"""`sandbox bisect`: planted changes are found, alone and together, among several services."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sandbox.cluster.providers import ClusterInfo
from tests.conftest import kubectl
from tests.e2e.api import api_of
from tests.e2e.bounded import until
from tests.e2e.datastores import base_image, postgres
from tests.e2e.projects import (
    GitProject,
    Manifest,
    Namespace,
    Tool,
    config_map,
    deployment,
    documents,
    service,
    temporary_project,
)
from tests.e2e.workloads import deployment as workload

SERVICES = [f"s{number}" for number in range(8)]
# What the services say in the sandbox, one after the other; each test notes in a file what it was asked.
_TEST = f"""
all=$(kubectl --context "$SANDBOX_CONTEXT" -n "$SANDBOX_NAMESPACE" get configmap {" ".join(SERVICES)} \\
    -o 'jsonpath={{.items[*].data.value}}') || exit 125
set -- $all
echo "$@" >> "$ASKED"
"""
_SQL = ("psql", "-U", "postgres", "-At", "-q", "-c")
_TAKES_A_ROW = f"""
there() {{ kubectl --context "$SANDBOX_CONTEXT" -n "$SANDBOX_NAMESPACE" "$@"; }}
row=$(there exec deployment/db -- {" ".join(_SQL)} 'delete from orders returning id') || exit 125
test "$row" = 7 || exit 125
test "$(there get configmap flag -o 'jsonpath={{.data.value}}')" != 2
"""


@dataclass(frozen=True)
class States:
    """A deployment that passes and one that fails, of eight services that all differ: each is a ConfigMap."""

    project: GitProject
    good: str
    bad: str
    commits: tuple[str, str]


def write(project: GitProject, value: str) -> None:
    project.declare({name: project.manifests(name, config_map(name, value=value)) for name in SERVICES})


@pytest.fixture(scope="module")
def keeper(tool: Tool, tmp_path_factory: pytest.TempPathFactory) -> Tool:
    """The command, with a store and a state of its own."""
    made = tmp_path_factory.mktemp("bisect")
    return tool.with_environment(
        SANDBOX_CAPTURE_STORE=str(made / "captures"), SANDBOX_STATE_DIR=str(made / "state"), ASKED=str(made / "asked")
    )


@pytest.fixture(scope="module")
def states(keeper: Tool, cluster: ClusterInfo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[States]:
    with temporary_project(cluster, tmp_path_factory.mktemp("project")) as project:
        captures, commits = [], []
        for value in ("1", "2"):
            write(project, value)
            commits.append(project.commit(f"Say {value} everywhere"))
            keeper.up(project).ok()
            create = ("capture", "create", "-n", project.name, "-o", "name")
            captures.append(keeper.run(*create).ok().out.strip())
        yield States(project, captures[0], captures[1], (commits[0], commits[1]))


@pytest.fixture
def asked(keeper: Tool) -> Path:
    """Which values the services had in each test, a line for each."""
    path = Path(keeper.overrides["ASKED"])
    path.write_text("")
    return path


@dataclass(frozen=True)
class Name:
    """What the sandboxes of one search are called."""

    cluster: ClusterInfo
    name: str

    def space(self, number: int) -> Namespace:
        return Namespace(self.cluster, f"{self.name}-{number}")


@pytest.fixture
def name(cluster: ClusterInfo) -> Iterator[Name]:
    made = Name(cluster, f"bisect-{uuid.uuid4().hex[:8]}")
    yield made
    spaces = [made.space(number).name for number in (1, 2)]
    kubectl(cluster, "delete", "namespace", *spaces, "--wait=false", "--ignore-not-found")


def words(states: States, name: Name, script: str, *more: str) -> Sequence[str]:
    return ("bisect", states.good, states.bad, "--name", name.name, *more, "--", "sh", "-c", _TEST + script)


def guilty(data: Any) -> set[str]:
    return {one["change"] for one in data["guilty"]}


def test_one_of_eight_is_found_in_four_rounds(keeper: Tool, states: States, name: Name, asked: Path) -> None:
    script = 'test "$6" != 2 || { echo "error: s5 says 2"; exit 3; }'
    done = keeper.run(*words(states, name, script, "-o", "json"), cwd=states.project.folder).ok()
    assert guilty(done.data) == {"s5/configuration"}
    assert done.data["rounds"] <= 4
    assert len(asked.read_text().splitlines()) == len(done.data["tests"])
    assert done.data["failure"]["evidence"] == ["error: s5 says 2"]
    [one] = done.data["guilty"]
    good, bad = states.commits
    assert (one["good"]["commit"], one["bad"]["commit"]) == (good, bad)
    assert [(c["sha"], c["subject"]) for c in one["commits"]] == [(bad, "Say 2 everywhere")]
    assert "Test <test@example.com>" in one["commits"][0]["author"]
    assert [d for d in one["differences"] if d["area"] == "config" and (d["before"], d["after"]) == ("1", "2")]
    # The sandbox that is left has it and nothing else; the other goes.
    left = Namespace(name.cluster, done.data["sandbox"]["namespace"])
    values = {m["metadata"]["name"]: m["data"].get("value") for m in left.list("configmaps")}
    assert {service: values[service] for service in SERVICES} == {s: "2" if s == "s5" else "1" for s in SERVICES}
    annotations = left.annotations()
    assert annotations["sandbox.dev/phase"] == "Ready"
    assert annotations["sandbox.dev/expires-at"]
    [other] = {name.space(number).name for number in (1, 2)} - {left.name}
    until(lambda: is_going(Namespace(name.cluster, other)) or None, f"{other} is deleted")


def is_going(space: Namespace) -> bool:
    itself = space.itself()
    return itself is None or "deletionTimestamp" in itself["metadata"]


def test_two_that_fail_only_together_are_found_after_a_kill_without_asking_again(
    keeper: Tool, states: States, name: Name, asked: Path
) -> None:
    script = '! { test "$2" = 2 && test "$7" = 2; }'
    running = keeper.start(*words(states, name, script, "--parallel", "1"), cwd=states.project.folder)
    running.read_until("round 4:", 120)
    running.kill()
    answered = asked.read_text().splitlines()
    done = keeper.run(*words(states, name, script, "--parallel", "1"), cwd=states.project.folder).ok()
    assert "s1/configuration, s6/configuration made it fail, together" in done.out
    assert "going on" in done.err
    lines = asked.read_text().splitlines()
    # What was under way when it was killed may have been asked twice.
    assert set(answered[:2]).isdisjoint(lines[len(answered) :])
    assert len(lines) - len(set(lines)) <= 1


def test_where_good_fails_or_bad_passes_it_stops(keeper: Tool, states: States, name: Name, asked: Path) -> None:
    chosen = (states.good, states.bad, "--name", name.name)
    failed = keeper.run("bisect", *chosen, "--", "sh", "-c", "echo 'error: always'; exit 7")
    failed.failed(1, "the good state does not pass", "exit code 7", "error: always", f"sandbox down {name.name}-1")
    keeper.run("bisect", *chosen, "--", "true").failed(1, "the bad state does not fail")
    keeper.run("bisect", states.good, states.good, "--", "true").failed(2, "nothing that is deployed differs")
    keeper.run("bisect", states.good, "nothing-is-called-so", "--", "true").failed(2, "nothing is called")


def test_a_command_that_hangs_is_no_answer(keeper: Tool, states: States, name: Name) -> None:
    words = ("--name", name.name, "--command-timeout", "1s", "--", "sleep", "600")
    done = keeper.run("bisect", states.good, states.bad, *words)
    done.failed(1, "the good state does not pass", "timed out: sleep did not end within 1 s")


def test_from_a_lock_to_a_capture(keeper: Tool, states: States, name: Name, asked: Path) -> None:
    """What was never deployed against what was."""
    folder, good = states.project.folder, states.commits[0]
    keeper.run("lock", "--ref", good, "-f", "good.lock", cwd=folder).ok()
    script = 'test "$3" != 2'
    chosen = ("good.lock", states.bad, "--name", name.name, "-o", "name", "--", "sh", "-c", _TEST + script)
    assert keeper.run("bisect", *chosen, cwd=folder).ok().out.split() == ["s2/configuration"]


def test_each_test_begins_with_the_contents_that_the_bad_state_had(
    keeper: Tool, cluster: ClusterInfo, namespace: str, name: Name
) -> None:
    """Though the test before has taken a row away; of an environment that kubectl made."""
    space = Namespace(cluster, namespace)
    pod = postgres("db", base_image(cluster))
    db = workload("db", pod["spec"])
    db["spec"]["template"]["metadata"]["labels"] |= pod["metadata"]["labels"]
    space.kubectl("apply", "-f", "-", stdin=documents(db, service("db", 5432), config_map("flag", value="1")))
    space.kubectl("rollout", "status", "deployment/db", "--timeout=120s")
    rows = "create table orders (id int); insert into orders values (7)"
    kubectl(cluster, "exec", "-n", namespace, "deployment/db", "--", *_SQL, rows)
    captures = []
    for value in ("1", "2"):
        space.kubectl("apply", "-f", "-", stdin=documents(config_map("flag", value=value)))
        captures.append(keeper.run("capture", "create", "-n", namespace, "-o", "name").ok().out.strip())
    words = ("--name", name.name, "--parallel", "1", "-o", "json", "--", "sh", "-c", _TAKES_A_ROW)
    done = keeper.run("bisect", *captures, *words).ok()
    assert guilty(done.data) == {"configmap/flag"}
    assert [test["outcome"] for test in done.data["tests"]] == ["passed", "failed"]


def test_what_crashes_at_start_is_found_without_a_command(
    keeper: Tool, project: GitProject, probe_image: str, name: Name
) -> None:
    """From a record to what runs, of a Deployment whose pods start again when their ConfigMap changes."""
    mode = [{"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "api", "key": "mode"}}}]

    def deployed(mode_of_api: str, replicas: int) -> list[Manifest]:
        made = deployment("api", probe_image, "$(MODE)", "of its mode", replicas=replicas, env=mode)
        # A rollout of its own: a ConfigMap alone starts no pod again.
        made["spec"]["template"]["metadata"]["annotations"] = {"checksum": mode_of_api}
        return [config_map("api", mode=mode_of_api), made]

    def declare(mode_of_api: str, replicas: int) -> None:
        project.declare({"api": project.manifests("api", *deployed(mode_of_api, replicas))})
        project.commit()

    declare("sleep", 1)
    keeper.up(project).ok()
    declare("crash", 2)
    keeper.up(project).failed(1, "of its mode")
    chosen = ("--name", name.name, "--timeout", "60s", "-o", "json")
    done = keeper.run("bisect", f"{project.name}@1", project.name, *chosen).ok()
    assert guilty(done.data) == {"api/configuration"}
    assert done.data["failure"]["kind"] == "not ready"
    assert "of its mode" in json.dumps(done.data["failure"]["evidence"])
    assert api_of(name.cluster).get("namespace", done.data["sandbox"]["namespace"]) is not None
