"""Folders that are registries, all by one helper."""

import pytest

from featcache import registry
from featcache.errors import ConfigError
from tests.conftest import ROOT

FOLDERS = (
    "featcache.extractors",
    "featcache.builders",
    "featcache.bridges",
    "heads.methods",
    "heads.nets",
    "pipelines.tasks",
    "pipelines.experiments",
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_names_its_files_but_no_helpers(folder):
    files = {path.stem for path in (ROOT / folder.replace(".", "/")).glob("*.py")}
    assert registry.names(folder) == sorted(name for name in files if not name.startswith("_"))
    assert all(registry.load(folder, name, "file").__name__ == f"{folder}.{name}" for name in registry.names(folder))


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_unknown_name_is_answered_with_the_nearest_and_all_of_them(folder):
    first, *_ = registry.names(folder)
    with pytest.raises(ConfigError, match=rf"no thing '{first}x'; did you mean '.*'\? .*{first}"):
        registry.load(folder, f"{first}x", "thing")
