"""Asks the catalogue and the orders API."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

TIMEOUT = 5  # seconds for one request to another service


class UpstreamError(Exception):
    """A service did not answer, or answered with an error.

    ``status`` is what to answer in turn: the service's own for a fault of the caller's (4xx), 502 for any other.
    """

    def __init__(self, service: str, reason: str, status: int = 502) -> None:
        super().__init__(f"{service}: {reason}")
        self.service = service
        self.reason = reason
        self.status = status


class Upstream:
    """One service's JSON API at ``url``."""

    def __init__(self, service: str, url: str) -> None:
        self._service = service
        self._url = url.rstrip("/")

    def get(self, path: str) -> dict[str, object]:
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: dict[str, object] | None = None) -> dict[str, object]:
        """The answer's JSON object. Raises UpstreamError."""
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            raise UpstreamError(
                self._service,
                f"{method} {path} answered {error.code}: {error_text(error.read())}",
                error.code if 400 <= error.code < 500 else 502,
            ) from error
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise UpstreamError(self._service, f"no answer from {self._url}: {error}") from error
        except ValueError as error:
            raise UpstreamError(self._service, f"{method} {path}: the answer is not JSON: {error}") from error
        if not isinstance(answer, dict):
            raise UpstreamError(self._service, f"{method} {path}: the answer is not a JSON object")
        return answer


def error_text(content: bytes) -> str:
    """What an error's body says: its ``error`` where it is ours, else its beginning."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
