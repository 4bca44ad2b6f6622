"""Quota profiles: what one sandbox may use (``quotas/*.yaml``)."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from sandbox.model.durations import parse_duration
from sandbox.model.errors import InvalidInput
from sandbox.model.quantities import parse_quantity
from sandbox.project.config import ConfigModel, Duration, PortNumber, ServiceName, Text
from sandbox.project.validation import validate
from sandbox.project.yamlfile import load_yaml, near

# Names that a ResourceQuota knows (Kubernetes documentation, "Resource Quotas"); all others have a / or a prefix.
_STANDARD_RESOURCES: Final = frozenset(
    {
        "cpu",
        "memory",
        "ephemeral-storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "services",
        "services.loadbalancers",
        "services.nodeports",
        "replicationcontrollers",
        "resourcequotas",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
    }
)
_OTHER_RESOURCE = re.compile(
    r"count/[a-z0-9.-]+"
    r"|hugepages-[A-Za-z0-9]+|requests\.hugepages-[A-Za-z0-9]+"
    r"|(?:requests\.)?[a-z0-9.-]+/[A-Za-z0-9._-]+"
)
_KIND: Final = r"^[A-Z][A-Za-z0-9]*(\.[a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$"
# RFC 1123 subdomain, as names of cluster-scoped objects are.
_SUBDOMAIN: Final = r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$"
# How long a sandbox may live where its profile says nothing: times its longest TTL, or this long without one.
_LIFETIMES: Final = 4
_LONGEST_LIFE: Final = timedelta(days=30)
# Larger than any cluster; keeps arithmetic on quantities small.
_LARGEST = Decimal(10) ** 30


def _quantity(value: Any) -> Any:
    # `pods: 20` means the same as `pods: "20"`; Kubernetes' API wants text.
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _check_quantity(text: str) -> str:
    try:
        number = parse_quantity(text)
    except InvalidInput as error:
        raise ValueError(f"{error.what}, {error.hint}") from None
    if number < 0:
        raise ValueError(f"{text!r} is less than nothing")
    if number > _LARGEST:
        raise ValueError(f"{text!r} is more than any cluster has")
    return text


def _is_whole(resource: str) -> bool:
    """Whether the API server takes whole numbers only for it."""
    if resource in _STANDARD_RESOURCES:
        return not resource.endswith(("cpu", "memory", "storage"))
    return "/" in resource and not resource.startswith("requests.") and "kubernetes.io/" not in resource


def _check_resource(name: str) -> str:
    if name not in _STANDARD_RESOURCES and not _OTHER_RESOURCE.fullmatch(name):
        raise ValueError(f"is not a resource that a ResourceQuota counts{near(name, _STANDARD_RESOURCES)}")
    return name


def _check_kind(text: str) -> str:
    if not re.fullmatch(_KIND, text):
        raise ValueError(
            f"{text!r} is not a kind: write Kind.group, such as DaemonSet.apps, or Service for a core kind"
        )
    return text


def _check_subdomain(text: str) -> str:
    if not re.fullmatch(_SUBDOMAIN, text):
        raise ValueError(f"{text!r} is not a name of an object")
    return text


def _check_cidr(text: str) -> str:
    try:
        ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a range of addresses such as 10.20.0.0/16: {error}") from None
    return text


Quantity = Annotated[
    str,
    BeforeValidator(_quantity),
    AfterValidator(_check_quantity),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "pattern": r"^\s*\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)"
                    r"([eE][+-]?[0-9]{1,3}|n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?\s*$",
                },
                {"type": "number", "minimum": 0},
            ]
        }
    ),
]
_RESOURCE_PATTERN: Final = f"^({'|'.join(map(re.escape, sorted(_STANDARD_RESOURCES)))}|{_OTHER_RESOURCE.pattern})$"
QuotaResource = Annotated[
    str, AfterValidator(_check_resource), WithJsonSchema({"type": "string", "pattern": _RESOURCE_PATTERN})
]
Quantities = dict[str, Quantity]
Kind = Annotated[str, AfterValidator(_check_kind), WithJsonSchema({"type": "string", "pattern": _KIND})]
ObjectName = Annotated[str, AfterValidator(_check_subdomain), WithJsonSchema({"type": "string", "pattern": _SUBDOMAIN})]
# Roughly: which addresses there are, and that no bits stand behind the prefix, the check says.
_CIDR: Final = r"^([0-9]{1,3}(\.[0-9]{1,3}){3}(/[0-9]{1,2})?|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(/[0-9]{1,3})?)$"
Cidr = Annotated[str, AfterValidator(_check_cidr), WithJsonSchema({"type": "string", "pattern": _CIDR})]
Count = Annotated[int, Field(ge=1)]


class LimitRangeItem(ConfigModel):
    """One item of a LimitRange."""

    type: Literal["Container", "Pod", "PersistentVolumeClaim"]
    """What it is about."""
    default: Quantities = Field(default_factory=dict)
    """Limits of containers that give none."""
    default_request: Quantities = Field(default_factory=dict)
    """Requests of containers that give none."""
    max: Quantities = Field(default_factory=dict)
    """The most."""
    min: Quantities = Field(default_factory=dict)
    """The least."""
    max_limit_request_ratio: Quantities = Field(default_factory=dict)
    """How many times its request a limit may be."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.type != "Container" and (self.default or self.default_request):
            raise ValueError(f"default and defaultRequest are for containers, not for {self.type}")
        if self.type == "PersistentVolumeClaim" and not {"storage"} & (self.min.keys() | self.max.keys()):
            raise ValueError("an item for PersistentVolumeClaim needs min.storage or max.storage")
        for resource, ratio in self.max_limit_request_ratio.items():
            if parse_quantity(ratio) < 1:
                raise ValueError(f"maxLimitRequestRatio.{resource} ({ratio}) is less than 1")
        bounds = [
            ("min", self.min),
            ("defaultRequest", self.default_request),
            ("default", self.default),
            ("max", self.max),
        ]
        for index, (low_name, low) in enumerate(bounds):
            for high_name, high in bounds[index + 1 :]:
                for resource in low.keys() & high.keys():
                    if parse_quantity(low[resource]) > parse_quantity(high[resource]):
                        raise ValueError(
                            f"{low_name}.{resource} ({low[resource]}) is more than "
                            f"{high_name}.{resource} ({high[resource]})"
                        )
        return self


class EgressPort(ConfigModel):
    """One port, or a range of ports."""

    port: PortNumber
    """Its number; the first of a range."""
    end_port: PortNumber | None = None
    """The last of a range."""
    protocol: Literal["TCP", "UDP", "SCTP"] = "TCP"
    """Its protocol."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end_port is not None and self.end_port < self.port:
            raise ValueError(f"endPort ({self.end_port}) is less than port ({self.port})")
        return self


class EgressRule(ConfigModel):
    """One destination that a sandbox may reach; give one of `cidr`, `namespace` and `namespaceLabels`."""

    cidr: Cidr | None = None
    """A range of addresses (`10.20.0.0/16`)."""
    except_: tuple[Cidr, ...] = Field(default=(), alias="except")
    """Ranges within `cidr` that it may not reach."""
    namespace: ServiceName | None = None
    """A namespace, by its name."""
    namespace_labels: dict[Text, str] = Field(default_factory=dict)
    """Namespaces that have all of these labels."""
    ports: tuple[EgressPort, ...] = ()
    """Ports there; all where none is given."""

    @model_validator(mode="after")
    def _one_destination(self) -> Self:
        given = [name for name in ("cidr", "namespace", "namespace_labels") if getattr(self, name)]
        if len(given) != 1:
            raise ValueError("give one of cidr, namespace and namespaceLabels")
        if self.except_ and self.cidr is None:
            raise ValueError("except belongs to cidr")
        for inner in self.except_:
            outer, excepted = ipaddress.ip_network(self.cidr or ""), ipaddress.ip_network(inner)
            if outer.version != excepted.version or not excepted.subnet_of(outer):  # type: ignore[arg-type]
                raise ValueError(f"except: {inner} is not within {self.cidr}")
        return self


class QuotaProfile(ConfigModel):
    """What a sandbox may use and bring."""

    api_version: Literal["sandbox.dev/v1"]
    """Version of this format."""
    kind: Literal["QuotaProfile"]
    """Always `QuotaProfile`."""
    name: ServiceName
    """Name, as `--quota` takes it."""
    description: Text = "no description"
    """What it is meant for, one line."""
    resource_quota: dict[QuotaResource, Quantity] = Field(min_length=1)
    """Hard limits of the ResourceQuota `sandbox`: compute, storage (also of one storage class), numbers of objects."""
    limit_range: tuple[LimitRangeItem, ...] = ()
    """Items of the LimitRange `sandbox`."""
    max_ttl: Duration | None = Field(default=None, alias="maxTTL")
    """Longest time to live that one `up` or extension may ask for; without one, `maxLifetime` alone bounds it."""
    max_lifetime: Duration | None = None
    """Longest life from its creation, however often it is extended; four times `maxTTL` by default, `30d` without."""
    max_per_owner: Count | None = None
    """How many sandboxes of this profile one owner may have at once; the client and the clean-up count."""
    max_per_project: Count | None = None
    """How many sandboxes of this profile one project may have at once; the client and the clean-up count."""
    pod_security: Literal["privileged", "baseline", "restricted"] = "baseline"
    """Pod security level that the namespace enforces."""
    network: Literal["open", "isolated", "restricted"] = "isolated"
    """`isolated`: no traffic from other namespaces; `restricted`: nor to others, but `egress` and DNS; `open`: all."""
    egress: tuple[EgressRule, ...] = ()
    """What a sandbox may reach besides itself and DNS; with `network: restricted`."""
    priority_class_name: ObjectName | None = None
    """The only PriorityClass that pods may name; those that name none have the cluster's default."""
    allowed_cluster_scoped: tuple[Kind, ...] = ()
    """Cluster-scoped kinds that `--allow-cluster-scoped` may let in (`ClusterRole.rbac.authorization.k8s.io`)."""
    allowed_kinds: tuple[Kind, ...] = ()
    """The only kinds that services may bring (`Deployment.apps`, `Service`); all where none is given."""
    forbidden_kinds: tuple[Kind, ...] = ()
    """Kinds that services may not bring (`DaemonSet.apps`)."""

    @property
    def lifetime(self) -> timedelta:
        """How long a sandbox may live from its creation."""
        if self.max_lifetime:
            return parse_duration(self.max_lifetime)
        return _LIFETIMES * parse_duration(self.max_ttl) if self.max_ttl else _LONGEST_LIFE

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if self.max_ttl and self.max_lifetime and parse_duration(self.max_lifetime) < parse_duration(self.max_ttl):
            raise ValueError(f"maxLifetime ({self.max_lifetime}) is less than maxTTL ({self.max_ttl})")
        for resource, hard in self.resource_quota.items():
            if _is_whole(resource) and parse_quantity(hard) % 1:
                raise ValueError(f"resourceQuota.{resource} ({hard}) must be a whole number")
        types = [item.type for item in self.limit_range]
        if len(set(types)) < len(types):
            raise ValueError("limitRange has two items of one type: Kubernetes takes one of each")
        if self.egress and self.network != "restricted":
            raise ValueError("egress is for `network: restricted`")
        if both := sorted(set(self.allowed_kinds) & set(self.forbidden_kinds)):
            raise ValueError(f"{', '.join(both)} is in allowedKinds and in forbiddenKinds")
        return self


def shipped_folder() -> Path:
    """The folder of the profiles that come with the tool: in the wheel, or in a checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_data" / "quotas"
    return packaged if packaged.is_dir() else package.parent / "quotas"


def profile_folders(root: Path | None, user_folders: Sequence[Path] = ()) -> list[Path]:
    """The folders to read, in order: shipped, the user's, the project's ``quotas/`` where it has one.

    Args:
        root: root of the project's tree.
        user_folders: of the user's settings.
    """
    project = [root / "quotas"] if root is not None and (root / "quotas").is_dir() else []
    return [shipped_folder(), *user_folders, *project]


def load_profiles(folders: Sequence[Path], *, say: Callable[[str], None] | None = None) -> dict[str, QuotaProfile]:
    """Read all profiles of some folders; a later folder's profile replaces an earlier one of its name.

    Args:
        say: is told of every replacement, and of YAML files in these folders that are no profiles.

    Raises:
        InvalidInput: a folder that is not there, a profile that is wrong, or two of one name in one folder.
    """
    profiles: dict[str, QuotaProfile] = {}
    origins: dict[str, Path] = {}
    # In this tool's own repository, the shipped folder is the project's too.
    for folder in _each_once(folders):
        if not folder.is_dir():
            raise InvalidInput(f"the folder of quota profiles {folder} does not exist")
        for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
            document = load_yaml(path, shown_as=f"{folder.name}/{path.name}")
            if not _is_profile(document.data):
                _tell(say, f"{document.shown_as} is not a quota profile and is not read")
                continue
            profile = validate(QuotaProfile, document)
            before = origins.get(profile.name)
            if before is not None and before.parent == folder:
                raise document.error(("name",), f"{profile.name!r} is the name of {before.name} too")
            if before is not None and profile != profiles[profile.name]:
                _tell(say, f"the quota profile {profile.name} of {path} replaces that of {before}")
            profiles[profile.name] = profile
            origins[profile.name] = path
    return profiles


def choose_profile(name: str, profiles: Mapping[str, QuotaProfile]) -> QuotaProfile:
    """The profile of a name.

    Raises:
        InvalidInput: there is none.
    """
    if name not in profiles:
        known = "; ".join(f"{profile.name} ({profile.description})" for profile in profiles.values())
        raise InvalidInput(
            f"there is no quota profile {name!r}{near(name, profiles)}", hint=f"known are {known or 'none'}"
        )
    return profiles[name]


def _is_profile(data: Any) -> bool:
    """Whether a file means to be one: a project's ``quotas/`` may hold other things, such as ResourceQuotas."""
    if not isinstance(data, Mapping):
        return False
    return data.get("kind") == "QuotaProfile" or str(data.get("apiVersion", "")).startswith("sandbox.dev/")


def _each_once(folders: Sequence[Path]) -> list[Path]:
    return list({folder.resolve(): folder for folder in folders}.values())


def _tell(say: Callable[[str], None] | None, line: str) -> None:
    if say is not None:
        say(line)
