"""Read kubeconfig files: which clusters there are, and how to reach one of them.

Own code because kubernetes' loaders cost 0.3 s (sync) and 0.5 s (aio) of import before the first request; see
:mod:`sandbox.cluster.client`. Its rules are kubectl's: ``$KUBECONFIG`` may name several files, the first to
define a thing wins, paths are relative to the file that holds them
(https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sandbox.model.errors import InvalidInput, Unreachable
from sandbox.model.yamlguard import check_depth

_SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
# Keys that hold paths, which are relative to their file.
_PATH_KEYS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


@dataclass(frozen=True)
class Kubeconfig:
    """All files of one kubeconfig, merged.

    Attributes:
        files: those that exist, in order.
        current: name of the current context; empty where none is set.
        origin: the file that each context, cluster and user came from, keyed ``("contexts", name)``.
    """

    files: tuple[Path, ...]
    current: str
    contexts: Mapping[str, Mapping[str, Any]]
    clusters: Mapping[str, Mapping[str, Any]]
    users: Mapping[str, Mapping[str, Any]]
    origin: Mapping[tuple[str, str], Path] = field(default_factory=dict)


@dataclass(frozen=True)
class Access:
    """How to reach one cluster as one user; PEM data is decoded, paths are absolute.

    Attributes:
        namespace: the context's own, else ``default``.
        ca: PEM of the authority; None: the system's.
        user: the user section as it is written (credentials in all their forms), paths made absolute.
        document: a kubeconfig of just this context, for tools that are run.
        file: a file that says the same with this context's name; None where no single file does.
    """

    context: str
    server: str
    namespace: str
    ca: str | None
    insecure: bool
    tls_server_name: str | None
    proxy: str | None
    user: Mapping[str, Any]
    cluster: Mapping[str, Any]
    document: Mapping[str, Any]
    file: Path | None


def locations(explicit: Path | None, environment: Mapping[str, str] | None = None) -> list[Path]:
    """The files that make up the kubeconfig, whether or not they exist."""
    if explicit is not None:
        return [explicit]
    environment = os.environ if environment is None else environment
    listed = [Path(part) for part in environment.get("KUBECONFIG", "").split(os.pathsep) if part]
    return listed or [Path.home() / ".kube" / "config"]


def read(files: Sequence[Path]) -> Kubeconfig:
    """Read and merge kubeconfig files; those that do not exist are left out.

    Raises:
        InvalidInput: a file is not a kubeconfig.
        Unreachable: a file cannot be read.
    """
    merged: dict[str, dict[str, Mapping[str, Any]]] = {"contexts": {}, "clusters": {}, "users": {}}
    origin: dict[tuple[str, str], Path] = {}
    current = ""
    present = []
    for file in files:
        document = _document(file)
        if document is None:
            continue
        present.append(file)
        current = current or str(document.get("current-context") or "")
        for section, entries in merged.items():
            for name, body in _entries(document, section, file):
                if name not in entries:
                    entries[name] = _absolute(body, file.parent)
                    origin[section, name] = file
    return Kubeconfig(tuple(present), current, merged["contexts"], merged["clusters"], merged["users"], origin)


def access(kubeconfig: Kubeconfig, context: str | None = None) -> Access:
    """Find how to reach a context's cluster.

    Raises:
        InvalidInput: no such context, or it names a cluster or user that is not there.
    """
    name = context or kubeconfig.current
    listed = ", ".join(str(file) for file in kubeconfig.files)
    if not name:
        raise InvalidInput(
            "no context is chosen",
            why=f"{listed} has no current-context",
            hint=f"pass --context NAME ({_known(kubeconfig)}), or `kubectl config use-context NAME`",
        )
    if name not in kubeconfig.contexts:
        raise InvalidInput(
            f"the context {name!r} does not exist", why=f"it is not in {listed}", hint=f"use {_known(kubeconfig)}"
        )
    chosen = kubeconfig.contexts[name]
    cluster = _named(kubeconfig.clusters, chosen.get("cluster"), "cluster", name)
    user_name = chosen.get("user")
    user = _named(kubeconfig.users, user_name, "user", name) if user_name else {}
    server = str(cluster.get("server") or "")
    if not server.startswith(("https://", "http://")):
        raise InvalidInput(
            f"the cluster of context {name!r} has no usable server",
            why=f"server: {server!r}",
            hint="mend it in " + listed,
        )
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": dict(chosen)}],
        "clusters": [{"name": chosen.get("cluster"), "cluster": dict(cluster)}],
        "users": [{"name": user_name, "user": dict(user)}] if user_name else [],
    }
    return Access(
        context=name,
        server=server.rstrip("/"),
        namespace=str(chosen.get("namespace") or "default"),
        ca=pem(cluster, "certificate-authority", "the cluster"),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        tls_server_name=str(cluster["tls-server-name"]) if cluster.get("tls-server-name") else None,
        proxy=str(cluster["proxy-url"]) if cluster.get("proxy-url") else None,
        user=user,
        cluster=cluster,
        document=document,
        file=_single_file(kubeconfig, name, chosen),
    )


def in_cluster(environment: Mapping[str, str] | None = None, folder: Path = _SERVICE_ACCOUNT) -> Access | None:
    """How a pod reaches its own cluster with its service account; None when not in a pod."""
    environment = os.environ if environment is None else environment
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (folder / "token").is_file():
        return None
    namespace = (folder / "namespace").read_text().strip() if (folder / "namespace").is_file() else "default"
    ca_file = folder / "ca.crt"
    config = Kubeconfig(
        files=(folder,),
        current="in-cluster",
        contexts={"in-cluster": {"cluster": "in-cluster", "user": "in-cluster", "namespace": namespace}},
        clusters={
            "in-cluster": {
                "server": f"https://{f'[{host}]' if ':' in host else host}:{port}",
                **({"certificate-authority": str(ca_file)} if ca_file.is_file() else {}),
            }
        },
        # The kubelet renews it: it is a file to be read again, not a token.
        users={"in-cluster": {"tokenFile": str(folder / "token")}},
    )
    return access(config)


def find(context: str | None, explicit: Path | None) -> Access:
    """Find how to reach the cluster that the user means: a kubeconfig's context, or the cluster this runs in.

    Raises:
        Unreachable: there is no kubeconfig.
        InvalidInput: it is not one, or has no such context.
    """
    files = locations(explicit)
    kubeconfig = read(files)
    if not kubeconfig.files:
        inside = in_cluster() if explicit is None and context in (None, "in-cluster") else None
        if inside:
            return inside
        raise Unreachable(
            "there is no kubeconfig",
            why=f"{', '.join(str(file) for file in files)} does not exist",
            hint="pass --kubeconfig FILE or set KUBECONFIG; without a cluster: `sandbox cluster create`",
        )
    return access(kubeconfig, context)


def pem(section: Mapping[str, Any], key: str, whose: str) -> str | None:
    """The PEM text that ``key-data`` (base64) or the file ``key`` holds; None where neither is set.

    Raises:
        InvalidInput: it is not base64, or the file cannot be read.
    """
    data = section.get(f"{key}-data")
    if data:
        try:
            return base64.b64decode(str(data), validate=False).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise InvalidInput(f"{key}-data of {whose} in the kubeconfig is not base64 of a PEM text") from None
    if section.get(key):
        try:
            return Path(str(section[key])).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(
                f"the {key} of {whose} in the kubeconfig cannot be read",
                why=str(error),
                hint="mend the path or log in again",
            ) from None
    return None


def _document(file: Path) -> Mapping[str, Any] | None:
    try:
        # libyaml's parser where it is built in: a kubeconfig of dozens of clusters takes the other one 0.1 s.
        text = file.read_bytes()
        check_depth(text)
        document = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Unreachable(f"the kubeconfig {file} cannot be read", why=error.strerror or str(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        # The problem and its line only: the text around it may hold a token.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise InvalidInput(
            f"the kubeconfig {file} is not YAML", why=f"{where}{getattr(error, 'problem', None) or 'unreadable'}"
        ) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise InvalidInput(f"the kubeconfig {file} is not a mapping", hint="it should start with `apiVersion: v1`")
    return document


def _entries(document: Mapping[str, Any], section: str, file: Path) -> list[tuple[str, Mapping[str, Any]]]:
    singular = section[:-1]
    entries = document.get(section) or []
    found: list[tuple[str, Mapping[str, Any]]] = []
    for entry in entries if isinstance(entries, list) else [None]:
        body = entry.get(singular) or {} if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or "name" not in entry or not isinstance(body, dict):
            raise InvalidInput(f"{section!r} in the kubeconfig {file} is not a list of names and {section}")
        found.append((str(entry["name"]), body))
    return found


def _absolute(body: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    changed: dict[str, Any] = {key: str((folder / str(body[key])).absolute()) for key in _PATH_KEYS if body.get(key)}
    command = (body.get("exec") or {}).get("command") if isinstance(body.get("exec"), dict) else None
    # As in client-go: a command with a slash is relative to the file, a bare name is looked up in PATH.
    if command and os.sep in command and not Path(command).is_absolute():
        changed["exec"] = {**body["exec"], "command": str((folder / command).absolute())}
    return {**body, **changed} if changed else body


def _named(entries: Mapping[str, Mapping[str, Any]], name: Any, kind: str, context: str) -> Mapping[str, Any]:
    if name not in entries:
        raise InvalidInput(f"the context {context!r} names the {kind} {name!r}, which the kubeconfig does not have")
    return entries[name]


def _single_file(kubeconfig: Kubeconfig, name: str, context: Mapping[str, Any]) -> Path | None:
    homes = {
        kubeconfig.origin.get(("contexts", name)),
        kubeconfig.origin.get(("clusters", str(context.get("cluster")))),
    }
    if context.get("user"):
        homes.add(kubeconfig.origin.get(("users", str(context["user"]))))
    return homes.pop() if len(homes) == 1 else None


def _known(kubeconfig: Kubeconfig) -> str:
    names = sorted(kubeconfig.contexts)
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"one of: {shown}" if names else "another kubeconfig: this one has no context"
