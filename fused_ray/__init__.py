"""Reversible federated unlearning with sparse adapters, on Ray.

    from fused_ray import RunConfig, run
    result = run(RunConfig.from_dict({"forget": {"classes": [3]}}))

RunConfig        every field of a run: RunConfig.from_yaml(path, overrides),
                 RunConfig.from_dict(values), overrides such as ["seed=1"]
run              pre-train, unlearn, compare with a retrained model; returns
                 what result.json holds
resume           goes on with an interrupted run
audit_run        judges a finished run once more
load_run         a run's directory: .result, .config, .table("rounds")

CompareConfig    methods x scenarios x seeds, for compare,
                 resume_comparison, load_comparison
SweepConfig      a space over fields, for sweep, resume_sweep, load_sweep
ScaleConfig      points of clients, actors, nodes and payload, for scale,
                 resume_scale, load_scale
FusedRayError    the base of all errors that one line explains

help() of each tells more. Importing them loads neither PyTorch nor Ray.
"""

# `as` makes a name public to type checkers. There is no __all__: with one, help(fused_ray) would print every member of
# every class, 1,800 lines.
from fused_ray.config import RunConfig as RunConfig
from fused_ray.errors import FusedRayError as FusedRayError
from fused_ray.runs.start import audit_run as audit_run
from fused_ray.runs.start import load_run as load_run
from fused_ray.runs.start import resume as resume
from fused_ray.runs.start import run as run
from fused_ray.studies.comparisons.config import CompareConfig as CompareConfig
from fused_ray.studies.comparisons.start import compare as compare
from fused_ray.studies.comparisons.start import load_comparison as load_comparison
from fused_ray.studies.comparisons.start import resume_comparison as resume_comparison
from fused_ray.studies.scaling.config import ScaleConfig as ScaleConfig
from fused_ray.studies.scaling.start import load_scale as load_scale
from fused_ray.studies.scaling.start import resume_scale as resume_scale
from fused_ray.studies.scaling.start import scale as scale
from fused_ray.studies.sweeps.config import SweepConfig as SweepConfig
from fused_ray.studies.sweeps.start import load_sweep as load_sweep
from fused_ray.studies.sweeps.start import resume_sweep as resume_sweep
from fused_ray.studies.sweeps.start import sweep as sweep

__version__ = "0.2.0"
