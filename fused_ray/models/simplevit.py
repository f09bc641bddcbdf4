"""SimpleViT (Beyer, Zhai, Kolesnikov 2022, "Better plain ViT baselines", arXiv 2205.01580), small.

Fixed two-dimensional sine-cosine positions, no class token, the mean over all patches, one linear layer at the end.
With the defaults 1.8 M parameters: patches of 4 x 4 pixels, 6 blocks of width 192 with 3 heads. The positions are
neither parameters nor state: they follow from the shape.
"""

from __future__ import annotations

import torch
from torch import nn

from fused_ray.models import Shape, Stage, layer_names


class SimpleViT(nn.Module):
    """Images float32 [batch, channels, height, width] to logits [batch, classes]. Raises ValueError."""

    positions: torch.Tensor

    def __init__(
        self, shape: Shape, classes: int, patch: int = 4, width: int = 192, depth: int = 6, heads: int = 3
    ) -> None:
        super().__init__()
        rows, columns = grid(shape, patch)
        if width % 4 or width % heads:
            raise ValueError(f"width {width} must be a multiple of 4 (positions) and of heads {heads}")
        self.patches = nn.Conv2d(shape[0], width, patch, stride=patch)
        self.register_buffer("positions", sine_cosine(rows, columns, width), persistent=False)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)

    def stages(self) -> list[Stage]:
        """The patches, the blocks, the mean over patches, the head."""
        blocks = [
            Stage(tuple(f"blocks.{i}.{layer}" for layer in layer_names(block)), block)
            for i, block in enumerate(self.blocks)
        ]
        mean = Stage(("norm",), lambda x: self.norm(x).mean(1))
        return [Stage(("patches",), self._embed), *blocks, mean, Stage(("head",), self.head)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages():
            x = stage.forward(x)
        return x

    def _embed(self, x: torch.Tensor) -> torch.Tensor:
        tokens: torch.Tensor = self.patches(x).flatten(2).transpose(1, 2)
        return tokens + self.positions


def grid(shape: Shape, patch: int) -> tuple[int, int]:
    """Rows and columns of patches. Raises ValueError unless they cover the image."""
    _, height, width = shape
    if patch < 1 or height % patch or width % patch:
        raise ValueError(f"patches of {patch} x {patch} pixels do not cover {height} x {width}; set model.args.patch")
    return height // patch, width // patch


def sine_cosine(rows: int, columns: int, width: int) -> torch.Tensor:
    """Positions float32 [rows * columns, width]: sin and cos of the column, then of the row, at width / 4 frequencies.

    Frequencies fall from 1 to 1/10,000 geometrically.
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    frequencies = 10_000.0 ** -torch.linspace(0, 1, width // 4, dtype=torch.float64)
    across, down = (axis.reshape(-1, 1) * frequencies for axis in (x, y))
    return torch.cat([across.sin(), across.cos(), down.sin(), down.cos()], dim=1).float()
