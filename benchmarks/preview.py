"""The plan of 1,000 variants, beside the trainer's own check of their configs, which nothing can go below."""

import json
import tempfile
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from benchmarks.rigs import context_for, processor_seconds
from orchestrator.bootstrap import configs_folder
from orchestrator.services.preview import preview
from orchestrator.store.database import Database
from orchestrator.store.migrate import upgrade
from trainer.facts import check

VARIANTS = 1000
BASE = "recurrent_shared_moe_40e_top2_ff2048_wikitext103.json"


def plan() -> dict[str, str]:
    """Seconds for the preview of a spec with an axis of many levels."""
    base = json.loads((configs_folder() / "trainer" / BASE).read_text())
    rates = [1e-4 * (1 + level / VARIANTS) for level in range(VARIANTS - 1)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(closing(Database(f"sqlite:///{folder / 'assay.sqlite3'}")))
        upgrade(database)
        context = context_for(database, folder, check)
        whole = processor_seconds(lambda: preview(context, _spec(base, rates)))
    floor = processor_seconds(lambda: [check(base | {"optimizer": {"lr": rate}}) for rate in rates])
    return {"plan of 1,000 variants": f"{whole:.2f} s (limit 1), {whole / floor:.1f} x the checks alone"}


def _spec(base: dict[str, Any], rates: list[float]) -> dict[str, Any]:
    screen = {"name": "screen", "steps": 1000, "variants": {"control": {}}, "axes": {"optimizer.lr": rates}}
    long = {"name": "long", "steps": 5000, "promote": {"best": 2}}
    return {"name": "many", "base": base, "control": "control", "stages": [screen, long]}
