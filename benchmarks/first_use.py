"""A fresh process that uses a library once, and prints how long each stage took (coldstart.py)."""

from __future__ import annotations

import importlib
import sys
import time

start = time.perf_counter()
import numpy  # noqa: E402, F401 (shown apart)

numpy_there = time.perf_counter()
importlib.import_module(sys.argv[1])
imported = time.perf_counter()

import json  # noqa: E402

from libraries import library  # noqa: E402

name, kind, network, batch, threads = sys.argv[1:]
user = library(name)
user.set_threads(int(threads))
way = user.ways(network)[0]
if kind == "train":
    step = user.training(network, int(batch), way, rate=1e-3)
else:
    step = user.prediction(network, int(batch), way)
made = time.perf_counter()
step()
done = time.perf_counter()
print(
    json.dumps(
        {
            "numpy": numpy_there - start,
            "import": imported - numpy_there,
            "model": made - imported,
            "first": done - made,
        }
    )
)
