"""The trained model as transformers wants it: the trainer's own modules behind `forward` and `generate`."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from trainer.export.exported.config import Settings
from trainer.export.exported.configuration_assay import AssayConfig
from trainer.models.build import build

IGNORED = -100
"""A label that is not predicted."""


class AssayForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[no-untyped-call]
    """Next-token logits, and their loss where there are labels. Without a cache of keys and values."""

    config_class = AssayConfig
    main_input_name = "input_ids"

    def __init__(self, config: AssayConfig) -> None:
        super().__init__(config)
        self.model = build(cast(Any, Settings(config.assay)))
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits (B, T, V) for ids (B, T); the loss is the mean over labels (B, T), shifted in here.

        Padding goes on the right, where nothing before it sees it. Without the balance loss of experts.
        """
        self._check(input_ids, attention_mask)
        logits = self.model(input_ids).logits
        loss = None
        if labels is not None:
            predicted, targets = logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten()
            loss = functional.cross_entropy(predicted, targets, ignore_index=IGNORED)
        output = CausalLMOutput(loss=loss, logits=logits)
        return output.to_tuple() if return_dict is False else output

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *_: Any, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """All ids each time: there is no cache."""
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def get_input_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.model.tokens)

    def get_output_embeddings(self) -> None:
        """The head is a matrix of the model, tied by being the same one: nothing for transformers to tie."""

    def _init_weights(self, module: nn.Module) -> None:
        """Nothing: the modules have initialised themselves."""

    def _check(self, ids: Tensor, mask: Tensor | None) -> None:
        most = self.config.max_position_embeddings
        if ids.shape[1] > most:
            raise ValueError(f"{ids.shape[1]} tokens are more than the model's {most} positions: give fewer")
        if mask is not None and bool(torch.any(mask[:, 1:] > mask[:, :-1])):
            raise ValueError("padding before a token: pad on the right, generate from prompts of one length")
