"""Clusters of real skeletons: docs/efficacy.md has the joints' own right, and a contrast learns on them."""

import json
import math
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from heads.methods import codt
from pipelines import experiments
from pipelines.cli import main
from pipelines.training.train import train
from tests.conftest import ROOT
from tests.test_readme import numbers

pytestmark = [pytest.mark.realdata, pytest.mark.slow]
KINECT = experiments.load("codt_kinect")
FILES = ("utkinect.npz", "msraction3d.npz", "florence3d.npz")


def invoke(*words, code=0):
    result = CliRunner().invoke(main, [str(word) for word in words])
    assert result.exit_code == code, result.output
    return result.stdout


@pytest.fixture(scope="module")
def where(realdata, tmp_path_factory):
    """Folder of stores and runs, made by the commands of the experiment's docstring."""
    folder = tmp_path_factory.mktemp("kinect")
    for name in FILES:
        shutil.copy(realdata / "skeleton_kinect" / name, folder)
    invoke("manifest", "build", "kinect_actions", folder)
    (settings,) = re.findall(r"skeleton (--windows .*?)\n +done", KINECT.doc, re.DOTALL)
    for layout, code, said in (("kinect-15", 0, "971 done"), ("kinect-20", 1, "756 done, 215 failed")):
        words = settings.replace("$layout", layout).replace("\\\n", "").split()
        stored = ["--stores", folder / "stores"]
        assert said in invoke("extract", folder / "kinect_actions.csv", "skeleton", *words, *stored, code=code)
    return folder


def test_clusters_of_the_joints_are_as_the_page_says(where):
    stored = ["--stores", where / "stores", "--runs", where / "runs"]
    invoke("train-head", "codt_kinect", "--only", "joints", *stored)
    invoke("evaluate", "codt_kinect", "--only", "joints", *stored)
    page = (ROOT / "docs" / "efficacy.md").read_text()
    tables = re.findall(r"<!-- kinect (\S+) -->(.*?)<!-- /kinect -->", page, re.DOTALL)
    assert len(tables) > 1
    for metric, table in tables:
        made = numbers(invoke("table", "codt_kinect", "--only", "joints", "--metric", metric, *stored))["joints"]
        assert made[:3] == pytest.approx(numbers(table)["joints"][:3], abs=0.3), metric


def test_the_contrast_tells_real_clips_apart(where):
    """Branch B1 by itself, at the experiment's rate: far below the log N at which all features are alike."""
    (run,) = (
        run for run in KINECT.runs if (run.row, run.target, run.source, run.seed) == ("", "florence", ("utk",), 0)
    )
    of = codt.Params(lambda_sup=0, lambda_dec=0, lambda_cls=0, lambda_cot=0, alpha=0.99, strong=False)
    folder = train(replace(run, method=of, steps=250), where / "stores", where / "runs")
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    losses = [line["L_cont"] for line in lines if "L_cont" in line]
    assert np.mean(losses[20:40]) < math.log(109) + 0.1  # some streams are below it by then
    assert np.mean(losses[-20:]) < math.log(109) - 0.3
