"""The networks of the tasks, as anybody would write them. For environments that have torch and perhaps nothing else."""

import torch
import torch.nn.functional as F
from torch import nn


class LeNet(nn.Module):
    """Images [n, c, h, w] to logits. 44,426 weights on Fashion-MNIST; on CIFAR-10 the 62,006 of BlazeFL's benchmark."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        side = ((shape[1] - 4) // 2 - 4) // 2
        self.conv1, self.conv2 = nn.Conv2d(shape[0], 6, 5), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(16 * side**2, 120), nn.Linear(120, 84), nn.Linear(84, classes)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """What the last layer sees, [n, 84]."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.fc2(F.relu(self.fc1(torch.flatten(x, 1)))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc3(self.features(x))


class DropoutNet(nn.Module):
    """Images [n, c, h, w] to logits, as pfl-research's CIFAR-10 benchmark has it (2404.06430, publications/pfl)."""

    def __init__(self, shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        side = (shape[1] - 4) // 2
        self.conv1, self.conv2 = nn.Conv2d(shape[0], 32, 3), nn.Conv2d(32, 64, 3)
        self.fc1, self.fc2 = nn.Linear(64 * side**2, 128), nn.Linear(128, classes)
        self.few, self.many = nn.Dropout(0.25), nn.Dropout(0.5)
        for layer in (self.conv1, self.conv2, self.fc1, self.fc2):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.relu(self.fc1(torch.flatten(self.few(x), 1)))
        return self.fc2(self.many(x))


NETS = {"lenet": LeNet, "dropout": DropoutNet}
