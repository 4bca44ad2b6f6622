"""The output formats that commands know."""

from __future__ import annotations

from enum import StrEnum


class Format(StrEnum):
    """``-o``: for people (table, wide), for programs (json, yaml), for pipes (name)."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
