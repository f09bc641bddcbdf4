"""ResNet-18 from torchvision (He et al. 2016): 11.2 M parameters, with the stem for small images or ImageNet's.

The CIFAR stem is a 3x3 convolution of stride 1 without pooling, so that 32x32 images reach the first block whole; the
ImageNet stem (7x7, stride 2, pooling) leaves 8x8 of them and costs a sixth.
"""

from __future__ import annotations

import torch
from torch import nn

from fused_ray.data.torchvision_import import import_torchvision
from fused_ray.models import Shape, Stage, layer_names

resnet = import_torchvision().models.resnet


class ResNet18(resnet.ResNet):  # type: ignore[misc, name-defined]
    """Images float32 [batch, channels, height, width] to logits [batch, classes]."""

    def __init__(self, shape: Shape, classes: int, small_images: bool) -> None:
        super().__init__(resnet.BasicBlock, [2, 2, 2, 2], num_classes=classes)
        if small_images:
            self.conv1 = nn.Conv2d(shape[0], 64, 3, stride=1, padding=1, bias=False)
            self.maxpool = nn.Identity()
        else:
            self.conv1 = nn.Conv2d(shape[0], 64, 7, stride=2, padding=3, bias=False)
        nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def stages(self) -> list[Stage]:
        """The stem, the eight blocks (the last one with the pooling behind it), and the output layer."""
        names = [f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1)]
        blocks = [self._block(name) for name in names]
        last = blocks.pop()
        pooled = Stage(last.layers, lambda x: torch.flatten(self.avgpool(last.forward(x)), 1))
        return [Stage(("conv1", "bn1"), self._stem), *blocks, pooled, Stage(("fc",), self.fc)]

    def _stem(self, x: torch.Tensor) -> torch.Tensor:
        stem: torch.Tensor = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return stem

    def _block(self, name: str) -> Stage:
        module = self.get_submodule(name)
        return Stage(tuple(f"{name}.{layer}" for layer in layer_names(module)), module)


def resnet18(shape: Shape, classes: int) -> nn.Module:
    """With the stem for small images."""
    return ResNet18(shape, classes, small_images=True)


def resnet18_imagenet(shape: Shape, classes: int) -> nn.Module:
    """With ImageNet's stem; torchvision's pretrained weights fit where there are 3 channels and 1,000 classes."""
    return ResNet18(shape, classes, small_images=False)
