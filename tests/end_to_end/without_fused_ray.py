"""A program that has PyTorch, an exported folder and test images, and no fused_ray: right answers, class by class.

python without_fused_ray.py FOLDER IMAGES.parquet
"""

import io
import json
import sys
from pathlib import Path

sys.modules["fused_ray"] = None  # type: ignore[assignment]  # from here on, importing it fails

import numpy as np  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402

folder, images = map(Path, sys.argv[1:])
about = json.loads((folder / "about.json").read_text())
mean, std = (np.array(about["data"][name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
table = pq.read_table(images)
labels = table["label"].to_numpy()
pixels = np.stack([np.asarray(Image.open(io.BytesIO(row["bytes"]))) for row in table["image"].to_pylist()])
inputs = (pixels[:, None].astype(np.float32) / 255 - mean) / std

model = torch.export.load(folder / "model.pt2").module()
answers = [model(torch.from_numpy(part)).argmax(1).numpy() for part in np.array_split(inputs, 7)]
right = np.concatenate(answers) == labels
classes = range(about["data"]["classes"])
print(json.dumps({"right": [int(right[labels == c].sum()) for c in classes], "of": np.bincount(labels).tolist()}))
