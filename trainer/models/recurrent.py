"""One block applied `n_layer` times, with or without a sign of its depth."""

from typing import cast

from torch import Tensor, nn

from trainer.models.moe import MoeFeedForward, Router, Routing
from trainer.models.transformer import Block, FeedForward, Norms, apply_block, embedding


class RecurrentBlock(nn.Module):
    """A block shared over depth. Lists hold what each depth has of its own; an empty list is shared."""

    def __init__(self, block: Block, depths: int, *, depth_embedding: bool = False) -> None:
        super().__init__()
        self.block = block
        self.depths = depths
        self.depth_embedding = (
            embedding(depths, block.norms.ffn.normalized_shape[0]) if depth_embedding else None
        )
        self.norms = nn.ModuleList()
        self.routers = nn.ModuleList()
        self.ffns = nn.ModuleList()
        # Depth 0 uses the block's own parts; these are for depths 1 and on.

    def forward(self, x: Tensor) -> tuple[Tensor, list[Routing]]:
        """(B, T, C) -> (B, T, C), and one routing per depth when the feed-forward has experts."""
        shared = self.block.ffn
        # Once per model forward: unbinding at each depth would cost a full gradient per depth.
        unbound = shared.experts.unbound() if isinstance(shared, MoeFeedForward) else None
        routings = []
        for depth in range(self.depths):
            if self.depth_embedding is not None:
                x = x + self.depth_embedding.weight[depth]
            own = self._ffn(depth)
            weights = unbound if own is shared else None
            x, routing = apply_block(
                x, self.block.attention, own, self._norms(depth), weights, self._router(depth)
            )
            routings += [routing] if routing is not None else []
        return x, routings

    def _norms(self, depth: int) -> Norms:
        return cast(Norms, self.norms[depth - 1]) if depth and len(self.norms) else self.block.norms

    def _router(self, depth: int) -> Router | None:
        return cast(Router, self.routers[depth - 1]) if depth and len(self.routers) else None

    def _ffn(self, depth: int) -> FeedForward:
        return cast(FeedForward, self.ffns[depth - 1]) if depth and len(self.ffns) else self.block.ffn
