"""Who we are to the API server: turn a kubeconfig's user section into request headers and a client certificate.

All of kubectl's forms: client certificates, token, tokenFile (read again as it is renewed), basic, exec
plugins (their own protocol, https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins),
impersonation. The old ``auth-provider`` form (OIDC) goes through kubernetes' own loader, imported only then.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sandbox.cluster.kubeconfig import Access, pem
from sandbox.model.durations import from_rfc3339
from sandbox.model.errors import InvalidInput, SandboxError, Unreachable

# A plugin may open a browser and wait for a person.
_PLUGIN_TIMEOUT_S = 300.0
# Used no longer than until so many seconds before it ends, so that it does not end on the way.
_EXPIRY_MARGIN_S = 30.0
# As client-go: a token file is read again after a minute.
_TOKEN_FILE_AGE_S = 60.0


@dataclass(frozen=True)
class Identity:
    """What one set of credentials comes to; never shown.

    Attributes:
        certificate: PEM of the client certificate and of its key.
        good_until: monotonic time until which it is used without asking again; None: as long as it is accepted.
    """

    headers: tuple[tuple[str, str], ...] = field(repr=False, default=())
    certificate: tuple[str, str] | None = field(repr=False, default=None)
    good_until: float | None = None


class Credentials:
    """Gives the identity for each request and renews it when it ends."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._identity: Identity | None = None
        self._lock = asyncio.Lock()

    @property
    def renewable(self) -> bool:
        """Whether asking again may give other credentials."""
        return any(self._access.user.get(key) for key in ("exec", "tokenFile", "auth-provider"))

    async def identity(self) -> Identity:
        """The identity to use now.

        Raises:
            Unreachable: the plugin failed.
            InvalidInput: the user section cannot be used.
        """
        async with self._lock:
            known = self._identity
            if known is None or (known.good_until is not None and time.monotonic() >= known.good_until):
                self._identity = known = await self._obtain()
            return known

    def forget(self, refused: Identity) -> None:
        """Ask again next time, unless somebody already did since ``refused`` was given out."""
        if self._identity is refused:
            self._identity = None

    async def _obtain(self) -> Identity:
        user = self._access.user
        certificate = _certificate(
            pem(user, "client-certificate", "the user"),
            pem(user, "client-key", "the user"),
            "the user in the kubeconfig",
        )
        headers = _impersonation(user)
        good_until = None
        # The order of precedence is client-go's: token before exec before auth-provider before password.
        if user.get("token") or user.get("tokenFile"):
            headers.append(("Authorization", f"Bearer {_token(user)}"))
            good_until = time.monotonic() + _TOKEN_FILE_AGE_S if user.get("tokenFile") else None
        elif user.get("exec"):
            status = await _run_plugin(user["exec"], self._access)
            if status.get("token"):
                headers.append(("Authorization", f"Bearer {status['token']}"))
            data, key = status.get("clientCertificateData"), status.get("clientKeyData")
            certificate = _certificate(data, key, "the credential plugin") or certificate
            good_until = _plugin_expiry(status)
        elif user.get("auth-provider"):
            headers.append(("Authorization", await _auth_provider_header(self._access)))
            good_until = time.monotonic() + _TOKEN_FILE_AGE_S
        elif user.get("username"):
            pair = f"{user['username']}:{user.get('password', '')}"
            headers.append(("Authorization", "Basic " + base64.b64encode(pair.encode()).decode()))
        return Identity(tuple(headers), certificate, good_until)


def _certificate(certificate: str | None, key: str | None, whose: str) -> tuple[str, str] | None:
    if not certificate and not key:
        return None
    if not certificate or not key:
        missing = "key" if certificate else "certificate"
        raise InvalidInput(f"{whose} has half a client certificate: the {missing} is missing")
    return certificate, key


def _token(user: Mapping[str, Any]) -> str:
    file = user.get("tokenFile")
    if not file:
        return str(user["token"])
    try:
        return Path(str(file)).read_text().strip()
    except OSError as error:
        raise Unreachable("the kubeconfig's tokenFile cannot be read", why=str(error), hint="log in again") from None


def _impersonation(user: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Headers of https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation."""
    headers = [
        (header, str(user[key]))
        for key, header in (("as", "Impersonate-User"), ("as-uid", "Impersonate-Uid"))
        if user.get(key)
    ]
    headers += [("Impersonate-Group", str(group)) for group in user.get("as-groups") or ()]
    for key, values in (user.get("as-user-extra") or {}).items():
        headers += [(f"Impersonate-Extra-{quote(str(key), safe='')}", str(value)) for value in values]
    return headers


async def _run_plugin(plugin: Mapping[str, Any], access: Access) -> Mapping[str, Any]:
    """Run a credential plugin and return the ``status`` of its answer."""
    command = str(plugin.get("command") or "")
    api_version = str(plugin.get("apiVersion") or "")
    interactive = plugin.get("interactiveMode") != "Never" and sys.stdin is not None and sys.stdin.isatty()
    if plugin.get("interactiveMode") == "Always" and not interactive:
        raise Unreachable(
            f"the credential plugin {command} must be able to ask",
            why="there is no terminal",
            hint="log in on a terminal",
        )
    asked: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        known = {key: access.cluster[key] for key in _CLUSTER_INFO if access.cluster.get(key)}
        asked["cluster"] = {"server": access.server, **known}
    environment = {
        **os.environ,
        **{str(item["name"]): str(item.get("value", "")) for item in plugin.get("env") or ()},
        "KUBERNETES_EXEC_INFO": json.dumps({"apiVersion": api_version, "kind": "ExecCredential", "spec": asked}),
    }
    hint = str(plugin.get("installHint") or "") or "run it by hand to see what it wants; log in again"
    try:
        process = await asyncio.create_subprocess_exec(
            command,
            *(str(argument) for argument in plugin.get("args") or ()),
            env=environment,
            stdin=None if interactive else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            # A person who is asked must see the question.
            stderr=None if interactive else asyncio.subprocess.PIPE,
            # On a terminal it must stay in the foreground group, else reading from it stops it.
            start_new_session=not interactive,
        )
    except OSError as error:
        raise Unreachable(
            f"the credential plugin {command!r} cannot be run", why=error.strerror or str(error), hint=hint
        ) from None
    try:
        async with asyncio.timeout(_PLUGIN_TIMEOUT_S):
            output, talk = await process.communicate()
    except TimeoutError:
        raise Unreachable(
            f"the credential plugin {command!r} gave no answer within {_PLUGIN_TIMEOUT_S:.0f} s", hint=hint
        ) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill() if interactive else os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        why = (talk or b"").decode(errors="replace").strip()[-2000:] or f"exit code {process.returncode}"
        raise Unreachable(f"the credential plugin {command!r} failed", why=why, hint=hint)
    return _plugin_status(command, api_version, output, hint)


_CLUSTER_INFO = ("certificate-authority-data", "insecure-skip-tls-verify", "tls-server-name", "proxy-url")


def _plugin_status(command: str, api_version: str, output: bytes, hint: str) -> Mapping[str, Any]:
    try:
        answer = json.loads(output)
    except ValueError:
        # Its text is not repeated: it may be a token that is badly wrapped.
        raise Unreachable(f"the credential plugin {command!r} did not answer in JSON", hint=hint) from None
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict) or answer.get("kind") != "ExecCredential":
        raise Unreachable(f"the credential plugin {command!r} did not answer with an ExecCredential", hint=hint)
    if answer.get("apiVersion") != api_version:
        raise Unreachable(
            f"the credential plugin {command!r} speaks another version",
            why=f"asked for {api_version}, got {answer.get('apiVersion')}",
            hint=hint,
        )
    if not status.get("token") and not status.get("clientCertificateData"):
        raise Unreachable(
            f"the credential plugin {command!r} gave neither a token nor a certificate", hint="log in again"
        )
    return status


def _plugin_expiry(status: Mapping[str, Any]) -> float | None:
    text = status.get("expirationTimestamp")
    if not text:
        return None
    left = (from_rfc3339(str(text)) - datetime.now(UTC)).total_seconds()
    return time.monotonic() + max(left - _EXPIRY_MARGIN_S, 0)


async def _auth_provider_header(access: Access) -> str:
    name = access.user["auth-provider"].get("name")
    try:
        # 0.6 s of import, for a form that client-go keeps only for OIDC.
        from kubernetes.aio.client import Configuration
        from kubernetes.aio.config.kube_config import KubeConfigLoader
    except ModuleNotFoundError:
        raise Unreachable(
            f"the kubeconfig's auth-provider {name!r} cannot be used here",
            why="the Python package kubernetes is not installed; the image of sandbox leaves it out",
            hint="use a kubeconfig with a token, a certificate or a credential plugin (exec)",
        ) from None
    try:
        loader = KubeConfigLoader(dict(access.document), active_context=access.context, config_base_path="")  # type: ignore[no-untyped-call]
        configuration = Configuration()
        async with asyncio.timeout(_PLUGIN_TIMEOUT_S):
            await loader.load_and_set(configuration)  # type: ignore[no-untyped-call]
    except SandboxError:
        raise
    # The loader lets through whatever the provider's library raises: aiohttp's, json's, google's errors.
    except Exception as error:
        raise Unreachable(
            f"the kubeconfig's auth-provider {name!r} failed",
            why=str(error) or type(error).__name__,
            hint="log in again",
        ) from None
    header = configuration.api_key.get("BearerToken") or configuration.api_key.get("authorization")
    if not header:
        raise Unreachable(f"the kubeconfig's auth-provider {name!r} gave no token", hint="log in again")
    return str(header)
