"""The platform configuration: what a cluster's platform team decided for everybody (``platform.yaml``).

It lies in the cluster, in the ConfigMap that the chart ``charts/sandbox`` installs
(:mod:`sandbox.cluster.platform` reads it), and wins over a project's file, which wins over a user's settings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from sandbox.model.durations import parse_duration
from sandbox.model.errors import InvalidInput
from sandbox.project.config import (
    API_VERSION,
    ConfigModel,
    Duration,
    NamespacePrefix,
    Registry,
    ServiceName,
    Text,
    matching,
)
from sandbox.project.quotas import QuotaProfile
from sandbox.project.validation import validate
from sandbox.project.yamlfile import KeyPath, LocatedDocument, dotted, parse_yaml

# Where people find it (sandbox/cluster/platform.py reads it there).
SHOWN_AS: Final = "the platform configuration (ConfigMap sandbox-config in sandbox-system, platform.yaml)"
# What another machine can find, without a password: no relative folder, none of somebody's home.
STORE_URL: Final = (
    r"^(file://)?/[^\s?#]*$"
    r"|^(abfs|abfss|adl|az|gcs|gs|hdfs|oci|oss|s3|s3a|sftp|smb|ssh|webhdfs)://([^\s/?#:@]+@)?[^\s/?#@]+(/[^\s?#]*)?$"
)


def _store_url(text: str) -> str:
    if not re.search(STORE_URL, text, re.ASCII) or text.endswith("\n"):
        raise ValueError(
            f"{text.partition('://')[0]!r} begins no store that every machine finds; such as s3://bucket/path, "
            "file:///srv/captures, and no password in it"
        )
    return text


StoreUrl = Annotated[str, AfterValidator(_store_url), WithJsonSchema({"type": "string", "pattern": STORE_URL})]


# With a dot: groups without one are Kubernetes' own.
API_GROUP: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)+$"


_group_check, _group_schema = matching(API_GROUP, "an API group of custom resources, such as acid.zalan.do")
ApiGroup = Annotated[str, _group_check, _group_schema]


class PlatformImages(ConfigModel):
    """What holds for the images of all projects."""

    pull_secret: ServiceName | None = None
    """Name of the Secret that pods pull with; a project's or user's own is not used then."""


class Limits(ConfigModel):
    """What only counting can hold: the API server cannot, so `up` refuses and the clean-up reports it."""

    sandboxes_per_owner: int | None = Field(default=None, ge=1)
    """Most sandboxes of one owner; without one, any number."""
    sandboxes_per_project: int | None = Field(default=None, ge=1)
    """Most sandboxes of one project; without one, any number."""


class CustomResource(ConfigModel):
    """A kind of custom resource, as RBAC names it."""

    group: ApiGroup
    """Its API group, such as `acid.zalan.do`."""
    resource: ServiceName
    """Its plural name, such as `postgresqls`."""


class Cleanup(ConfigModel):
    """What the clean-up does besides deleting namespaces."""

    custom_resources: list[CustomResource] = Field(default_factory=list)
    """Kinds that are deleted before the namespace they are in, so that their operators can finish them."""

    @property
    def kinds(self) -> frozenset[str]:
        """As kubectl writes them: ``postgresqls.acid.zalan.do``."""
        return frozenset(f"{each.resource}.{each.group}" for each in self.custom_resources)


class Platform(ConfigModel):
    """A `platform.yaml`."""

    api_version: Literal["sandbox.dev/v1"] = "sandbox.dev/v1"
    """Version of this format."""
    cluster_name: Text | None = None
    """What people call the cluster; messages and alerts name it."""
    profiles: dict[ServiceName, QuotaProfile] = Field(default_factory=dict)
    """Quota profiles by name, as in `quotas/*.yaml`. Where there is one, no other profiles count."""
    namespace_prefix: NamespacePrefix = ""
    """What namespaces of sandboxes begin with; wins over everybody's settings."""
    owner_role: ServiceName | None = None
    """ClusterRole that `up` binds the owner of a new sandbox to; none where rights come from elsewhere."""
    registry: Registry | None = None
    """Registry, and path in it, that built images are pushed to; `--registry` wins over it."""
    images: PlatformImages = Field(default_factory=PlatformImages)
    """What holds for the images of all projects."""
    capture_store: StoreUrl | None = None
    """URL of the store that captures and the records of deleted sandboxes go to."""
    warn_before: Duration = "30m"
    """How long before a sandbox ends its owner is warned; at most half its time to live."""
    record_retention: Duration = "7d"
    """How long the lock of a deleted sandbox is kept, so that `up --lock` brings it back."""
    limits: Limits = Field(default_factory=Limits)
    """What only counting can hold."""
    cleanup: Cleanup = Field(default_factory=Cleanup)
    """What the clean-up does besides deleting namespaces."""

    @model_validator(mode="after")
    def _keys_are_names(self) -> Self:
        for key, profile in self.profiles.items():
            if profile.name != key:
                raise ValueError(f"the profile {key!r} calls itself {profile.name!r}")
        return self

    @property
    def governs_profiles(self) -> bool:
        """Whether the platform's profiles are the only ones."""
        return bool(self.profiles)

    @property
    def warning_time(self) -> timedelta:
        """``warnBefore``."""
        return parse_duration(self.warn_before)

    @property
    def retention(self) -> timedelta:
        """``recordRetention``."""
        return parse_duration(self.record_retention)


def parse_platform(text: str | None) -> Platform:
    """Read a platform configuration; None and empty text: none is installed, the defaults hold.

    Raises:
        InvalidInput: it is wrong; the message names ConfigMap and key. It is the platform team's to mend.
    """
    if text is None:
        return Platform()
    try:
        read = parse_yaml(text, shown_as=SHOWN_AS)
        document = _PlatformDocument(_with_named_profiles(read.data), read.lines, read.shown_as)
        return Platform() if document.data is None else validate(Platform, document)
    except InvalidInput as error:
        error.hint = "; ".join(
            filter(None, (error.hint, "ask whoever runs the cluster: it is in the values of the chart `sandbox`"))
        )
        raise


@dataclass(frozen=True)
class _PlatformDocument(LocatedDocument):
    """The chart writes it, so its lines are nobody's: errors point at keys, which are those of the chart's values."""

    def describe(self, path: KeyPath, message: str) -> str:
        return f"{self.shown_as}: {dotted(path)}: {message}" if path else f"{self.shown_as}: {message}"


def _with_named_profiles(data: Any) -> Any:
    """What a profile's file must say of itself (apiVersion, kind, name), its key says here."""
    if not isinstance(data, Mapping) or not isinstance(data.get("profiles"), Mapping):
        return data
    profiles = {
        name: {"apiVersion": API_VERSION, "kind": "QuotaProfile", "name": name, **profile}
        if isinstance(profile, Mapping)
        else profile
        for name, profile in data["profiles"].items()
    }
    return {**data, "profiles": profiles}
