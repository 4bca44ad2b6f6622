"""Building the embedded cluster: what is built is known by its sources."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from sandbox.cluster.providers.embedded import build, programs
from sandbox.cluster.providers.embedded.pause import PAUSE_IMAGE, write_image
from sandbox.model.errors import OperationFailed

GO_MOD = "module m\n\ngo 1.26.6\n\nrequire (\n\thelm.sh/helm/v4 v4.3.1\n\tk8s.io/kubernetes v1.36.3\n)\n"


@pytest.mark.parametrize(
    ("older", "newer"), [("go1.26.5", "1.26.6"), ("go1.9", "go1.26"), ("1.26", "1.26.1"), ("go1.26.6", "go1.27rc1")]
)
def test_go_versions_compare_as_numbers(older: str, newer: str) -> None:
    assert build.go_version(older) < build.go_version(newer)


def test_a_version_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="devel"):
        build.go_version("devel +abc")


def test_programs_are_told_the_versions_of_go_mod() -> None:
    flags = build.link_flags(GO_MOD)
    assert "-X helm.sh/helm/v4/internal/version.version=v4.3.1" in flags
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
        for setting in ("gitVersion=v1.36.3", "gitMajor=1", "gitMinor=36"):
            assert f"-X {package}.{setting}" in flags


def test_a_go_mod_without_kubernetes_is_said() -> None:
    with pytest.raises(OperationFailed, match=r"go\.mod does not require k8s\.io/kubernetes"):
        build.link_flags("module m\n")


def test_the_digest_changes_with_names_and_contents_of_sources_only(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("a")
    first = build.source_digest(tmp_path)
    (tmp_path / "README.md").write_text("not built")
    assert build.source_digest(tmp_path) == first
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "main.go").write_text("b")
    second = build.source_digest(tmp_path)
    (tmp_path / "sub" / "main.go").rename(tmp_path / "sub" / "other.go")
    assert len({first, second, build.source_digest(tmp_path)}) == 3


def test_a_half_finished_build_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANDBOX_CACHE_DIR", str(tmp_path))
    root = build.sources()
    assert root is not None
    binaries = tmp_path / "embedded" / build.source_digest(root) / "bin"
    binaries.mkdir(parents=True)
    assert build.embedded_bin_dir() is None
    (binaries.parent / ".complete").touch()
    assert build.embedded_bin_dir() == binaries


def test_every_linked_program_is_one_of_the_binarys() -> None:
    root = build.sources()
    assert root is not None
    source = (root / "main.go").read_text()
    assert [name for name in build.LINKED if f'"{name}":' not in source] == []


def test_the_pause_image_is_a_valid_archive(tmp_path: Path) -> None:
    program, archive = tmp_path / "pause", tmp_path / "pause.tar"
    program.write_bytes(b"\x7fELF")
    write_image(program, archive)
    with tarfile.open(archive) as tar:
        opened = {member.name: tar.extractfile(member) for member in tar.getmembers()}
        files = {name: content.read() for name, content in opened.items() if content is not None}
    entry = json.loads(files["index.json"])["manifests"][0]
    assert entry["annotations"]["io.containerd.image.name"] == PAUSE_IMAGE
    for name, content in files.items():
        if name.startswith("blobs/sha256/"):
            assert hashlib.sha256(content).hexdigest() == name.removeprefix("blobs/sha256/")
    manifest = json.loads(files["blobs/" + entry["digest"].replace(":", "/")])
    assert {d["digest"].replace(":", "/") for d in [manifest["config"], *manifest["layers"]]} <= {
        name.removeprefix("blobs/") for name in files
    }


async def test_missing_programs_are_said_with_the_command_that_brings_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(programs.NODE_PROGRAMS, "no-such-program", "no-such-package")
    monkeypatch.delenv("SANDBOX_INSTALL_PACKAGES", raising=False)
    with pytest.raises(OperationFailed, match="no-such-package") as failure:
        await programs.require(install=False, progress=print)
    assert "apt-get install --yes --no-install-recommends" in failure.value.hint
