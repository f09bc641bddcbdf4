"""Parts of a run that may come from outside this package: a method, a scenario, a data set, and more.

A part is found by a name that this package registers, by a name that an installed package registers as an entry point,
or as `package.module:object`. Nothing is imported but what is asked for.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, Protocol, TypeVar

from pydantic import AfterValidator, BaseModel, ValidationError

from fused_ray.config.suggest import did_you_mean
from fused_ray.config.validation import mistakes

P = TypeVar("P")


@dataclass(frozen=True)
class Door(Generic[P]):
    """One kind of part, and where such parts are found."""

    what: str
    """What it is called in messages, such as "method"."""
    group: str
    """The group of entry points in which installed packages register theirs."""
    built_in: Mapping[str, P]
    """This package's own, by name."""
    takes: type[P] | Callable[[Any], bool]
    """What a part must be: a type, or whether an object will do."""
    must_be: str
    """The same in words."""
    or_else: str = "your own as package.module:object"
    """What may be said instead of a name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The registered names, this package's first."""
        return (*self.built_in, *(name for name in self._installed() if name not in self.built_in))

    def find(self, name: str) -> P:
        """The part of a name, or at package.module:object. Raises ValueError that says what is wrong with it."""
        if name in self.built_in:
            return self.built_in[name]
        if ":" in name:
            return self._fitting(name, imported(name))
        where = self.place(name)
        return self._fitting(where, imported(where))

    def place(self, name: str) -> str:
        """Where an installed package has the part of a name, package.module:object, which is not imported.

        Raises ValueError where none has.
        """
        installed = self._installed().get(name)
        if installed is None:
            near = did_you_mean(name, self.names)
            known = f"choose one of {', '.join(self.names)}, or" if self.names else "no package registers one; name"
            raise ValueError(f"unknown {self.what} {name!r}{near or ';'} {known} {self.or_else}")
        return installed.value

    def _installed(self) -> Mapping[str, EntryPoint]:
        return _registered(self.group, tuple((folder, _changed(folder)) for folder in sys.path))

    def _fitting(self, where: str, loaded: Any) -> P:
        fits = isinstance(loaded, self.takes) if isinstance(self.takes, type) else self.takes(loaded)
        if not fits:
            raise ValueError(f"{where} is of type {type(loaded).__name__}, not {self.must_be}")
        if isinstance(loaded, Part) and loaded.entry is None:
            raise ValueError(f"{where} has no function, which one of your own must have")
        part: P = loaded
        return part


@cache
def _registered(group: str, path: tuple[tuple[str, int], ...]) -> Mapping[str, EntryPoint]:
    """The entry points of a group, by name. That reads a file of every package: once, until a package comes or goes."""
    return {point.name: point for point in entry_points(group=group)}


def _changed(folder: str) -> int:
    """When something last came into a folder, or went; 0 where there is none."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return 0


def imported(where: str) -> Any:
    """The object at `package.module:object`. Raises ValueError if it is not written so, or cannot be imported."""
    module, _, name = where.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise ValueError(f"write {where!r} as package.module:object")
    if (here := os.getcwd()) not in sys.path and "" not in sys.path:
        sys.path.append(here)  # as under `python -m`: an installed command has its own folder there instead
    try:
        loaded: Any = import_module(module)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        raise ValueError(
            f"cannot import {module}: {type(error).__name__}: {error}; it must be importable here and on every node"
        ) from error
    for part in name.split("."):
        if not hasattr(loaded, part):
            raise ValueError(f"{module} has no {name}")
        loaded = getattr(loaded, part)
    return loaded


def options(section: type[BaseModel] | None, args: Mapping[str, Any], part: str, key: str = "args") -> BaseModel | None:
    """A part's own settings from what the configuration says of them. Raises ValueError naming what is wrong."""
    if section is None:
        if args:
            raise ValueError(f"{key}: {part} has no settings of its own; leave {', '.join(map(str, args))} out")
        return None
    try:
        return section.model_validate(dict(args))
    except ValidationError as error:
        raise ValueError(mistakes(section, error, key)) from None


class _Sectioned(Protocol):
    @property
    def section(self) -> type[BaseModel] | None: ...


S = TypeVar("S", bound=_Sectioned)


def chosen(door: Door[S], name: str, args: Mapping[str, Any], key: str) -> tuple[S, Any]:
    """The part of a name, and its settings as the section that it brings, None where it brings none.

    Raises ValueError that says what is wrong, of the settings below `key`.
    """
    part = door.find(name)
    return part, options(part.section, args, name, key)


def found_by(door: Door[Any]) -> AfterValidator:
    """Of a field: that it names a part."""

    def checked(name: str) -> str:
        door.find(name)
        return name

    return AfterValidator(checked)


def function(entry: str | Callable[..., Any]) -> Callable[..., Any]:
    """What a record calls: the function itself, or the one at package.module:function. Raises ValueError."""
    called: Callable[..., Any] = imported(entry) if isinstance(entry, str) else entry
    return called


@dataclass(frozen=True)
class Part:
    """A function, or where it is (package.module:function), and the settings of its own, which it takes last.

    `section` is a subclass of `fused_ray.config.Section`; without one, None is taken.
    """

    entry: str | Callable[..., Any] | None
    """None: there is nothing to do."""
    section: type[BaseModel] | None = None

    def __post_init__(self) -> None:
        if not (self.entry is None or isinstance(self.entry, str) or callable(self.entry)):
            raise TypeError(f"{type(self).__name__} of {self.entry!r}, which is no function")
        if not (self.section is None or (isinstance(self.section, type) and issubclass(self.section, BaseModel))):
            raise TypeError(f"{type(self).__name__} has settings {self.section!r}, which is no fused_ray.api.Section")

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        assert self.entry is not None
        function: Callable[..., Any] = imported(self.entry) if isinstance(self.entry, str) else self.entry
        return function
