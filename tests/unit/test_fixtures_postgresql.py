"""PostgreSQL's fixtures, as far as they are no server's business: roles, passwords, masks, names."""

from __future__ import annotations

import base64
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.capture.fixtures.model import Fixture
from sandbox.capture.fixtures.postgresql.connection import conninfo, identifier, literal
from sandbox.capture.fixtures.postgresql.masks import Catalogue, ColumnType, MaskedTable, masked_tables
from sandbox.capture.fixtures.postgresql.restore import facts_of, role_statements, scram_verifier
from sandbox.model.errors import InvalidInput, OperationFailed

ROLES = r"""\restrict abc
SET default_transaction_read_only = off;
SET client_encoding = 'UTF8';
CREATE ROLE "Odd one";
ALTER ROLE "Odd one" WITH NOSUPERUSER INHERIT NOLOGIN;
CREATE ROLE orders;
ALTER ROLE orders WITH NOSUPERUSER LOGIN;
CREATE ROLE postgres;
ALTER ROLE postgres WITH SUPERUSER LOGIN;
ALTER ROLE orders SET work_mem TO '5MB';
GRANT "Odd one" TO orders GRANTED BY postgres;
CREATE TABLESPACE fast OWNER orders LOCATION '/fast';
GRANT ALL ON TABLESPACE fast TO orders;
\unrestrict abc
"""


def test_roles_are_made_where_they_are_missing_and_changed_where_they_are_not() -> None:
    assert role_statements(ROLES, {"postgres", "orders"}, "postgres") == [
        "SET default_transaction_read_only = off;",
        "SET client_encoding = 'UTF8';",
        'CREATE ROLE "Odd one";',
        'ALTER ROLE "Odd one" WITH NOSUPERUSER INHERIT NOLOGIN;',
        "ALTER ROLE orders WITH NOSUPERUSER LOGIN;",
        "ALTER ROLE orders SET work_mem TO '5MB';",
        'GRANT "Odd one" TO orders GRANTED BY postgres;',
    ]
    assert 'CREATE ROLE "Odd one";' not in role_statements(ROLES, {'"Odd one"'}, "postgres")


def test_a_password_is_stored_as_postgresql_stores_it() -> None:
    # The exchange of RFC 7677, section 3: with the server's key one can sign as that server did.
    nonce = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    message = f"n=user,r=rOprNGfwEbeRWgbNEkqO,{nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,{nonce}"
    verifier = scram_verifier("pencil", base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ=="))
    head, _, keys = verifier.rpartition("$")
    assert head == "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ=="
    server_key = base64.b64decode(keys.partition(":")[2])
    signed = base64.b64encode(hmac.digest(server_key, message.encode(), "sha256"))
    assert signed == b"6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    assert scram_verifier("pencil") != scram_verifier("pencil")


@given(st.text(alphabet="ab'\"\\ =;\n", max_size=12))
def test_names_and_texts_cannot_leave_their_quotes(text: str) -> None:
    assert identifier(text)[1:-1].replace('""', "") == text.replace('"', "")
    assert literal(text).strip().removeprefix("E")[1:-1].replace("''", "").count("'") == 0
    assert conninfo(text).startswith("dbname='")


@pytest.mark.parametrize(
    ("text", "written"), [("it's", "'it''s'"), ("a\\b", " E'a\\\\b'"), ("\\'", " E'\\\\'''"), ("", "''")]
)
def test_texts_in_sql(text: str, written: str) -> None:
    assert literal(text) == written


def test_facts_that_are_not_ours_are_refused() -> None:
    with pytest.raises(InvalidInput, match="the facts of the fixture x cannot be read"):
        facts_of(Fixture(name="x", kind="postgresql", status="ok", facts={"version_num": "new"}))


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../b", "a//b", ".hidden", "a/b/c/d", "a\\b", ""])
def test_parts_lie_where_they_belong(path: str) -> None:
    part = {"path": path, "role": "archive", "media_type": "x", "size": 1, "sha256": "0" * 64}
    with pytest.raises(ValueError, match="path"):
        Fixture.model_validate({"name": "x", "kind": "redis", "status": "ok", "parts": [part]})


# -- masks


def catalogue() -> Catalogue:
    """customers (email) ← purchases (customer_email) ← returns (buyer), a partitioned table, and others."""
    found = Catalogue()
    text = ColumnType("text", -1, nullable=True, generated=False)
    tables = {
        "customers": {"id": ColumnType("integer", -1, nullable=False, generated=False), "email": text, "name": text},
        "purchases": {"customer_email": text, "twice": ColumnType("numeric", -1, nullable=True, generated=True)},
        "returns": {"buyer": text},
        "visits": {"who": text},
        "visits_1": {"who": text},
        "short": {"code": ColumnType("character varying", 14, nullable=False, generated=False)},
    }
    for name, columns in tables.items():
        found.columns["public", name] = columns
        if name != "visits":
            found.stored.add(("public", name))
    found.children["public", "visits"] = [("public", "visits_1")]
    for own, theirs in (
        (("public", "purchases", "customer_email"), ("public", "customers", "email")),
        (("public", "returns", "buyer"), ("public", "purchases", "customer_email")),
    ):
        found.ties[own].add(theirs)
        found.ties[theirs].add(own)
    return found


def test_a_mask_follows_foreign_keys_both_ways_and_into_partitions() -> None:
    rules = {"shop.public.purchases.customer_email": "email", "shop.public.visits.who": "name", "other.a.b.c": "text"}
    assert masked_tables(catalogue(), "shop", rules) == [
        MaskedTable("public", "customers", ("id", "email", "name"), {"email": "email"}),
        MaskedTable("public", "purchases", ("customer_email",), {"customer_email": "email"}),
        MaskedTable("public", "returns", ("buyer",), {"buyer": "email"}),
        MaskedTable("public", "visits_1", ("who",), {"who": "name"}),
    ]


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ({"customers.mail": "email"}, "there is no column mail in public.customers"),
        ({"customers.id": "email"}, "it is no text but integer"),
        ({"customers.id": "uuid"}, "it is no uuid but integer"),
        ({"customers.id": "null"}, "the column must have a value"),
        ({"customers.email": "number"}, ""),
        ({"purchases.twice": "number"}, "the server computes this column"),
        ({"short.code": "email"}, "it has room for 10 characters, and email needs 32"),
        ({"customers.email": "email", "returns.buyer": "text"}, "masked as email and as text"),
    ],
)
def test_what_cannot_be_masked_is_said(rules: dict[str, str], said: str) -> None:
    full = {f"shop.public.{rule}": kind for rule, kind in rules.items()}
    if not said:
        assert masked_tables(catalogue(), "shop", full)
        return
    with pytest.raises(OperationFailed) as raised:
        masked_tables(catalogue(), "shop", full)
    assert said in str(raised.value)
