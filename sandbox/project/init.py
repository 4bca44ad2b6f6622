"""The first ``sandbox.yaml`` of a project, with comments on what else it could say."""

from __future__ import annotations

import io
from typing import Any

from sandbox.project.config import Project, Service
from sandbox.project.yamlfile import reads_as_text

_HEAD = """\
# What `sandbox up` deploys from this repository. All keys: docs/configuration.md, or `sandbox schema`.
# Editors check this file by the schema: `sandbox schema > sandbox.schema.json`, then
# yaml-language-server: $schema=sandbox.schema.json
"""
_DEFAULTS = "Used where an option is not given (--env, --quota, --ttl, --base)."
_SERVICE_HINTS = (
    ("needs", "needs: [other-service]            # ready before this one is deployed"),
    ("ports", "ports: {http: 8080}               # for `sandbox open` and `sandbox port-forward`"),
    ("smoke", "smoke: {http: {path: /healthz}}   # must answer before the sandbox is ready"),
    ("images", "images: [{name: acme/web, build: {context: web}}]   # built from the commit"),
)


def render_initial(project: Project) -> str:
    """A project as commented YAML; it is read back as an equal project."""
    from ruamel.yaml import YAML
    from ruamel.yaml.comments import CommentedMap

    document = CommentedMap(
        {
            "apiVersion": project.api_version,
            "project": project.project,
            "defaults": _commented(
                {"env": project.defaults.env, "quota": project.defaults.quota, "ttl": project.defaults.ttl}
                | ({"base": project.defaults.base} if project.defaults.base else {})
            ),
        }
    )
    rest = project.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for key in ("requires", "images", "allowClusterScoped"):
        if key in rest:
            document[key] = _commented(rest[key])
    services = CommentedMap()
    for index, (name, service) in enumerate(project.services.items()):
        services[name] = _commented(rest["services"][name])
        if index == 0:
            _hint(services[name], service)
    document["services"] = services
    if "environments" in rest:
        document["environments"] = _commented(rest["environments"])
    document.yaml_set_comment_before_after_key("defaults", before=f"\n{_DEFAULTS}")
    document.yaml_set_comment_before_after_key("services", before="\n")
    if "environments" in rest:
        document.yaml_set_comment_before_after_key("environments", before="\n")
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    text = io.StringIO()
    yaml.dump(document, text)
    return _HEAD + text.getvalue()


def _commented(value: Any) -> Any:
    """Plain data as ruamel's, so that comments can be put on it."""
    from ruamel.yaml.comments import CommentedMap, CommentedSeq
    from ruamel.yaml.scalarstring import SingleQuotedScalarString

    if isinstance(value, dict):
        return CommentedMap({key: _commented(item) for key, item in value.items()})
    if isinstance(value, list):
        items = CommentedSeq(_commented(item) for item in value)
        # Lists of short words read best on one line.
        if all(isinstance(item, str) for item in value):
            items.fa.set_flow_style()
        return items
    # ruamel writes YAML 1.2, where `no` is text; Helm and we read 1.1.
    if isinstance(value, str) and not reads_as_text(value):
        return SingleQuotedScalarString(value)
    return value


def _hint(mapping: Any, service: Service) -> None:
    """Say at the first service what a service can have, and this one has not."""
    missing = [text for key, text in _SERVICE_HINTS if not getattr(service, key)]
    if missing:
        mapping.yaml_set_start_comment("\n".join(["It can have too:", *missing]), indent=4)
