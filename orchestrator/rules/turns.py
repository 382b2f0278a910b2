"""Whose turn it is among variants that wait for a result, where two of them could come to one config."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from orchestrator.domain.expand import override
from orchestrator.domain.hashing import content_hash
from orchestrator.domain.spec_models import Overrides
from orchestrator.protocol.wire import JsonObject

MOST_CONFIGS = 1000
"""Of one waiting variant; of one that could come to more, any other is taken to be able to come to it too."""


@dataclass(frozen=True)
class Waiter:
    """A variant of the plan that starts from the best of others, whatever has become of it."""

    name: str
    stage: int
    sources: tuple[str, ...]
    overrides: Overrides


def waits_behind(waiters: Sequence[Waiter], configs: Mapping[str, JsonObject]) -> dict[str, tuple[str, ...]]:
    """For each waiter, those before it in the order of turns that could come to the same config.

    The second of two equal configs is not trained, so who is first must not hang on whose sources came
    first. The order of turns is the plan's, but that each stands after its sources; `waiters` in the
    plan's order, all of them, and `configs` of the variants that there are.

    It is asked at every snapshot and changes only when a variant comes to be, so it is remembered.
    """
    asked = {name for waiter in waiters for name in (waiter.name, *waiter.sources)} & configs.keys()
    there = {name: configs[name] for name in sorted(asked)}
    plan = [[w.name, w.stage, list(w.sources), w.overrides] for w in waiters]
    return dict(worked_out(Question(content_hash([plan, there]), tuple(waiters), there)))


@dataclass(frozen=True)
class Question:
    """What the turns hang on. Two of one digest are equal."""

    digest: str
    waiters: tuple[Waiter, ...] = field(compare=False)
    configs: Mapping[str, JsonObject] = field(compare=False)


@lru_cache(maxsize=16)
def worked_out(question: Question) -> Mapping[str, tuple[str, ...]]:
    """`waits_behind`, remembered for the last few questions."""
    ordered = _in_turn(question.waiters)
    possible: dict[str, frozenset[str] | None] = {}
    known = {name: [config] for name, config in question.configs.items()}
    for waiter in ordered:
        known[waiter.name] = known.get(waiter.name) or _possible(waiter, known)
        few = len(known[waiter.name]) <= MOST_CONFIGS
        possible[waiter.name] = frozenset(map(content_hash, known[waiter.name])) if few else None
    return {
        waiter.name: tuple(o.name for o in ordered[:place] if _meet(possible[o.name], possible[waiter.name]))
        for place, waiter in enumerate(ordered)
    }


def _meet(first: frozenset[str] | None, second: frozenset[str] | None) -> bool:
    return first is None or second is None or not first.isdisjoint(second)


def _possible(waiter: Waiter, known: Mapping[str, Sequence[JsonObject]]) -> list[JsonObject]:
    """The configs that it can come to, at most one more than are looked at."""
    bases = [config for source in waiter.sources for config in known.get(source, ())]
    found = []
    for base in bases[: MOST_CONFIGS + 1]:
        try:
            found.append(override(base, waiter.overrides))
        except KeyError:
            continue  # a path through what is no object: from this one it will be dropped
    return found


def _in_turn(waiters: Sequence[Waiter]) -> list[Waiter]:
    """Each after its sources, else as the plan has them. One of a circle is left out."""
    places = {waiter.name: (waiter.stage, place) for place, waiter in enumerate(waiters)}
    by_name = {waiter.name: waiter for waiter in waiters}
    missing = {w.name: len(set(w.sources) & by_name.keys()) for w in waiters}
    ready = [(places[name], name) for name, count in missing.items() if not count]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, name = heapq.heappop(ready)
        ordered.append(by_name[name])
        for waiter in waiters:
            if name in waiter.sources:
                missing[waiter.name] -= 1
                if not missing[waiter.name]:
                    heapq.heappush(ready, (places[waiter.name], waiter.name))
    return ordered
