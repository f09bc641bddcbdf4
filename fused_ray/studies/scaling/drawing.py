"""The data of scaling studies: clouds of points, one a class, so that there is something to learn."""

from __future__ import annotations

import numpy as np

from fused_ray.seeding import generator
from fused_ray.types import Loaded


def drawn(seed: int, examples: int, tests: int, features: int, classes: int) -> Loaded:
    """Normal clouds around centres that are drawn from the seed too; examples of the classes in turn."""
    random = generator(seed, "scaling/data")
    centres = random.standard_normal((classes, features), np.float32)
    labels = [np.arange(count, dtype=np.int64) % classes for count in (examples, tests)]
    inputs = [centres[of] + random.standard_normal((len(of), features), np.float32) for of in labels]
    names = tuple(map(str, range(classes)))
    return Loaded(inputs[0], labels[0], inputs[1], labels[1], class_names=names)
