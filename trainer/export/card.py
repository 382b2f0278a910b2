"""The README of an exported model: what it is, how it was trained, how to load it."""

import json
from pathlib import Path

from trainer.commands.show import number
from trainer.config import Config
from trainer.facts import parameters_active, parameters_total

CARD = """---
library_name: transformers
pipeline_tag: text-generation
---

# A {kind} language model, {step:,} steps

Trained with Assay's trainer; exported for transformers as `{shape}`.

{parameters}
{measured}

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("."{trust})
tokenizer = AutoTokenizer.from_pretrained("."{trust})
inputs = tokenizer("In the beginning", return_tensors="pt")
print(tokenizer.decode(model.generate(**inputs, max_new_tokens=20)[0]))
```

{notes}

The config that it was trained with:

```json
{config}
```
"""

GPT2_NOTES = "Its logits are those of the trainer's own model up to the rounding of fp32."
OWN_NOTES = """The code beside this file is the trainer's own (Apache-2.0) and needs torch and transformers
alone; `trust_remote_code` lets transformers run it. Generation has no cache of keys and values. Pad on the
right. The loss that `labels` give is the cross-entropy, without the balance loss of experts."""


def model_card(config: Config, step: int, measured: dict[str, float], *, gpt2: bool) -> str:
    """The text of README.md; `measured` is the last evaluation, empty when there was none."""
    return CARD.format(
        kind=config.model.kind,
        shape="GPT2LMHeadModel" if gpt2 else "AssayForCausalLM",
        step=step,
        parameters=_parameters(config),
        measured=_measured(config, measured),
        trust="" if gpt2 else ", trust_remote_code=True",
        notes=GPT2_NOTES if gpt2 else OWN_NOTES,
        config=json.dumps(shareable(config), indent=2),
    )


def shareable(config: Config) -> dict[str, object]:
    """The config with the names of files in place of their paths on the machine that trained it."""
    data = config.model_dump(mode="json")
    data["data"]["source"] = _name(config.data.source)
    path = config.data.tokenizer.path
    data["data"]["tokenizer"]["path"] = path and _name(path)
    return data


def _name(source: str) -> str:
    hub, path = ("hf:", source[3:]) if source.startswith("hf:") else ("", source)
    return hub + (Path(path).name if Path(path).is_absolute() else path)


def _parameters(config: Config) -> str:
    total, active = parameters_total(config), parameters_active(config)
    of_them = "" if total == active else f", of which a token touches {active:,}"
    return f"{total:,} parameters{of_them}."


def _measured(config: Config, measured: dict[str, float]) -> str:
    if not measured:
        return "It was not evaluated."
    loss, perplexity = number(measured["eval_loss"]), number(measured["perplexity"])
    return (
        f"Held-out loss {loss} nats per token (perplexity {perplexity}) at step {measured['step']:,}, "
        f"on text held out of `{_name(config.data.source)}`."
    )
