"""Policies: those that came with Assay and those that people add, by name and version."""

import logging
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import Connection

from orchestrator.domain.errors import Conflict, FieldError, Invalid, Missing
from orchestrator.domain.suggest import did_you_mean
from orchestrator.protocol.wire import JsonObject
from orchestrator.rules.policies import Policy, policy_hash, resolve_policy
from orchestrator.services import views
from orchestrator.services.context import Context
from orchestrator.store import policies as store

log = logging.getLogger("assay.policies")

RESERVED = "schema"
"""`/v1/policies/schema` is no policy."""


Documents = Mapping[tuple[str, int], JsonObject]
"""By name and version, in that order."""


def record_shipped(context: Context) -> None:
    """Records the documents that came with Assay, each once. Called at the start, after the migrations.

    A row is never changed. Where a document of a recorded version has another meaning today, the
    recorded one stands, and the log says so.
    """
    now = context.clock()
    with context.database.write() as connection:
        for document in context.policies.values():
            policy = resolve_policy(document, {})
            if (differs := _record(connection, policy, now=now)) is not None:
                log.warning("%s; the recorded one stands", differs)


def add_policy(context: Context, document: JsonObject) -> tuple[views.PolicyView, bool]:
    """The policy of the document, and whether it is new. The same again: the same, and nothing is written.

    Raises `Invalid` with the fields that are wrong, and `Conflict` for another document under a name and
    version that are taken.
    """
    policy = _parsed(document)
    with context.database.write() as connection:
        before = store.get_policy(connection, policy.name, policy.version)
        if (differs := _record(connection, policy, now=context.clock())) is not None:
            raise Conflict(f"{differs}: raise `version`")
    document = policy.model_dump(mode="json")
    return _view(document, policy_hash(policy)), before is None


def _parsed(document: JsonObject) -> Policy:
    try:
        policy = resolve_policy(document, {})
    except Invalid as error:
        bare = [FieldError(e.field.removeprefix("policy."), e.message) for e in error.errors]
        raise Invalid(bare) from None
    if policy.name == RESERVED:
        raise Invalid([FieldError("name", f"`{RESERVED}` is the address of the schema: take another name")])
    return policy


def _record(connection: Connection, policy: Policy, *, now: datetime) -> str | None:
    """Writes the policy unless it is there; a sentence where another is there in its place."""
    document = policy.model_dump(mode="json")
    found = store.get_policy(connection, policy.name, policy.version)
    if found is None:
        store.add_policy(
            connection,
            name=policy.name,
            version=policy.version,
            hash_=policy_hash(policy),
            document=document,
            now=now,
        )
        return None
    if _hash_today(found.document) in (policy_hash(policy), None):
        return None
    return f"policy {policy.name} version {policy.version} is recorded with another document"


def _hash_today(document: JsonObject) -> str | None:
    """What the stored document means to today's rules; None where they cannot read it any more.

    Fields that came later have their defaults, so the hash of an old document may have changed.
    """
    try:
        return policy_hash(resolve_policy(document, {}))
    except Invalid:
        return None


def _documents(context: Context) -> Documents:
    """Every version: the recorded ones, and those that came with Assay."""
    with context.database.read() as connection:
        rows = store.list_policies(connection)
    shipped = {_key(document): document for document in context.policies.values()}
    found = shipped | {(row.name, row.version): row.document for row in rows}
    return dict(sorted(found.items()))


def _key(document: JsonObject) -> tuple[str, int]:
    return str(document["name"]), int(str(document["version"]))


def known_policies(context: Context) -> Mapping[str, JsonObject]:
    """What a spec may name: `race`, the newest version, and `race@1`."""
    every = _documents(context)
    newest = {name: document for (name, _), document in every.items()}
    return newest | {f"{name}@{version}": document for (name, version), document in every.items()}


def list_policies(context: Context) -> views.Page[views.PolicyView]:
    """The newest version of each, by name."""
    newest = {name: document for (name, _), document in _documents(context).items()}
    return views.Page(items=[_view(document) for document in newest.values()])


def get_policy(context: Context, name: str, version: int | None = None) -> views.PolicyView:
    """That version, or the newest. Raises `Missing`."""
    every = _documents(context)
    versions = [there for named, there in every if named == name]
    if not versions:
        hint = did_you_mean(name, {named for named, _ in every})
        raise Missing(f"there is no policy `{name[:63]}`{hint}")
    wanted = versions[-1] if version is None else version
    if wanted not in versions:
        there = ", ".join(map(str, versions))
        raise Missing(f"policy {name} has no version {wanted}; there is {there}")
    return _view(every[name, wanted])


def _view(document: JsonObject, hash_: str | None = None) -> views.PolicyView:
    name, version = _key(document)
    return views.PolicyView(
        name=name, version=version, hash=hash_ or _hash_today(document) or "", document=document
    )
