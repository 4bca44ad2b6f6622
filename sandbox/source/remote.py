"""Repositories that are elsewhere: a bare cache of each, into which only what is needed is fetched."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import platformdirs

from sandbox.model.errors import Busy, InvalidInput, OperationFailed, Unreachable
from sandbox.model.source import Commit
from sandbox.source.command import NETWORK, Completed, run_git
from sandbox.source.refs import check_ref, is_plain_name, unknown_ref
from sandbox.source.store import ObjectStore, create_git_dir
from sandbox.source.urls import Address

Say = Callable[[str], None]
_SHA = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_SHORT_SHA = re.compile(r"[0-9a-f]{4,63}")
# `main~2`, `HEAD^`, `v1^{commit}`: a name, then steps back through history.
_STEPS = re.compile(r"(?P<name>[^~^:@]+|@|HEAD)(?P<steps>(?:~\d*|\^\d*)+)")
_LOCK_WAIT: Final = 300.0


@dataclass(frozen=True)
class RemoteRef:
    """A ref that a remote has: its full name, the commit it leads to, and the branch's short name if it is one."""

    name: str
    sha: str
    branch: str | None


def cache_folder() -> Path:
    """Where the caches are."""
    return platformdirs.user_cache_path("sandbox") / "git"


def cache_of(address: Address, object_format: str = "sha1") -> ObjectStore:
    """The cache of one repository, made if it is not there.

    Raises:
        OperationFailed: it cannot be written.
    """
    name = hashlib.sha256(f"{object_format} {address.shown}".encode()).hexdigest()[:32]
    place = cache_folder() / name
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not (place / "HEAD").is_file():
            create_git_dir(place, object_format=object_format)
            (place / "address").write_text(f"{address.shown}\n")
    except OSError as error:
        raise OperationFailed(f"the cache {place} cannot be made", why=error.strerror or str(error)) from None
    return ObjectStore(place)


def resolve_at(address: Address, ref: str | None, say: Say) -> Commit:
    """Resolve a ref of a remote repository, and fetch what it leads to.

    Args:
        ref: branch, tag, full name (``refs/pull/5/head``), SHA, short SHA, or one of these with ``~2`` or ``^``;
            ``origin/x`` means the branch x; None the default branch.

    Raises:
        InvalidInput: the ref names no commit (near names are told).
        Unreachable: the repository cannot be read, in git's own words.
    """
    if ref is not None:
        check_ref(ref)
    wanted, steps = _take_apart(ref)
    remote = _find(address, wanted, say)
    object_format = "sha256" if remote is not None and len(remote.sha) == 64 else "sha1"
    cache = cache_of(address, object_format)
    with _locked(cache):
        if remote is None:
            sha = _find_by_sha(cache, address, wanted, steps, say)
            branch = None
        else:
            sha = _fetch_ref(cache, address, remote, steps, say)
            branch = remote.branch if not steps else None
    if sha is None:
        known = _short_names(_ls_remote(address, "--heads", "--tags"))
        raise unknown_ref(ref or "HEAD", address.shown, known)
    shown = ref or branch or sha[:12]
    return cache.commit(sha, repo=address.shown, ref=shown, branch=branch, pushed=True)


def fetch_commit(address: Address, sha: str, say: Say) -> ObjectStore:
    """The cache of a repository, with one commit in it.

    Raises:
        InvalidInput: the repository does not have it.
        Unreachable: the repository cannot be read.
    """
    cache = cache_of(address, "sha256" if len(sha) == 64 else "sha1")
    if not cache.has_tree_of(sha):
        with _locked(cache):
            if _find_by_sha(cache, address, sha, "", say) is None:
                raise unknown_ref(sha, address.shown, [], hint="was its branch deleted or rewritten?")
    return cache


def remote_branches(address: Address) -> list[str]:
    """The branches that a remote has, by name."""
    return sorted(_short_names(_ls_remote(address, "--heads")))


def _take_apart(ref: str | None) -> tuple[str, str]:
    """The name, and the steps back from it."""
    if ref is None or ref == "@":
        return "HEAD", ""
    match = _STEPS.fullmatch(ref)
    if match:
        return ("HEAD" if match["name"] == "@" else match["name"]), match["steps"]
    if not is_plain_name(ref):
        raise InvalidInput(
            f"{ref!r} cannot be resolved in a repository that is elsewhere",
            hint="name a branch, a tag, a commit, or steps back from one (main~2)",
        )
    return ref, ""


def _candidates(name: str) -> list[str]:
    """Full names that a short one may mean, most likely first: as git looks them up, but branches before tags."""
    if name == "HEAD":
        return ["HEAD"]
    tail = name.removeprefix("origin/").removeprefix("remotes/origin/").removeprefix("refs/remotes/origin/")
    names = [f"refs/heads/{name}", f"refs/tags/{name}", name, f"refs/{name}", f"refs/heads/{tail}"]
    return [full for full in dict.fromkeys(names) if full.startswith("refs/")]


def _find(address: Address, name: str, say: Say) -> RemoteRef | None:
    names = _candidates(name)
    advertised = _ls_remote(
        address, "--symref", patterns=[pattern for full in names for pattern in (full, f"{full}^{{}}")]
    )
    found = [full for full in names if full in advertised]
    if not found:
        return None
    if f"refs/heads/{name}" in found and f"refs/tags/{name}" in found:
        say(f"{name} is a branch and a tag: the branch is taken (the tag is refs/tags/{name})")
    full = found[0]
    symbolic = advertised.get("symref HEAD", "") if full == "HEAD" else full
    branch = symbolic.removeprefix("refs/heads/") if symbolic.startswith("refs/heads/") else None
    # An annotated tag is an object of its own; `^{}` is what it leads to.
    return RemoteRef(full, advertised.get(f"{full}^{{}}", advertised[full]), branch)


def _fetch_ref(cache: ObjectStore, address: Address, remote: RemoteRef, steps: str, say: Say) -> str | None:
    if not steps and cache.has_tree_of(remote.sha):
        return remote.sha
    own = f"refs/sandbox/{hashlib.sha256(remote.name.encode()).hexdigest()[:20]}"
    expression = f"{own}^{{commit}}{steps}"
    depth = 1 + sum(int(count or 1) for count in re.findall(r"[~^](\d*)", steps))
    _fetch(cache, address, [f"--depth={depth}", "origin", f"+{remote.name}:{own}"], say)
    sha = cache.resolve([expression])[0]
    if sha is None and steps:
        _fetch(cache, address, [*_unshallow(cache), "origin", f"+{remote.name}:{own}"], say)
        sha = cache.resolve([expression])[0]
    return sha


def _find_by_sha(cache: ObjectStore, address: Address, text: str, steps: str, say: Say) -> str | None:
    """A commit by its SHA: servers give whole ones; for short ones all branches and tags are needed."""
    if not _SHA.fullmatch(text) and not _SHORT_SHA.fullmatch(text):
        return None
    expression = f"{text}^{{commit}}{steps}"
    if _SHA.fullmatch(text) and not steps:
        if cache.has_tree_of(text):
            return cache.resolve([expression])[0]
        with contextlib.suppress(Unreachable):
            _fetch(cache, address, ["--depth=1", "origin", text], say)
            return cache.resolve([expression])[0]
    everything = ["+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*"]
    _fetch(cache, address, ["--prune", *_unshallow(cache), "origin", *everything], say)
    return cache.resolve([expression])[0]


def _unshallow(cache: ObjectStore) -> list[str]:
    return ["--unshallow"] if (cache.git_dir / "shallow").exists() else []


def _fetch(cache: ObjectStore, address: Address, arguments: list[str], say: Say) -> None:
    say(f"fetching from {address.shown}")
    options = ["fetch", "--quiet", "--no-tags", "--force", "--no-write-fetch-head", "--no-recurse-submodules"]
    # Servers of static files ("dumb http") cannot give a part of the history.
    done = _run(address, [*options, *arguments], folder=cache.git_dir, environment=cache.environment)
    if done.returncode != 0 and "does not support shallow" in done.stderr:
        whole = [argument for argument in arguments if not argument.startswith(("--depth", "--unshallow"))]
        done = _run(address, [*options, *whole], folder=cache.git_dir, environment=cache.environment)
    if done.returncode != 0:
        raise _unreachable(address, done)


def _ls_remote(address: Address, *options: str, patterns: list[str] | None = None) -> dict[str, str]:
    """Full names and object names of a remote's refs; ``symref HEAD`` is the branch that HEAD is."""
    # Outside any repository: its configuration would count.
    listed = _run(address, ["ls-remote", *options, "origin", *(patterns or [])], folder=Path("/"))
    if listed.returncode != 0:
        raise _unreachable(address, listed)
    refs: dict[str, str] = {}
    for line in listed.text.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: "):
            refs[f"symref {name}"] = value.removeprefix("ref: ")
        else:
            refs[name] = value
    return refs


def _short_names(refs: Mapping[str, str]) -> list[str]:
    names = [re.sub(r"^refs/(heads|tags)/", "", name) for name in refs if not name.endswith("^{}")]
    return list(dict.fromkeys(names))


def _run(
    address: Address, arguments: list[str], *, folder: Path, environment: Mapping[str, str] | None = None
) -> Completed:
    variables = {**(environment or {}), **_remote_settings(address)}
    return run_git(arguments, NETWORK, folder=folder, environment=variables, check=False)


def _remote_settings(address: Address) -> dict[str, str]:
    """The remote ``origin`` as variables: neither the address nor its credentials are arguments of any process."""
    settings = [("remote.origin.url", address.shown)]
    if address.credentials:
        token = base64.b64encode(address.credentials.encode()).decode()
        host = "/".join(address.shown.split("/")[:3])
        settings.append((f"http.{host}/.extraHeader", f"Authorization: Basic {token}"))
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(count) if count.isdecimal() else 0
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for index, (key, value) in enumerate(settings, first):
        variables |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return variables


def _unreachable(address: Address, completed: Completed) -> Unreachable:
    said = completed.stderr
    hint = "check the address and the network"
    if re.search(r"[Aa]uthentication failed|could not read (Username|Password)|Permission denied|403|401", said):
        refused = "the credentials in the address were refused; " if address.credentials else ""
        hint = f"{refused}check that `git ls-remote` works with this address: sandbox uses git's own credentials"
    elif "not found" in said or "does not appear to be a git repository" in said:
        hint = "check the address; servers say this of private repositories too"
    return Unreachable(f"the repository {address.shown} cannot be read", why=said, hint=hint)


@contextlib.contextmanager
def _locked(cache: ObjectStore) -> Iterator[None]:
    """One fetch at a time: git's own locks make the second one fail."""
    with (cache.git_dir / "sandbox.lock").open("w") as file:
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(
                        f"another sandbox has been fetching into {cache.git_dir} for {_LOCK_WAIT:.0f} s",
                        hint="wait for it, or end it",
                    ) from None
                time.sleep(0.1)
        yield
