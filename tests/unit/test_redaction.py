from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.model.redaction import HIDDEN, without_secret_data


def _secret(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, **fields}


@pytest.mark.parametrize("field", ["data", "stringData"])
def test_keys_stay_and_values_go(field: str) -> None:
    secret = _secret(**{field: {"user": "c2hvcA==", "password": "aHVudGVyMg=="}})

    shown = without_secret_data(secret)

    assert shown[field] == {"user": HIDDEN, "password": HIDDEN}
    assert secret[field]["password"] == "aHVudGVyMg==", "the manifest itself must stay as it is"


def test_what_is_no_mapping_is_hidden_too() -> None:
    assert without_secret_data(_secret(data="hunter2"))["data"] == HIDDEN


def test_kubectls_copy_of_the_data_goes_too() -> None:
    copied = json.dumps({"data": {"password": "aHVudGVyMg=="}})
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": copied, "team": "shop"}
    secret = _secret(metadata={"name": "db", "annotations": annotations})

    shown = without_secret_data(secret)

    assert "aHVudGVyMg==" not in json.dumps(shown)
    assert shown["metadata"]["annotations"]["team"] == "shop"


@pytest.mark.parametrize(
    "manifest",
    [
        {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "b"}},
        {"apiVersion": "external-secrets.io/v1", "kind": "Secret", "data": {"a": "b"}},
        {},
    ],
)
def test_other_objects_stay_as_they_are(manifest: dict[str, Any]) -> None:
    assert without_secret_data(manifest) == manifest
