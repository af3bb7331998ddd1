"""Files that do harm when they are unpickled, and a trap that notices it."""

import builtins
import functools
import io
import os
import posix
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch


class Call:
    """Pickled as a call, which pickle.load makes, and the state that it then gives to the result."""

    def __init__(self, function, *arguments, state=None):
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


TRAP = "trap"  # the file that a payload would make in the working directory
CODE = f"open({TRAP!r}, 'w').close()"
EVIL = {
    "os.system": lambda: Call(os.system, f"touch {TRAP}"),
    "posix.system": lambda: Call(posix.system, f"touch {TRAP}"),
    "subprocess.Popen": lambda: Call(subprocess.Popen, ["touch", TRAP]),
    "eval": lambda: Call(builtins.eval, CODE),
    "exec": lambda: Call(builtins.exec, CODE),
    "getattr": lambda: Call(builtins.getattr, "x", "upper"),
    "import": lambda: Call(builtins.__import__, "antigravity"),
    "open": lambda: Call(builtins.open, TRAP, "w"),
    "partial": lambda: Call(functools.partial, os.system, f"touch {TRAP}"),
    "reduce": lambda: Call(functools.reduce, builtins.getattr, ["x", "upper"]),
    "torch.load": lambda: Call(torch.load, TRAP),
    "numpy.load": lambda: Call(np.load, TRAP),
    "numpy.memmap": lambda: Call(np.memmap, TRAP, "f4", "w+", 0, (3,)),
    "runstring": lambda: Call(np.testing.runstring, CODE, {}),
}
RUNS = ("os.system", "posix.system", "eval", "exec", "open", "runstring", "numpy.memmap")


def torch_file(value, old=False):
    with warnings.catch_warnings(), io.BytesIO() as file:
        warnings.simplefilter("ignore")  # of torch's own storages
        torch.save(value, file, _use_new_zipfile_serialization=not old)
        return file.getvalue()


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """Fails the test if something in it has run a payload."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / TRAP
    assert not (tmp_path / TRAP).exists()
    assert "antigravity" not in sys.modules
