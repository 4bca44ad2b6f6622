"""Repositories that are elsewhere, through real transports: git's own daemon, ssh's protocol, and https."""

from __future__ import annotations

import base64
import http.server
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sandbox.model.errors import InvalidInput, Refused, Unreachable
from sandbox.model.source import Commit
from sandbox.project.config import Project
from sandbox.source import git, remote
from sandbox.source.manifest import Origin, origins, resolve_sources
from sandbox.source.urls import Address
from tests.unit.git_repositories import Repo, files_of

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def shop(tmp_path: Path) -> Repo:
    """Served as `shop.git`: four commits, branches, tags and a pull request."""
    repo = Repo(tmp_path / "work" / "shop")
    for number in range(4):
        repo.commit("a.txt", f"{number}\n", f"Commit {number}")
    repo.git("checkout", "-q", "-b", "feature/login", "HEAD~1")
    repo.commit("b.txt", "login\n", "Login")
    repo.git("checkout", "-q", "main")
    repo.git("tag", "-a", "-m", "release", "v1.0", "HEAD~2")
    repo.git("tag", "light", "HEAD~3")
    repo.git("update-ref", "refs/pull/5/head", "feature/login")
    (tmp_path / "served").mkdir()
    Repo.clone(repo.folder, tmp_path / "served" / "shop.git", "--mirror")
    return repo


@pytest.fixture
def address(shop: Repo, tmp_path: Path) -> Iterator[str]:
    """The address of `shop.git` at a git daemon."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", "--reuseaddr", "--listen=127.0.0.1", f"--port={port}",
         f"--base-path={tmp_path / 'served'}", str(tmp_path / "served")],
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            assert time.monotonic() < deadline, "git daemon does not listen"
            time.sleep(0.02)
        yield f"git://127.0.0.1:{port}/shop.git"
    finally:
        os.killpg(daemon.pid, 15)
        daemon.wait(timeout=20)


def cached_commits(address: str) -> int:
    cache = remote.cache_of(Address(address))
    objects = cache.run(["cat-file", "--batch-all-objects", "--batch-check"]).text
    return objects.count(" commit ")


def test_every_kind_of_ref(shop: Repo, address: str, tmp_path: Path) -> None:
    expected = {
        None: (shop.sha("main"), "main", "main"),
        "main": (shop.sha("main"), "main", "main"),
        "feature/login": (shop.sha("feature/login"), "feature/login", "feature/login"),
        "origin/feature/login": (shop.sha("feature/login"), "feature/login", "origin/feature/login"),
        "refs/heads/feature/login": (shop.sha("feature/login"), "feature/login", "refs/heads/feature/login"),
        "refs/pull/5/head": (shop.sha("feature/login"), None, "refs/pull/5/head"),
        "pull/5/head": (shop.sha("feature/login"), None, "pull/5/head"),
        "v1.0": (shop.sha("v1.0"), None, "v1.0"),
        "light": (shop.sha("light"), None, "light"),
        "HEAD": (shop.sha("main"), "main", "HEAD"),
        "HEAD~2": (shop.sha("main~2"), None, "HEAD~2"),
        "main^": (shop.sha("main^"), None, "main^"),
        "feature/login~1^": (shop.sha("feature/login~2"), None, "feature/login~1^"),
        shop.sha("main~2"): (shop.sha("main~2"), None, shop.sha("main~2")),
        shop.sha("main~3")[:8]: (shop.sha("main~3"), None, shop.sha("main~3")[:8]),
        shop.sha("main~1")[:8] + "~1": (shop.sha("main~2"), None, shop.sha("main~1")[:8] + "~1"),
    }
    for ref, (sha, branch, shown) in expected.items():
        commit = git.resolve_remote(address, ref)
        assert (commit.sha, commit.branch, commit.ref, commit.pushed, commit.repo) == (
            sha, branch, shown, True, address,
        ), ref  # fmt: skip
        git.export(commit, address, tmp_path / "out-{}".format(str(ref).replace("/", "-")))
    assert files_of(tmp_path / "out-feature-login") == {"a.txt": b"2\n", "b.txt": b"login\n"}
    assert files_of(tmp_path / "out-HEAD~2") == {"a.txt": b"1\n"}


def test_only_what_is_needed_is_fetched_and_only_once(address: str) -> None:
    said: list[str] = []
    git.resolve_remote(address, "main", say=said.append)
    assert said == [f"fetching from {address}"]
    assert cached_commits(address) == 1
    git.resolve_remote(address, "main", say=said.append)
    assert len(said) == 1
    git.resolve_remote(address, "main~2", say=said.append)
    assert cached_commits(address) == 3


def test_a_branch_that_moved_is_fetched_again(shop: Repo, address: str, tmp_path: Path) -> None:
    before = git.resolve_remote(address, "main")
    after = shop.commit("a.txt", "new\n")
    shop.git("push", "-q", "-f", str(tmp_path / "served" / "shop.git"), "main")
    assert git.resolve_remote(address, "main").sha == after
    shop.git("reset", "-q", "--hard", before.sha)
    shop.git("commit", "-q", "--amend", "-m", "rewritten")
    shop.git("push", "-q", "-f", str(tmp_path / "served" / "shop.git"), "main")
    assert git.resolve_remote(address, "main").subject == "rewritten"


def test_a_branch_that_takes_the_place_of_a_folder_of_branches(shop: Repo, address: str, tmp_path: Path) -> None:
    served = str(tmp_path / "served" / "shop.git")
    git.resolve_remote(address, "feature/login")
    git.resolve_remote(address, shop.sha("main~3")[:9])
    shop.git("push", "-q", served, ":feature/login")
    shop.git("push", "-q", served, "main:refs/heads/feature")
    assert git.resolve_remote(address, "feature").sha == shop.sha("main")
    second = shop.commit("a.txt", "more\n")
    shop.git("push", "-q", served, "main:refs/heads/feature")
    assert git.resolve_remote(address, second[:9]).sha == second


def test_a_branch_wins_over_a_tag_and_it_is_said(shop: Repo, address: str, tmp_path: Path) -> None:
    shop.git("push", "-q", str(tmp_path / "served" / "shop.git"), "main~1:refs/tags/main")
    said: list[str] = []
    assert git.resolve_remote(address, "main", say=said.append).sha == shop.sha("refs/heads/main")
    assert said[0] == "main is a branch and a tag: the branch is taken (the tag is refs/tags/main)"
    assert git.resolve_remote(address, "refs/tags/main").sha == shop.sha("main~1")


@pytest.mark.parametrize("ref", ["featur/login", "login", "v1", "0123abcd", "f" * 40, "main~99", "refs/pull/6/head"])
def test_an_unknown_ref_names_near_branches(address: str, ref: str) -> None:
    with pytest.raises((InvalidInput, Unreachable)) as raised:
        git.resolve_remote(address, ref)
    assert "names no commit" in raised.value.what
    if "login" in ref:
        assert "feature/login" in raised.value.why


@pytest.mark.parametrize("ref", ["--upload-pack=x", "main:a.txt", "@{-1}", "main*", "a..b"])
def test_what_cannot_be_a_ref_elsewhere_is_refused_before_any_connection(ref: str) -> None:
    with pytest.raises(InvalidInput):
        git.resolve_remote("git://127.0.0.1:1/none.git", ref)


def test_nobody_there_is_unreachable_in_gits_own_words() -> None:
    with pytest.raises(Unreachable) as raised:
        git.resolve_remote("git://127.0.0.1:1/none.git", "main")
    assert "Connection refused" in raised.value.why


def test_no_such_repository_is_unreachable(address: str) -> None:
    with pytest.raises(Unreachable):
        git.resolve_remote(address.replace("shop", "none"), "main")


def test_a_silent_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.source.command.NETWORK_TIMEOUT", 1.0)
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        with pytest.raises(Unreachable, match="took longer than 1 s"):
            git.resolve_remote(f"git://127.0.0.1:{server.getsockname()[1]}/x.git", "main")


def test_a_broken_half_of_a_cache_is_made_whole(shop: Repo, address: str) -> None:
    place = remote.cache_of(Address(address)).git_dir
    (place / "HEAD").unlink()
    assert git.resolve_remote(address, "main").sha == shop.sha("main")


def test_many_at_once_share_one_cache(shop: Repo, address: str) -> None:
    refs = ["main", "feature/login", "v1.0", "light", "main~1", shop.sha("main~2")[:10], "HEAD", "refs/pull/5/head"]
    with ThreadPoolExecutor(8) as threads:
        commits = list(threads.map(lambda ref: git.resolve_remote(address, ref), refs))
    assert [commit.sha for commit in commits] == [shop.sha(ref) for ref in refs]


def test_ssh_and_its_program_is_the_users_own(shop: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program that plays ssh runs what the server would: `git-upload-pack 'path'`."""
    ssh_program = tmp_path / "ssh"
    ssh_program.write_text('#!/bin/sh\nfor last; do :; done\nexec sh -c "$last"\n')
    ssh_program.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh_program))
    monkeypatch.setenv("GIT_SSH_VARIANT", "simple")
    for address in (
        f"ssh://git@host.example{tmp_path}/served/shop.git",
        f"git@host.example:{tmp_path}/served/shop.git",
    ):
        commit = git.resolve_remote(address, "feature/login")
        assert (commit.sha, commit.repo) == (shop.sha("feature/login"), address)


# https with credentials


class _Server(http.server.BaseHTTPRequestHandler):
    """git http-backend behind Basic authentication."""

    root: Path
    expected: str
    seen: list[str]

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        self.seen.append(self.headers.get("Authorization", ""))
        if self.headers.get("Authorization") != self.expected:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="test"')
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            timeout=60,
            check=True,
            env={
                **os.environ,
                "GIT_PROJECT_ROOT": str(self.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": self.command,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            },
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def https(shop: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, type[_Server]]]:
    """The host and port of an https server with `shop.git`, and its handler."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    monkeypatch.setenv("GIT_SSL_CAINFO", str(certificate))
    handler = type("Handler", (_Server,), {
        "root": tmp_path / "served",
        "expected": "Basic " + base64.b64encode(b"dana:s3cr3t").decode(),
        "seen": [],
    })  # fmt: skip
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"localhost:{server.server_port}", handler
    server.shutdown()
    server.server_close()


def test_credentials_reach_the_server_and_nothing_else(
    https: tuple[str, type[_Server]], shop: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    host, handler = https
    started: list[list[str]] = []
    popen = subprocess.Popen

    def record(arguments: list[str], **options: Any) -> Any:
        started.append(arguments)
        return popen(arguments, **options)

    monkeypatch.setattr("sandbox.source.command.subprocess.Popen", record)
    address = f"https://dana:s3cr3t@{host}/shop.git"
    said: list[str] = []
    commit = git.resolve_remote(address, "feature/login", say=said.append)
    git.export(commit, address, tmp_path / "out")
    assert commit.sha == shop.sha("feature/login")
    assert commit.repo == f"https://{host}/shop.git"
    assert handler.expected in handler.seen
    everything = [*(" ".join(arguments) for arguments in started), *said, repr(commit)]
    everything += [path.read_text(errors="replace") for path in home.rglob("*") if path.is_file()]
    assert not any("s3cr3t" in text or handler.expected in text for text in everything)


def test_wrong_credentials_are_unreachable_and_not_told(https: tuple[str, type[_Server]]) -> None:
    host, _ = https
    with pytest.raises(Unreachable) as raised:
        git.resolve_remote(f"https://dana:wr0ng@{host}/shop.git", "main")
    assert raised.value.hint.startswith("the credentials in the address were refused")
    assert "wr0ng" not in f"{raised.value.what} {raised.value.why} {raised.value.hint}"


def test_the_users_credential_helper_is_used(https: tuple[str, type[_Server]], shop: Repo, home: Path) -> None:
    host, _ = https
    (home / ".git-credentials").write_text(f"https://dana:s3cr3t@{host}\n")
    (home / ".gitconfig").write_text("[credential]\n\thelper = store\n")
    assert git.resolve_remote(f"https://{host}/shop.git", "main").sha == shop.sha("main")


def test_nobody_is_asked_for_a_password(https: tuple[str, type[_Server]]) -> None:
    host, _ = https
    with pytest.raises(Unreachable) as raised:
        git.resolve_remote(f"https://{host}/shop.git", "main")
    assert "terminal prompts disabled" in raised.value.why
    assert "git ls-remote" in raised.value.hint


# Several repositories


def project(sources: Mapping[str, dict[str, str] | None]) -> Project:
    return Project.model_validate(
        {
            "apiVersion": "sandbox.dev/v1",
            "project": "shop",
            "services": {
                name: {"chart": {"path": "chart"}} | ({"source": source} if source else {})
                for name, source in sources.items()
            },
        },
        strict=False,
    )


def own_commit(repo: str) -> Commit:
    from datetime import UTC, datetime

    return Commit(repo, "main", "main", "0" * 40, "Dana <d@example.com>", "own", datetime.now(UTC))


def test_services_of_several_repositories(shop: Repo, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, str | None]] = []
    real: Callable[..., Commit] = git.resolve_remote

    def count(url: str, ref: str | None, **options: Any) -> Commit:
        calls.append((url, ref))
        return real(url, ref, **options)

    monkeypatch.setattr("sandbox.source.manifest.resolve_remote", count)
    own = own_commit(address.replace("shop.git", "web.git"))
    commits = resolve_sources(
        project(
            {
                "web": None,
                "orders": {"repo": address},
                "catalogue": {"repo": "../shop.git", "ref": "v1.0"},
                "cart": {"repo": address, "ref": "v1.0"},
                "mailer": {"repo": address, "ref": "main"},
            }
        ),
        own,
        refs={"mailer": "feature/login"},
    )
    assert {name: commit.sha for name, commit in commits.items()} == {
        "web": own.sha,
        "orders": shop.sha("main"),
        "catalogue": shop.sha("v1.0"),
        "cart": shop.sha("v1.0"),
        "mailer": shop.sha("feature/login"),
    }
    # `../shop.git` beside `…/web.git` is the same repository as the absolute address.
    assert sorted(calls, key=str) == [(address, "feature/login"), (address, "v1.0"), (address, None)]


def test_one_repository_that_cannot_be_read_fails_all(address: str) -> None:
    with pytest.raises(Unreachable):
        resolve_sources(project({"a": {"repo": address}, "b": {"repo": "git://127.0.0.1:1/x"}}), own_commit(address))


def test_a_project_from_elsewhere_cannot_name_paths_of_this_machine(tmp_path: Path) -> None:
    stranger = project({"a": {"repo": f"file://{tmp_path}/private"}})
    with pytest.raises(Refused, match="a path of this machine"):
        origins(stranger, "https://git.example/x.git")
    assert origins(stranger, str(tmp_path / "web")) == {"a": Origin(f"file://{tmp_path}/private", None)}
    assert origins(project({"a": {"repo": "../orders"}}), "/srv/git/web") == {"a": Origin("/srv/git/orders", None)}
    with pytest.raises(Refused):
        origins(project({"a": {"repo": "ext::sh -c id"}}), "/srv/git/web")
