"""Text is read and written as UTF-8, whatever the locale of the user's machine."""

import ast
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.test_layers import FILES, nodes_of

TEXT = {"read_text", "write_text"}
OPENED_ELSEWHERE = {
    "FeatureStore",
    "StoreWriter",
    "Run",
    "av",
    "os",
    "_OPENER",
    "archive",
}  #: .open of these reads no text


def without_encoding(path):
    """Every call of a file that opens text in the encoding of the locale."""
    for node in nodes_of(path):
        if not isinstance(node, ast.Call) or any(keyword.arg == "encoding" for keyword in node.keywords):
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        arguments = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
        if name in TEXT and "utf-8" not in arguments:
            yield node.lineno
        if name == "open" and not any(isinstance(mode, str) and "b" in mode and len(mode) < 4 for mode in arguments):
            owner = function.value if isinstance(function, ast.Attribute) else None
            if not (isinstance(owner, ast.Name) and owner.id in OPENED_ELSEWHERE):
                yield node.lineno


def test_files_of_text_name_their_encoding():
    assert [f"{path} line {line}" for path in FILES for line in without_encoding(path)] == []


COMMANDS = """
import locale
assert locale.getencoding().lower() != "utf-8", "this run is to be in another encoding"
from pipelines.cli import main
options = ["--runs", "runs", "--only", "source-only", "--seeds", "0"]
for words in (
    ["import", "csv", "features.csv", "m.csv", "--stores", "stores"],
    ["train-head", "stores/m", *options, "--set", "steps=2", "--workers", "1"],
    ["evaluate", "stores/m", *options, "--set", "steps=2"],
    ["table", "stores/m", *options, "--set", "steps=2"],
    ["report", "stores/m", *options, "--set", "steps=2"],
    ["info", "stores/m/features.zarr"],
    ["check", "m.csv"],
):
    try:
        main(words, standalone_mode=False)
    except SystemExit:
        pass
"""


@pytest.mark.slow
def test_commands_under_the_locale_c(tmp_path):
    """Labels and ids in any script come back from every file; the table has its arrows and signs."""
    rng = np.random.default_rng(0)
    clips = [(f"ü{domain}{k}", domain, "test" if k % 2 else "train") for domain in ("day", "night") for k in range(8)]
    lines = [
        f"{clip},{domain},{split},a.mp4,{('wäsche', '厨房')[k // 2 % 2]}"
        for k, (clip, domain, split) in enumerate(clips)
    ]
    (tmp_path / "m.csv").write_text("\n".join(["clip_id,domain,split,source,label", *lines]) + "\n", encoding="utf-8")
    rows = [",".join([clip, *map(str, rng.normal(size=4).round(3))]) for clip, _, _ in clips]
    (tmp_path / "features.csv").write_text("\n".join(["clip_id,f0,f1,f2,f3", *rows]) + "\n", encoding="utf-8")
    environment = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", COMMANDS], cwd=tmp_path, env=environment, capture_output=True)
    shown, told = done.stdout.decode("utf-8"), done.stderr.decode("utf-8")
    assert done.returncode == 0, told
    assert "day→night" in shown
    assert "clip 'üday0': a.mp4 does not exist" in shown
    (page,) = (tmp_path / "runs").glob("*.html")
    assert "wäsche" in page.read_text(encoding="utf-8")
    assert "PYTHONUTF8=1" in told  # file names keep the encoding of the locale
