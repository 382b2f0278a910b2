"""The MoE layer and stack against dense products of the same FLOPs, and against transformers' experts."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.trainer.timing import Contestants, in_turn, milliseconds, ratio
from trainer.config import MoeConfig
from trainer.memory import keep_freed_pages
from trainer.models.experts import Experts
from trainer.models.moe import MoeFeedForward, Router

SIZES = {
    # width, inner, experts, tokens: top-2
    "half": (512, 2048, 40, 4096),
    "tiny": (128, 256, 8, 2048),
}
TOP_K, DEPTHS = 2, 12


def layer_and_stack() -> Iterator[tuple[str, str]]:
    """Forward and backward. Limits at the half shape: the layer 1.25, the stack of 12 1.9."""
    keep_freed_pages()
    for size, turns in (("half", 5), ("tiny", 40)):
        ours = {"moe": _moe(size, 1, "sorted"), "grouped": _moe(size, 1, "grouped")}
        seconds = in_turn({"dense": _dense(size, 1)} | ours | _peers(size), turns)
        yield f"{size}: dense of the same FLOPs", milliseconds(seconds["dense"])
        limit = " (limit 1.25)" if size == "half" else ""
        yield f"{size}: MoE layer / dense{limit}", ratio(seconds, "moe", "dense")
        yield f"{size}: grouped product / dense", ratio(seconds, "grouped", "dense")
        for peer in _peers(size):
            yield f"{size}: MoE layer / {peer} (limit 1)", ratio(seconds, "moe", peer)
    for size, turns in (("half", 3), ("tiny", 10)):
        seconds = in_turn({"dense": _dense(size, DEPTHS), "moe": _moe(size, DEPTHS, "sorted")}, turns)
        limit = " (limit 1.9)" if size == "half" else ""
        yield f"{size}: stack of {DEPTHS} / dense{limit}", ratio(seconds, "moe", "dense")


def _dense(size: str, depths: int) -> Callable[[], None]:
    """A feed-forward that every token goes through `top_k` times: as many products as the experts'."""
    width, inner, _, tokens = SIZES[size]
    up, down = nn.Linear(width, inner), nn.Linear(inner, width)
    x = torch.randn(tokens * TOP_K, width, requires_grad=True)

    def forward() -> Tensor:
        y = x
        for _ in range(depths):
            y = down(functional.gelu(up(y), approximate="tanh"))
        return y

    return _both_ways(forward, [x, *up.parameters(), *down.parameters()])


def _moe(size: str, depths: int, how: str) -> Callable[[], None]:
    """Router, experts and mixing."""
    width, inner, experts, tokens = SIZES[size]
    torch.manual_seed(0)
    config = MoeConfig(num_experts=experts, top_k=TOP_K, d_ff=inner)
    layer = MoeFeedForward(Router(width, config), Experts(experts, width, inner, 0.02, 0.02, how), 0.0)
    x = torch.randn(1, tokens, width, requires_grad=True)

    def forward() -> Tensor:
        y, bank = x, layer.experts.bank()
        for _ in range(depths):
            y, _ = layer(y, bank)
        return y

    return _both_ways(forward, [x, *layer.parameters()])


def _peers(size: str) -> Contestants:
    """transformers' own ways with experts of our shape: no gate, biases.

    The batched one copies the weights of each token's experts, 30 GB for the half shape: small sizes alone.
    """
    ways = ["eager", "grouped_mm", *(["batched_mm"] if size == "tiny" else [])]
    return {f"transformers {way}": _transformers(size, way) for way in ways}


def _transformers(size: str, way: str) -> Callable[[], None]:
    width, inner, experts, tokens = SIZES[size]
    torch.manual_seed(0)
    config = MoeConfig(num_experts=experts, top_k=TOP_K, d_ff=inner)
    router = Router(width, config)
    theirs = _experts_of_transformers()(SimpleNamespace(_experts_implementation=way), experts, width, inner)
    x = torch.randn(tokens, width, requires_grad=True)

    def forward() -> Tensor:
        weights, chosen, _, _ = router(x)
        y: Tensor = theirs(x, chosen, weights)
        return y

    return _both_ways(forward, [x, *router.parameters(), *theirs.parameters()])


def _experts_of_transformers() -> Callable[..., nn.Module]:
    from transformers.integrations.moe import use_experts_implementation

    class UpDownExperts(nn.Module):
        """Stacked experts whose forward is the loop that transformers' models have."""

        def __init__(self, config: SimpleNamespace, experts: int, width: int, inner: int) -> None:
            super().__init__()
            self.num_experts = experts
            self.up_proj = nn.Parameter(torch.randn(experts, width, inner) * 0.02)
            self.up_proj_bias = nn.Parameter(torch.zeros(experts, inner))
            self.down_proj = nn.Parameter(torch.randn(experts, inner, width) * 0.02)
            self.down_proj_bias = nn.Parameter(torch.zeros(experts, width))

        def act_fn(self, x: Tensor) -> Tensor:
            return functional.gelu(x, approximate="tanh")

        def forward(self, x: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
            out = torch.zeros_like(x)
            mask = functional.one_hot(chosen, num_classes=self.num_experts).permute(2, 1, 0)
            for e in torch.greater(mask.sum(dim=(-1, -2)), 0).nonzero().flatten():
                place, token = torch.where(mask[e])
                inner = self.act_fn(x[token] @ self.up_proj[e] + self.up_proj_bias[e])
                part = inner @ self.down_proj[e] + self.down_proj_bias[e]
                out.index_add_(0, token, part * weights[token, place, None])
            return out

    decorate = use_experts_implementation(has_gate=False, has_bias=True, is_transposed=True)
    wrapped: Callable[..., nn.Module] = decorate(UpDownExperts)
    return wrapped


def _both_ways(forward: Callable[[], Tensor], leaves: list[Tensor]) -> Callable[[], None]:
    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        forward().sum().backward()

    return run
