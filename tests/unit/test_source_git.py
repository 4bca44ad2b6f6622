"""Refs to commits, and commits to files, in repositories of this machine."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sandbox.model.errors import InvalidInput, OperationFailed, Refused, SandboxError
from sandbox.source import command, git
from sandbox.source.command import OBJECTS, GitFailed, in_thread, run_git
from tests.unit.git_repositories import Repo, files_of

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture
def repo(tmp_path: Path) -> Repo:
    repo = Repo(tmp_path / "shop")
    repo.commit("a.txt", "one\n", "First")
    repo.commit("b/c.txt", "two\n", "Second\n\nwith a body")
    return repo


def say_into(lines: list[str]) -> git.Say:
    return lines.append


# Resolving


def test_the_checked_out_branch_is_the_default(repo: Repo) -> None:
    commit = git.resolve(repo.folder / "b", None)
    assert (commit.sha, commit.ref, commit.branch) == (repo.sha(), "main", "main")
    assert (commit.author, commit.subject) == ("Dana Doe <dana@example.com>", "Second")
    assert abs((datetime.now(UTC) - commit.committed_at).total_seconds()) < 600
    assert (commit.dirty, commit.patch, commit.changed_files) == (False, None, ())
    assert commit.repo == str(repo.folder)


def test_every_kind_of_ref(repo: Repo) -> None:
    first, second = repo.sha("HEAD~1"), repo.sha()
    repo.git("branch", "feature/login", first)
    repo.git("tag", "light", first)
    repo.git("tag", "-a", "-m", "a release", "v1.0", first)
    repo.git("update-ref", "refs/pull/7/head", first)
    repo.git("update-ref", "refs/remotes/origin/other", first)
    expected = {
        "main": (second, "main"),
        "feature/login": (first, "feature/login"),
        "refs/heads/feature/login": (first, "feature/login"),
        "light": (first, None),
        "v1.0": (first, None),
        "refs/tags/v1.0": (first, None),
        "HEAD": (second, None),
        "@": (second, None),
        "HEAD~1": (first, None),
        "main^": (first, None),
        "main~1^{commit}": (first, None),
        ":/First": (first, None),
        "v1.0^{commit}": (first, None),
        first: (first, None),
        first[:7]: (first, None),
        "refs/pull/7/head": (first, None),
        "origin/other": (first, "other"),
        "refs/remotes/origin/other": (first, None),
        "main@{0}": (second, None),
    }
    for ref, (sha, branch) in expected.items():
        commit = git.resolve(repo.folder, ref)
        assert (commit.sha, commit.branch, commit.ref) == (sha, branch, ref), ref


def test_a_branch_wins_over_a_tag_and_it_is_said(repo: Repo) -> None:
    repo.git("tag", "both", "HEAD~1")
    repo.git("branch", "both", "HEAD")
    said: list[str] = []
    commit = git.resolve(repo.folder, "both", say=say_into(said))
    assert (commit.sha, commit.branch) == (repo.sha(), "both")
    assert said == ["both is a branch and a tag: the branch is taken (the tag is refs/tags/both)"]


def test_a_branch_that_only_the_remote_has_is_found_and_said(repo: Repo) -> None:
    repo.git("update-ref", "refs/remotes/origin/elsewhere", "HEAD~1")
    said: list[str] = []
    commit = git.resolve(repo.folder, "elsewhere", say=say_into(said))
    assert (commit.sha, commit.branch) == (repo.sha("HEAD~1"), "elsewhere")
    assert "origin/elsewhere is taken" in said[0]


def test_an_unknown_ref_names_the_near_ones(repo: Repo) -> None:
    repo.git("branch", "feature/checkout")
    repo.git("branch", "unrelated")
    with pytest.raises(InvalidInput) as raised:
        git.resolve(repo.folder, "chekout")
    assert raised.value.what.startswith("'chekout' names no commit")
    assert "feature/checkout" in raised.value.why
    assert "unrelated" not in raised.value.why


@pytest.mark.parametrize(
    "ref",
    ["--upload-pack=touch /tmp/x", "-h", "", "  ", "main\nmain", "a\0b", "main..other", "HEAD...main", "x" * 2000],
)
def test_what_cannot_be_a_ref_is_refused(repo: Repo, ref: str) -> None:
    with pytest.raises(InvalidInput):
        git.resolve(repo.folder, ref)
    with pytest.raises(InvalidInput):
        git.resolve_remote(str(repo.folder), ref)


@pytest.mark.parametrize("ref", ["HEAD:a.txt", "HEAD^{tree}", "HEAD~99", "0" * 40, "deadbeef", "no such", "main:"])
def test_what_is_no_commit_is_refused(repo: Repo, ref: str) -> None:
    with pytest.raises(InvalidInput, match="names no commit"):
        git.resolve(repo.folder, ref)


def test_an_ambiguous_short_sha_is_refused_in_gits_own_words(repo: Repo) -> None:
    seen: dict[str, str] = {}
    for number in range(2000):
        sha = repo.git("commit-tree", "HEAD^{tree}", "-m", str(number))
        if sha[:4] in seen:
            break
        seen[sha[:4]] = sha
    with pytest.raises(InvalidInput) as raised:
        git.resolve(repo.folder, sha[:4])
    assert "ambiguous" in raised.value.why


def test_a_detached_head_has_no_branch(repo: Repo) -> None:
    repo.git("checkout", "-q", "--detach", "HEAD~1")
    commit = git.resolve(repo.folder, None)
    assert (commit.branch, commit.ref) == (None, commit.sha[:12])
    assert git.current_branch(repo.folder) is None


def test_an_empty_repository_says_so(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "empty")
    for ref in (None, "main"):
        with pytest.raises(InvalidInput, match=r"has no commit|names no commit"):
            git.resolve(repo.folder, ref)
    assert git.current_branch(repo.folder) == "main"
    assert git.branches(repo.folder) == []


def test_no_repository_says_so(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as raised:
        git.resolve(tmp_path, None)
    assert "is not in a git repository" in raised.value.what
    assert "--repo" in raised.value.hint
    with pytest.raises(InvalidInput):
        git.repository_root(tmp_path / "nowhere" / "file")


def test_the_root_from_any_folder_and_file(repo: Repo) -> None:
    for path in (repo.folder, repo.folder / "b", repo.folder / "b" / "c.txt"):
        assert git.repository_root(path) == repo.folder


def test_work_trees_of_one_repository(repo: Repo, tmp_path: Path) -> None:
    repo.git("worktree", "add", "-q", "-b", "second", str(tmp_path / "second"), "HEAD~1")
    (tmp_path / "second" / "new.txt").write_text("new\n")
    commit = git.resolve(tmp_path / "second", None)
    assert (commit.branch, commit.sha, commit.changed_files) == ("second", repo.sha("HEAD~1"), ("new.txt",))
    assert git.repository_root(tmp_path / "second") == tmp_path / "second"
    exported = git.export(commit, tmp_path / "second", tmp_path / "out", dirty=True)
    assert files_of(tmp_path / "out") == {"a.txt": b"one\n", "new.txt": b"new\n"}
    assert exported.dirty
    assert git.resolve(repo.folder, None).changed_files == ()


def test_a_submodules_folder_is_its_own_repository(repo: Repo, tmp_path: Path) -> None:
    outer = Repo(tmp_path / "outer")
    outer.commit()
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(repo.folder), "part")
    outer.git("commit", "-q", "-m", "with a submodule")
    assert git.repository_root(outer.folder / "part") == outer.folder / "part"
    assert git.resolve(outer.folder / "part", None).sha == repo.sha()


def test_the_variables_of_a_running_hook_do_not_count(
    repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Repo(tmp_path / "other")
    other.commit()
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "no-index"))
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    assert git.resolve(repo.folder, None).repo == str(repo.folder)
    assert git.repository_root(repo.folder) == repo.folder


def test_branches_lists_local_ones_first(repo: Repo) -> None:
    repo.git("branch", "b")
    repo.git("update-ref", "refs/remotes/origin/a", "HEAD")
    repo.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/a")
    assert git.branches(repo.folder) == ["b", "main", "origin/a"]


def test_pushed_or_not(repo: Repo, tmp_path: Path) -> None:
    assert git.resolve(repo.folder, None).pushed is None
    clone = Repo.clone(repo.folder, tmp_path / "clone")
    assert git.resolve(clone.folder, None).pushed is True
    clone.commit("new.txt")
    assert git.resolve(clone.folder, None).pushed is False
    clone.git("push", "-q", "origin", "HEAD:refs/heads/feature")
    assert git.resolve(clone.folder, None).pushed is True


def test_the_remotes_address_is_recorded_without_credentials(repo: Repo) -> None:
    repo.git("remote", "add", "upstream", "https://other.example/x.git")
    repo.git("remote", "add", "origin", "https://dana:s3cret@git.example/acme/shop.git?token=hidden")
    assert git.resolve(repo.folder, None).repo == "https://git.example/acme/shop.git"


def test_a_shallow_clone(repo: Repo, tmp_path: Path) -> None:
    clone = Repo.clone(f"file://{repo.folder}", tmp_path / "clone", "--depth=1")
    commit = git.resolve(clone.folder, None)
    assert (commit.sha, commit.pushed) == (repo.sha(), True)
    git.export(commit, clone.folder, tmp_path / "out")
    assert set(files_of(tmp_path / "out")) == {"a.txt", "b/c.txt"}
    with pytest.raises(InvalidInput) as raised:
        git.resolve(clone.folder, "HEAD~1")
    assert "--unshallow" in raised.value.hint


def test_a_partial_clone_says_what_is_missing(repo: Repo, tmp_path: Path) -> None:
    repo.git("config", "uploadpack.allowFilter", "true")
    clone = Repo.clone(f"file://{repo.folder}", tmp_path / "clone", "--filter=blob:none", "--no-checkout")
    with pytest.raises(OperationFailed) as raised:
        git.export(git.resolve(clone.folder, "main"), clone.folder, tmp_path / "out")
    assert "--refetch" in raised.value.hint
    assert not (tmp_path / "out").exists()


def test_a_sha256_repository(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "new", object_format="sha256")
    repo.commit("a.txt", "one\n")
    repo.write("b.txt", "two\n")
    commit = git.resolve(repo.folder, None)
    assert len(commit.sha) == 64
    exported = git.export(commit, repo.folder, tmp_path / "out", dirty=True)
    assert set(files_of(tmp_path / "out")) == {"a.txt", "b.txt"}
    assert exported.dirty


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a repository to another user")
def test_a_repository_of_somebody_else_gives_gits_words_and_the_remedy(repo: Repo) -> None:
    subprocess.run(["chown", "-R", "12345", str(repo.folder)], check=True, timeout=30)
    with pytest.raises(InvalidInput) as raised:
        git.resolve(repo.folder, None)
    assert "dubious ownership" in raised.value.why
    assert raised.value.hint == f"if you do: git config --global --add safe.directory {repo.folder}"
    subprocess.run(["git", "config", "--global", "--add", "safe.directory", str(repo.folder)], check=True, timeout=30)
    assert git.resolve(repo.folder, None).branch == "main"


# The work tree


def test_what_counts_as_changed(repo: Repo) -> None:
    repo.write(".gitignore", "*.log\n")
    repo.commit("gone.txt")
    repo.commit("same.txt", "same\n")
    repo.write("a.txt", "changed\n")
    repo.write("staged.txt")
    repo.git("add", "staged.txt")
    repo.write("new/näme.txt")
    repo.write("noise.log")
    (repo.folder / "gone.txt").unlink()
    # Touched, but the same: no change.
    os.utime(repo.folder / "same.txt", (1, 1))
    commit = git.resolve(repo.folder, None)
    assert commit.changed_files == ("a.txt", "gone.txt", "new/näme.txt", "staged.txt")
    assert not commit.dirty
    assert git.resolve(repo.folder, "main").changed_files == ()


def test_resolving_leaves_the_repository_as_it_is(repo: Repo, tmp_path: Path) -> None:
    repo.write("a.txt", "changed\n")
    repo.write("new.txt")
    before = {path: path.stat().st_mtime_ns for path in repo.folder.rglob("*")}
    git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out", dirty=True)
    assert {path: path.stat().st_mtime_ns for path in repo.folder.rglob("*")} == before


def test_a_change_of_the_second_of_the_commit_that_keeps_the_size_is_seen(repo: Repo) -> None:
    file, index = repo.folder / "a.txt", repo.folder / ".git" / "index"
    for number in range(20):
        repo.commit("a.txt", f"{number:02} committed")
        before = file.stat()
        repo.write("a.txt", f"{number:02} edited---")
        if int(before.st_ctime) == int(index.stat().st_mtime) == int(file.stat().st_ctime):
            break
    else:
        pytest.fail("a commit and an edit take longer than a second here")
    # Who looks in a later second must not believe the index, which says that nothing changed.
    while time.time() < int(before.st_ctime) + 1:
        time.sleep(0.02)

    assert git.resolve(repo.folder, None).changed_files == ("a.txt",)


def test_a_dirty_tree_is_exported_as_it_is_and_its_patch_leads_there(repo: Repo, tmp_path: Path) -> None:
    binary = bytes(range(256)) * 20
    repo.commit("picture.bin", binary)
    repo.commit("removed.txt")
    repo.write("picture.bin", binary[::-1])
    repo.write("untracked.bin", b"\0\1\2" * 100)
    repo.write("staged only.txt", "staged\n")
    repo.git("add", "staged only.txt")
    repo.write("a.txt", "changed without a line break at the end")
    (repo.folder / "removed.txt").unlink()
    (repo.folder / "run").write_text("#!/bin/sh\n")
    (repo.folder / "run").chmod(0o755)
    (repo.folder / "link").symlink_to("a.txt")
    (repo.folder / "b" / "line\nbreak").write_text("odd\n")
    repo.write(".gitignore", "ignored\n")
    repo.write("ignored")
    os.mkfifo(repo.folder / "pipe")

    commit = git.resolve(repo.folder, None)
    exported = git.export(commit, repo.folder, tmp_path / "out", dirty=True)
    (repo.folder / "pipe").unlink()
    expected = {
        name: content
        for name, content in files_of(repo.folder).items()
        if not name.startswith(".git/") and name != "ignored"
    }
    assert files_of(tmp_path / "out") == expected
    assert (tmp_path / "out" / "run").stat().st_mode & stat.S_IXUSR
    assert exported.dirty
    assert exported.sha == commit.sha
    assert "untracked.bin" in exported.changed_files

    clean = Repo.clone(repo.folder, tmp_path / "clean")
    assert exported.patch is not None
    clean.git("apply", "--binary", "-", stdin=exported.patch)
    assert {k: v for k, v in files_of(clean.folder).items() if not k.startswith(".git/")} == expected


def test_a_clean_tree_is_not_dirty_even_with_dirty(repo: Repo, tmp_path: Path) -> None:
    exported = git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out", dirty=True)
    assert (exported.dirty, exported.patch) == (False, None)
    assert set(files_of(tmp_path / "out")) == {"a.txt", "b/c.txt"}


def test_dirty_is_about_what_is_checked_out(repo: Repo, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="another commit"):
        git.export(git.resolve(repo.folder, "HEAD~1"), repo.folder, tmp_path / "out", dirty=True)


def test_an_unfinished_merge_is_refused(repo: Repo, tmp_path: Path) -> None:
    repo.git("checkout", "-q", "-b", "other")
    repo.commit("a.txt", "theirs\n")
    repo.git("checkout", "-q", "main")
    repo.commit("a.txt", "ours\n")
    with pytest.raises(AssertionError):
        repo.git("merge", "other")
    commit = git.resolve(repo.folder, None)
    assert "a.txt" in commit.changed_files
    with pytest.raises(Refused, match="in the middle of a merge"):
        git.export(commit, repo.folder, tmp_path / "out", dirty=True)


def test_too_much_that_is_untracked_is_refused(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.source.snapshot.MOST_CHANGED_BYTES", 1000)
    repo.write("dump.sql", "x" * 2000)
    with pytest.raises(Refused) as raised:
        git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out", dirty=True)
    assert "dump.sql" in raised.value.why


def test_the_users_own_ignore_file_counts(repo: Repo, home: Path) -> None:
    (home / ".gitconfig").write_text("[core]\n\texcludesFile = ~/ignored-by-me\n")
    (home / "ignored-by-me").write_text(".idea\n")
    repo.write(".idea/workspace.xml")
    assert git.resolve(repo.folder, None).changed_files == ()


def test_split_and_broken_indexes(repo: Repo, tmp_path: Path) -> None:
    repo.git("update-index", "--split-index")
    repo.write("a.txt", "changed\n")
    assert git.resolve(repo.folder, None).changed_files == ("a.txt",)
    (repo.folder / ".git" / "index").write_bytes(b"no index at all")
    assert git.resolve(repo.folder, None).changed_files == ("a.txt",)
    (repo.folder / ".git" / "index").unlink()
    os.mkfifo(repo.folder / ".git" / "index")
    with pytest.raises(SandboxError):
        # git itself would wait for the pipe for ever: whatever is said, it is said in time.
        run_git(["status"], OBJECTS, folder=repo.folder, timeout=1)
    assert git.resolve(repo.folder, None).changed_files == ("a.txt",)


def test_a_sparse_work_tree_does_not_count_as_deleted(repo: Repo) -> None:
    repo.git("sparse-checkout", "set", "b")
    repo.write("b/c.txt", "changed\n")
    assert git.resolve(repo.folder, None).changed_files == ("b/c.txt",)


# Exporting


def test_export_writes_the_commit_and_not_the_work_tree(repo: Repo, tmp_path: Path) -> None:
    repo.write("a.txt", "changed\n")
    commit = git.resolve(repo.folder, "HEAD~1")
    assert git.export(commit, repo.folder, tmp_path / "out") == commit
    assert files_of(tmp_path / "out") == {"a.txt": b"one\n"}


def test_export_from_a_path_and_an_address(repo: Repo, tmp_path: Path) -> None:
    for number, address in enumerate([str(repo.folder), f"file://{repo.folder}", str(repo.folder / ".git")]):
        commit = git.resolve_remote(address, "main")
        assert commit.pushed
        git.export(commit, address, tmp_path / f"out{number}")
        assert set(files_of(tmp_path / f"out{number}")) == {"a.txt", "b/c.txt"}


def test_a_bare_repository_by_its_path(repo: Repo, tmp_path: Path) -> None:
    Repo.clone(repo.folder, tmp_path / "bare.git", "--bare")
    repo.git("checkout", "-q", "-b", "feature")
    commit = git.resolve_remote(f"file://{tmp_path}/bare.git", None)
    assert (commit.branch, commit.repo) == ("main", f"file://{tmp_path}/bare.git")
    with pytest.raises(InvalidInput, match="without a work tree"):
        git.resolve(tmp_path / "bare.git", None)
    with pytest.raises(InvalidInput, match="bare"):
        git.export(commit, commit.repo, tmp_path / "out", dirty=True)


def test_modes_links_and_odd_names_survive(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "odd")
    names = ["line\nbreak", "tab\there", 'quo"te', "back\\slash", "spa ce ", "ünïcode", "-dash", "$(touch x)", "a;b"]
    for name in names:
        repo.write(f"dir/{name}", name)
    (repo.folder / os.fsdecode(b"latin-\xe9")).write_text("latin")
    repo.write("run").chmod(0o755)
    (repo.folder / "up").symlink_to("dir/-dash")
    (repo.folder / "dir" / "down").symlink_to("../run")
    (repo.folder / "dangling").symlink_to("nothing/here")
    repo.commit("last.txt")
    git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out")
    expected = {name: data for name, data in files_of(repo.folder).items() if not name.startswith(".git/")}
    assert files_of(tmp_path / "out") == expected
    assert len(expected) == len(names) + 6
    assert (tmp_path / "out" / "run").stat().st_mode & stat.S_IXUSR


def test_large_and_empty_files(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "large")
    content = os.urandom(5 * 1024 * 1024 + 17)
    repo.write("large.bin", content)
    repo.commit("empty", b"")
    git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == {"empty": b"", "large.bin": content}


def test_a_folder_that_is_not_empty_is_left_alone(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    with pytest.raises(InvalidInput, match="is not empty"):
        git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out")
    assert files_of(tmp_path / "out") == {"mine": b"mine"}


def test_a_full_disk_is_said_and_nothing_stays(repo: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sandbox.source.tree._write_whole", full)
    with pytest.raises(OperationFailed) as raised:
        git.export(git.resolve(repo.folder, None), repo.folder, tmp_path / "out")
    assert raised.value.why == "No space left on device"
    assert "make room" in raised.value.hint
    assert not (tmp_path / "out").exists()


def test_five_thousand_files_are_all_exported(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "many")
    for number in range(5000):
        repo.write(f"d{number % 50}/f{number}.txt", f"{number}\n" * 40)
    repo.commit()
    commit = git.resolve(repo.folder, None)
    git.export(commit, repo.folder, tmp_path / "out")
    assert len(files_of(tmp_path / "out")) == 5001


# Running git


def test_a_missing_git_is_said(repo: Repo, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OperationFailed, match="git is not found"):
        git.resolve(repo.folder, None)


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "slow")
    # An alias that runs a shell, which runs a child: what the bound is for.
    arguments = ["-c", f"alias.slow=!sleep 300 & echo $! > {tmp_path}/pid; wait", "slow"]
    started = time.monotonic()
    with pytest.raises(GitFailed, match="took longer than 1 s"):
        run_git(arguments, OBJECTS, folder=repo.folder, timeout=1)
    assert time.monotonic() - started < 30
    assert _ends(int((tmp_path / "pid").read_text()))


async def test_a_cancelled_call_ends_its_git(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "slow")
    arguments = ["-c", f"alias.slow=!echo $$ > {tmp_path}/pid; exec sleep 300", "slow"]
    call = asyncio.create_task(in_thread(run_git, arguments, OBJECTS, folder=repo.folder))
    async with asyncio.timeout(30):
        assert await asyncio.to_thread(_is_written, tmp_path / "pid")
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert _ends(int((tmp_path / "pid").read_text()))


def test_output_without_end_is_bounded(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "LARGEST_OUTPUT", 1000)
    with pytest.raises(GitFailed, match="wrote more than"):
        run_git(["-c", "alias.much=!yes", "much"], OBJECTS, folder=repo.folder)


def test_messages_carry_neither_credentials_nor_escapes() -> None:
    said = command.clean_message(
        "fatal: unable to access 'https://dana:s3cret@h.example/x?token=t0ken': \x1b[31mno\n\n"
    )
    assert said == "fatal: unable to access 'https://h.example/x':  [31mno"


def test_a_subject_cannot_steer_a_terminal(tmp_path: Path) -> None:
    repo = Repo(tmp_path / "escape")
    repo.commit(message="wipe \x1b[2J\x07 it")
    assert git.resolve(repo.folder, None).subject == "wipe [2J it"


def test_importing_it_is_fast() -> None:
    code = "import sys, sandbox.source.git; sys.exit('git' in sys.modules or 'kubernetes' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def _is_written(path: Path) -> bool:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().strip():
            return True
        time.sleep(0.02)
    return False


def _ends(pid: int) -> bool:
    """Whether a process is gone, or goes within a bound."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False
