"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

from featcache import Manifest
from featcache.builders import kitchens

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real recordings, annotations and features; never part of the repository."""
    folder = Path(os.environ.get("FEATCACHE_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FEATCACHE_REALDATA to run this test")
    return folder


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> Path:
    """A folder with kitchens.csv and its 16 rendered clips: one of each action in each kitchen. Copy what you break."""
    folder = tmp_path_factory.mktemp("videos")
    every = kitchens.build(folder, share=0.01)
    Manifest("kitchens", every.clips[::3], folder).write(folder / "kitchens.csv")
    return folder
