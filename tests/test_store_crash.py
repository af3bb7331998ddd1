"""Killed at any line of the store's code, a resumed writer ends with the bytes of one that was never killed."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def crash(folder, step, what):
    command = [sys.executable, "-m", "tests._crash", str(folder), str(step), what]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("what", ["first", "retry"])
def test_killed_at_many_lines(tmp_path, what):
    found = crash(tmp_path, 29, what)
    assert found["kills"] >= 20
    assert found["wrong"] == []
    assert found["left"] == []


@pytest.mark.slow
@pytest.mark.parametrize("what", ["first", "retry"])
def test_killed_at_every_line(tmp_path, what):
    found = crash(tmp_path, 1, what)
    assert found["kills"] >= 500
    assert found["wrong"] == []
