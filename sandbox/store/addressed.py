"""What stores behind a URL have in common: what may stand in the URL, and errors that name it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from sandbox.model.errors import InvalidInput, SandboxError
from sandbox.store.store import Backend, NotStored

# These put an object as a whole or not at all.
OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"})
# fsspec also knows chains, caches, archives and ways to this machine's files: none of them is a place for captures.
_KNOWN = OBJECT_STORES | {"sftp", "ssh", "smb", "hdfs", "webhdfs", "memory"}


class Addressed(Backend):
    """A store with a URL of a known kind that holds nothing secret.

    Raises:
        InvalidInput: no such kind of store, or the URL holds a password or options.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _KNOWN or "::" in url:
            raise InvalidInput(
                f"there is no kind of store called {parts.scheme}",
                why=f"in {parts.scheme}://{parts.hostname or ''}",
                hint="a folder, or one of " + ", ".join(sorted(_KNOWN - {"memory"})) + "; an OCI registry: "
                "`sandbox capture push ID oci://REGISTRY/REPOSITORY`",
            )
        if parts.password or parts.query:
            raise InvalidInput(
                f"the URL of a store ({parts.scheme}://{parts.hostname or ''}) holds more than its place",
                why="URLs are shown and written into captures",
                hint="give credentials the way the provider's own tools take them (AWS_PROFILE, AWS_ENDPOINT_URL, …)",
            )
        self._url = url
        self._parts = parts

    @contextmanager
    def _explained(self, verb: str, path: str) -> Iterator[None]:
        """Turn whatever the library raises into what failed, where and why."""
        what = f"cannot {verb} {path} in the store {self._url}"
        try:
            yield
        except SandboxError:
            raise
        except Exception as error:
            raise self._told(what, error) or self._not_stored(path) from error

    def _not_stored(self, path: str) -> NotStored:
        return NotStored(f"the store has no {path}", why=f"in {self._url}")

    @abstractmethod
    def _told(self, what: str, error: Exception) -> SandboxError | None:
        """An error of the library's in our words; None: the store has no such entry."""
