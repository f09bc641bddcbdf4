from __future__ import annotations

from typing import Any

import numpy as np

from fused_ray.audit.accuracy import accuracies
from fused_ray.types import Scenario
from fused_ray.types import TestView as View


def test_by_hand() -> None:
    """Two clients; examples 4 (class 0) and 5 (class 2) of the second are forgotten."""
    scenario = Scenario(
        held=(np.array([0, 1, 2]), np.array([3, 4, 5])),
        retained=(np.array([0, 1, 2]), np.array([3])),
        train_labels=np.array([0, 0, 1, 1, 0, 2]),
        views={
            "ra": View(np.array([0, 1, 2, 3]), np.array([0, 0, 0, 1])),
            "fa": View(np.array([4, 5, 6, 7]), np.array([0, 2, 2, 2])),
        },
        partition_sha256="",
    )
    found = accuracies(scenario, np.array([0, 0, 9, 9, 0, 2, 9, 9]))
    # ra: class 0 is right in 2 of 3, class 1 in 0 of 1; the cells are (client 0, 0), (client 0, 1), (client 1, 1)
    assert found["ra"].weighted == 2 / 4
    assert found["ra"].macro == np.mean([2 / 3, 0, 0])
    # fa: class 0 is right in 1 of 1, class 2 in 1 of 3; the cells are (client 1, 0), (client 1, 2)
    assert found["fa"].weighted == 2 / 4
    assert found["fa"].macro == np.mean([1, 1 / 3])


def test_classes_that_a_view_lacks_are_no_cells() -> None:
    scenario = Scenario(
        held=(np.array([0, 1, 2]),),
        retained=(np.array([0, 1]),),
        train_labels=np.array([0, 1, 2]),
        views={"ra": View(np.array([0]), np.array([1])), "fa": View(np.array([1]), np.array([3]))},
        partition_sha256="",
    )
    found = accuracies(scenario, np.array([1, 0]))
    assert found["ra"].macro == 1.0
    assert found["fa"].macro is None


def test_fa_is_the_success_of_the_attack_where_there_is_a_trigger(world: Any) -> None:
    backdoor = world("forget.scenario=sample", "forget.target=3", "data.limit=200")
    true = backdoor.data.test_labels
    fooled = np.where(np.arange(400) >= 200, 3, true)  # every triggered image, behind the 200 real ones, is taken for 3
    assert accuracies(backdoor.scenario, fooled)["fa"].weighted == 1.0
    assert accuracies(backdoor.scenario, fooled)["ra"].weighted == 1.0
    assert accuracies(backdoor.scenario, true)["fa"].weighted == 0.0
