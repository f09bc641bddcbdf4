"""PyTorch's process-wide settings that change a result, set aside while results are computed.

A caller, or the module of a model, may have changed them: a default dtype or device, inference mode, autocast, a lower
precision of matrix products, the kernels that may be chosen. In an actor nobody has, and the bits must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any

import torch

_Setting = tuple[Callable[[], Any], Callable[[Any], object], Any]
_cuda, _cudnn, _mha, _mkldnn = (getattr(torch.backends, name) for name in ("cuda", "cudnn", "mha", "mkldnn"))


def _flag(owner: Any, name: str, wanted: bool) -> _Setting:
    return partial(getattr, owner, name), partial(setattr, owner, name), wanted


_SETTINGS: tuple[_Setting, ...] = (
    (torch.get_num_threads, torch.set_num_threads, 1),
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, 0),
    _flag(_mkldnn, "enabled", True),
    _flag(_cudnn, "deterministic", True),
    _flag(_cudnn, "benchmark", False),  # it chooses by speed
    (_mha.get_fastpath_enabled, _mha.set_fastpath_enabled, True),
    *(  # the kernels of attention
        (getattr(_cuda, f"{kind}_sdp_enabled"), getattr(_cuda, f"enable_{kind}_sdp"), True)
        for kind in ("flash", "mem_efficient", "math", "cudnn")
        if hasattr(_cuda, f"enable_{kind}_sdp")  # older versions lack the last
    ),
)
"""How each is read, how it is set, and what it is to be."""
_PRODUCTS = (
    *((_mkldnn, name) for name in ("matmul", "conv", "rnn")),
    *((_cudnn, name) for name in ("conv", "rnn")),
    (_cuda, "matmul"),
)
"""What has a precision of its own in newer versions."""


@contextmanager
def standard() -> Iterator[None]:
    """Inside, results depend on nothing that this process has set, one thread included; afterwards all is as before."""
    with ExitStack() as before:
        if torch.is_inference_mode_enabled():
            before.enter_context(torch.inference_mode(False))
        if not torch.is_grad_enabled():
            before.enter_context(torch.enable_grad())
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                before.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device().type != "cpu":
            before.enter_context(torch.device("cpu"))
        for read, write, wanted in _SETTINGS:
            _set(before, read(), write, wanted)
        _exact_products(before)
        if _flushes():
            _set(before, True, torch.set_flush_denormal, False)
        yield


@contextmanager
def kept() -> Iterator[None]:
    """Whatever is set inside, by code that is not ours, these settings are afterwards as before."""
    written: tuple[tuple[Callable[[], Any], Callable[[Any], object]], ...] = (
        *((read, write) for read, write, _ in _SETTINGS),
        (torch.is_grad_enabled, torch.set_grad_enabled),
        (torch.get_default_device, torch.set_default_device),
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
        (_flushes, torch.set_flush_denormal),
    )
    before = [read() for read, _ in written]
    try:
        yield
    finally:
        for (read, write), value in zip(written, before, strict=True):
            if read() != value:
                write(value)


def _set(before: ExitStack, present: Any, write: Callable[[Any], object], wanted: Any) -> None:
    if present != wanted:
        before.callback(write, present)
        write(wanted)


def _exact_products(before: ExitStack) -> None:
    """Matrix products and convolutions of float32 in float32."""
    for read, write, wanted in (
        (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
        _flag(_cudnn, "allow_tf32", False),
    ):
        with suppress(RuntimeError):  # it was set by the newer names below, and they alone can tell
            _set(before, read(), write, wanted)
    for owner, name in _PRODUCTS:
        part: Any = getattr(owner, name, None)
        precision = getattr(part, "fp32_precision", "none")  # unknown to older versions
        if precision not in ("none", "ieee"):
            before.callback(setattr, part, "fp32_precision", precision)
            part.fp32_precision = "ieee"


def _flushes() -> bool:
    """Whether numbers too small for a full float32 become zero here."""
    tiny = torch.full((1,), 2.0**-126, dtype=torch.float32, device="cpu")
    return not tiny.mul(0.5).item()
