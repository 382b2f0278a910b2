"""The experiments that are disturbed: small, and each unlike the others."""

import json
import random
from dataclasses import dataclass

from orchestrator.bootstrap import configs_folder, load_policies
from orchestrator.protocol.wire import JsonObject

SHAPES = 80
"""So many different experiments; the undisturbed run of each is worked out once in a process."""
EVERY = 20
POLICIES = ("stage-gate", "short-screen", "run-all", "race", "asha", "successive-halving", "median-stop")


@dataclass(frozen=True)
class Shape:
    """A spec, the machine that it runs on, and what its losses will be."""

    number: int
    spec: JsonObject
    slots: int
    offsets: dict[str, float]

    def loss(self, variant: str, seed: int, step: int) -> float:
        """Falls like a power of the step, with an offset for each variant."""
        falling = 3 + 4 * float(step + 1) ** -0.25
        return falling + self.offsets[variant] + 1e-3 * (seed + 1) * (variant != "base")


def draw_shape(number: int) -> Shape:
    """The shape of a number: 2-4 variants, 1-2 seeds, 2-3 stages, 1-3 slots."""
    chance = random.Random(number)  # noqa: S311 - it is to be repeated, not to be secret
    names = ["base", *(f"v{i}" for i in range(1, chance.randint(2, 4)))]
    offsets = {name: round(chance.uniform(-0.3, 0.25), 3) for name in names} | {"base": 0.0}
    spec: JsonObject = {
        "name": f"shape-{number}",
        "base": {"width": 4},
        "control": "base",
        "eval_every": EVERY,
        "seeds": chance.choice(([0], [0], [0, 1])),
        "policy": _policy(chance.choice(POLICIES)),
        "retries": {"restarts": 1000},
        "stages": _stages(chance, names),
    }
    return Shape(number, json.loads(json.dumps(spec)), chance.randint(1, 3), offsets)


def _stages(chance: random.Random, names: list[str]) -> list[JsonObject]:
    first = {name: {"width": 4 + place} if place else {} for place, name in enumerate(names)}
    budgets = chance.choice(([20, 40], [40, 60], [20, 60], [20, 40, 60]))
    stages: list[JsonObject] = [{"name": "screen", "steps": budgets[0], "variants": first}]
    for name, steps in zip(("confirm", "long"), budgets[1:], strict=False):
        best = 1 if steps == budgets[-1] else 2
        promote: JsonObject = {"best": best, "eligible": chance.choice(("policy", "all"))}
        promote |= {"eager": chance.random() < 0.25}
        stages.append({"name": name, "steps": steps, "promote": promote})
    return stages


def _policy(name: str) -> str | JsonObject:
    """By name; the screen without its limit on restarts, which faults would rightly trip."""
    if name != "short-screen":
        return name
    document = json.loads(json.dumps(load_policies(configs_folder() / "policies")[name]))
    kept = [part for part in document["promote"]["all"] if part["criterion"] != "stable"]
    return document | {"name": "screen-of-restarts", "promote": {"all": kept}}
