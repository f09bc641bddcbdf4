"""ViT-S from torchvision (Dosovitskiy et al. 2021; "small" as in Touvron et al. 2021), for small images.

Width 384, 12 blocks, 6 heads, patches of 4 x 4 pixels: 21.3 M parameters. Its class token and its learned positions
belong to no layer: they are trained with the model and never adapted.
"""

from __future__ import annotations

import torch
from torch import nn

from fused_ray.data.torchvision_import import import_torchvision
from fused_ray.models import Shape, Stage, layer_names
from fused_ray.models.simplevit import grid

VisionTransformer = import_torchvision().models.VisionTransformer


class ViT(VisionTransformer):  # type: ignore[misc, valid-type]
    """Images float32 [batch, channels, side, side] to logits [batch, classes]. Raises ValueError."""

    def __init__(self, shape: Shape, classes: int, patch: int, width: int, depth: int, heads: int) -> None:
        channels, height, across = shape
        if height != across:
            raise ValueError(f"images of {height} x {across} are not square, as torchvision's ViT needs them")
        if width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        grid(shape, patch)
        super().__init__(height, patch, depth, heads, width, 4 * width, num_classes=classes)
        patches = nn.Conv2d(channels, width, patch, stride=patch)
        nn.init.trunc_normal_(patches.weight, std=(channels * patch * patch) ** -0.5)
        nn.init.constant_(patches.get_parameter("bias"), 0)
        self.conv_proj = patches

    def stages(self) -> list[Stage]:
        """The patches, the blocks, the class token's last state, the head."""
        blocks = [
            Stage(tuple(f"encoder.layers.{name}.{layer}" for layer in layer_names(block)), block)
            for name, block in self.encoder.layers.named_children()
        ]
        token = Stage(("encoder.ln",), lambda x: self.encoder.ln(x)[:, 0])
        return [Stage(("conv_proj",), self._embed), *blocks, token, Stage(("heads.head",), self.heads)]

    def _embed(self, x: torch.Tensor) -> torch.Tensor:
        patches = self.conv_proj(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(x), -1, -1), patches], dim=1)
        embedded: torch.Tensor = self.encoder.dropout(tokens + self.encoder.pos_embedding)
        return embedded


def vit_small(
    shape: Shape, classes: int, patch: int = 4, width: int = 384, depth: int = 12, heads: int = 6
) -> nn.Module:
    """ViT-S, or another size."""
    return ViT(shape, classes, patch, width, depth, heads)
