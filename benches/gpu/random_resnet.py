"""Writes a folder with a ResNet-18 of random weights under torchvision's names: python3 random_resnet.py FOLDER
It serves to measure speed and parity without trained weights. Uses only the standard library."""

import array
import json
import math
import pathlib
import random
import sys

folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
rng = random.Random(1)
shapes = {}


def convolution(name, outputs, inputs, side):
    shapes[f"{name}.weight"] = [outputs, inputs, side, side]


def norm(name, width):
    for part in ("weight", "bias", "running_mean", "running_var"):
        shapes[f"{name}.{part}"] = [width]


convolution("conv1", 64, 3, 7)
norm("bn1", 64)
before = 64
for stage, width in enumerate([64, 128, 256, 512], 1):
    for block in range(2):
        at = f"layer{stage}.{block}"
        convolution(f"{at}.conv1", width, before, 3)
        norm(f"{at}.bn1", width)
        convolution(f"{at}.conv2", width, width, 3)
        norm(f"{at}.bn2", width)
        if before != width:
            convolution(f"{at}.downsample.0", width, before, 1)
            norm(f"{at}.downsample.1", width)
        before = width

header, offset = {}, 0
for name, shape in shapes.items():
    size = 4 * math.prod(shape)
    header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + size]}
    offset += size
text = json.dumps(header).encode()
text += b" " * (-len(text) % 8)
with open(folder / "model.safetensors", "wb") as file:
    file.write(len(text).to_bytes(8, "little") + text)
    for name, shape in shapes.items():
        count = math.prod(shape)
        if name.endswith("bias") or name.endswith("running_mean"):
            numbers = [0.0] * count
        elif len(shape) == 1:
            numbers = [1.0] * count
        else:
            # The initialisation of torchvision: He et al. 2015, by fan-out.
            deviation = math.sqrt(2 / (shape[0] * shape[2] * shape[3]))
            numbers = (rng.gauss(0, deviation) for _ in range(count))
        array.array("f", numbers).tofile(file)
(folder / "config.json").write_text('{"architecture": "resnet18", "preprocess": {"resize": 256, "crop": 224}}\n')
