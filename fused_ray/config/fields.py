"""Types of fields, and what is put right before they are checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator

from fused_ray.config.paths import home_expanded, local, results
from fused_ray.config.validation import without_empty_sections

Auto = Literal["auto"]
Count = Annotated[int, Field(strict=True, ge=1, le=10**9)]
Rounds = Annotated[int, Field(strict=True, ge=0, le=100_000)]


def _not_bool(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("input should be a number, not true or false")
    return value


def _number_listed(value: Any) -> Any:
    """One number where a list of them may stand."""
    if isinstance(value, str):
        raise ValueError("write whole numbers, such as [0, 2]")
    return (value,) if isinstance(value, int) and not isinstance(value, bool) else value


def _reals_listed(value: Any) -> Any:
    """One number where a list of numbers may stand."""
    return (value,) if isinstance(value, int | float) and not isinstance(value, bool) else value


def name_listed(value: Any) -> Any:
    """One name where a list of them may stand."""
    return (value,) if isinstance(value, str) else value


def _numbers_as_names(value: Any) -> Any:
    """Names that are numbers, as the layers of a torch.nn.Sequential have them."""
    if isinstance(value, list | tuple):
        return [str(item) if isinstance(item, int) and not isinstance(item, bool) else item for item in value]
    return value


def _switch(value: Any) -> Any:
    """true and false where a format, or none, may stand."""
    return ("none", "png")[value] if isinstance(value, bool) else value


Plots = Literal["png", "svg", "pdf", "none"]
Drawn = Annotated[Plots, BeforeValidator(_switch)]
Counts = Annotated[tuple[Count, ...], BeforeValidator(_number_listed)]
Integers = Annotated[tuple[StrictInt, ...], BeforeValidator(_number_listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(name_listed)]
Layers = Annotated[Names, BeforeValidator(_numbers_as_names)]
Clients = Annotated[tuple[StrictInt | str, ...], BeforeValidator(_number_listed), BeforeValidator(name_listed)]
Real = Annotated[float, BeforeValidator(_not_bool), Field(allow_inf_nan=False)]


def _grantable(value: float) -> float:
    if 0 < value < 1e-4:
        raise ValueError("Ray grants resources in steps of 0.0001; use 0 or at least that much")
    return value


ResourceShare = Annotated[Real, Field(ge=0, le=4096), AfterValidator(_grantable)]
Rate = Annotated[Real, Field(gt=0.0, le=1e3)]
Moment = Annotated[Real, Field(ge=0, lt=1)]
"""How much of a running mean stays from step to step."""
Decay = Annotated[Real, Field(ge=0.0, le=1.0)]
Share = Annotated[Real, Field(gt=0.0, le=1.0)]


def _share_or_number(value: float) -> float:
    if value > 1 and value != int(value):
        raise ValueError("write a share of at most 1, or a whole number of clients")
    return value


Participation = Annotated[Real, Field(gt=0.0, le=1e9), AfterValidator(_share_or_number)]
"""A share of the clients that could take part, at most 1; above 1, how many of them."""


def _of_a_pixel(value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError("pixels are divided by 255 first, so it lies between 0 and 1")
    return value


def _not_zero(value: float) -> float:
    if value == 0:
        raise ValueError("pixels are divided by it, so it is above 0")
    return value


OfPixel = Annotated[Real, AfterValidator(_of_a_pixel)]
PerChannel = Annotated[tuple[OfPixel, ...], BeforeValidator(_reals_listed), Field(min_length=1)]
PositivePerChannel = Annotated[
    tuple[Annotated[OfPixel, AfterValidator(_not_zero)], ...], BeforeValidator(_reals_listed), Field(min_length=1)
]
Constants = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and deviation that images are normalised by, of pixel values divided by 255; each one number, or per channel."""
Where = Annotated[str, AfterValidator(home_expanded)]
"""A path or URI."""
Place = Annotated[str, AfterValidator(local)]
"""A path of this machine."""
Results = Annotated[str, AfterValidator(results)]
"""Where results go: a path, or s3://BUCKET/FOLDER."""


class Section(BaseModel):
    """Settings that never change and take no other fields; the docstring of a field is its meaning."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, values: Any) -> Any:
        return without_empty_sections(cls, values)
