"""A first unlearning in Python: run it, read the result, put the adapter on a model and take it off.

python examples/first_unlearning.py     (embedded data, one process, no Ray; results in runs/first)
"""

from __future__ import annotations

import torch
from safetensors.torch import save_file

from fused_ray import RunConfig, load_run, run

CONFIG = RunConfig.from_dict(
    {
        "data": {"limit": 2000},  # of the 10,000 embedded images; all else is at its default
        "federation": {"clients": 5},
        "pretrain": {"rounds": 10},
        "forget": {"scenario": "class", "classes": [0]},  # T-shirts
        "engine": {"backend": "local"},
        "output": {"dir": "runs/first"},
    }
)


def main() -> None:
    result = run(CONFIG, overwrite=True)

    # RA: accuracy on what stays, higher is better. FA: on what must go, lower is better.
    for when in ("before", "after", "retrained"):
        accuracy = result["metrics"][when]
        print(f"{when:>9}: RA {accuracy['ra']:.3f}, FA {accuracy['fa']:.3f}")
    print(f"  verdict: {result['verdict']}: {result['verdict_sentence']}")
    print(f"  adapter: {result['adapter']['values']} values in {', '.join(result['layers']['chosen'])}")

    # The folder has the models as plain PyTorch modules, and the adapter apart from them.
    directory = load_run(CONFIG.output.dir)
    model, adapter = directory.model("before"), directory.adapter
    assert adapter is not None, "a method that changes the whole model has none"
    remembered = {name: value.clone() for name, value in model.state_dict().items()}

    adapter.apply(model)
    changed = sum(int((model.state_dict()[name] != value).sum()) for name, value in remembered.items())
    save_file(model.state_dict(), directory.path / "forgot.safetensors")
    print(f"    apply: {changed} weights are others; the model that forgot is {directory.path}/forgot.safetensors")

    adapter.remove(model)
    back = all(torch.equal(model.state_dict()[name], value) for name, value in remembered.items())
    print(f"   remove: the model from before is back, bit for bit: {back}")


if __name__ == "__main__":
    main()
