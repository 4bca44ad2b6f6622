"""Who owns a sandbox, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.cluster.client import Cluster
from sandbox.model import labels, names
from sandbox.model.sandbox import Sandbox


@dataclass(frozen=True)
class Identity:
    """Owner and names of one sandbox.

    Attributes:
        owner: whom it belongs to, in full: a user name such as ``dana@example.com``.
        created_by: the authenticated user who runs this; the owner, unless made for somebody else.
        name: of the sandbox, an RFC 1123 label.
        namespace: the name behind the namespace prefix.
        is_group: whether the owner is a group of users, whose members may all work in it.
    """

    owner: str
    created_by: str
    project: str
    branch: str
    name: str
    namespace: str
    is_group: bool = False

    def owns(self, sandbox: Sandbox) -> bool:
        """Whether an existing namespace is this very sandbox, not one whose name happens to be the same."""
        return sandbox.owner == self.owner and sandbox.project == names.slug(self.project) and sandbox.name == self.name


async def identify(
    cluster: Cluster,
    *,
    project: str,
    branch: str,
    prefix: str = "",
    owner: str | None = None,
    owner_group: str | None = None,
    name: str | None = None,
) -> Identity:
    """Say whose sandbox of a project's branch it is and what it is called.

    Args:
        branch: the branch's short name, or the short SHA of a detached HEAD.
        owner: for whom, when not for the authenticated user; ``owner_group``: for a group instead.
        name: what the user wants it called instead of ``owner-project-branch``; made a label where it is none.

    Raises:
        Unreachable: the cluster does not say who we are.
    """
    user = (await cluster.whoami()).username
    longest = names.LONGEST_NAME - len(prefix)
    chosen = owner_group or owner or user
    short = name or names.sandbox_name(display_name(chosen), project, branch, longest=longest)
    if not names.is_name(short, longest=longest):
        short = names.slug(short, longest=longest)
    return Identity(chosen, user, project, branch, short, prefix + short, is_group=owner_group is not None)


def display_name(user: str) -> str:
    """The part of a user name that people say.

    ``system:serviceaccount:ci:deployer`` → ``deployer``, ``dana@example.com`` → ``dana``.
    """
    return user.rpartition(":")[2].partition("@")[0] or user


def namespace_labels(identity: Identity) -> dict[str, str]:
    """The labels by which sandboxes are listed; for display, the annotations decide."""
    return {
        labels.MANAGED_BY: labels.MANAGED_BY_VALUE,
        labels.OWNER: names.slug(display_name(identity.owner)),
        labels.PROJECT: names.slug(identity.project),
        labels.NAME: identity.name,
    }
