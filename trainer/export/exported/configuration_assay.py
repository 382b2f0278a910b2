"""The config of a model that Assay's trainer has trained, as transformers wants it."""

from typing import Any

from transformers import PretrainedConfig


class AssayConfig(PretrainedConfig):  # type: ignore[no-untyped-call]
    """`assay` holds the trainer's own settings, complete; the rest is what transformers asks for."""

    model_type = "assay"

    def __init__(self, assay: dict[str, Any] | None = None, **others: Any) -> None:
        self.assay = assay or {}
        super().__init__(**others)
