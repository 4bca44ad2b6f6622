"""Deployments into environments: what is chosen, how they end, and how that is told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.deploy.pages import junit, markdown
from sandbox.deploy.planning import chosen_services
from sandbox.deploy.promote import lock_of
from sandbox.deploy.report import Captured, Failure, Outcome, Report, ServiceEnd, commands, lines
from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.model.failure import Finding, NotReady
from sandbox.model.record import Lock, Record, ServiceLock, ServiceRecord
from sandbox.project.config import Project
from sandbox.provision.command import variables
from sandbox.provision.environment import place_of
from sandbox.provision.target import Target
from sandbox.source.urls import same_repository

CRASH = Finding("CrashLoopBackOff", "", "pod/web-1", service="web", exit_code=1, log_tail=("cannot start",))


def project(services: Mapping[str, bool], **environments: Mapping[str, str]) -> Project:
    """A project; True: the service's files are in another repository."""
    declared = {
        name: {"manifests": {"paths": ["k8s"]}, **({"source": {"repo": "../other"}} if foreign else {})}
        for name, foreign in services.items()
    }
    about = {"apiVersion": "sandbox.dev/v1", "project": "shop", "services": declared, "environments": environments}
    return Project.model_validate(about, strict=False)


def report(outcome: Outcome, failure: Failure | None = None, **more: object) -> Report:
    services = (ServiceEnd("web", "rolled back", "a" * 40), ServiceEnd("api", "kept", "b" * 40))
    given: dict[str, object] = {"services": services, "commit": "c" * 40, **more}
    return Report("qa", "shop-qa", "ctx", outcome, failure=failure, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("services", "only", "chosen"),
    [
        ({"web": False, "orders": True}, (), ("web",)),
        ({"web": True, "orders": True}, (), ("web", "orders")),
        ({"web": False, "orders": True}, ("orders",), ("orders",)),
    ],
)
def test_a_repository_deploys_its_own_services(
    services: Mapping[str, bool], only: tuple[str, ...], chosen: tuple[str, ...]
) -> None:
    assert chosen_services(project(services), only, None) == chosen


def test_what_the_command_line_gave_to_one_environment_is_not_asked_for_in_the_next() -> None:
    service = ServiceLock(
        kind="chart",
        repo="https://git.example.com/web.git",
        ref="main",
        commit="c" * 40,
        declared_commit="c" * 40,
        given=("--set url",),
        input_digest="i",
        manifest_digest="m",
    )
    at = datetime(2030, 1, 1, tzinfo=UTC)
    lock = Lock(project="shop", env="qa", services={"web": service}, created_at=at).sealed()
    services = {"web": ServiceRecord(lock=service, manifests=[], inventory=[])}
    record = Record(number=1, at=at, by="ci", namespace_uid="u", outcome="deployed", lock=lock, services=services)

    promoted = lock_of(record, "https://git.example.com/web.git")

    promoted.verify()
    assert promoted.services == {"web": service.model_copy(update={"given": ()})}


def test_a_service_that_is_not_there_is_named() -> None:
    with pytest.raises(InvalidInput, match="no service webb; did you mean 'web'"):
        chosen_services(project({"web": False}), ["webb"], None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://git.example.com/acme/web.git", "git@git.example.com:acme/web", True),
        ("ssh://git@git.example.com:2222/acme/web", "https://git.example.com/acme/web", True),
        ("https://git.example.com/acme/web", "https://git.example.com/acme/web2", False),
        ("/srv/web", "/srv/web/", True),
        ("", "", False),
    ],
)
def test_addresses_of_one_repository_are_the_same(one: str, other: str, same: bool) -> None:
    assert same_repository(one, other) is same


@pytest.mark.parametrize(
    ("context", "asked", "used"), [(None, None, None), ("prod", None, "prod"), (None, "dev", "dev")]
)
def test_the_file_says_where_an_environment_is(context: str | None, asked: str | None, used: str | None) -> None:
    environment = {"namespace": "shop-qa", **({"context": context} if context else {})}
    assert place_of(project({"web": False}, qa=environment), Target(asked), "qa").target.context == used


@pytest.mark.parametrize(
    ("environment", "name", "said"),
    [
        ({"namespace": "shop-qa", "context": "prod"}, "qa", "is in the context prod, not in dev"),
        ({"context": "dev"}, "qa", "has no namespace"),
        ({"namespace": "shop-qa"}, "qs", "has no environment 'qs': .* names qa"),
    ],
)
def test_where_an_environment_is_must_be_clear(environment: Mapping[str, str], name: str, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        place_of(project({"web": False}, qa=environment), Target("dev"), name)


@pytest.mark.parametrize(
    ("outcome", "failure", "code"),
    [
        ("deployed", None, 0),
        ("planned", None, 0),
        ("rolled back", Failure("x", exit_code=4), 1),
        ("incomplete", Failure("x"), 6),
        ("refused", Failure("x", exit_code=7), 7),
    ],
)
def test_each_end_has_its_exit_code(outcome: Outcome, failure: Failure | None, code: int) -> None:
    assert report(outcome, failure).exit_code == code


def test_one_screen_says_what_failed_why_and_what_to_type() -> None:
    failure = Failure.of(NotReady("web failed", [CRASH]))
    captured = Captured("2g4ybs-qa", "s3://captures", partial=True, seconds=2.5, missing=("logs: denied",))
    shown = lines(report("rolled back", failure, back_at=3, capture=captured, look="sandbox capture show 2g4ybs-qa"))

    assert shown[0] == "qa: the deployment of cccccccccccc failed and was rolled back to record 3"
    assert "service web · pod/web-1: CrashLoopBackOff (exit code 1)" in shown
    assert "    cannot start" in shown
    assert "captured:     2g4ybs-qa (partial), in 2.5 s" in shown
    assert "look at it:   sandbox capture show 2g4ybs-qa" in shown


def test_an_incomplete_rollback_says_what_stands() -> None:
    stands = (ServiceEnd("web", "stands", "d" * 40, "the release is gone"), ServiceEnd("db", "rolled back", "e" * 40))
    shown = lines(report("incomplete", Failure("x"), services=stands))

    assert "  web: stands at dddddddddddd: the release is gone" in shown


def test_commands_name_a_store_only_where_others_would_not_find_it() -> None:
    captured = Captured("id", "s3://elsewhere")
    assert commands(captured, named_store=False, can_reproduce=True, commit="")[1] == "sandbox reproduce id"
    look, again = commands(captured, named_store=True, can_reproduce=False, commit="f" * 40)
    assert look == "sandbox capture show id --store s3://elsewhere"
    assert again == "sandbox up --ref ffffffffffff"
    assert commands(Captured(error="no"), named_store=True, can_reproduce=True, commit="") == ("", "")


def test_what_a_tool_says_is_explained_by_what_the_capture_found() -> None:
    error = OperationFailed("the release orders could not be installed", why="pre-upgrade hooks failed")
    failure = Failure.of(error).explained_by(Captured("id", findings=(CRASH,)))

    assert lines(report("rolled back", failure))[2:6] == [
        "the release orders could not be installed",
        "pre-upgrade hooks failed",
        "service web · pod/web-1: CrashLoopBackOff (exit code 1)",
        "    cannot start",
    ]


def test_junit_blames_the_service_that_failed() -> None:
    suite = ElementTree.fromstring(junit(report("rolled back", Failure.of(NotReady("web failed", [CRASH])))))

    assert (suite.get("tests"), suite.get("failures")) == ("2", "2")
    failed = {case.get("name"): case.find("failure") for case in suite}
    assert failed["web"] is not None
    assert "cannot start" in (failed["web"].text or "")


@given(st.text(), st.text())
def test_pages_hold_whatever_a_pod_says(text: str, name: str) -> None:
    finding = Finding("Failed", text, "pod/x", service="web", log_tail=(text, "```", "<script>"))
    ended = report(
        "incomplete",
        Failure.of(NotReady(text, [finding])),
        services=(ServiceEnd(name, "stands", "", text),),
        capture=Captured(error=text),
    )

    ElementTree.fromstring(junit(ended))
    page = markdown(ended)

    fence = re.search("^(`{3,})text$", page, re.MULTILINE)
    assert fence is not None
    inside = page[fence.end() :].partition(f"\n{fence[1]}\n")[0]
    assert inside.splitlines()[-1].strip() == "<script>"


def test_what_is_no_finding_is_told_in_its_own_words() -> None:
    failure = Failure.of(OperationFailed("helm failed", why="Error: no such chart", hint="mend it"))
    assert lines(report("refused", failure))[2:] == ["helm failed", "Error: no such chart", "hint: mend it"]


@pytest.mark.parametrize(
    ("service", "port", "first", "expected"),
    [
        ("web", "http", True, {"SANDBOX_WEB_HTTP_URL", "SANDBOX_WEB_URL"}),
        ("order-api", "grpc", False, {"SANDBOX_ORDER_API_GRPC_URL"}),
    ],
)
def test_the_test_is_told_where_services_are(service: str, port: str, first: bool, expected: set[str]) -> None:
    assert set(variables(service, port, 4711, first=first)) == expected
    assert variables("db", "postgres", 1, first=True)["SANDBOX_DB_URL"] == "tcp://127.0.0.1:1"
