"""fused_ray: reversible federated unlearning with sparse adapters, simulated on Ray.

The public names; importing them loads neither PyTorch nor Ray.
"""

from fused_ray.compare import compare, load_comparison, resume_comparison
from fused_ray.comparison import CompareConfig
from fused_ray.config import RunConfig
from fused_ray.errors import FusedRayError
from fused_ray.run import audit_run, load_run, resume, run
from fused_ray.sweep import load_sweep, resume_sweep, sweep
from fused_ray.trials import SweepConfig

__version__ = "0.1.0"
__all__ = [
    "CompareConfig",
    "FusedRayError",
    "RunConfig",
    "SweepConfig",
    "__version__",
    "audit_run",
    "compare",
    "load_comparison",
    "load_run",
    "load_sweep",
    "resume",
    "resume_comparison",
    "resume_sweep",
    "run",
    "sweep",
]
