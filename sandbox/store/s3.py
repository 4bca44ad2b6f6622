"""A store in a bucket of S3, or of anything that speaks S3.

By obstore (Rust's object_store), not fsspec's s3fs: that cannot be installed beside the kubernetes package, whose
python-dateutil is newer than botocore takes. It also writes only what is not there yet, in one request.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sandbox.model.errors import InvalidInput, Refused, SandboxError, Unreachable
from sandbox.store.addressed import Addressed
from sandbox.store.store import Stored

_LONGEST_WHY = 400
# Of one request, with what is tried again; a capture waits no longer for a store that does not answer.
_RETRY_FOR = timedelta(seconds=30)
_CONNECT_TIMEOUT = timedelta(seconds=10)
_MULTIPART = 8 * 1024 * 1024


class S3(Addressed):
    """Entries are objects below the URL's path.

    Credentials, region and endpoint are taken as Amazon's own tools take them from the environment
    (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, …), from a web identity or from the machine's role.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        if not self._parts.hostname:
            raise InvalidInput(f"{url} names no bucket", hint="s3://BUCKET/PATH")
        self._store: Any = None

    def put(self, path: str, content: bytes | Path, *, move: bool, only_new: bool = False) -> bool:
        with self._explained("write", path):
            store = self._opened()
            if only_new:
                from obstore.exceptions import AlreadyExistsError

                data = content if isinstance(content, bytes) else content.read_bytes()
                try:
                    store.put(path, data, mode="create", use_multipart=False)
                except AlreadyExistsError:
                    return False
                return True
            store.put(path, content, chunk_size=_MULTIPART)
            return True

    def read(self, path: str, offset: int, length: int) -> bytes:
        with self._explained("read", path):
            store = self._opened()
            try:
                return bytes(store.get_range(path, start=offset, end=offset + length))
            except FileNotFoundError:
                raise
            except Exception:
                # A range behind the end is an error (416) in S3; so is any of an empty object.
                if offset >= int(store.head(path)["size"]):
                    return b""
                raise

    def stat(self, path: str) -> Stored | None:
        with self._explained("read", path):
            try:
                return _stored(self._opened().head(path))
            except FileNotFoundError:
                return None

    def entries(self, prefix: str) -> list[Stored]:
        folder = prefix.rpartition("/")[0]
        with self._explained("list", prefix or "it"):
            found = [_stored(meta) for page in self._opened().list(folder or None) for meta in page]
            return [entry for entry in found if entry.path.startswith(prefix)]

    def remove(self, path: str) -> bool:
        with self._explained("remove", path):
            store = self._opened()
            try:
                store.head(path)
            except FileNotFoundError:
                return False
            with suppress(FileNotFoundError):
                store.delete(path)
            return True

    def remove_leftovers(self, older_than: datetime) -> int:
        # An object is there as a whole or not at all; a bucket's own rules end uploads that were broken off.
        return 0

    def _opened(self) -> Any:
        if self._store is None:
            from obstore.store import S3Store

            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
            self._store = S3Store.from_url(
                self._url,
                config={"endpoint": endpoint} if endpoint else None,
                # The address says whether it is encrypted; nobody sets AWS_ALLOW_HTTP for Amazon's own tools.
                client_options={"allow_http": endpoint.startswith("http://"), "connect_timeout": _CONNECT_TIMEOUT},
                retry_config={"max_retries": 5, "retry_timeout": _RETRY_FOR},
            )
        return self._store

    def _told(self, what: str, error: Exception) -> SandboxError | None:
        if isinstance(error, FileNotFoundError):
            if "NoSuchBucket" not in str(error):
                return None
            hint = "make the bucket, or name another with --store"
            return Refused(what, why="there is no such bucket", hint=hint)
        if isinstance(error, ImportError):
            return InvalidInput(
                "stores at s3:// need the package obstore", why=str(error), hint="pip install 'sandbox-k8s[s3]'"
            )
        return _service_error(what, error)


def _service_error(what: str, error: Exception) -> SandboxError:
    """An error of obstore's, in the service's words."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    why = _why(error)
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return Refused(what, why=why, hint="which credentials are used, and may they do this?")
    if "169.254." in why:
        # Without any it asks for the machine's role, which only Amazon's machines have.
        return Refused(
            what,
            why=f"there are no credentials: {why}",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "(`aws configure export-credentials --format env` prints a profile's)",
        )
    return Unreachable(what, why=why, hint="is AWS_ENDPOINT_URL right, and AWS_REGION?")


def _stored(meta: Any) -> Stored:
    return Stored(str(meta["path"]), int(meta["size"]), meta["last_modified"])


def _why(error: Exception) -> str:
    """What the service said, without obstore's debugging details."""
    said = str(error).partition("\n\nDebug source:")[0].strip()
    code, message = (re.search(f"<{tag}>(.*?)</{tag}>", said, re.DOTALL) for tag in ("Code", "Message"))
    return f"{code[1]}: {message[1]}" if code and message else said[:_LONGEST_WHY]
