"""Names that Kubernetes accepts, made of names that people use."""

from __future__ import annotations

import hashlib
import re

# RFC 1123 label: what a namespace, a Service and a label value may be.
LONGEST_NAME = 63
_HASH_LENGTH = 6


def slug(text: str, *, longest: int = LONGEST_NAME) -> str:
    """Turn any text into an RFC 1123 label; two different texts never give the same one.

    What is a label already stays as it is and a slash becomes ``--`` (``feature/login`` →
    ``feature--login``). Where more is lost (capitals, other characters, length), a hash of the
    text is added.
    """
    plain = re.sub(r"[^a-z0-9/]+", "-", text.lower()).replace("/", "--").strip("-")
    # Exactly these texts can be told from their slug.
    reversible = re.fullmatch(r"[a-z0-9]+(?:[-/][a-z0-9]+)*", text) is not None
    # A text that looks like a slug with a hash could meet one.
    if reversible and len(plain) <= longest and not re.search(rf"-[0-9a-f]{{{_HASH_LENGTH}}}$", plain):
        return plain
    return _with_hash(plain, text, longest)


def is_name(text: str, *, longest: int = LONGEST_NAME) -> bool:
    """Whether a text is an RFC 1123 label already."""
    return len(text) <= longest and re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", text, re.ASCII) is not None


def sandbox_name(owner: str, project: str, branch: str, *, longest: int = LONGEST_NAME) -> str:
    """Name a sandbox ``owner-project-branch``: an RFC 1123 label of at most ``longest`` characters.

    The three slugs are joined by a dash, so two triples can meet (``a-b``, ``c`` and ``a``, ``b-c``):
    whoever creates the namespace compares owner, project and ref, which its annotations hold in full.
    """
    name = "-".join(slug(part) for part in (owner, project, branch))
    if len(name) <= longest:
        return name
    return _with_hash(name, "\0".join((owner, project, branch)), longest)


def _with_hash(plain: str, text: str, longest: int) -> str:
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:_HASH_LENGTH]
    head = plain[: longest - _HASH_LENGTH - 1].strip("-")
    return f"{head}-{digest}" if head else f"x-{digest}"
