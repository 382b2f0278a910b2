"""`[MOE]` lines of a log: `[MOE] entropy=0.97 load_max=0.05 experts=40 aux_loss=1.02`, in any order."""

import math
import re
from collections.abc import Mapping

from orchestrator.protocol.wire import JsonObject

_PAIR = re.compile(r"([A-Za-z_][\w./-]*)\s*[=:]\s*(\[[^\]]*\]|[-+.\w]+)")

NAMES: dict[str, tuple[str, ...]] = {
    "num_experts": ("num_experts", "experts", "n_experts"),
    "entropy": ("entropy", "routing_entropy", "load_entropy", "entropy_norm", "normalized_entropy"),
    "entropy_worst_layer": ("entropy_worst_layer", "entropy_min", "min_entropy"),
    "loads": ("load", "loads", "expert_load", "expert_loads"),
    "load_min": ("load_min", "min_load"),
    "load_max": ("load_max", "max_load"),
    "imbalance": ("imbalance",),
    "aux_loss": ("aux_loss", "aux", "balance_loss", "load_balance_loss"),
    "aux_coef": ("aux_coef", "aux_loss_coef"),
    "dead_experts": ("dead_experts", "dead"),
    "dropped_tokens": ("dropped_tokens", "dropped"),
}
"""What is read, and the keys that it is found under; every other key is passed over."""

_MEANING = {key: name for name, keys in NAMES.items() for key in keys}

Said = Mapping[str, float]
"""The numbers of one line, by the names above; a list of loads has become `num_experts` and its extremes."""


def read_moe(line: str) -> dict[str, float]:
    """The numbers that a line says. What is no number is passed over, as unknown keys are."""
    said: dict[str, float] = {}
    for key, value in _PAIR.findall(line):
        name = _MEANING.get(key.lower())
        if name == "loads":
            said = _of_loads(value) | said
        elif name is not None and (number := _number(value)) is not None:
            said.setdefault(name, number)
    return said


def _of_loads(text: str) -> dict[str, float]:
    """From the loads of all experts; nothing where one of them is no share."""
    loads = [_number(part) for part in text.strip("[]").replace(",", " ").split()]
    known = [load for load in loads if load is not None and math.isfinite(load) and load >= 0]
    total = math.fsum(known)
    if len(known) < 2 or len(known) < len(loads) or total <= 0:
        return {}
    shares = [load / total for load in known]
    return {"num_experts": len(known), "load_min": min(shares), "load_max": max(shares)}


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def in_nats(said: Mapping[str, float]) -> bool:
    """Whether an entropy is above 1, which a normalised one never is."""
    return any(said.get(name, 0.0) > 1 + 1e-6 for name in ("entropy", "entropy_worst_layer"))


def fields_of(said: Said, *, nats: bool) -> tuple[JsonObject, str | None]:
    """Fields of an evaluation, and why the routing is not among them, if it is not.

    The routing takes the number of experts, the entropy and the largest load (or the imbalance). `nats` says
    that the log's entropies are not normalised: they are divided by `ln E`. Where the worst layer's is not
    said, the entropy stands for it.
    """
    found: JsonObject = {name: said[name] for name in ("aux_loss", "aux_coef") if name in said}
    experts = said.get("num_experts", math.nan)
    if not (math.isfinite(experts) and experts >= 1 and experts == int(experts)):
        return found, "no number of experts (`num_experts=40`)"
    if "entropy" not in said:
        return found, "no entropy (`entropy=0.97`)"
    load_max = said.get("load_max", (said.get("imbalance", math.nan) + 1) / experts)
    load_min = said.get("load_min", math.nan)
    if not 0 <= load_max <= 1:
        return found, "no largest load as a share of 1 (`load_max=0.05`)"
    scale = 1 / math.log(experts) if nats and experts > 1 else 1.0
    routing: JsonObject = {
        "num_experts": int(experts),
        "entropy": said["entropy"] * scale,
        "entropy_worst_layer": said.get("entropy_worst_layer", said["entropy"]) * scale,
        "load_min": load_min,
        "load_max": load_max,
    }
    for name in ("dead_experts", "dropped_tokens"):
        if math.isfinite(count := said.get(name, math.nan)) and count >= 0:
            routing[name] = int(count)
    return found | {"routing": routing}, None
