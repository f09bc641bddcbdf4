"""What scaling studies train by default: drawn data, and a network of about so many values. Neither torch nor NumPy is
imported before they are made.

    data: {name: "fused_ray.studies.scaling.workload:DATA"}
    model: {factory: "fused_ray.studies.scaling.network:two_layers", args: {values: 10000}}
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from fused_ray.config.fields import Count, Section
from fused_ray.config.parts.datasets import DataSet


class Drawn(Section):
    """How much is drawn."""

    examples: Count = 100_000
    """Training examples."""
    tests: Count = 1000
    """Test examples."""
    features: Count = 16
    """Numbers of an example."""
    classes: Annotated[int, Field(strict=True, ge=2, le=1000)] = 10
    """Classes."""


DATA = DataSet("fused_ray.studies.scaling.drawing:drawn", images=False, section=Drawn)
