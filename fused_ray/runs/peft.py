"""A low-rank adapter as the folder that PEFT loads (`PeftModel.from_pretrained(model, folder)`), over M_r."""

from __future__ import annotations

import json
import re

import torch
from safetensors.torch import save
from torch import nn

from fused_ray.core.lora import Lora
from fused_ray.types import FloatVector

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def unfit(adapter: Lora, model: nn.Module) -> str | None:
    """Why PEFT cannot put the adapter on the model, in words; None if it can.

    It computes with layers of its own beside the adapted ones: next to a plain nn.Linear or nn.Conv2d that is the same
    function.
    """
    for name in adapter.names:
        layer = model.get_submodule(name)
        if type(layer) is nn.Conv2d:
            plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
        else:
            plain = type(layer) is nn.Linear
        if not plain:
            return f"{name} is no plain nn.Linear or nn.Conv2d but {layer}"
    return None


def files(adapter: Lora, values: FloatVector) -> dict[str, bytes]:
    """The two files by name; A and B have the adapter's own bits, values [V].

    Source of the names: PEFT's documentation of its checkpoint format.
    """
    tensors = {}
    for name, shape, (a, b) in zip(adapter.names, adapter.shapes, adapter.split(torch.tensor(values)), strict=True):
        kernel = shape[2:]
        tensors[f"base_model.model.{name}.lora_A.weight"] = a.reshape(adapter.rank, *shape[1:]).contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = b.reshape(shape[0], adapter.rank, *(1 for _ in kernel))
    config = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": adapter.rank,
        "lora_alpha": adapter.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "fan_in_fan_out": False,
        # a pattern of whole names: of a list, each would also match as the end of a longer name
        "target_modules": "|".join(map(re.escape, adapter.names)),
    }
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}  # they are views of one vector
    return {CONFIG: json.dumps(config, indent=2).encode(), WEIGHTS: save(tensors, metadata={"format": "pt"})}
