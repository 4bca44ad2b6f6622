"""``sandbox.yaml`` as data. Keys are camelCase in the file, attributes are snake_case here.

What one key alone can get wrong is checked here; what needs other keys or the tree is checked in
``load.py``. Every field's description becomes the JSON Schema's and the documentation's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.alias_generators import to_camel

from sandbox.model.durations import parse_duration
from sandbox.model.errors import InvalidInput
from sandbox.model.record import DeploymentKind, HttpSmokeRecord

API_VERSION: Final = "sandbox.dev/v1"
LABEL: Final = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
# What the names of namespaces may begin with; empty: anything.
PREFIX: Final = r"^([a-z0-9][-a-z0-9]{0,29})?$"
# Helm's own limit, and its pattern for release names.
RELEASE: Final = r"^[a-z0-9]([-a-z0-9.]{0,51}[a-z0-9])?$"
# Service ports are named by IANA_SVC_NAME (RFC 6335): at most 15 characters.
PORT_NAME: Final = r"^[a-z0-9]([-a-z0-9]{0,13}[a-z0-9])?$"
PROJECT_NAME: Final = r"^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"
# Registry, and path in it: a host, its port, what is below. The grammar of distribution/reference, loosely.
REGISTRY: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]*(:[0-9]{1,5})?(/[a-z0-9._-]+)*$"
DURATION: Final = r"^\s*(?=[0-9])([0-9]+w)?([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?\s*$"

ImagePart = Literal["repository", "tag", "digest", "reference", "registry", "name"]
BuilderName = Literal["auto", "docker", "buildah", "podman", "none"]


class ConfigModel(BaseModel):
    """Base of what people write: unknown keys are refused, nothing is converted, nothing changes afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        populate_by_name=True,
    )


def matching(pattern: str, said: str) -> tuple[AfterValidator, WithJsonSchema]:
    """What a text must match whole, for models and for the JSON Schema; ``said``: what it then is."""

    def check(text: str) -> str:
        if not re.search(pattern, text, re.ASCII) or text.endswith("\n"):
            raise ValueError(f"{text!r} is not {said}")
        return text

    return AfterValidator(check), WithJsonSchema({"type": "string", "pattern": pattern})


def _duration(text: str) -> str:
    try:
        parse_duration(text)
    except InvalidInput as error:
        raise ValueError(f"{error.what}; {error.hint}") from None
    return text


def _tree_path(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    if "\\" in text or "\0" in text or "\n" in text:
        raise ValueError(f"{text!r} is not a path; folders are separated by /")
    path = PurePosixPath(text)
    if path.is_absolute() or text.startswith("~"):
        raise ValueError(f"{text!r} must be relative to the root of the repository")
    depth = 0
    for part in path.parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise ValueError(f"{text!r} leaves the repository")
    return text


def _filled(text: str) -> str:
    if not text.strip() or any(ord(character) < 32 for character in text):
        raise ValueError("must be text of one line, and not empty")
    return text


def _image_reference(text: str) -> str:
    # The grammar of distribution/reference, loosely; registries have the last word.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(?::[0-9]+(?=/))?(?:/[a-z0-9._-]+)*", text, re.ASCII):
        raise ValueError(f"{text!r} is not an image name without tag, such as ghcr.io/acme/web")
    return text


def _full_image(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/:@-]*", text, re.ASCII):
        raise ValueError(f"{text!r} is not an image, such as docker.io/library/redis:7")
    return text


TEXT: Final = r"^[^\x00-\x1f]*[^\x00-\x1f\s][^\x00-\x1f]*$"
Text = Annotated[str, AfterValidator(_filled), WithJsonSchema({"type": "string", "pattern": TEXT})]
TreePath = Annotated[str, AfterValidator(_tree_path), WithJsonSchema({"type": "string", "minLength": 1})]
Duration = Annotated[str, AfterValidator(_duration), WithJsonSchema({"type": "string", "pattern": DURATION})]
ImageName = Annotated[str, AfterValidator(_image_reference), WithJsonSchema({"type": "string", "minLength": 1})]
FullImage = Annotated[str, AfterValidator(_full_image), WithJsonSchema({"type": "string", "minLength": 1})]
_registry_check, _registry_schema = matching(REGISTRY, "a registry such as ghcr.io/acme or registry.acme.dev:5000")
Registry = Annotated[str, _registry_check, _registry_schema]
_label_check, _label_schema = matching(LABEL, "a name of lower-case letters, digits and dashes (63 at most)")
ServiceName = Annotated[str, _label_check, _label_schema]
_prefix_check, _prefix_schema = matching(PREFIX, "the beginning of a namespace's name, such as sbx- (30 at most)")
NamespacePrefix = Annotated[str, _prefix_check, _prefix_schema]
_release_check, _release_schema = matching(RELEASE, "a Helm release name (lower case, 53 characters at most)")
ReleaseName = Annotated[str, _release_check, _release_schema]
_port_check, _port_schema = matching(PORT_NAME, "a port name (lower-case letters, digits, dashes; 15 at most)")
PortName = Annotated[str, _port_check, _port_schema]
_project_check, _project_schema = matching(PROJECT_NAME, "a project name (letters, digits, '-', '_', '.'; 63 at most)")
ProjectName = Annotated[str, _project_check, _project_schema]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class Requires(ConfigModel):
    """Versions that must be there, as version specifiers (``>=3.14``, ``>=1.28,<2``)."""

    sandbox: str = ""
    """Version of this tool."""
    helm: str = ""
    """Version of the helm that is used."""
    kubernetes: str = ""
    """Version of the cluster's API server."""


class Defaults(ConfigModel):
    """What commands use where an option is not given."""

    env: Text = "dev"
    """Environment whose values are used (`--env`)."""
    quota: Text = "small"
    """Quota profile (`--quota`)."""
    ttl: Duration = "8h"
    """Time to live (`--ttl`): `30m`, `8h`, `2d`, `1w`, combined `1d12h`."""
    base: Text | None = None
    """Environment, sandbox or lock that supplies what this commit does not bring (`--base`)."""


class ImagesConfig(ConfigModel):
    """Where images go and how they are built."""

    registry: Registry | None = None
    """Registry, and path in it, that built images are pushed to."""
    pull_secret: ServiceName | None = None
    """Secret that pods pull with, in the namespace of the kubeconfig's context; it is copied into each sandbox."""
    builder: BuilderName = "auto"
    """What builds: `auto` takes the first of docker, buildah, podman that works; `none` waits for CI's images."""
    wait: Duration = "10m"
    """How long to wait for an image that CI pushes as `repository:<commit>`."""


class SourceRef(ConfigModel):
    """Another repository, and what of it."""

    repo: Text
    """URL of the repository; a relative one (`../orders.git`) is relative to this repository's own."""
    ref: Text | None = None
    """Branch, tag or commit; the repository's default branch where not given."""


class ChartSource(ConfigModel):
    """A Helm chart in the tree."""

    path: TreePath
    """Folder of the chart, relative to the root of the repository."""
    release: ReleaseName | None = None
    """Name of the Helm release; the service's name where not given."""
    values: tuple[TreePath, ...] = ()
    """Values files, relative to the root of the repository; later ones win."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values written here; they win over the files."""


class KustomizeSource(ConfigModel):
    """A kustomization in the tree."""

    path: TreePath
    """Folder with the `kustomization.yaml`, relative to the root of the repository."""


class ManifestsSource(ConfigModel):
    """Plain manifests in the tree."""

    paths: tuple[TreePath, ...] = Field(min_length=1)
    """Files and folders (with all below them), relative to the root of the repository."""


class Build(ConfigModel):
    """How an image is built."""

    context: TreePath = "."
    """Folder that the build sees, relative to the root of the repository."""
    containerfile: TreePath | None = None
    """Relative to the context; `Containerfile`, else `Dockerfile`, where not given."""
    args: dict[str, str] = Field(default_factory=dict)
    """Build arguments. `--build-arg` wins over them."""
    target: Text | None = None
    """Stage to build; the last one where not given."""
    test: tuple[str, ...] = ()
    """Command that is run in the built image; the image is pushed only if it succeeds."""


class Image(ConfigModel):
    """An image that a service brings: built from the commit, or found under the commit's SHA."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["build"]}, {"required": ["repository"]}]})

    name: ImageName
    """What manifests call it (without tag): such references are replaced by the digest."""
    build: Build | None = None
    """How it is built."""
    repository: ImageName | None = None
    """Instead of `build`: where CI pushes it, tagged with the commit's SHA."""
    values: dict[str, ImagePart] | None = None
    """Which chart value receives which part of it, such as `image.repository: repository` and `image.tag: tag`.
    These two are set without being asked where the chart's `values.yaml` has `image.repository`."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.build is None) == (self.repository is None):
            raise ValueError("needs exactly one of build and repository")
        return self


class Need(ConfigModel):
    """Another service that must be ready first. A plain name means `{service: name}`."""

    # Its schema is written below, with these texts.
    model_config = ConfigDict(use_attribute_docstrings=True)

    service: ServiceName
    """The service that is needed."""
    as_: Literal["sandbox", "shared", "mock", "skip"] = Field(default="sandbox", alias="as")
    """`sandbox`: deploy it; `shared`: use the one in the base's namespace; `mock`: its declared stand-in; `skip`."""


def _need(value: Any) -> Any:
    return {"service": value} if isinstance(value, str) else value


def _described(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {**schema, "description": Need.model_fields[name].description}


_need_schema: dict[str, Any] = {
    "anyOf": [
        _described("service", {"type": "string", "pattern": LABEL}),
        {
            "type": "object",
            "description": Need.__doc__,
            "additionalProperties": False,
            "required": ["service"],
            "properties": {
                "service": _described("service", {"type": "string", "pattern": LABEL}),
                "as": _described("as_", {"enum": ["sandbox", "shared", "mock", "skip"], "default": "sandbox"}),
            },
        },
    ]
}


class Mock(ConfigModel):
    """What stands in for a service where it is needed as `mock`: one image, or manifests."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["image"]}, {"required": ["manifests"]}]})

    image: FullImage | None = None
    """Image that answers on the service's ports."""
    command: tuple[str, ...] = ()
    """Command of that image; its own where not given."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables of that image."""
    manifests: ManifestsSource | None = None
    """Manifests that stand in."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.image is None) == (self.manifests is None):
            raise ValueError("needs exactly one of image and manifests")
        if self.image is None and (self.command or self.env):
            raise ValueError("command and env belong to an image")
        return self


class HttpSmoke(ConfigModel):
    """An HTTP request that must be answered as told."""

    path: str = Field(default="/", pattern="^/")
    """Path and query."""
    port: PortName | PortNumber | None = None
    """Name or number of the port; the first of `ports` where not given."""
    status: int = Field(default=200, ge=100, le=599)
    """Status code that is expected."""
    contains: str = ""
    """Text that the body must hold."""

    def recorded(self, ports: Iterable[str]) -> HttpSmokeRecord:
        """The request with its port; empty where the service has none.

        Args:
            ports: names of the service's.
        """
        port = str(self.port if self.port is not None else next(iter(ports), ""))
        return HttpSmokeRecord(path=self.path, port=port, status=self.status, contains=self.contains)


class Smoke(ConfigModel):
    """What shows that the service works: an HTTP request, or a command that runs as a Job."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["http"]}, {"required": ["command"]}]})

    http: HttpSmoke | None = None
    """An HTTP request."""
    command: tuple[str, ...] | None = Field(default=None, min_length=1)
    """A command; it succeeds with exit code 0."""
    image: FullImage | None = None
    """Image that the command runs in; the service's first image where not given."""
    timeout: Duration = "1m"
    """How long it may take to succeed."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if (self.http is None) == (self.command is None):
            raise ValueError("needs exactly one of http and command")
        if self.http is not None and self.image is not None:
            raise ValueError("image belongs to a command")
        return self


class Hook(ConfigModel):
    """A command that runs as a Job in the sandbox."""

    name: ServiceName
    """Name, part of the Job's."""
    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments."""
    image: FullImage
    """Image it runs in: one of the service's own by name, or any other."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment variables."""
    timeout: Duration = "5m"
    """How long it may take."""


class Hooks(ConfigModel):
    """Commands around a deployment of the service, in order."""

    before_deploy: tuple[Hook, ...] = ()
    """Before anything of the service is applied."""
    after_deploy: tuple[Hook, ...] = ()
    """After the service is ready."""


class MigrationDown(ConfigModel):
    """The step back of a migration: a Job with image, variables and volumes of the service's own container."""

    command: tuple[str, ...] = Field(min_length=1)
    """Program and arguments. It must end well, too, where there is nothing to take back."""
    version: Literal["failed", "previous"] = "failed"
    """Whose image it runs in: `failed` brings the newest steps; `previous` is what is gone back to."""
    container: Text | None = None
    """Container of the service's workload; its first where not given."""
    timeout: Duration = "5m"
    """How long it may take."""


class Migrations(ConfigModel):
    """How `deploy` takes back what the service's migrations did to databases; give one of `down` and `restore`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["down"]}, {"required": ["restore"]}]})

    down: MigrationDown | None = None
    """A command that steps back."""
    restore: Literal["fixtures"] | None = None
    """`fixtures`: what the stores held before the deployment is dumped before its first write, and restored."""
    stores: tuple[Text, ...] = ()
    """Which stores `restore` is about, by workload or as `fixtures.stores` names them; where not given, those of
    the service itself and of the services that it needs."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.down is None) == (self.restore is None):
            raise ValueError("needs exactly one of down and restore")
        if self.stores and self.restore is None:
            raise ValueError("stores belongs to restore")
        return self


class ServiceEnvironment(ConfigModel):
    """What is different for one environment."""

    values: tuple[TreePath, ...] = ()
    """Values files, added after the chart's own."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values, merged over the chart's `set`."""
    path: TreePath | None = None
    """Kustomization used instead."""
    paths: tuple[TreePath, ...] | None = Field(default=None, min_length=1)
    """Manifests used instead."""


class Service(ConfigModel):
    """One deployable: exactly one of chart, kustomize and manifests."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["chart"]}, {"required": ["kustomize"]}, {"required": ["manifests"]}]}
    )

    source: SourceRef | None = None
    """Where it comes from; this repository, at the commit that is deployed, where not given."""
    chart: ChartSource | None = None
    """A Helm chart."""
    kustomize: KustomizeSource | None = None
    """A kustomization."""
    manifests: ManifestsSource | None = None
    """Plain manifests."""
    environments: dict[str, ServiceEnvironment] = Field(default_factory=dict)
    """What is different per environment (`--env`)."""
    images: tuple[Image, ...] = ()
    """Images that the service brings."""
    needs: tuple[Annotated[Need, BeforeValidator(_need), WithJsonSchema(_need_schema)], ...] = ()
    """Services that must be ready before this one is deployed."""
    mock: Mock | None = None
    """What stands in for this service where another needs it `as: mock`."""
    ports: dict[PortName, PortNumber] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": _port_schema.json_schema}
    )
    """Ports of its Kubernetes Service by name; `open` and `port-forward` use the first."""
    smoke: Smoke | None = None
    """What shows that it works."""
    hooks: Hooks = Field(default_factory=Hooks)
    """Commands that run as Jobs around its deployment."""
    migrations: Migrations | None = None
    """How a failed `deploy` takes back what the service's migrations did."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("chart", "kustomize", "manifests") if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"has {' and '.join(given)}" if given else "has none"
            raise ValueError(f"needs exactly one of chart, kustomize and manifests, and {said}")
        return self

    @property
    def kind(self) -> DeploymentKind:
        """Which of the three it is."""
        if self.chart is not None:
            return "chart"
        return "kustomize" if self.kustomize is not None else "manifests"

    @property
    def paths(self) -> tuple[str, ...]:
        """The chart's, kustomization's or manifests' paths, relative to the root of its repository."""
        if self.chart is not None:
            return (self.chart.path,)
        if self.kustomize is not None:
            return (self.kustomize.path,)
        return self.manifests.paths if self.manifests is not None else ()


class SecretKey(ConfigModel):
    """A key of a Secret in the namespace of the pod."""

    name: Text
    """Name of the Secret."""
    key: Text
    """Key in it."""


class PasswordFrom(ConfigModel):
    """Where a password is; never the password itself."""

    secret_key_ref: SecretKey
    """A key of a Secret."""


class FixtureStore(ConfigModel):
    """A database or cache whose contents are captured, where it is not found by itself or needs to be told more."""

    kind: Text | None = None
    """What it is: `postgresql`, `mysql` (MariaDB too), `redis`, or what a plugin brings; recognised where not given."""
    workload: Text | None = None
    """Name of its Deployment, StatefulSet, DaemonSet or Pod; the name of this entry where not given."""
    container: Text | None = None
    """Container of the pod; the one that is recognised, else the first, where not given."""
    user: Text | None = None
    """User to connect as; the one that the container's own environment names where not given."""
    password_from: PasswordFrom | None = None
    """Its password; the container's own environment where not given."""
    databases: tuple[Text, ...] = ()
    """Databases to capture; all of them where not given."""
    skip: bool = False
    """Capture nothing of it."""


MaskKind = Literal["email", "name", "phone", "text", "number", "uuid", "null"]


def _mask_rule(text: str) -> str:
    if len(text.split(".")) not in (3, 4) or not all(part.strip() for part in text.split(".")):
        raise ValueError(f"{text!r} is not database.table.column (or database.schema.table.column)")
    return text


MaskedColumn = Annotated[str, AfterValidator(_mask_rule), WithJsonSchema({"type": "string", "minLength": 5})]


class Fixtures(ConfigModel):
    """Databases and caches as captures hold them."""

    stores: dict[ServiceName, FixtureStore] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": _label_schema.json_schema}
    )
    """What is not found by itself, by name."""
    mask: dict[MaskedColumn, MaskKind] = Field(default_factory=dict)
    """Columns whose values are replaced before anything is stored: `shop.customers.email: email`. The same value
    becomes the same replacement everywhere, and columns that a foreign key ties to a masked one are masked with it."""


class Environment(ConfigModel):
    """A shared, long-lived place."""

    context: Text | None = None
    """Context of the kubeconfig; the current one where not given."""
    namespace: ServiceName | None = None
    """Namespace; needed where the environment is a base."""
    values: dict[ServiceName, tuple[TreePath, ...]] = Field(
        default_factory=dict, json_schema_extra={"propertyNames": _label_schema.json_schema}
    )
    """Values files by service, added last."""


class Project(ConfigModel):
    """A `sandbox.yaml`."""

    api_version: Literal["sandbox.dev/v1"]
    """Version of this format."""
    project: ProjectName
    """Name of the project."""
    requires: Requires = Field(default_factory=Requires)
    """Versions that must be there."""
    defaults: Defaults = Field(default_factory=Defaults)
    """What commands use where an option is not given."""
    images: ImagesConfig = Field(default_factory=ImagesConfig)
    """Where images go and how they are built."""
    allow_cluster_scoped: tuple[Text, ...] = ()
    """Cluster-scoped kinds that charts may bring (`ClusterRole.rbac.authorization.k8s.io`). Never enough by
    itself: it needs `--allow-cluster-scoped` and the quota profile's leave too."""
    services: dict[ServiceName, Service] = Field(
        min_length=1, json_schema_extra={"propertyNames": _label_schema.json_schema}
    )
    """The deployables, by name."""
    environments: dict[str, Environment] = Field(default_factory=dict)
    """Shared places, by name."""
    fixtures: Fixtures = Field(default_factory=Fixtures)
    """Databases and caches as captures hold them."""

    def release(self, name: str) -> str:
        """The Helm release of a service that is a chart."""
        chart = self.services[name].chart
        return chart.release if chart is not None and chart.release else name

    def environment_names(self) -> set[str]:
        """All environments that the file names anywhere."""
        return set(self.environments).union(*(service.environments for service in self.services.values()))

    def takes_any_environment(self) -> bool:
        """Whether names of environments are parts of paths or values, so that nobody can say which there are."""
        return "${SANDBOX_ENV}" in self.model_dump_json()

    def service_in(self, name: str, env: str) -> Service:
        """A service as one environment has it.

        Values files: the chart's, then the service's for the environment, then the environment's for the
        service; ``set`` is merged, paths of kustomizations and manifests are replaced. The result has no
        ``environments`` left. Variables are not replaced.
        """
        service = self.services[name]
        special = service.environments.get(env, ServiceEnvironment())
        shared = self.environments[env].values.get(name, ()) if env in self.environments else ()
        changes: dict[str, Any] = {"environments": {}}
        if service.chart is not None:
            changes["chart"] = service.chart.model_copy(
                update={
                    "values": (*service.chart.values, *special.values, *shared),
                    "set": merge(service.chart.set, special.set),
                }
            )
        if service.kustomize is not None and special.path is not None:
            changes["kustomize"] = KustomizeSource(path=special.path)
        if service.manifests is not None and special.paths is not None:
            changes["manifests"] = ManifestsSource(paths=special.paths)
        return service.model_copy(update=changes)


def merge(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Values with others laid over them, as Helm does it: mappings are merged, anything else is replaced."""
    merged = dict(values)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged
