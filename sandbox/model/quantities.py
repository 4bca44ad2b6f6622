"""Kubernetes quantities (``500m``, ``2Gi``) as exact numbers.

The official client has a parser too, but importing it costs most of a second.
Format: the Kubernetes API convention ``resource.Quantity``.
"""

from __future__ import annotations

import re
from decimal import Decimal

from sandbox.model.errors import InvalidInput

_SUFFIXES = {
    "": Decimal(1),
    "n": Decimal("1e-9"),
    "u": Decimal("1e-6"),
    "m": Decimal("1e-3"),
    "k": Decimal(10) ** 3,
    "M": Decimal(10) ** 6,
    "G": Decimal(10) ** 9,
    "T": Decimal(10) ** 12,
    "P": Decimal(10) ** 15,
    "E": Decimal(10) ** 18,
    "Ki": Decimal(2) ** 10,
    "Mi": Decimal(2) ** 20,
    "Gi": Decimal(2) ** 30,
    "Ti": Decimal(2) ** 40,
    "Pi": Decimal(2) ** 50,
    "Ei": Decimal(2) ** 60,
}
_SHAPE = re.compile(
    r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))(?:([eE][+-]?\d{1,3})|(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei))?", re.ASCII
)


def parse_quantity(text: str | int | float) -> Decimal:
    """Read a quantity as an exact number of its base unit (cores, bytes, objects).

    Raises:
        InvalidInput: not a quantity.
    """
    match = _SHAPE.fullmatch(str(text).strip())
    if not match:
        raise InvalidInput(f"{text!r} is not a Kubernetes quantity", hint="such as 500m, 2 or 1.5Gi")
    number, exponent, suffix = match.groups()
    return Decimal(number + (exponent or "")) * _SUFFIXES[suffix or ""]


def format_quantity(value: Decimal, *, memory: bool = False) -> str:
    """Write a number as a quantity that people read: ``1.5Gi`` for bytes, ``250m`` or ``2`` otherwise."""
    if memory:
        for suffix in ("Ei", "Pi", "Ti", "Gi", "Mi", "Ki"):
            if abs(value) >= _SUFFIXES[suffix]:
                return f"{(value / _SUFFIXES[suffix]).quantize(Decimal('0.01')).normalize():f}{suffix}"
        return f"{value.to_integral_value():f}"
    if value == value.to_integral_value():
        return f"{value.to_integral_value():f}"
    return f"{(value * 1000).to_integral_value(rounding='ROUND_CEILING'):f}m"


def plain_quantity(value: Decimal) -> str:
    """Write a number as an exact quantity without a suffix, but for thousandths: ``1073741824``, ``1500m``."""
    thousandths = value * 1000
    return f"{int(value)}" if value == value.to_integral_value() else f"{int(thousandths)}m"
