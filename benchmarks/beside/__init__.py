"""What bench.py consists of: tasks, the systems that are compared, the parts of the benchmark, and its page."""

import sys
from pathlib import Path

# the networks of tasks are modules there, which fused_ray imports by name
sys.path.append(str(Path(__file__).parents[1] / "peers"))
