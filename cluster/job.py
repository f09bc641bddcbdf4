"""Run ``fused-ray`` where only a script can be given: ``python job.py run CONFIG.yaml --set key=value ...``.

``ray submit`` copies this one file to the head node, ``ray job submit`` starts it in a copy of the repository.
It takes the arguments of ``fused-ray`` and ends with its exit code.
"""

import importlib.util
import os
import sys
from pathlib import Path

if importlib.util.find_spec("fused_ray") is None:
    # Not installed here: then this script lies in cluster/ of the repository. Ray's workers must find the
    # package too, and they inherit the environment, not this process's search path.
    root = str(Path(__file__).resolve().parent.parent)
    sys.path.insert(0, root)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))

from fused_ray.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
