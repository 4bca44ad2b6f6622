"""The user's own settings: ``$SANDBOX_CONFIG``, else ``config.yaml`` in the user's configuration folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import platformdirs
from pydantic import Field

from sandbox.model.errors import InvalidInput
from sandbox.project.config import BuilderName, ConfigModel, NamespacePrefix, Registry, ServiceName, Text
from sandbox.project.validation import validate
from sandbox.project.yamlfile import load_yaml


class Settings(ConfigModel):
    """What holds for one user, whatever the project. A project's file wins over it."""

    registry: Registry | None = None
    """Registry, and path in it, that built images are pushed to."""
    builder: BuilderName | None = None
    """What builds images."""
    pull_secret: ServiceName | None = None
    """Secret that pods pull with, in the namespace of the kubeconfig's context; it is copied into sandboxes."""
    owner: Text | None = None
    """Owner of new sandboxes; the cluster's user name where not given."""
    namespace_prefix: NamespacePrefix = ""
    """What namespaces of sandboxes begin with, where the platform configuration does not say it."""
    quota_folders: tuple[Text, ...] = ()
    """Folders with further quota profiles; relative ones are relative to this file's folder."""
    build_args: dict[str, str] = Field(default_factory=dict)
    """Build arguments for every image, such as a base image of one's own."""
    capture_store: Text | None = None
    """Folder or URL that captures are kept in, where the cluster's platform configuration names none."""
    host_domain: Text = "sandbox.localhost"
    """What `${SANDBOX_HOST}` ends with: a domain whose names all lead to the cluster's ingress controller."""
    git_allow: tuple[Text, ...] = ()
    """Git filters (`filter:lfs`) that may run when a commit is exported, and submodules (`submodule:PATH`) to bring."""

    def quota_paths(self, folder: Path) -> list[Path]:
        """The quota folders as paths; relative to the settings file's folder."""
        return [folder / _expanded(text) for text in self.quota_folders]


def settings_path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the settings are, or would be."""
    given = environment.get("SANDBOX_CONFIG")
    return _expanded(given) if given else platformdirs.user_config_path("sandbox") / "config.yaml"


def _expanded(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise InvalidInput(f"{text!r} is in the home folder of nobody") from None


def load_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings; without a file there are none.

    Raises:
        InvalidInput: the file is wrong, or ``$SANDBOX_CONFIG`` names one that is not there.
    """
    path = settings_path(environment)
    if not path.is_file():
        if environment.get("SANDBOX_CONFIG"):
            raise InvalidInput(f"$SANDBOX_CONFIG names {path}, which does not exist")
        return Settings()
    document = load_yaml(path, shown_as=str(path))
    return Settings() if document.data is None else validate(Settings, document)
