"""Repositories that try to run something, to read something else, or to write elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.model.errors import InvalidInput, OperationFailed, Refused, SandboxError
from sandbox.source import git, tree
from tests.unit.git_repositories import Repo, files_of


@pytest.fixture(autouse=True)
def kubeconfig(home: Path) -> Path:
    """What a hostile repository is after."""
    file = home / "kubeconfig"
    file.write_text("secret\n")
    return file


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = Repo(tmp_path / "hostile")
    repo.commit("a.txt", "one\n")
    return repo


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


class Trap:
    """A program that leaves a mark when anything runs it."""

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "was-run"
        self.program = folder / "trap"
        self.program.write_text(f'#!/bin/sh\necho "$0 $*" >> {self.mark}\ncat\n')
        self.program.chmod(0o755)

    def was_run(self) -> str:
        return self.mark.read_text() if self.mark.exists() else ""


def use_everything(repo: Repo, tmp_path: Path) -> None:
    """All that is done with a repository of this machine; refusals are fine, running something is not."""
    steps: list[Callable[[], object]] = [
        lambda: git.repository_root(repo.folder),
        lambda: git.current_branch(repo.folder),
        lambda: git.branches(repo.folder),
        lambda: git.resolve(repo.folder, None),
        lambda: git.resolve(repo.folder, "main~0"),
        lambda: git.resolve(repo.folder, "no-such-ref"),
        lambda: git.resolve(repo.folder, "12" * 20),
        lambda: git.resolve_remote(f"file://{repo.folder}", "main"),
        lambda: git.export(git.resolve(repo.folder, "main"), repo.folder, tmp_path / "clean"),
        lambda: git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "dirty", dirty=True),
    ]
    for step in steps:
        try:
            step()
        except SandboxError:
            continue


# What a repository's configuration and attributes can name, and what would run it.
SETTINGS = [
    "core.fsmonitor",
    "core.sshCommand",
    "core.askPass",
    "core.editor",
    "core.pager",
    "pager.for-each-ref",
    "pager.rev-parse",
    "core.gitProxy",
    "core.alternateRefsCommand",
    "diff.external",
    "diff.evil.textconv",
    "diff.evil.command",
    "filter.evil.clean",
    "filter.evil.smudge",
    "filter.evil.process",
    "merge.evil.driver",
    "gpg.program",
    "credential.helper",
    "uploadpack.packObjectsHook",
    "remote.origin.uploadpack",
    "alias.rev-parse",
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_program_of_the_configuration_runs(repo: Repo, tmp_path: Path, trap: Trap, setting: str) -> None:
    repo.commit(".gitattributes", "* filter=evil diff=evil merge=evil\n")
    repo.git("config", "log.showSignature", "true")
    repo.git("config", "filter.evil.required", "true")
    repo.git("remote", "add", "origin", f"file://{tmp_path}/nowhere")
    # Without a cached size, git has to read the files again, through the filters.
    repo.write("a.txt", "two\n")
    repo.write("new.txt")
    repo.git("config", setting, str(trap.program))
    use_everything(repo, tmp_path)
    assert trap.was_run() == ""


def test_the_traps_would_work(repo: Repo, trap: Trap) -> None:
    """Else the test above would prove nothing."""
    repo.commit(".gitattributes", "* filter=evil diff=evil\n")
    for setting in ("core.fsmonitor", "filter.evil.clean", "diff.evil.textconv"):
        repo.write("a.txt", f"{setting}\n")
        repo.git("config", setting, str(trap.program))
        repo.git("diff")
        assert trap.was_run(), setting
        trap.mark.unlink()
        repo.git("config", "--unset", setting)


def test_no_hook_runs(repo: Repo, tmp_path: Path, trap: Trap) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for folder in (hooks, repo.folder / ".git" / "hooks"):
        folder.mkdir(exist_ok=True)
        for name in (
            "post-checkout",
            "post-index-change",
            "reference-transaction",
            "pre-auto-gc",
            "fsmonitor-watchman",
        ):
            (folder / name).write_text(trap.program.read_text())
            (folder / name).chmod(0o755)
    use_everything(repo, tmp_path)
    repo.git("config", "core.hooksPath", str(hooks))
    use_everything(repo, tmp_path)
    assert trap.was_run() == ""


def test_configuration_that_is_included_does_not_count_either(repo: Repo, tmp_path: Path, trap: Trap) -> None:
    (tmp_path / "included").write_text(
        f'[core]\n\tfsmonitor = {trap.program}\n[filter "evil"]\n\tclean = {trap.program}\n'
    )
    with (repo.folder / ".git" / "config").open("a") as file:
        file.write(f'[include]\n\tpath = {tmp_path}/included\n[includeIf "gitdir:/"]\n\tpath = {tmp_path}/included\n')
    repo.write(".gitattributes", "* filter=evil\n")
    use_everything(repo, tmp_path)
    assert trap.was_run() == ""


def test_a_promisor_remote_is_not_asked_for_what_is_missing(repo: Repo, tmp_path: Path, trap: Trap) -> None:
    """A partial clone fetches missing objects whenever it reads one, through programs that its configuration names."""
    blob = repo.git("rev-parse", "HEAD:a.txt")
    (repo.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    for setting, value in {
        "core.repositoryFormatVersion": "1",
        "extensions.partialClone": "origin",
        "remote.origin.url": f"ssh://localhost{repo.folder}",
        "remote.origin.promisor": "true",
        "core.sshCommand": str(trap.program),
        "protocol.ext.allow": "always",
    }.items():
        repo.git("config", setting, value)
    use_everything(repo, tmp_path)
    repo.git("config", "remote.origin.url", f"ext::{trap.program}")
    use_everything(repo, tmp_path)
    assert trap.was_run() == ""


def test_a_submodules_configuration_does_not_run(repo: Repo, tmp_path: Path, trap: Trap) -> None:
    part = Repo(tmp_path / "part")
    part.commit()
    repo.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(part.folder), "part")
    repo.git("commit", "-q", "-m", "with a submodule")
    inner = Repo.__new__(Repo)
    inner.folder = repo.folder / "part"
    inner.git("config", "core.fsmonitor", str(trap.program))
    (inner.folder / "file.txt").write_text("changed\n")
    use_everything(repo, tmp_path)
    assert trap.was_run() == ""
    assert (tmp_path / "clean" / "part").is_dir()
    assert files_of(tmp_path / "clean" / "part") == {}


def test_a_nested_repository_is_neither_run_nor_taken(repo: Repo, tmp_path: Path, trap: Trap) -> None:
    inner = Repo(repo.folder / "inner")
    inner.commit("inner.txt")
    inner.git("config", "core.fsmonitor", str(trap.program))
    use_everything(repo, tmp_path)
    assert trap.was_run() == ""
    assert files_of(tmp_path / "dirty") == {"a.txt": b"one\n"}


def test_a_work_tree_that_is_elsewhere_is_refused(repo: Repo, home: Path) -> None:
    """Else the home of whoever unpacked it would be deployed."""
    inside = Repo(home / "unpacked")
    inside.commit()
    inside.git("config", "core.worktree", str(home))
    with pytest.raises(InvalidInput, match="work tree is elsewhere"):
        git.resolve(inside.folder, None)


def test_attributes_change_nothing_in_an_export(repo: Repo, tmp_path: Path) -> None:
    content = b"$Format:%H$ $Id$\r\nline\r\n"
    attributes = b"subst.txt export-subst ident text eol=lf\nwide.txt working-tree-encoding=UTF-16\n* export-ignore\n"
    files = {".gitattributes": attributes, "subst.txt": content, "wide.txt": b"wide\n"}
    commit = repo.commit_tree([("100644", repo.blob(data), name) for name, data in files.items()])
    git.export(git.resolve(repo.folder, commit), repo.folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == files


def test_replacement_objects_do_not_count(repo: Repo, tmp_path: Path) -> None:
    first = repo.sha()
    second = repo.commit("a.txt", "two\n")
    repo.git("replace", first, second)
    git.export(git.resolve(repo.folder, "HEAD~1"), repo.folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == {"a.txt": b"one\n"}


# Trees that no `git add` makes


def hostile_commit(repo: Repo, entries: list[tuple[str, str, str]]) -> None:
    repo.git("update-ref", "refs/heads/hostile", repo.commit_tree(entries))


def assert_refused(repo: Repo, tmp_path: Path, match: str) -> None:
    before = files_of(tmp_path)
    with pytest.raises((Refused, OperationFailed), match=match):
        git.export(git.resolve(repo.folder, "hostile"), repo.folder, tmp_path / "deep" / "out")
    assert {k: v for k, v in files_of(tmp_path).items() if not k.startswith("hostile/.git/")} == {
        k: v for k, v in before.items() if not k.startswith("hostile/.git/")
    }


@pytest.mark.parametrize("name", ["..", ".", ".git", ".GIT", ".git.", ".git ", "git~1", "GIT~2", ".g\u200cit"])
def test_names_that_climb_or_aim_at_git_are_refused(repo: Repo, tmp_path: Path, name: str) -> None:
    hook = repo.blob(b"#!/bin/sh\n")
    hostile_commit(repo, [("100755", hook, name)])
    assert_refused(repo, tmp_path, "which no checkout may have")
    inner = repo.git(
        "hash-object", "-t", "tree", "-w", "--literally", "--stdin",
        stdin=b"100755 post-checkout\0" + bytes.fromhex(hook),
    )  # fmt: skip
    hostile_commit(repo, [("40000", inner, name)])
    assert_refused(repo, tmp_path, "which no checkout may have")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", ".git/hooks/post-checkout", "a//b"])
def test_names_with_slashes_in_them_are_refused(repo: Repo, tmp_path: Path, name: str) -> None:
    hostile_commit(repo, [("100644", repo.blob(b"x"), name)])
    assert_refused(repo, tmp_path, "which no checkout may have")


@pytest.mark.parametrize(
    "links",
    [
        {"out": "/etc/passwd"},
        {"out": "../x"},
        {"a/b": "../../x"},
        {"loop": "."},  # fine by itself, see below
        {"deep/root": "..", "deep/out": "root/.."},
        {"p/q/x": "../..", "y": "p/q/x/.."},
        {"home": "~", "out": "../../../../../../../../../../home"},
        {"one": "two", "two": "../three"},
    ],
    ids=lambda links: ",".join(links),
)
def test_symbolic_links_out_of_the_tree_are_refused(repo: Repo, tmp_path: Path, links: dict[str, str]) -> None:
    for path, target in links.items():
        (repo.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (repo.folder / path).symlink_to(target)
    repo.git("checkout", "-q", "-b", "hostile")
    repo.git("add", "-A")
    repo.git("commit", "-q", "-m", "links")
    if "loop" in links:
        git.export(git.resolve(repo.folder, "hostile"), repo.folder, tmp_path / "out")
        return
    assert_refused(repo, tmp_path, "leads out of the repository")


def test_a_dirty_tree_with_a_link_out_of_it_is_refused(repo: Repo, tmp_path: Path, home: Path) -> None:
    (repo.folder / "config").symlink_to(home / "kubeconfig")
    with pytest.raises(Refused, match="leads out of the repository"):
        git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out", dirty=True)
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_through_a_link(repo: Repo, tmp_path: Path) -> None:
    """A tree with a link and a folder of one name: written in order, the file would land where the link leads."""
    link, file = repo.blob(str(tmp_path).encode()), repo.blob(b"written through a link")
    inner = repo.git(
        "hash-object", "-t", "tree", "-w", "--literally", "--stdin", stdin=b"100644 owned\0" + bytes.fromhex(file)
    )
    for entries in (
        [("120000", link, "x"), ("40000", inner, "x")],
        [("40000", inner, "x"), ("120000", link, "x")],
        [("120000", link, "x"), ("100644", file, "x")],
        [("100644", file, "x"), ("40000", inner, "x")],
        [("100644", file, "x"), ("100644", file, "x")],
        [("160000", repo.sha(), "x"), ("120000", link, "x")],
    ):
        hostile_commit(repo, entries)
        assert_refused(repo, tmp_path, "the tree has")


@pytest.mark.parametrize("target", [b"", b"a\0b", b"x" * 5000])
def test_links_without_a_possible_target_are_refused(repo: Repo, tmp_path: Path, target: bytes) -> None:
    hostile_commit(repo, [("120000", repo.blob(target), "x")])
    assert_refused(repo, tmp_path, "no possible target")


def test_trees_that_never_end_are_refused_in_time(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten trees, each holding the one before ten times: ten thousand million files."""
    monkeypatch.setattr(tree, "MOST_FILES", 20_000)
    inner, mode = repo.blob(b"x"), "100644"
    for _ in range(10):
        entries = b"".join(f"{mode} f{n}".encode() + b"\0" + bytes.fromhex(inner) for n in range(10))
        inner, mode = repo.git("hash-object", "-t", "tree", "-w", "--stdin", stdin=entries), "40000"
    hostile_commit(repo, [("40000", inner, "bomb")])
    assert_refused(repo, tmp_path, "too large to deploy")


def test_large_files_are_refused_before_they_are_written(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree, "MOST_BYTES", 10_000)
    repo.git("checkout", "-q", "-b", "hostile")
    repo.commit("zeros", b"\0" * 10_001)
    assert_refused(repo, tmp_path, "too large to deploy")


def test_names_that_the_disk_cannot_hold_are_an_error(repo: Repo, tmp_path: Path) -> None:
    hostile_commit(repo, [("100644", repo.blob(b"x"), "n" * 300)])
    assert_refused(repo, tmp_path, "cannot be written")


def test_a_tree_as_a_blob_is_an_error(repo: Repo, tmp_path: Path) -> None:
    hostile_commit(repo, [("100644", repo.git("rev-parse", "HEAD^{tree}"), "x")])
    assert_refused(repo, tmp_path, "cannot be read")


# What is allowed by name


def test_a_filter_runs_only_when_allowed_and_from_the_users_own_configuration(
    repo: Repo, tmp_path: Path, home: Path, trap: Trap
) -> None:
    repo.commit("a.enc", "uryyb\n")
    repo.commit(".gitattributes", "*.enc filter=rot13\n")
    repo.git("config", "filter.rot13.smudge", str(trap.program))
    repo.git("config", "filter.rot13.process", str(trap.program))
    commit = git.resolve(repo.folder, "main")
    with pytest.raises(InvalidInput, match=r"no filter\.rot13\.smudge"):
        git.export(commit, repo.folder, tmp_path / "none", allow=frozenset({"filter:rot13"}))
    (home / ".gitconfig").write_text('[filter "rot13"]\n\tsmudge = tr a-z n-za-m\n')
    git.export(commit, repo.folder, tmp_path / "without")
    git.export(commit, repo.folder, tmp_path / "with", allow=frozenset({"filter:rot13"}))
    assert (tmp_path / "without" / "a.enc").read_text() == "uryyb\n"
    assert (tmp_path / "with" / "a.enc").read_text() == "hello\n"
    assert (tmp_path / "with" / "a.txt").read_text() == "one\n"
    assert trap.was_run() == ""


def test_a_submodule_is_written_only_when_allowed(repo: Repo, tmp_path: Path) -> None:
    part = Repo(tmp_path / "part")
    part.commit("inner.txt", "inner\n")
    repo.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(part.folder), "libs/part")
    repo.git("commit", "-q", "-m", "with a submodule")
    part.commit("later.txt")
    commit = git.resolve(repo.folder, None)
    said: list[str] = []
    git.export(commit, repo.folder, tmp_path / "without", say=said.append)
    assert said == ["the submodule libs/part is not allowed (submodule:libs/part) and stays empty"]
    assert (tmp_path / "without" / "libs" / "part").is_dir()
    git.export(commit, repo.folder, tmp_path / "with", allow=frozenset({"submodule:libs/part"}))
    assert files_of(tmp_path / "with" / "libs") == {"part/inner.txt": b"inner\n"}
