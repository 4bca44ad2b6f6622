"""How arguments are read: pydantic is kept out of commands whose arguments need no converting.

Typer converts every argument through a pydantic TypeAdapter, a given text to ``str`` too; importing pydantic
and building the adapters is a quarter of the time that ``sandbox list`` takes (measured: 0.12 s of 0.45 s).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from typer.core import TyperCommand, TyperGroup

from sandbox.cli.output import unwritable

try:
    from typer._coercion import RuntimeParam, build_runtime_param
except ImportError:  # pragma: no cover
    # Not Typer's public interface: where it moves, commands are slower to start, and nothing else changes.
    RuntimeParam = None  # type: ignore[assignment,misc]

if TYPE_CHECKING:
    _Base = TyperCommand
else:
    _Base = object


class _Reads(_Base):
    """Asks pydantic only for values that are not yet what they should be; tells a full disk from a defect."""

    def get_params(self, ctx: Any) -> Any:
        parameters: list[Any] = list(super().get_params(ctx))
        for parameter in parameters:
            descriptor = getattr(parameter, "type_descriptor", None)
            if RuntimeParam is not None and descriptor is not None and not descriptor.is_file:
                converter: Any = _Lazy(descriptor.parameter_info, descriptor.annotation, descriptor)
                parameter._runtime_param = parameter._runtime_param or converter
        return parameters

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        try:
            return super().make_context(*arguments, **options)
        except OSError as error:
            # Typer writes help and completion scripts while it reads the arguments; nothing else is written then.
            raise unwritable(error) from None


class Command(_Reads, TyperCommand):
    """A command."""


class Group(_Reads, TyperGroup):
    """A command with commands of its own."""


if RuntimeParam is not None:

    @dataclass(frozen=True)
    class _Lazy(RuntimeParam):
        """The conversion that Typer would do, begun when it is needed."""

        descriptor: Any

        def _coerce_value(self, value: Any, param: Any, ctx: Any) -> Any:
            kind = self.annotation
            if self.parameter_info.parser is None:
                if isinstance(kind, type) and type(value) is kind:
                    return value
                if kind == list[str]:
                    return list(value)
                if isinstance(kind, type) and issubclass(kind, StrEnum) and value in [str(member) for member in kind]:
                    return kind(value)
            return build_runtime_param(self.descriptor)._coerce_value(value, param=param, ctx=ctx)
