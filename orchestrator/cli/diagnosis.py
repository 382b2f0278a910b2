"""What `assay doctor` found, for a terminal."""

from rich.text import Text

from orchestrator.cli.client import Json

STYLES = {"error": "bold red", "warning": "yellow", "note": "dim"}


def diagnosis(document: Json) -> Text:
    """Each finding with where it is and what mends it, and a last line that sums up."""
    return Text("\n").join([*map(_finding, document["findings"]), _sum(document)])


def _finding(finding: Json) -> Text:
    severity, is_repaired = finding["severity"], finding["is_repaired"]
    head = ((severity, STYLES[severity]), f"  {finding['area']}: {finding['what']}")
    below = ((" (repaired)", "green"),) if is_repaired else (f"\n  {finding['fix']}",)
    return Text.assemble(*head, f"\n  {finding['where']}", *below)


def _sum(document: Json) -> Text:
    counts = dict.fromkeys(STYLES, 0)
    for finding in document["findings"]:
        counts[finding["severity"]] += not finding["is_repaired"]
    found = [f"{n} {name}{'' if n == 1 else 's'}" for name, n in counts.items() if n]
    state = ("healthy", "green") if document["healthy"] else ("not healthy", "bold red")
    served = "a service works on it" if document["served"] else "no service works on it"
    said = f": {', '.join(found) or 'nothing to do'} ({served})"
    return Text.assemble(f"{document['home']} is ", state, said)
