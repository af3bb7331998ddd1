"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Folder of real recordings, annotations and features; never part of the repository."""
    folder = Path(os.environ.get("FEATCACHE_REALDATA", ROOT.parent / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FEATCACHE_REALDATA to run this test")
    return folder
