"""LeNet-5 with ReLU and max pooling, no padding: 44,426 parameters on 28x28 images, as the FUSED paper uses it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from fused_ray.models import Stage


def _pooled(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return F.relu(halved(layer(x)))  # pooling first: the same function, a quarter of the ReLUs


def halved(x: torch.Tensor) -> torch.Tensor:
    """The largest of every 2 x 2 pixels, [n, c, h, w] to [n, c, h // 2, w // 2]: F.max_pool2d(x, 2), to the bit.

    PyTorch's own kernel is slow with few channels that lie last: on a CPU, nearly half of LeNet's forward pass. Element
    by element the same costs a third or less. Its gradient would cost more, and be shared among equal pixels. (Of 0 and
    -0, which are equal, either may be taken.)
    """
    if torch.is_grad_enabled():
        return F.max_pool2d(x, 2)
    height, width = x.shape[2] // 2 * 2, x.shape[3] // 2 * 2
    rows = torch.maximum(x[:, :, 0:height:2], x[:, :, 1:height:2])
    return torch.maximum(rows[..., 0:width:2], rows[..., 1:width:2])


class LeNet(nn.Module):
    """Images float32 [batch, channels, height, width] to logits [batch, classes]; sides of at least 16 pixels."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        features = 16 * (((height - 4) // 2 - 4) // 2) * (((width - 4) // 2 - 4) // 2)
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(features, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def stages(self) -> list[Stage]:
        return [
            Stage(("conv1",), lambda x: _pooled(self.conv1, x)),
            Stage(("conv2",), lambda x: torch.flatten(_pooled(self.conv2, x), 1)),
            Stage(("fc1",), lambda x: F.relu(self.fc1(x))),
            Stage(("fc2",), lambda x: F.relu(self.fc2(x))),
            Stage(("fc3",), self.fc3),
        ]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for stage in self.stages():
            x = stage.forward(x)
        return x
