"""Make the generated parts of the chart ``sandbox`` anew: ``python charts/generate.py``.

The shipped quota profiles (``quotas/*.yaml``) are the defaults of the chart's values, and what values may say is what
the tool reads: both are written here from their one source, and a test holds them equal.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from sandbox.project.config import DURATION, LABEL
from sandbox.project.schema import platform_schema

ROOT = Path(__file__).parents[1]
CHART = ROOT / "charts" / "sandbox"
_SAID_BY_THE_KEY = re.compile(r"^(apiVersion|kind|name):.*\n", re.MULTILINE)
_BEGIN, _END = "  # generated: profiles (make chart)\n", "  # end\n"
# Helm checks patterns with Go's regular expressions, which do not look ahead.
_GO_DURATION = r"^\s*([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?\s*$"
_TEXTS = {"type": "array", "items": {"type": "string", "minLength": 1}}


def profiles_as_values() -> str:
    """The shipped profiles as they stand under ``profiles:``, comments and all."""
    order = {"small": 0, "medium": 1, "large": 2}
    paths = sorted((ROOT / "quotas").glob("*.yaml"), key=lambda path: (order.get(path.stem, len(order)), path.stem))
    parts = []
    for path in paths:
        body = _SAID_BY_THE_KEY.sub("", path.read_text(encoding="utf-8"))
        comment, _, rest = body.partition("\n") if body.startswith("#") else ("", "", body)
        lines = [f"  {comment}"] if comment else []
        lines += [f"  {path.stem}:", *(f"    {line}".rstrip() for line in rest.splitlines())]
        parts.append("\n".join(lines) + "\n")
    return "".join(parts)


def values() -> str:
    """``values.yaml`` with the profiles of today."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    head, _, rest = text.partition(_BEGIN)
    return head + _BEGIN + profiles_as_values() + _END + rest.partition(_END)[2]


def values_schema() -> str:
    """``values.schema.json`` (draft 7, which every Helm knows)."""
    platform = platform_schema()
    properties = {key: platform["properties"][key] for key in ("warnBefore", "recordRetention", "limits")}
    properties["profiles"] = {**platform["properties"]["profiles"], "minProperties": 1}
    # Helm hands over what is not given as empty text.
    optional = {
        key: {**platform["properties"][key], "pattern": f"^$|{platform['properties'][key]['pattern']}"}
        for key in ("clusterName", "registry", "captureStore")
    }
    own = copy.deepcopy(_OWN)
    own["cleanup"]["properties"] |= platform["$defs"]["Cleanup"]["properties"]
    secret = {"type": "string", "pattern": f"^$|{LABEL}"}
    schema = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "values of the chart sandbox",
        **_mapping({**optional, **properties, "images": _mapping({"pullSecret": secret}), **own}),
        "definitions": {
            key: platform["$defs"][key] for key in platform["$defs"] if key not in ("PlatformImages", "Cleanup")
        },
    }
    # Other charts' globals, when this one is a dependency.
    schema["properties"]["global"] = {"type": "object"}
    _without_looking_ahead(schema)
    return json.dumps(schema, indent=2, ensure_ascii=False).replace("#/$defs/", "#/definitions/") + "\n"


def _without_looking_ahead(node: Any) -> None:
    """Say of durations in two patterns that they have a digit which is not zero, besides their form."""
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _without_looking_ahead(child)
    if isinstance(node, dict) and node.get("pattern") == DURATION:
        del node["pattern"]
        node["allOf"] = [{"pattern": _GO_DURATION}, {"pattern": "[1-9]"}]


def _mapping(properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": properties, **more}


_OWN: dict[str, Any] = {
    "access": _mapping(
        {
            "create": {"type": "boolean"},
            "developerGroups": _TEXTS,
            "ciGroups": _TEXTS,
            "clusterRoles": _TEXTS,
            "sharing": _mapping({"users": _TEXTS, "groups": _TEXTS}),
            "ownerRules": {"type": "array", "items": {"type": "object", "required": ["verbs"]}},
        }
    ),
    "admission": _mapping(
        {
            "enabled": {"type": "boolean"},
            "exempt": _mapping({"users": _TEXTS, "groups": _TEXTS}),
            "namespacePrefix": {"type": "string", "pattern": "^([a-z0-9][-a-z0-9]{0,29})?$"},
            "reservedNames": _TEXTS,
            "namespaceLabels": _TEXTS,
            "namespaceAnnotations": _TEXTS,
            "ingressDomains": {
                "type": "array",
                "items": {"type": "string", "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"},
            },
            "externalNames": _TEXTS,
            "finalizers": _TEXTS,
            "defaultPriorityClasses": _TEXTS,
        }
    ),
    "cleanup": _mapping(
        {
            "enabled": {"type": "boolean"},
            "schedule": {"type": "string", "pattern": r"^(@[a-z]+|\S+(\s+\S+){4})$"},
            "image": _mapping(
                {
                    "repository": {"type": "string", "minLength": 1},
                    "tag": {"type": "string"},
                    "digest": {"type": "string", "pattern": "^(sha256:[0-9a-f]{64})?$"},
                    "pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
                }
            ),
            "imagePullSecrets": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            "arguments": {"type": "array", "items": {"type": "string"}},
            "env": {"type": "array", "items": {"type": "object", "required": ["name"]}},
            "envFrom": {"type": "array", "items": {"type": "object"}},
            "rules": {"type": "array", "items": {"type": "object", "required": ["verbs"]}},
            "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
            "resources": {"type": "object"},
            "nodeSelector": {"type": "object", "additionalProperties": {"type": "string"}},
            "tolerations": {"type": "array", "items": {"type": "object"}},
        }
    ),
}


def main() -> None:
    (CHART / "values.yaml").write_text(values(), encoding="utf-8")
    (CHART / "values.schema.json").write_text(values_schema(), encoding="utf-8")


if __name__ == "__main__":
    main()
