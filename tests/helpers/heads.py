"""Small trained runs of every method and net, and their exported heads in a process without featcache."""

import dataclasses
import inspect
import json
import os
import subprocess
import sys

import numpy as np

from featcache import registry
from featcache.store import StoreWriter
from heads import methods
from heads.methods import source_only
from heads.testing.problems import SIMPLE, small
from pipelines.config import Optim
from pipelines.exporting.export import stored
from pipelines.exporting.head import inputs
from pipelines.training.train import train
from tests.helpers import caption_stores, skeleton_stores, stores

MAKERS = {"classification": stores, "retrieval": caption_stores, "clustering": skeleton_stores}
QUICK = {"steps": 2, "epoch": 1, "optim": Optim(lr=1e-3, clip_norm=1.0)}


def write_all(folder):
    """The stores of all tasks, and the manifest `ragged`."""
    for maker in MAKERS.values():
        maker.write_all(folder)
    write_ragged(folder / "ragged")
    return folder


def write_ragged(folder):
    """Stores in float16 whose rows have one to three windows; every fifth row lacks `hof`."""
    clips, rng = dataclasses.replace(stores.manifest(), name="ragged"), np.random.default_rng(0)
    clips.write(folder / "manifest.csv")
    for name, (modality, size, _) in stores.STORES.items():
        recipe = {"extractor": name, "version": 1, "modality": modality, "weights_sha256": "none", "dtype": "float16"}
        with StoreWriter.open(folder / f"{name}.zarr", clips, recipe, row_shape=(size,), windows=3, facts={}) as writer:
            for row in range(len(clips)):
                length = 1 + row % 3
                if name == "hof" and row % 5 == 4:
                    writer.absent(row, "no motion")
                else:
                    x = rng.normal(size=(length, size)).astype(np.float16)
                    writer.done(row, x, np.arange(length), np.arange(length) + 1.0)


def run(method, task=None, **changes):
    """The configuration of a quick run of a method on its own net, or on the simplest one of the task."""
    module = registry.load(methods, method, "method")
    task = task or module.METHOD.tasks[0]
    sees = module.METHOD.needs + module.METHOD.may
    net = inspect.get_annotations(module.METHOD, eval_str=True).get("net", SIMPLE[task])
    file = sys.modules[net.__module__]
    plain = {"method": module.Params(**small(module)), "net": file.Params(**small(file)), **QUICK}
    if task != "clustering":
        plain |= {
            "init_from": "some_0" if "init_from" in module.METHOD.needs else None,
            "source": ("day",) if "source" in sees else (),
            "target": "night" if "target" in sees else None,
            "test": "night",
            "holdout": 0.25 if "source_val" in sees else 0.0,
        }
    return MAKERS[task].run(**{**plain, **changes})


def trained(config, folder, runs):
    """Train a run, and the one that it starts from if its method needs one."""
    module = sys.modules[type(config.method).__module__]
    if "init_from" in module.METHOD.needs:
        first = dataclasses.replace(
            config, method=source_only.Params(), source=("day",), target=None, holdout=0.0, init_from=None
        )
        config = dataclasses.replace(config, init_from=train(first, folder, runs).name)
    return train(config, folder, runs)


#: loads files and calls them on arrays, with none of our own code: argv[1] is a JSON list of (file, arrays, outputs)
ALONE = """
import json, sys, warnings
import numpy as np
warnings.simplefilter("ignore")

class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("featcache", "heads", "pipelines", "tests"):
            raise ImportError(f"{name} is not here")

sys.meta_path.insert(0, Refuse())

def torch_head(path):
    import torch
    torch.set_num_threads(1)
    extra = {"featcache.json": ""}
    module = torch.export.load(path, extra_files=extra).module()
    def call(x):
        return {name: out.numpy() for name, out in module({m: torch.from_numpy(v) for m, v in x.items()}).items()}
    return call, json.loads(extra["featcache.json"])

def onnx_head(path):
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    names = [output.name for output in session.get_outputs()]
    facts = json.loads(session.get_modelmeta().custom_metadata_map["featcache.json"])
    return lambda x: dict(zip(names, session.run(names, x))), facts

for path, arrays, out, sizes in json.load(open(sys.argv[1])):
    call, facts = (torch_head if path.endswith(".pt2") else onnx_head)(path)
    with np.load(arrays) as file:
        x = dict(file)
    assert x.keys() == facts["inputs"].keys()
    found = {}
    for size in sizes:
        part = call({name: value[:size] for name, value in x.items()})
        assert list(part) == list(facts["outputs"])
        found |= {f"{size} {name}": value for name, value in part.items()}
    np.savez(out, **found)
"""


def alone(cases, folder):
    """Call exported heads in a process that has none of our packages on its path.

    cases: (file, run, opened, sizes). Returns for each case size -> output -> array, of the first rows of the test.
    """
    jobs, outs = [], []
    for k, (path, made, opened, sizes) in enumerate(cases):
        rows = {name: made.outputs[name] for name in ("rows", "captions") if name in made.outputs}
        np.savez(folder / f"{k}.npz", **stored(made, opened, inputs(made, opened), rows))
        outs.append(folder / f"out{k}.npz")
        jobs.append([str(path), str(folder / f"{k}.npz"), str(outs[-1]), sizes])
    (folder / "jobs.json").write_text(json.dumps(jobs))
    (folder / "alone.py").write_text(ALONE)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    words = [sys.executable, "-P", str(folder / "alone.py"), str(folder / "jobs.json")]
    done = subprocess.run(words, cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = []
    for out, (_, _, _, sizes) in zip(outs, cases, strict=True):
        with np.load(out) as file:
            found.append({n: {k.partition(" ")[2]: file[k] for k in file if k.startswith(f"{n} ")} for n in sizes})
    return found
