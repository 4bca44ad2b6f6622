"""Records as they lie in Secrets, and which record or namespace is meant."""

import base64
import gzip
from datetime import UTC, datetime
from typing import Any

import pytest

from sandbox.model.errors import InvalidInput, Refused
from sandbox.model.record import InventoryItem, Lock, Record, ServiceLock, ServiceRecord
from sandbox.provision import records
from sandbox.provision.rollback import choose_record


def record(number: int = 1, outcome: Any = "deployed", size: int = 0, uid: str = "uid-1") -> Record:
    import random

    noise = random.Random(1).randbytes(size).hex()
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"x": noise}}
    lock = ServiceLock(kind="manifests", repo="r", ref="main", commit="c" * 40, input_digest="i", manifest_digest="m")
    when = datetime(2030, 1, 1, tzinfo=UTC)
    return Record(
        number=number,
        at=when,
        by="dana",
        namespace_uid=uid,
        outcome=outcome,
        lock=Lock(project="shop", env="dev", services={"web": lock}, created_at=when).sealed(),
        services={
            "web": ServiceRecord(
                lock=lock,
                manifests=[manifest],
                inventory=[InventoryItem(group="", version="v1", kind="ConfigMap", name="c", namespace="ns")],
            )
        },
    )


def services_of(number: int, **unfinished: bool) -> Record:
    """A record of services by name, each at a commit with the record's number unless it is another's leftover."""
    made = record(number)
    service = made.services["web"]

    def at(name: str) -> ServiceRecord:
        lock = service.lock.model_copy(update={"commit": f"{number:040d}"})
        return service.model_copy(update={"lock": lock, "unfinished": unfinished[name]})

    return made.with_services({name: at(name) for name in unfinished})


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([services_of(1, web=False)], {"web": 1}),
        ([services_of(1, web=False, api=False), services_of(2, web=True, api=False)], {"web": 1, "api": 2}),
        ([services_of(1, api=False), services_of(2, web=True, api=False)], {"api": 2}),
        ([services_of(4, web=True), services_of(5, web=True)], {"web": 5}),
    ],
    ids=["all came through", "a neighbour's did not", "its first did not", "all that is known did not"],
)
def test_the_last_good_record_has_each_service_as_it_last_came_through(
    history: list[Record], expected: dict[str, int]
) -> None:
    good = records.last_deployed(history)
    assert good is not None
    assert {name: int(service.lock.commit) for name, service in good.services.items()} == expected
    assert good.number == history[-1].number
    assert set(good.lock.services) == set(expected)
    good.lock.verify()
    assert choose_record(history, history[-1].number) == good


def parts(secrets: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {records._address(secret)[1]: secret for secret in secrets}


@pytest.mark.parametrize("size", [0, 2_000_000])
def test_records_survive_their_secrets(size: int) -> None:
    before = record(size=size)
    secrets = records._encode(before, "ns")
    assert len(secrets) == (1 if size == 0 else 4)
    assert records._complete(parts(secrets))
    assert records._decode(parts(secrets)) == before


def test_every_secret_stays_below_the_servers_limit() -> None:
    assert all(len(secret["data"]["record"]) < 1_000_000 for secret in records._encode(record(size=2_000_000), "ns"))


def test_a_record_of_which_a_part_is_missing_is_not_read() -> None:
    some = parts(records._encode(record(size=2_000_000), "ns"))
    del some[2]
    assert not records._complete(some)


@pytest.mark.parametrize(
    "data",
    [b"", b"not gzip", gzip.compress(b"{}"), gzip.compress(b'{"number": "x", "password": "hunter2"}'), b"\x1f\x8b"],
    # Names of tests must be the same in every process; what gzip writes holds the time.
    ids=["empty", "not gzip", "no record", "wrong field", "cut short"],
)
def test_a_record_that_was_changed_is_refused_without_showing_it(data: bytes) -> None:
    secret = records._encode(record(), "ns")[0]
    secret["data"]["record"] = base64.b64encode(data).decode()
    with pytest.raises(Refused) as refused:
        records._decode({0: secret})
    assert "hunter2" not in str(refused.value)


def test_a_record_that_unpacks_to_a_bomb_is_refused() -> None:
    secret = records._encode(record(), "ns")[0]
    bomb = gzip.compress(b"0" * (records._MOST_BYTES + 10))
    secret["data"]["record"] = base64.b64encode(bomb).decode()
    with pytest.raises(Refused, match="cannot be read"):
        records._decode({0: secret})


@pytest.mark.parametrize(
    "name", ["sandbox-record", "sandbox-record-x", "sandbox-record--1", "sandbox-record-1-x", "other"]
)
def test_other_secrets_are_not_taken_for_records(name: str) -> None:
    assert records._address({"metadata": {"name": name}})[0] is None


def test_rollback_goes_to_the_last_that_was_deployed() -> None:
    known = [record(1), record(2), record(3, "failed")]
    assert choose_record(known, None).number == 2
    assert choose_record(known[:2], None).number == 1
    assert choose_record(known, 1).number == 1


@pytest.mark.parametrize(("known", "to"), [([], None), ([record(1)], None), ([record(1), record(2, "failed")], 2)])
def test_rollback_says_what_there_is(known: list[Record], to: int | None) -> None:
    with pytest.raises(InvalidInput, match="roll back"):
        choose_record(known, to)


def test_an_edited_lock_is_noticed() -> None:
    lock = record().lock
    lock.verify()
    with pytest.raises(InvalidInput, match="digest"):
        lock.model_copy(update={"env": "qa"}).verify()
