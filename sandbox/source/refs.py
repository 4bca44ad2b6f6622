"""Refs as people write them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from sandbox.model.errors import InvalidInput

_LONGEST = 1024
# What git allows in no branch's or tag's name (git-check-ref-format), and expressions are made of.
_EXPRESSION = re.compile(r"[~^:?*\[\\ ]|@\{|\.\.|^@$")


def check_ref(ref: str) -> None:
    """Refuse what git could take for an option, or what cannot be a ref.

    Raises:
        InvalidInput: it is so.
    """
    if not ref.strip() or len(ref) > _LONGEST or any(ord(character) < 32 or ord(character) == 127 for character in ref):
        raise InvalidInput(f"{ref[:80]!r} is not a ref", hint="name a branch, a tag or a commit")
    if ref.startswith("-"):
        raise InvalidInput(f"{ref!r} is not a ref: it begins with a dash", hint="name a branch, a tag or a commit")
    if ".." in ref and is_range(ref):
        raise InvalidInput(f"{ref!r} is a range, not one commit", hint="name a branch, a tag or a commit")


def is_range(ref: str) -> bool:
    """Whether it is ``a..b`` or ``a...b``; dots in ``:/text`` and ``^{/text}`` do not count."""
    return ".." in re.sub(r"^:/.*|\^\{/.*?\}", "", ref)


def is_plain_name(ref: str) -> bool:
    """Whether it can be the name of a branch or tag, and is no expression such as ``main~2``."""
    return _EXPRESSION.search(ref) is None


def unknown_ref(ref: str, where: str, known: Iterable[str], *, hint: str = "") -> InvalidInput:
    """The error for a ref that names no commit, with the names near it."""
    names = list(known)
    # People leave the prefix out: `login` is near `feature/login`.
    tails = {name.rpartition("/")[2]: name for name in reversed(names)}
    wanted = re.split(r"[~^:]|@\{", ref)[0] or ref
    close = difflib.get_close_matches(wanted, [*names, *tails], n=4, cutoff=0.6)
    close += [name for name in names if wanted and wanted in name]
    near = list(dict.fromkeys(tails.get(name, name) if name not in names else name for name in close))[:4]
    said = f"did you mean {', '.join(near)}?" if near else _say_some(names)
    return InvalidInput(f"{ref!r} names no commit in {where}", why=said, hint=hint)


def _say_some(names: list[str]) -> str:
    if not names:
        return "there are no branches and no tags"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"there are {', '.join(names[:8])}{more}"
