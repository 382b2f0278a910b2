"""One block applied `n_layer` times, with or without a sign of its depth."""

from typing import cast

from torch import Tensor, nn

from trainer.models.moe import MoeFeedForward, Router, Routing
from trainer.models.transformer import Block, FeedForward, Norms, apply_block, embedding, maybe_again


class RecurrentBlock(nn.Module):
    """A block shared over depth. Lists hold what each depth has of its own; an empty list is shared."""

    def __init__(
        self, block: Block, depths: int, *, depth_std: float | None = None, again: bool = False
    ) -> None:
        super().__init__()
        self.block = block
        self.depths, self.again = depths, again
        width = block.norms.ffn.normalized_shape[0]
        self.depth_embedding = embedding(depths, width, depth_std) if depth_std is not None else None
        self.norms = nn.ModuleList()
        self.routers = nn.ModuleList()
        self.ffns = nn.ModuleList()
        # Depth 0 uses the block's own parts; these are for depths 1 and on.

    def forward(self, x: Tensor) -> tuple[Tensor, list[Routing]]:
        """(B, T, C) -> (B, T, C), and one routing per depth when the feed-forward has experts."""
        shared = self.block.ffn
        bank = shared.experts.bank() if isinstance(shared, MoeFeedForward) else None
        routings = []
        for depth in range(self.depths):
            if self.depth_embedding is not None:
                x = x + self.depth_embedding.weight[depth]
            own = self._ffn(depth)
            own_bank = bank if own is shared else None
            x, routing = maybe_again(
                self.again,
                apply_block,
                x,
                self.block.attention,
                own,
                self._norms(depth),
                own_bank,
                self._router(depth),
            )
            routings += [routing] if routing is not None else []
        return x, routings

    def _norms(self, depth: int) -> Norms:
        return cast(Norms, self.norms[depth - 1]) if depth and len(self.norms) else self.block.norms

    def _router(self, depth: int) -> Router | None:
        return cast(Router, self.routers[depth - 1]) if depth and len(self.routers) else None

    def _ffn(self, depth: int) -> FeedForward:
        return cast(FeedForward, self.ffns[depth - 1]) if depth and len(self.ffns) else self.block.ffn
