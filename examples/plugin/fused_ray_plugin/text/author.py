"""One author: all documents that one person wrote are forgotten, whoever holds them.

FA is the accuracy on these documents themselves, for no view `fa` is said: a model that never saw them finds the topic
of most of them all the same.
"""

from typing import Any

import numpy as np

from fused_ray.api import Forgotten, ImageData, Partition, Request, Section


class Author(Section):
    author: int = 0
    """Who is forgotten, a value of the data's column `author`."""


def forget(config: Any, data: ImageData, who: Partition) -> Forgotten:
    gone = np.flatnonzero(data.columns["author"] == config.scenario_options.author)
    return Forgotten(tuple(np.setdiff1d(part, gone) for part in who.parts))


SCENARIO = Request(forget, like="sample", what="all documents of one author", section=Author)
