"""The keys of a store: the one of the placeholders, and age's for what may be read by few.

The HMAC key lies in the store beside the captures (``keys/redaction``), never in one: a bundle that is pulled, pushed
or sent by mail can be compared with others, but nobody can try out values against it. Where whoever reads the store
shall not be able to either, the key is a file named by ``SANDBOX_CAPTURE_KEY_FILE``.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInput, OperationFailed
from sandbox.store.store import Store

KEY_FILE = "SANDBOX_CAPTURE_KEY_FILE"
_PATH = "keys/redaction"
_SHORTEST = 16
_LONGEST = 4096


async def redaction_key(store: Store, environment: Mapping[str, str] = os.environ) -> bytes:
    """The key of a store's placeholders; made with the first capture.

    Raises:
        InvalidInput: the file that is named is none, or too short to be a key.
        OperationFailed, Refused, Unreachable: the store cannot be read or written.
    """
    named = environment.get(KEY_FILE)
    if named:
        try:
            key = Path(named).expanduser().read_bytes().strip()
        except (OSError, RuntimeError) as error:
            raise InvalidInput(f"${KEY_FILE} names a file that cannot be read", why=str(error)) from None
        if len(key) < _SHORTEST:
            raise InvalidInput(f"the key in {named} is too short", why=f"{len(key)} bytes; {_SHORTEST} at least")
        return key
    await store.put_if_absent(_PATH, secrets.token_bytes(32))
    key = await store.get(_PATH, at_most=_LONGEST)
    if len(key) < _SHORTEST:
        raise OperationFailed(f"the key of the store {store.url} is damaged", why=f"{_PATH} has {len(key)} bytes")
    return key


def masking_key(key: bytes) -> bytes:
    """What values are masked with, of a store's key: equal ones alike in all captures and exports of the store."""
    return hmac.digest(key, b"masking", hashlib.sha256)


def recipients(texts: Sequence[str]) -> list[Any]:
    """age's recipients: ``age1…``, or an SSH public key (``ssh-ed25519 …``, ``ssh-rsa …``).

    Raises:
        InvalidInput: one is neither.
    """
    import pyrage

    found: list[Any] = []
    for text in texts:
        try:
            kind = pyrage.ssh.Recipient if text.startswith("ssh-") else pyrage.x25519.Recipient
            found.append(kind.from_str(text.strip()))
        except pyrage.RecipientError as error:
            raise InvalidInput(
                f"{text[:70]!r} is no recipient of age",
                why=str(error),
                hint="the public half that `age-keygen` prints (age1…), or an ssh-ed25519 or ssh-rsa public key",
            ) from None
    return found


def encrypted(data: bytes, to: Sequence[Any]) -> bytes:
    """Bytes that only the recipients can read (https://age-encryption.org/v1)."""
    import pyrage

    return bytes(pyrage.encrypt(data, list(to)))


def encrypt_file(source: Path, target: Path, to: Sequence[Any]) -> None:
    """The same for a file, as a stream."""
    import pyrage

    with source.open("rb") as reading, target.open("wb") as writing:
        pyrage.encrypt_io(reading, writing, list(to))


def decrypted(data: bytes, identity_file: Path) -> bytes:
    """What was encrypted to one of the identities in a file (as ``age-keygen`` writes it, or an SSH private key).

    Raises:
        InvalidInput: the file holds none.
        OperationFailed: it was not encrypted to any of them, or is damaged.
    """
    import pyrage

    try:
        return bytes(pyrage.decrypt(data, _identities(identity_file)))
    except pyrage.DecryptError as error:
        raise _not_decrypted(error) from None


def decrypt_file(source: Path, target: Path, identity_file: Path) -> None:
    """The same for a file, as a stream. Raises as :func:`decrypted`."""
    import pyrage

    identities = _identities(identity_file)
    try:
        with source.open("rb") as reading, target.open("wb") as writing:
            pyrage.decrypt_io(reading, writing, identities)
    except pyrage.DecryptError as error:
        target.unlink(missing_ok=True)
        raise _not_decrypted(error) from None


def _not_decrypted(error: Exception) -> OperationFailed:
    return OperationFailed("it cannot be decrypted", why=str(error), hint="is this the right identity?")


def _identities(file: Path) -> list[Any]:
    import pyrage

    try:
        text = file.expanduser().read_bytes()
    except (OSError, RuntimeError) as error:
        raise InvalidInput(f"the identity {file} cannot be read", why=str(error)) from None
    try:
        if b"PRIVATE KEY-----" in text:
            return [pyrage.ssh.Identity.from_buffer(text)]
        lines = (line.strip() for line in text.decode().splitlines())
        found = [pyrage.x25519.Identity.from_str(line) for line in lines if line and not line.startswith("#")]
    except (pyrage.IdentityError, UnicodeDecodeError):
        found = []
    if not found:
        raise InvalidInput(f"{file} holds no identity of age")
    return found
