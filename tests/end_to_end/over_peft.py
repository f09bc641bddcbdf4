"""A program that has PEFT: M_f by an exported low-rank adapter over M_r, beside the exported M_f itself.

python over_peft.py RUN FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from fused_ray import load_run
from fused_ray.data.torchvision_import import import_torchvision

import_torchvision()  # what PEFT imports wants it, in whatever pair is here
from peft import PeftModel, get_peft_model_state_dict  # noqa: E402

run, folder = map(Path, sys.argv[1:])
adapter = load_run(run).adapter
assert adapter is not None
images = torch.randn(64, 1, 28, 28, generator=torch.Generator().manual_seed(0))
expected = torch.export.load(folder / "model.pt2").module()(images)
before = load_run(run).model("before")(images)

over = PeftModel.from_pretrained(load_run(run).model("before"), folder / "peft").eval()
state = get_peft_model_state_dict(over)
factors = dict(zip(adapter.adapter.names, adapter.adapter.split(torch.tensor(adapter.values)), strict=True))
same_bits = len(state) == 2 * len(factors) and all(
    torch.equal(state[f"base_model.model.{name}.lora_{kind}.weight"].flatten(), factor.flatten())
    for name, pair in factors.items()
    for kind, factor in zip("AB", pair, strict=True)
)
live = over(images)
merged = over.merge_and_unload()
weights = load_file(folder / "model.safetensors")
print(
    json.dumps(
        {
            "same_bits": same_bits,
            "change": (expected - before).abs().max().item(),
            "live": (expected - live).abs().max().item(),
            "merged": (expected - merged(images)).abs().max().item(),
            "weights": max((weights[k] - v).abs().max().item() for k, v in merged.state_dict().items()),
        }
    )
)
