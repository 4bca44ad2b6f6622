"""Images, really built with buildah and pushed to a real registry on this machine."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox.images import builders
from sandbox.images.build import ImageRequest, resolve_images
from sandbox.images.registry import digest_of
from sandbox.model.errors import InvalidInput, OperationFailed, Refused, Unreachable
from sandbox.model.images import ResolvedImage
from sandbox.model.source import Commit
from sandbox.project.config import Build, Image
from tests.e2e.image_registry import copy_system, read, running_registry

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("buildah") is None, reason="needs root and buildah"),
]

SHA = "1234567890abcdef1234567890abcdef12345678"
CANARY = "canary-7d1f0c"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("registry")) as address:
        yield address


@pytest.fixture(scope="module")
def base(registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A base image with a shell and perl, in the registry and in no builder's storage."""
    context = tmp_path_factory.mktemp("base")
    copy_system(context)
    (context / "Containerfile").write_text("FROM scratch\nCOPY rootfs/ /\n")
    name = f"{registry}/base:1"
    buildah("build", "--layers=false", "--tag", name, str(context))
    buildah("push", "--tls-verify=false", name)
    yield name
    remove_images(registry)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "web").mkdir()
    (tmp_path / "web/page.html").write_text("<h1>shop</h1>\n")
    return tmp_path


async def test_builds_once_and_gives_the_digest_that_the_registry_says(tree: Path, registry: str, base: str) -> None:
    containerfile(
        tree, f"ARG BASE\nFROM ${{BASE}}\nARG COLOUR=red\nCOPY page.html /\nRUN echo $COLOUR > /colour # {id(tree)}"
    )
    lines: list[str] = []
    args = {"BASE": base, "COLOUR": "blue", "UNKNOWN": "1"}
    image = await resolve(tree, registry, lines, build_args=args)
    assert image.origin == "built"
    assert image.repository == f"{registry}/acme/shop/web"
    assert image.digest == await digest_of(f"{image.repository}:{image.tag}")
    assert any("STEP" in line for line in lines)
    _, config = read(registry, "acme/shop/web", image.digest)
    assert config["config"]["Labels"]["org.opencontainers.image.revision"] == SHA
    assert config["config"]["Labels"]["org.opencontainers.image.source"] == "https://git.example/web.git"
    assert config["created"].startswith("2030-01-31T18:00:00")
    assert "blue" in str(config["history"])
    assert "UNKNOWN" not in str(config)

    lines.clear()
    again = await resolve(tree, registry, lines, build_args=args, sha="f" * 40)
    assert (again.origin, again.digest) == ("found", image.digest)
    assert not any("STEP" in line for line in lines)

    other = await resolve(tree, registry, lines, build_args={**args, "COLOUR": "green"})
    assert other.tag != image.tag


async def test_what_the_ignore_file_names_is_neither_built_in_nor_part_of_the_key(
    tree: Path, registry: str, base: str
) -> None:
    containerfile(tree, f"FROM {base}\nCOPY . /app\nRUN test ! -e /app/notes.md")
    (tree / "web/.dockerignore").write_text("*.md\n")
    (tree / "web/notes.md").write_text("one")
    first = await resolve(tree, registry)
    (tree / "web/notes.md").write_text("two")
    assert (await resolve(tree, registry)).origin == "found"
    (tree / "web/page.html").write_text("changed")
    assert (await resolve(tree, registry)).tag != first.tag


async def test_a_build_that_fails_is_told_with_the_builders_last_lines(tree: Path, registry: str, base: str) -> None:
    loop = "for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25; do echo line $n; done"
    containerfile(tree, f"FROM {base}\nRUN {loop}; echo this is why >&2; exit 7")
    with pytest.raises(OperationFailed) as caught:
        await resolve(tree, registry)
    assert caught.value.what == "service web, image shop/web does not build (web/Containerfile)"
    assert "this is why" in caught.value.why
    assert "exit status 7" in caught.value.why
    assert "line 25" in caught.value.why
    assert len(caught.value.why.splitlines()) == 20
    assert "line 2\n" not in caught.value.why


async def test_a_full_disk_is_named(tree: Path, registry: str, base: str) -> None:
    containerfile(tree, f"FROM {base}\nRUN echo x > /dev/full || (sleep 1; exit 1)")
    with pytest.raises(OperationFailed) as caught:
        await resolve(tree, registry)
    assert "No space left on device" in caught.value.why or "I/O error" in caught.value.why


async def test_an_image_whose_test_fails_is_not_pushed(tree: Path, registry: str, base: str) -> None:
    containerfile(tree, f"FROM {base}\nCOPY page.html /page.html")
    with pytest.raises(OperationFailed, match=r"its test `sh -c .*` fails") as caught:
        await resolve(tree, registry, name="shop/tested", test=("sh", "-c", "echo expected a shop; exit 3"))
    assert "expected a shop" in caught.value.why
    with pytest.raises(OSError, match="404"):
        read(registry, "acme/shop/tested", "latest")
    catalogue = await digest_of(f"{registry}/acme/shop/tested:latest")
    assert catalogue is None
    passing = await resolve(tree, registry, name="shop/tested", test=("perl", "-e", "exit !-e '/page.html'"))
    assert passing.origin == "built"


async def test_tests_have_a_loopback_interface_and_no_other(tree: Path, registry: str, base: str) -> None:
    containerfile(tree, f"FROM {base}\nCOPY page.html /page.html")
    lines: list[str] = []
    script = "open F,'/proc/net/dev'; print grep(/:/, <F>); open R,'/proc/net/route'; @r=<R>; exit(@r > 1)"
    await resolve(tree, registry, lines, test=("perl", "-e", script))
    interfaces = [line.rpartition("shop/web: ")[2].split(":")[0].strip() for line in lines if " 0 " in line]
    assert interfaces == ["lo"]


async def test_two_at_once_with_one_key_do_no_harm(tree: Path, registry: str, base: str) -> None:
    containerfile(tree, f"FROM {base}\nCOPY page.html /twice\nRUN echo {tree.name}")
    first, second = await asyncio.gather(resolve(tree, registry), resolve(tree, registry))
    assert first.tag == second.tag
    assert await digest_of(f"{first.repository}:{first.tag}") in (first.digest, second.digest)
    for image in (first, second):
        read(registry, "acme/shop/web", image.digest)


async def test_several_images_are_resolved_in_one_call(tree: Path, registry: str, base: str) -> None:
    containerfile(tree, f"FROM {base} AS build\nCOPY page.html /page\nFROM {base}\nCOPY --from=build /page /page")
    requests = [request(tree, name=f"shop/part{number}", service=f"s{number}") for number in range(4)]
    found = await resolve_images(
        requests, registry=f"{registry}/acme", builder="buildah", wait=timedelta(), progress=lambda _: None
    )
    assert set(found) == {(f"s{number}", f"shop/part{number}") for number in range(4)}
    assert all(image.origin == "built" for image in found.values())


@pytest.mark.parametrize("name", ["docker", "podman"])
async def test_the_other_builders_do_the_same(tree: Path, registry: str, base: str, name: str) -> None:
    found = await builders.detect(name)
    if found.builder is None:
        pytest.skip(found.reason)
    containerfile(tree, f"FROM {base}\nCOPY page.html /{name}")
    image = await resolve(tree, registry, name=f"shop/{name}", builder=name, test=("perl", "-e", f"exit !-e '/{name}'"))
    assert image.origin == "built"
    assert image.digest == await digest_of(f"{image.repository}:{image.tag}")
    with pytest.raises(OperationFailed, match="its test"):
        await resolve(tree, registry, name=f"shop/{name}", builder=name, test=("perl", "-e", "exit 3"))


async def test_a_dry_run_builds_nothing(tree: Path, registry: str, base: str) -> None:
    containerfile(tree, f"FROM {base}\nCOPY page.html /dry")
    image = await resolve(tree, registry, dry_run=True)
    assert (image.origin, image.digest) == ("planned", "")
    assert await digest_of(f"{image.repository}:{image.tag}") is None
    assert (await resolve(tree, registry)).tag == image.tag


class TestHostileContainerfiles:
    """The repository is untrusted: a build sees neither the user's environment nor the user's files."""

    READ_ALL = r"""
my @found;
opendir(my $d, '/proc'); my @p = map { "/proc/$_" } grep { /^[0-9]+$/ } readdir $d;
for my $f ((map { "$_/environ" } @p), map { "$_$ARGV[1]" } '', '/m', (map { ("$_/root", "$_/cwd") } @p)) {
    open(my $h, '<', $f) or next; local $/; my $c = <$h> // ''; push @found, $f if index($c, $ARGV[0]) >= 0;
}
mkdir '/inner'; print "chroot ", (chroot('/inner') ? 'possible' : 'refused'), "\n";
chdir '..' for 1 .. 64;
for my $f (substr($ARGV[1], 1)) {
    open(my $h, '<', $f) or next; local $/; my $c = <$h> // ''; push @found, "escape/$f" if index($c, $ARGV[0]) >= 0;
}
print "FOUND $_\n" for @found; print "LOOKED\n";
"""

    @pytest.fixture
    def secret(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """A file that only the user may read, where kubeconfigs are, and a token in the environment."""
        folder = Path.home() / f".sandbox-test-{os.getpid()}"
        folder.mkdir(mode=0o700)
        file = folder / "config"
        file.write_text(f"token: {CANARY}")
        monkeypatch.setenv("KUBECONFIG", str(file))
        monkeypatch.setenv("MY_TOKEN", CANARY)
        yield file
        shutil.rmtree(folder)

    @pytest.fixture
    def hostile(self, tree: Path) -> Path:
        (tree / "web/look.pl").write_text(self.READ_ALL)
        return tree

    async def look(self, tree: Path, registry: str, text: str) -> list[str]:
        containerfile(tree, text)
        lines: list[str] = []
        await resolve(tree, registry, lines)
        assert any("LOOKED" in line for line in lines), lines
        return [line for line in lines if "FOUND" in line]

    async def test_the_probe_finds_what_is_there(self, hostile: Path, registry: str, base: str) -> None:
        """Without this, the others would pass with a probe that is broken."""
        found = await self.look(
            hostile,
            registry,
            f"FROM {base}\nCOPY look.pl /\nENV PLANTED={CANARY}\nRUN echo {CANARY} > /planted;"
            f" perl /look.pl {CANARY} /planted",
        )
        assert any("/environ" in line for line in found)
        assert any(line.endswith(" /planted") for line in found)

    async def test_run_finds_neither_environment_nor_files(
        self, hostile: Path, registry: str, base: str, secret: Path
    ) -> None:
        argument = f"{CANARY[:6]}''{CANARY[6:]}"  # not in the Containerfile as such, which is copied about
        found = await self.look(
            hostile, registry, f"FROM {base}\nCOPY look.pl /\nRUN perl /look.pl {argument} {secret}"
        )
        assert found == []

    async def test_leaving_the_chroot_is_refused(self, hostile: Path, registry: str, base: str, secret: Path) -> None:
        containerfile(hostile, f"FROM {base}\nCOPY look.pl /\nRUN perl /look.pl x {secret}")
        lines: list[str] = []
        await resolve(hostile, registry, lines, name="shop/chroot")
        assert any(line.endswith("chroot refused") for line in lines)

    @pytest.mark.parametrize(
        "mount",
        [
            "type=bind,from=evil,source=/root-link,target=/m,rw",
            "type=cache,id=../../../../../../../../..,target=/m",
            "type=bind,source=.,target=/m",
        ],
    )
    async def test_mounts_that_the_builder_does_not_contain_are_refused(
        self, hostile: Path, registry: str, base: str, mount: str
    ) -> None:
        version = await builders.Buildah(shutil.which("buildah") or "").version()
        if tuple(int(part) for part in version.split(".")[:2]) >= (1, 38):
            pytest.skip(f"buildah {version} contains them")
        containerfile(hostile, f"FROM {base}\nRUN --mount={mount} true")
        with pytest.raises(Refused, match="--mount"):
            await resolve(hostile, registry)

    @pytest.mark.parametrize(
        "mount",
        [
            "type=bind,from=evil,source=/root-link,target=/m,rw",
            "type=cache,id=../../../../../../../../..,target=/m",
        ],
    )
    async def test_a_mount_that_leaves_the_build_finds_nothing_of_the_users(
        self,
        hostile: Path,
        registry: str,
        base: str,
        secret: Path,
        mount: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """The second wall: with the first one taken down, as an unknown flaw of the builder would."""

        async def contained(_: Any) -> bool:
            return True

        monkeypatch.setattr(builders.Buildah, "_contains_mounts", contained)
        argument = f"{CANARY[:6]}''{CANARY[6:]}"
        found = await self.look(
            hostile,
            registry,
            f'FROM {base} AS evil\nRUN perl -e \'symlink "/", "/root-link"\'\n'
            f"FROM {base}\nCOPY --from=evil /bin/sh /other\nCOPY look.pl /\n"
            f"RUN --mount={mount} perl /look.pl {argument} {secret}",
        )
        assert found == []

    async def test_a_context_that_leads_out_of_the_tree_is_refused(self, tree: Path, registry: str) -> None:
        (tree / "out").symlink_to("/etc")
        with pytest.raises(Refused, match="leads out of the repository"):
            await resolve(tree, registry, context="out")

    async def test_a_link_in_the_context_is_not_followed_out_of_it(
        self, hostile: Path, registry: str, base: str, secret: Path
    ) -> None:
        (hostile / "web/config").symlink_to(secret)
        containerfile(hostile, f"FROM {base}\nCOPY config /config")
        with pytest.raises(OperationFailed, match="does not build"):
            await resolve(hostile, registry)


async def test_cancelling_ends_the_build_and_everything_in_it(tree: Path, registry: str, base: str) -> None:
    containerfile(tree, f"FROM {base}\nRUN echo begun; exec perl -e 'sleep 600' {tree.name}-marker")
    begun = asyncio.Event()

    def watch(line: str) -> None:
        if line.endswith("begun"):
            begun.set()

    task = asyncio.create_task(
        resolve_images(
            [request(tree)], registry=f"{registry}/acme", builder="buildah", wait=timedelta(), progress=watch
        )
    )
    async with asyncio.timeout(60):
        await begun.wait()
    # The argument is on the command line of builder and sleeper alike.
    assert processes_with(f"{tree.name}-marker")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert processes_with(f"{tree.name}-marker") == []


async def test_a_registry_that_is_down_is_named(tree: Path, base: str) -> None:
    containerfile(tree, f"FROM {base}")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(Unreachable) as caught:
            await resolve(tree, address)
    assert caught.value.what == f"the registry {address} does not answer"
    assert caught.value.hint


async def test_a_registry_that_goes_down_before_the_push_is_named(
    tree: Path, base: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    containerfile(tree, f"FROM {base}\nCOPY page.html /")
    with running_registry(tmp_path_factory.mktemp("short-lived")) as address:
        builder = builders.Buildah(shutil.which("buildah") or "")
        assert await digest_of(f"{address}/x:1") is None
    buildah("tag", base, f"{address}/x:1")
    with pytest.raises(Unreachable, match=f"the registry {address} does not answer"):
        await builder.push(f"{address}/x:1", insecure=False)
    remove_images(address)


async def test_a_base_image_that_cannot_be_pulled_is_named(tree: Path, registry: str) -> None:
    containerfile(tree, f"FROM {registry}/no/such:1")
    with pytest.raises(OperationFailed, match=f"the base image {registry}/no/such:1 cannot be pulled"):
        await resolve(tree, registry)


class TestWithoutABuilder:
    async def test_the_image_of_ci_is_waited_for(self, registry: str, base: str, tree: Path) -> None:
        async def ci() -> None:
            await asyncio.to_thread(buildah, "push", "--tls-verify=false", base, f"{registry}/ci/web:{SHA}")

        waiting = asyncio.create_task(
            resolve(tree, registry, repository=f"{registry}/ci/web", wait=timedelta(seconds=60))
        )
        await asyncio.sleep(0)
        await ci()
        image = await waiting
        assert (image.origin, image.tag) == ("found", SHA)
        assert image.digest == await digest_of(base)

    async def test_the_wait_has_an_end(self, registry: str, tree: Path) -> None:
        with pytest.raises(OperationFailed, match=f"never:{SHA} did not appear within 1s"):
            await resolve(tree, registry, repository=f"{registry}/never", wait=timedelta(seconds=1))

    async def test_none_waits_for_what_could_be_built_too(self, registry: str, base: str, tree: Path) -> None:
        buildah("push", "--tls-verify=false", base, f"{registry}/acme/shop/web:{SHA}")
        image = await resolve(tree, registry, builder="none")
        assert (image.origin, image.repository) == ("found", f"{registry}/acme/shop/web")

    async def test_no_registry_is_an_error_of_the_configuration(self, tree: Path) -> None:
        containerfile(tree, "FROM scratch")
        with pytest.raises(InvalidInput, match="no registry to push it to"):
            await resolve_images(
                [request(tree)], registry=None, builder="buildah", wait=timedelta(), progress=lambda _: None
            )


def request(
    tree: Path,
    *,
    name: str = "shop/web",
    service: str = "web",
    context: str = "web",
    repository: str | None = None,
    test: tuple[str, ...] = (),
    build_args: dict[str, str] | None = None,
    sha: str = SHA,
) -> ImageRequest:
    build = None if repository else Build(context=context, test=test)
    made_at = datetime(2030, 1, 31, 18, tzinfo=UTC)
    commit = Commit("https://git.example/web.git", "main", "main", sha, "A <a@example>", "s", made_at, pushed=True)
    image = Image(name=name, build=build, repository=repository)
    return ImageRequest(service, image, tree, commit, build_args or {})


async def resolve(
    tree: Path,
    registry: str,
    lines: list[str] | None = None,
    *,
    builder: str = "buildah",
    wait: timedelta = timedelta(),
    dry_run: bool = False,
    **options: Any,
) -> ResolvedImage:
    one = request(tree, **options)
    found = await resolve_images(
        [one],
        registry=f"{registry}/acme",
        builder=builder,
        wait=wait,
        dry_run=dry_run,
        progress=(lines if lines is not None else []).append,
    )
    return found[(one.service, one.image.name)]


def containerfile(tree: Path, text: str) -> None:
    (tree / "web/Containerfile").write_text(text + "\n")


def buildah(*words: str) -> str:
    done = subprocess.run(["buildah", *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def remove_images(registry: str) -> None:
    names = buildah("images", "--format", "{{.Name}}:{{.Tag}}").splitlines()
    if mine := [name for name in names if name.startswith(f"{registry}/")]:
        buildah("rmi", "--force", *mine)


def processes_with(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in command and int(folder.name) != os.getpid():
            found.append(command)
    return found
