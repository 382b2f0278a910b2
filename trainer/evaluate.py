"""The loss on the held-out tokens, in nats per token."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn
from torch.nn import functional

from trainer.data import Windows

TOKENS_AT_ONCE = 8192
LOGITS_AT_ONCE = 2**25  # 128 MB in fp32: what bounds the rows when the vocabulary is large


@torch.no_grad()
def evaluation_loss(
    model: nn.Module,
    windows: Sequence[Windows],
    vocab: int,
    device: torch.device,
    precision: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> float:
    """Mean negative log-likelihood over every target of `windows`, forward passes under `precision`.

    Draws no random number.
    """
    was_training = model.training
    model.eval()
    total, targets = 0.0, 0
    for group in windows:
        rows = _rows_at_once(group.shape[1] - 1, vocab)
        for start in range(0, len(group), rows):
            batch = torch.from_numpy(group[start : start + rows]).to(device)
            inputs, expected = batch[:, :-1], batch[:, 1:]
            with precision():
                logits = model(inputs).logits  # (B, T, V)
            total += functional.cross_entropy(
                logits.flatten(0, 1).float(), expected.flatten(), reduction="sum"
            ).item()
            targets += expected.numel()
    model.train(was_training)
    return total / targets


def _rows_at_once(length: int, vocab: int) -> int:
    return max(1, min(TOKENS_AT_ONCE, LOGITS_AT_ONCE // vocab) // length)
