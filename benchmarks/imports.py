"""Reading a live log of a million lines, beside walking over its lines and doing nothing."""

import json
import random
import re
import time
from collections.abc import Callable, Iterator

from orchestrator.domain.logs.read import LogCurve, read_logs
from orchestrator.domain.logs.steps import Choices

LINES = 1_000_000
STEPS_PER_EPOCH = 3571.0
SESSION = 17_000
"""Steps from the end of one session to that of the next."""
LIMIT = 200_000
TURNS = 3
BAR = " 12%|█▏        | 6034/50000 [1:02:13<7:32:11,  1.62it/s]"


def live_log(turns: int = TURNS) -> dict[str, str]:
    """Lines a second of the whole import up to the curve, the fastest of the turns; and of the floor."""
    data = "\n".join(_lines()).encode()
    count = data.count(b"\n") + 1
    floor = min(_seconds(lambda: _walk(data)) for _ in range(turns))
    scan = min(_seconds(lambda: _losses_alone(data)) for _ in range(turns))
    curves: list[LogCurve] = []
    spent = min(_seconds(lambda: curves.append(_read(data))) for _ in range(turns))
    found = curves[-1]
    assert len(found.evaluations) > 1000
    assert any("session 2" in note for note in found.notes)
    return {
        f"import of a live log, {count:,} lines": f"{count / spent:,.0f} lines/s (at least {LIMIT:,})",
        "the same beside splitting its lines": f"{spent / floor:.1f} times as long",
        "the same beside finding its losses alone": f"{spent / scan:.1f} times as long",
    }


def _read(data: bytes) -> LogCurve:
    return read_logs([("train.log", data)], Choices(steps_per_epoch=STEPS_PER_EPOCH))


def _walk(data: bytes) -> int:
    return sum(1 for _ in data.split(b"\n"))


def _losses_alone(data: bytes) -> int:
    """What any reader must do: find each loss and make a number of it."""
    return sum(1 for match in re.finditer(rb"'loss': ([^,]+)", data) if float(match[1]) > 0)


def _seconds(call: Callable[[], object]) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


def _lines() -> Iterator[str]:
    """Forty sessions of one run, each a thousand steps before the end of the one before."""
    noise = random.Random(0)  # noqa: S311 - no secret is made here
    written, step, until = 0, 0, SESSION
    while written < LINES:
        step += 1
        if step == until:
            step, until = step - 1000, until + SESSION
        for line in _of_step(step, noise):
            yield line
            written += 1


def _of_step(step: int, noise: random.Random) -> Iterator[str]:
    loss = round(3 + 4 * step**-0.25 + noise.gauss(0, 0.02), 4)
    epoch = step / STEPS_PER_EPOCH
    yield f"{{'loss': {loss}, 'grad_norm': {noise.random():.6f}, 'learning_rate': 0.0001, 'epoch': {epoch}}}"
    if step % 3 == 0:
        yield BAR
    if step % 10 == 0:
        yield "[MOE] experts=40 entropy=0.972 load_min=0.011 load_max=0.052 aux_loss=1.021 top=" + json.dumps(
            [1, 2]
        )
    if step % 100 == 0:
        held = round(3 + 4 * step**-0.25, 4)
        yield f"{{'eval_loss': {held}, 'eval_runtime': 12.3, 'eval_steps_per_second': 8.1, 'epoch': {epoch}}}"
        yield "Saving model checkpoint to out/checkpoint"


if __name__ == "__main__":
    for name, figure in live_log().items():
        print(f"{name:<46} {figure}")
