"""Names of the labels and annotations that hold the product's state, each named once.

The cluster is the only database: ``docs/architecture.md`` ("State") says what each means.
"""

from __future__ import annotations

from typing import Final

DOMAIN: Final = "sandbox.dev"
FIELD_MANAGER: Final = "sandbox"

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY_VALUE: Final = "sandbox"
SELECTOR: Final = f"{MANAGED_BY}={MANAGED_BY_VALUE}"

# Labels of the namespace; SERVICE is put on objects that we apply ourselves.
OWNER: Final = f"{DOMAIN}/owner"
PROJECT: Final = f"{DOMAIN}/project"
NAME: Final = f"{DOMAIN}/name"
SERVICE: Final = f"{DOMAIN}/service"

# Annotations of the namespace. Times are RFC 3339, UTC.
OWNER_USER: Final = f"{DOMAIN}/owner-user"
OWNER_GROUP: Final = f"{DOMAIN}/owner-group"
NAMESPACE: Final = f"{DOMAIN}/namespace"
CREATED_AT: Final = f"{DOMAIN}/created-at"
EXPIRES_AT: Final = f"{DOMAIN}/expires-at"
MAX_EXPIRES_AT: Final = f"{DOMAIN}/max-expires-at"
PINNED_UNTIL: Final = f"{DOMAIN}/pinned-until"
PIN_REASON: Final = f"{DOMAIN}/pin-reason"
PINNED_BY: Final = f"{DOMAIN}/pinned-by"
TTL: Final = f"{DOMAIN}/ttl"
# The longest that one extension may ask for, as the quota profile said at the last deployment.
MAX_TTL: Final = f"{DOMAIN}/max-ttl"
PHASE: Final = f"{DOMAIN}/phase"
# On whatever sleeps (the namespace too): what it was before.
AWAKE: Final = f"{DOMAIN}/awake"
REPO: Final = f"{DOMAIN}/repo"
REF: Final = f"{DOMAIN}/ref"
COMMIT: Final = f"{DOMAIN}/commit"
QUOTA_PROFILE: Final = f"{DOMAIN}/quota-profile"
CREATED_BY: Final = f"{DOMAIN}/created-by"
TOOLS: Final = f"{DOMAIN}/tools"

# Names of our objects inside a sandbox.
QUOTA_NAME: Final = "sandbox"
LIMIT_RANGE_NAME: Final = "sandbox"
NETWORK_POLICY_NAME: Final = "sandbox-default-deny"
RECORD_NAME: Final = "sandbox-record"
RECORD_TYPE: Final = f"{DOMAIN}/record"
LEASE_NAME: Final = "sandbox-deploy"

# On a Job of ours that serves a copy of a store's volume: of which store, and which process made it.
VOLUME_COPY: Final = f"{DOMAIN}/volume-copy"
HOLDER: Final = f"{DOMAIN}/holder"
