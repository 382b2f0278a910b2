"""What `assay policies` does: list, show and add the documents that a spec may name."""

from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from orchestrator.cli.client import Client, Json
from orchestrator.cli.documents import read_document
from orchestrator.cli.errors import BadUsage
from orchestrator.cli.output import put, put_json, say
from orchestrator.cli.tables import table

RULES = ("stop", "promote")


def ls(client: Client, as_json: bool) -> None:
    items = client.items("/v1/policies")
    put({"items": items, "next_cursor": None}, as_json, lambda shown: listed(shown["items"]))


def listed(items: list[Json]) -> RenderableType:
    made = table("name", "version", "hash", "what it does", wide="what it does", right=("version",))
    for item in items:
        about = Text(str(item["document"].get("description", "")))
        made.add_row(item["name"], str(item["version"]), item["hash"][:12], about)
    return made


def schema(client: Client) -> None:
    """Prints the JSON Schema, for an editor."""
    put_json(client.get("/v1/policies/schema"))


def show(client: Client, name: str, as_json: bool) -> None:
    put(client.get(f"/v1/policies/{bare(name)}", version=version_of(name)), as_json, shown)


def bare(name: str) -> str:
    """`race` of `race@1`."""
    return name.partition("@")[0]


def version_of(name: str) -> int | None:
    """1 of `race@1`; None without a version. Raises `BadUsage` for what is no number."""
    _, sign, version = name.partition("@")
    if sign and not version.isdecimal():
        raise BadUsage(f"`{name}`: a version is a number, as in `{bare(name)}@1`")
    return int(version) if sign else None


def add(client: Client, file: Path, as_json: bool) -> None:
    made = client.post("/v1/policies", read_document(file))
    if as_json:
        put_json(made)
    else:
        say(f"{made['name']}@{made['version']} is recorded ({made['hash'][:12]}); a spec may name it")


def shown(item: Json) -> RenderableType:
    """The rules as trees, then every other field."""
    document = item["document"]
    head = Text(f"{item['name']}@{item['version']} ({item['hash'][:12]})", style="bold")
    trees = []
    for rule in RULES:
        tree = Tree(Text(rule, style="bold"))
        _grow(tree, document[rule])
        trees.append(tree)
    rest = table("field", "value", wide="value")
    for field, value in document.items():
        if field not in {"name", "version", "description", *RULES}:
            rest.add_row(field, Text(_said(value)))
    return Group(head, Text(str(document.get("description", ""))), *trees, rest)


def _grow(tree: Tree, node: Json) -> None:
    """The node as a branch, its parts below it."""
    if "criterion" in node:
        numbers = {field: value for field, value in node.items() if field != "criterion"}
        tree.add(Text(f"{node['criterion']}  {_said(numbers)}".rstrip()))
        return
    ((how, inside),) = node.items()
    branch = tree.add(Text(how if inside else f"{how} of nothing"))
    for part in inside if isinstance(inside, list) else [inside]:
        _grow(branch, part)


def _said(value: object) -> str:
    """`a 1, b 2` of a mapping; else the value as JSON has it."""
    if isinstance(value, dict):
        return ", ".join(f"{field} {_said(inner)}" for field, inner in value.items() if inner is not None)
    if isinstance(value, list):
        return "; ".join(_said(inner) for inner in value) if value else "none"
    return "none" if value is None else str(value)
