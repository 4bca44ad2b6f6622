"""What the clean-up makes of namespaces, kube-janitor's annotations, and its exit codes."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.lifecycle.janitor import check_patterns, is_covered, janitor_deadline
from sandbox.lifecycle.report import Action, Pass, exit_code
from sandbox.lifecycle.verdict import Fate, Rules, judge, over_limit
from sandbox.model import labels
from sandbox.model.durations import to_rfc3339
from sandbox.model.errors import InvalidInput

NOON = datetime(2030, 1, 31, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
RULES = Rules(warn_before=30 * MINUTE, stuck_after=10 * MINUTE, janitor=("pr-*",))


def namespace(
    name: str = "shop", *, managed: bool = True, deleted: str = "", note: dict[str, str] | None = None
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "name": name,
        "creationTimestamp": "2030-01-31T00:00:00Z",
        "labels": {labels.MANAGED_BY: labels.MANAGED_BY_VALUE} if managed else {},
        "annotations": {labels.NAMESPACE: name, labels.TTL: "8h", **(note or {})},
    }
    return {"metadata": {**metadata, **({"deletionTimestamp": deleted} if deleted else {})}}


def ends(minutes: float, **more: str) -> dict[str, Any]:
    return namespace(note={labels.EXPIRES_AT: to_rfc3339(NOON + minutes * MINUTE), **more})


@pytest.mark.parametrize(
    ("found", "fate"),
    [
        (ends(-1), Fate.DUE),
        (ends(0), Fate.DUE),
        (ends(1), Fate.WARN),
        (ends(30), Fate.WARN),
        (ends(31), Fate.KEEP),
        (ends(10, **{labels.TTL: "10m"}), Fate.KEEP),
        (ends(5, **{labels.TTL: "10m"}), Fate.WARN),
        (ends(-5, **{labels.PINNED_UNTIL: "2030-02-01T00:00:00Z"}), Fate.KEEP),
        (ends(-5, **{labels.PINNED_UNTIL: "2030-01-31T12:10:00Z"}), Fate.WARN),
        (ends(-5, **{labels.PINNED_UNTIL: "2030-01-30T00:00:00Z"}), Fate.DUE),
        (ends(-5, **{labels.PINNED_UNTIL: "?"}), Fate.FLAG),
        (namespace(), Fate.FLAG),
        (namespace(note={labels.NAMESPACE: "other"}), Fate.FLAG),
        (namespace(deleted="2030-01-31T11:59:00Z"), Fate.ENDING),
        (namespace(deleted="2030-01-31T11:50:00Z"), Fate.STUCK),
        (namespace(managed=False), Fate.IGNORE),
        (namespace("pr-1", managed=False), Fate.IGNORE),
        (namespace("pr-1", managed=False, note={"janitor/ttl": "12h"}), Fate.DUE),
        (namespace("pr-1", managed=False, note={"janitor/ttl": "forever"}), Fate.IGNORE),
        (namespace("pr-1", managed=False, note={"janitor/ttl": "1y"}), Fate.FLAG),
        (namespace("pr-1", managed=False, note={"janitor/ttl": "12h"}, deleted="2030-01-31T11:00:00Z"), Fate.STUCK),
        (namespace("kube-system", managed=False, note={"janitor/ttl": "1s"}), Fate.IGNORE),
        # Ours go by our annotations only.
        (namespace("pr-1", note={"janitor/ttl": "1s", labels.EXPIRES_AT: "2031-01-01T00:00:00Z"}), Fate.KEEP),
    ],
)
def test_the_fate_of_a_namespace(found: dict[str, Any], fate: Fate) -> None:
    verdict = judge(found, NOON, RULES)

    assert verdict.fate is fate
    assert bool(verdict.why) == (fate in (Fate.DUE, Fate.WARN, Fate.FLAG, Fate.STUCK))


@given(
    st.dictionaries(
        st.sampled_from(
            [labels.EXPIRES_AT, labels.PINNED_UNTIL, labels.MAX_EXPIRES_AT, labels.NAMESPACE, labels.TTL, "janitor/ttl"]
        ),
        st.text(max_size=20),
    ),
    st.booleans(),
)
def test_what_is_no_time_is_never_due(note: dict[str, str], managed: bool) -> None:
    verdict = judge(namespace("pr-1", managed=managed, note=note), NOON, RULES)

    assert verdict.fate is not Fate.DUE or verdict.deadline is not None


@pytest.mark.parametrize(
    ("note", "at"),
    [
        ({"janitor/ttl": "60s"}, datetime(2030, 1, 31, 0, 1, tzinfo=UTC)),
        ({"janitor/ttl": "2w"}, datetime(2030, 2, 14, tzinfo=UTC)),
        ({"janitor/ttl": "08h"}, datetime(2030, 1, 31, 8, tzinfo=UTC)),
        ({"janitor/expires": "2030-02-01"}, datetime(2030, 2, 1, tzinfo=UTC)),
        ({"janitor/expires": "2030-02-01T10:30"}, datetime(2030, 2, 1, 10, 30, tzinfo=UTC)),
        ({"janitor/expires": "2030-02-01T10:30:07Z"}, datetime(2030, 2, 1, 10, 30, 7, tzinfo=UTC)),
        ({"janitor/ttl": "7d", "janitor/expires": "2030-02-01"}, datetime(2030, 2, 1, tzinfo=UTC)),
        ({"janitor/ttl": "1h", "janitor/expires": "2030-02-01"}, datetime(2030, 1, 31, 1, tzinfo=UTC)),
        ({"janitor/ttl": "Forever", "janitor/expires": "2030-02-01"}, datetime(2030, 2, 1, tzinfo=UTC)),
    ],
)
def test_kube_janitors_annotations_give_one_deadline(note: dict[str, str], at: datetime) -> None:
    end = janitor_deadline(namespace(note=note)["metadata"])

    assert end is not None
    assert (end.at, end.problem) == (at, "")


@pytest.mark.parametrize(
    "note",
    [
        {"janitor/ttl": ""},
        {"janitor/ttl": "7"},
        {"janitor/ttl": "1y"},
        {"janitor/ttl": "-1h"},
        {"janitor/ttl": "999999999w"},
        {"janitor/ttl": "٧d"},
        {"janitor/expires": "tomorrow"},
        {"janitor/expires": "2030-02-31"},
        {"janitor/ttl": "1h", "janitor/expires": "?"},
    ],
)
def test_where_kube_janitors_annotations_cannot_be_read_nothing_is_guessed(note: dict[str, str]) -> None:
    end = janitor_deadline(namespace(note=note)["metadata"])

    assert end is not None
    assert end.at is None
    assert end.problem


@pytest.mark.parametrize(
    ("name", "covered"),
    [("pr-1", True), ("pr-", True), ("xpr-1", False), ("PR-1", False), ("preview", False), ("kube-pr-1", False)],
)
def test_which_names_are_covered(name: str, covered: bool) -> None:
    assert is_covered(name, ("pr-*",)) is covered


@pytest.mark.parametrize("name", ["default", "kube-system", "kube-public", "kube-node-lease", "sandbox-system"])
def test_some_names_are_covered_by_no_pattern(name: str) -> None:
    assert not is_covered(name, ("*", name, "[a-z]*"))


@pytest.mark.parametrize("patterns", [(), ("*",), ("pr-*", "**"), ("?*",)])
def test_patterns_that_take_in_everything_are_refused(patterns: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        check_patterns(patterns)


def test_who_has_more_than_is_allowed_is_said() -> None:
    counts = {"dana": ["b", "a", "c"], "erin": ["d", "e"]}

    assert over_limit(counts, None, "owner") == []
    assert over_limit(counts, 3, "owner") == []
    ((who, text),) = over_limit(counts, 2, "owner")
    assert who == "dana"
    assert text == "owner dana has 3 sandboxes, 2 are allowed: a, b, c"


@pytest.mark.parametrize(
    ("actions", "code"),
    [
        ([], 0),
        ([Action.DELETED, Action.WARNED, Action.SPARED, Action.NOTICE], 0),
        ([Action.DELETED, Action.FLAGGED], 3),
        ([Action.WOULD_DELETE], 3),
        ([Action.WOULD_WARN], 3),
        ([Action.FLAGGED, Action.STUCK], 6),
        ([Action.FAILED, Action.DELETED], 6),
    ],
)
def test_exit_codes(actions: list[Action], code: int) -> None:
    assert exit_code([Pass("a"), Pass("b", actions=Counter(actions))]) == code
