"""The released thing: the wheel, in an environment that knows nothing of this checkout."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from sandbox import __version__
from sandbox.cluster.providers.embedded.build import source_digest

ROOT = Path(__file__).parents[2]


def _run(argv: Sequence[str | Path], cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in argv], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    _run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT], folder)
    (built,) = folder.glob("*.whl")
    return built


class Installed:
    """The wheel in a virtual environment of its own, used from an empty folder by somebody without a home."""

    def __init__(self, wheel: Path, folder: Path) -> None:
        self.bin = folder / "venv" / "bin"
        self.empty = folder / "empty"
        self.empty.mkdir()
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG"}}
        self.environment = {**kept, "HOME": str(folder / "home")}
        _run([sys.executable, "-m", "venv", "--without-pip", self.bin.parent], folder)
        # Modules are compiled when they are imported first: most never are.
        install: list[str | Path] = [
            "install",
            "--quiet",
            "--no-compile",
            "--constraint",
            ROOT / "constraints.txt",
            wheel,
        ]
        _run([sys.executable, "-m", "pip", "--python", self.bin / "python", *install], folder)

    def sandbox(self, *arguments: str) -> str:
        return _run([self.bin / "sandbox", *arguments], self.empty, self.environment)

    def python(self, code: str) -> str:
        return _run([self.bin / "python", "-c", code], self.empty, self.environment).strip()


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(wheel, tmp_path_factory.mktemp("installed"))


def test_it_holds_the_package_and_its_data_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()

    assert {name.partition("/")[0] for name in names} == {"sandbox", f"sandbox_k8s-{__version__}.dist-info"}
    assert "sandbox/py.typed" in names
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


def test_it_is_what_runs(installed: Installed) -> None:
    assert Path(installed.python("import sandbox; print(sandbox.__file__)")).is_relative_to(installed.bin.parent)


def test_version(installed: Installed) -> None:
    assert json.loads(installed.sandbox("version", "-o", "json"))["sandbox"] == __version__


def test_help_names_the_commands(installed: Installed) -> None:
    text = installed.sandbox("--help")

    assert [command for command in ("up", "down", "list", "status", "doctor") if f"\n  {command} " not in text] == []


def test_the_schema_of_sandbox_yaml(installed: Installed) -> None:
    schema = json.loads(installed.sandbox("schema"))

    assert {"project", "services"} <= set(schema["properties"])


def test_the_shipped_quota_profiles(installed: Installed) -> None:
    profiles = {profile["name"] for profile in json.loads(installed.sandbox("quota", "list", "-o", "json"))}

    assert profiles == {path.stem for path in (ROOT / "quotas").glob("*.yaml")}
    assert {"small", "medium", "large"} <= profiles


def test_the_chart(wheel: Path) -> None:
    folder = ROOT / "charts" / "sandbox"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("sandbox/_data/charts/sandbox/")}

    assert {name.removeprefix("sandbox/_data/charts/sandbox/") for name in held} == files
    assert {"Chart.yaml", "values.schema.json", "templates/admission/namespaces.yaml"} <= files


def test_the_sources_of_the_embedded_cluster(installed: Installed) -> None:
    digest = installed.python(
        "from sandbox.cluster.providers.embedded import build; print(build.source_digest(build.sources()))"
    )

    assert digest == source_digest(ROOT / "embedded")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(installed: Installed, shell: str) -> None:
    script = _run([installed.bin / "sandbox", "--show-completion", shell], installed.empty, installed.environment)

    assert "_SANDBOX_COMPLETE" in script
