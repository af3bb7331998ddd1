"""Plug-ins: folders and packages of other people's files in every registry, with their names, errors and digests."""

import hashlib
import os
import pickle
import sys
from collections import deque
from contextlib import closing
from functools import partial

import pytest
from click.testing import CliRunner

from featcache import extractors, manifests, plugins, registry
from featcache.errors import ConfigError
from featcache.manifest import Manifest
from featcache.parallel import in_parallel
from featcache.plugins import _places
from pipelines import settings
from pipelines.cli import main
from pipelines.experiments import _recipes
from tests.conftest import ROOT
from tests.pipelines.test_cli import commands

PARAMS = """
from dataclasses import dataclass
from {package} import {base}

@dataclass(frozen=True)
class Params:
    weight: float = 1.0

class Mine({base}):
    pass

{last} = Mine
"""
FILES = {  #: registry -> the smallest file of it
    "heads.methods": PARAMS.format(package="heads.methods", base="Method", last="METHOD"),
    "heads.nets": PARAMS.format(package="heads.nets", base="Net", last="NET"),
    "featcache.extractors": PARAMS.format(package="featcache.extractors", base="Extractor", last="EXTRACTOR")
    .replace("pass", "name, modality, row_shape = 'mine', 'rgb', (3,)\n    window = Pictures(4, rate=8.0)")
    .replace("import Extractor", "import Extractor, Pictures"),
    "featcache.builders": "from featcache.manifest import Manifest\n"
    "def build(folder, *, progress): return Manifest('mine', (), folder)",
    "featcache.bridges": "KEEPS = frozenset()\ndef read(path, ids): ...\ndef write(path, tables): ...",
    "pipelines.experiments": "RUNS = ()",
}
METHOD = FILES["heads.methods"]
PLACE = {package: package.rpartition(".")[2] for package in FILES}


def written(folder, files):
    """Write path -> text into a folder, and return it."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def sha256(text):
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A function that makes an installed package of files, with these entry points: (registry, entry)."""

    def make(files, *entries):
        written(tmp_path / "site", files)
        lines = [line for kind, entry in entries for line in (f"[featcache.{kind}]", entry)]
        info = {"METADATA": "Metadata-Version: 2.1\nName: fog\nVersion: 1.2\n", "entry_points.txt": "\n".join(lines)}
        written(tmp_path / "site" / "fog-1.2.dist-info", info)
        monkeypatch.syspath_prepend(tmp_path / "site")
        _places._packages.cache_clear()

    before = set(sys.modules)
    yield make
    _places._packages.cache_clear()
    for name in set(sys.modules) - before:
        if name.partition(".")[0] == "fog" or name.endswith(".mine"):
            parent, _, child = name.rpartition(".")
            vars(sys.modules.get(parent, sys)).pop(child, None)
            del sys.modules[name]


# ---------------------------------------------------------------------------------------------------------- registries


@pytest.mark.parametrize("registered", FILES)
def test_a_file_of_a_folder_is_an_entry_while_the_folder_is_named(tmp_path, registered):
    file = f"{PLACE[registered]}/mine.py"
    others = registry.names(registered)
    with plugins.added([written(tmp_path, {file: FILES[registered], f"{PLACE[registered]}/test_mine.py": ""})]):
        assert registry.names(registered) == sorted([*others, "mine"])
        module = registry.load(registered, "mine", "entry")
        assert (module.__name__, module.__file__) == (f"{registered}.mine", str(tmp_path / file))
        assert registry.origin(registered, "mine") == str(tmp_path / file)
        assert registry.origin(registered, others[0]) == "featcache"
    assert registry.names(registered) == others
    with pytest.raises(ConfigError, match="'mine'"):
        registry.load(registered, "mine", "entry")
    assert not [*tmp_path.rglob("*.pyc")]


@pytest.mark.parametrize("registered", FILES)
def test_a_module_of_a_package_is_an_entry(package, registered):
    package({"fog/__init__.py": "", "fog/thick.py": FILES[registered]}, (PLACE[registered], "mine = fog.thick"))
    assert "mine" in registry.names(registered)
    assert registry.origin(registered, "mine") == "fog 1.2"
    module = registry.load(registered, "mine", "entry")
    assert module is sys.modules["fog.thick"]
    assert module.__spec__.name == "fog.thick"
    assert plugins.canonical("fog.thick") == f"{registered}.mine"
    assert plugins.digests("fog.thick") == {f"{PLACE[registered]}/mine.py": sha256(FILES[registered])}


def test_parameters_are_named_after_the_entry_and_can_be_sent(package, tmp_path):
    package({"fog/__init__.py": "", "fog/thick.py": METHOD}, ("methods", "mine = fog.thick"))
    with plugins.added([written(tmp_path, {"methods/thin.py": METHOD})]):
        for name in ("mine", "thin"):
            params = registry.load("heads.methods", name, "method").Params(2.0)
            assert settings.name_of(params) == name
            assert pickle.loads(pickle.dumps(params)) == params


def test_folders_of_the_environment_and_of_a_command_are_one_list(tmp_path, monkeypatch):
    folders = [written(tmp_path / name, {f"methods/{name}.py": METHOD}) for name in "abc"]
    monkeypatch.setenv(plugins.VARIABLE, os.pathsep.join(map(str, folders[:2])))
    with plugins.added([folders[2], folders[0]]):
        assert plugins.folders() == tuple(folders)
        assert {"a", "b", "c"} <= {*registry.names("heads.methods")}
    assert plugins.folders() == tuple(folders[:2])


def test_a_relative_folder_is_the_same_one_after_a_change_of_directory(tmp_path, monkeypatch):
    near, far = written(tmp_path / "near", {"methods/a.py": METHOD}), written(tmp_path / "b", {"methods/b.py": METHOD})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(plugins.VARIABLE, "near")
    assert plugins.folders() == (near,)
    monkeypatch.chdir("/")
    assert plugins.described() == str(near)
    with plugins.added([far]):
        assert plugins.folders() == (near, far)
        assert plugins.described() == os.pathsep.join(map(str, (near, far)))


def test_tasks_have_no_plug_ins(tmp_path):
    with plugins.added([written(tmp_path, {"methods/mine.py": METHOD})]):
        written(tmp_path, {"tasks/mine.py": ""})
        assert registry.names("pipelines.tasks") == ["classification", "clustering", "retrieval"]
        assert plugins.of("tasks") == {}


def test_a_helper_may_have_the_name_that_another_folder_has_later(tmp_path):
    """One process runs a command, then another with other files of the same names."""
    for number in (1, 2):
        folder = tmp_path / str(number)
        method = "from heads.methods._size import SIZE\n" + METHOD.replace("1.0", "SIZE")
        with plugins.added([written(folder, {"methods/mine.py": method, "methods/_size.py": f"SIZE = {number}.0"})]):
            assert registry.load("heads.methods", "mine", "method").Params().weight == number


# -------------------------------------------------------------------------------------------------------------- errors


FAULTS = {  #: files of a folder -> words of the error, of which the first is a name and the last the fix
    "no plug-in": ({"README.md": ""}, ["holds none", "NAME.py"]),
    "only helpers": ({"methods/_size.py": ""}, ["holds none", "NAME.py"]),
    "in the folder itself": ({"mine.py": METHOD}, ["mine.py", "move it to .*methods/mine.py"]),
    "beside others": ({"mine.py": METHOD, "nets/n.py": ""}, ["mine.py", "move it to .*methods/mine.py"]),
    "an experiment, and nothing else": ({"e.py": "RUNS = ()"}, ["e.py", "move it to .*experiments/e.py"]),
    "misnamed folder": ({"method/mine.py": METHOD}, ["/method ", "methods", "rename"]),
    "misnamed like the command": ({"formats/mine.py": ""}, ["/formats ", "bridges", "rename"]),
    "tasks": ({"methods/mine.py": METHOD, "tasks/mine.py": ""}, ["/tasks", "cannot be added", "remove"]),
    "hyphen": ({"methods/my-own.py": METHOD}, ["my-own.py", "rename it to my_own.py"]),
    "keyword": ({"methods/class.py": METHOD}, ["class.py", "rename it"]),
    "a package": ({"methods/mine/__init__.py": METHOD}, ["methods/mine ", "write .*methods/mine.py"]),
    "shipped name": ({"methods/rna.py": METHOD}, ["heads/methods/rna.py", "methods/rna.py", "rename"]),
    "shipped helper": ({"methods/_copies.py": "", "methods/a.py": METHOD}, ["heads/methods/_copies.py", "rename"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_cannot_be_meant_is_an_error(tmp_path, fault):
    files, words = FAULTS[fault]
    with (
        pytest.raises(ConfigError, match="(?s)" + ".*".join(words)) as error,
        plugins.added([written(tmp_path, files)]),
    ):
        registry.names("heads.methods")
    assert "\n" not in str(error.value)
    assert plugins.VARIABLE not in os.environ


def test_a_script_or_an_experiment_beside_plug_ins_is_left_alone(tmp_path):
    files = {"methods/mine.py": METHOD, "e.py": "RUNS = ()", "setup.py": "def build(): ...", "x.py": "syntax error"}
    with plugins.added([written(tmp_path, files)]):
        assert "mine" in registry.names("heads.methods")


@pytest.mark.parametrize(("name", "words"), [("gone", "does not exist"), ("methods/mine.py", "is a file")])
def test_what_is_no_folder_is_named(tmp_path, name, words):
    written(tmp_path, {"methods/mine.py": METHOD})
    with pytest.raises(ConfigError, match=f"{name}.*{words}; name a folder"):
        plugins.add(tmp_path / name)


def test_two_folders_or_a_folder_and_a_package_cannot_share_a_name(tmp_path, package):
    folders = [written(tmp_path / name, {"methods/mine.py": METHOD}) for name in "ab"]
    with pytest.raises(ConfigError, match="a/methods/mine.py.*b/methods/mine.py.*rename"), plugins.added(folders):
        registry.names("heads.methods")
    package({"fog/__init__.py": "", "fog/thick.py": METHOD}, ("methods", "mine = fog.thick"))
    with pytest.raises(ConfigError, match=r"a/methods/mine.py.*fog 1.2.*rename"), plugins.added(folders[:1]):
        registry.names("heads.methods")


def method(old, new):
    assert METHOD.count(old) == 1
    return METHOD.replace(old, new)


OTHERS = "\nfrom heads.methods.rna import Params\nMETHOD"
HIS = FILES["featcache.extractors"].replace("'mine'", "'his'")
CONTENTS = {  #: a plug-in -> words of the error
    "error": ("methods", "x = 1\ny = x / 0", ["mine.py line 2: ZeroDivisionError"]),
    "syntax": ("methods", "x = 1\ndef", ["mine.py line 2: invalid syntax"]),
    "exit": ("methods", "import sys\nsys.exit(3)", ["mine.py line 2: SystemExit: 3"]),
    "missing module": ("methods", "import no_such_module", ["mine.py line 1", "no_such_module"]),
    "in a helper": ("methods", "from heads.methods import _size", ["mine.py line 1", "_size.py line 1", "NameError"]),
    "no method": ("methods", method("METHOD = Mine", ""), ["mine.py has no METHOD", "Params and METHOD"]),
    "empty": ("nets", "", ["mine.py has no Params and no NET"]),
    "no build": ("builders", "x = 1", ["mine.py has no build"]),
    "no progress": ("builders", "def build(folder): ...", ["mine.py: build", "progress", "write"]),
    "no name": ("extractors", HIS.replace("name, ", "_, "), ["Mine.name is missing", "'mine'"]),
    "no runs": ("experiments", "x = 1", ["mine.py has no RUNS"]),
    "no write": ("bridges", "KEEPS = ()\nread = 1", ["mine.py has no write"]),
    "no class": ("methods", method("= Mine", "= 3"), ["METHOD must be a class", "heads.methods.Method", "3"]),
    "not a net": ("nets", METHOD.replace("METHOD", "NET"), ["NET must be a class", "heads.nets.Net"]),
    "another's Params": ("methods", method("\nMETHOD", OTHERS), ["Params", "of this file"]),
    "Params that change": ("methods", method("(frozen=True)", ""), ["Params", "frozen=True"]),
    "no default": ("methods", method(" = 1.0", ""), [r"Params\(\)", "weight", "default"]),
    "another's name": ("extractors", HIS, ["'his'", "'mine'"]),
}


@pytest.mark.parametrize("fault", CONTENTS)
def test_a_file_that_is_no_plug_in_is_one_sentence_with_its_place(tmp_path, fault):
    kind, text, words = CONTENTS[fault]
    package = next(package for package in FILES if PLACE[package] == kind)
    files = {f"{kind}/mine.py": text, f"{kind}/_size.py": "x = nothing"}
    with plugins.added([written(tmp_path, files)]):
        assert "mine" in registry.names(package)  # nothing is imported for a name
        with pytest.raises(ConfigError, match=".*".join(words)) as error:
            registry.load(package, "mine", kind)
        assert str(error.value).startswith(str(tmp_path / kind / "mine.py"))


ENTRIES = {
    "no such module": ("mine = fog.gone", "fog.gone of fog 1.2.*No module named 'fog.gone'"),
    "error": ("mine = fog.bad", "fog.bad of fog 1.2 line 1: NameError"),
    "no method": ("mine = fog", "fog of fog 1.2 has no Params and no METHOD"),
    "an attribute": ("mine = fog:thick", "fog:thick of fog 1.2.*write mine = fog$"),
    "twice": ("mine = fog.thick\nyours = fog.thick", "fog.thick of fog 1.2 has several entries, mine and yours"),
}


@pytest.mark.parametrize("fault", ENTRIES)
def test_an_entry_point_that_is_no_plug_in_is_one_sentence(package, fault):
    entry, words = ENTRIES[fault]
    package({"fog/__init__.py": "", "fog/bad.py": "nothing", "fog/thick.py": METHOD}, ("methods", entry))
    with pytest.raises(ConfigError, match=words):
        registry.load("heads.methods", "mine", "method")


def test_the_smallest_builder_and_extractor_work_and_name_what_they_lack(tmp_path):
    build, extractor = FILES["featcache.builders"], FILES["featcache.extractors"]
    files = {
        "builders/mine.py": build,
        "builders/none.py": build.replace("return", "return None and"),
        "extractors/mine.py": extractor,
        "extractors/bare.py": extractor.replace("mine", "bare").replace(", modality, row_shape", ", _, row_shape"),
    }
    with plugins.added([written(tmp_path, files)]):
        assert manifests.build("mine", tmp_path) == Manifest("mine", (), tmp_path)
        with pytest.raises(ConfigError, match="none: build returned None.*Manifest"):
            manifests.build("none", tmp_path)
        assert extractors.load("mine").recipe["modality"] == "rgb"
        with pytest.raises(ConfigError, match="bare: Mine of featcache.extractors.bare has no modality"):
            extractors.ready(extractors.load("bare"), extractors.Runtime())


def test_a_net_that_is_imported_for_checkers_only_is_one_sentence(tmp_path):
    text = "from __future__ import annotations" + METHOD.replace("pass", "net: Absent")
    with (
        plugins.added([written(tmp_path, {"methods/mine.py": text})]),
        pytest.raises(ConfigError, match="mine.py: name 'Absent'.*TYPE_CHECKING"),
    ):
        _recipes._of_file("mine", None, own_net=False)


NAMES = {  #: group and entry -> words of the error
    "a dot": ("methods", "mean.colour = fog", "'mean.colour' of fog 1.2 in featcache.methods.*rename"),
    "a keyword": ("nets", "class = fog", "'class' of fog 1.2 in featcache.nets.*rename"),
    "a blank": ("nets", "my mean = fog", "'my mean' of fog 1.2.*rename"),
    "a digit": ("bridges", "3x = fog", "'3x' of fog 1.2.*rename"),
    "hidden": ("methods", "_hid = fog", "'_hid' of fog 1.2.*rename"),
    "one method": ("method", "mine = fog", "fog 1.2.*featcache.method,.*write featcache.methods$"),
    "as the command": ("benchmarks", "mine = fog", "fog 1.2.*featcache.benchmarks,.*write featcache.builders$"),
    "tasks": ("tasks", "mine = fog", "fog 1.2.*featcache.tasks,.*choose from featcache.methods, featcache.nets"),
}


@pytest.mark.parametrize("fault", NAMES)
def test_an_entry_point_that_no_registry_can_have_is_one_sentence(package, fault):
    kind, entry, words = NAMES[fault]
    package({"fog/__init__.py": METHOD}, (kind, entry))
    with pytest.raises(ConfigError, match=words) as error:
        registry.names("heads.methods")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------------------------- digests


def test_digests_are_those_of_the_file_and_of_the_files_that_it_imports(tmp_path, package):
    package(
        {
            "fog/__init__.py": "",
            "fog/thick.py": "from . import drops\n" + METHOD,
            "fog/drops.py": "",
            "fog/other.py": "",
        },
        ("methods", "mine = fog.thick"),
    )
    helped = "from heads.methods._size import x\nfrom heads.nets._wide import y\n" + METHOD
    files = {"methods/thin.py": helped, "methods/_size.py": "x = 1", "methods/_other.py": "", "nets/_wide.py": "y = 2"}
    with plugins.added([written(tmp_path / "folder", files)]):
        registry.load("heads.methods", "thin", "method")
        registry.load("heads.methods", "mine", "method")
        found = plugins.digests("heads.methods.thin")
        assert found == {name: sha256(files[name]) for name in ("methods/_size.py", "methods/thin.py", "nets/_wide.py")}
        written(tmp_path / "folder", {"methods/_size.py": "x = 3"})
        assert plugins.digests("heads.methods.thin") == found, "the digests are those of what was imported"
        assert plugins.digests("fog.thick").keys() == {"fog/__init__.py", "fog/drops.py", "methods/mine.py"}
        assert plugins.digests("heads.methods.rna") == {}


def test_digests_are_those_of_the_text_that_ran(tmp_path):
    """A helper that is imported late, in two blocks of one process, and edited before, between and after."""
    late = "def late():\n    from heads.methods._late import x\n    return x\n" + METHOD
    folder = written(tmp_path, {"methods/mine.py": late})
    for number in (1, 2):
        with plugins.added([folder]):
            written(folder, {"methods/_late.py": f"x = {number}0"})
            module = registry.load("heads.methods", "mine", "method")
            assert plugins.digests("heads.methods.mine")["methods/_late.py"] == sha256(f"x = {number}0")
            written(folder, {"methods/_late.py": f"x = {number}"})
            assert module.late() == number
            written(folder, {"methods/_late.py": "x = 3"})
            assert plugins.digests("heads.methods.mine")["methods/_late.py"] == sha256(f"x = {number}")


def test_the_recipe_of_an_extractor_has_the_digests_of_its_files(tmp_path):
    text = FILES["featcache.extractors"]
    with plugins.added([written(tmp_path, {"extractors/mine.py": text})]):
        assert extractors.load("mine").recipe["plugin"] == {"extractors/mine.py": sha256(text)}
    assert "plugin" not in extractors.load("hog").recipe


# --------------------------------------------------------------------------------------------- processes, and commands


@pytest.mark.slow
def test_workers_have_the_folders_of_this_moment(tmp_path):
    """The server that the workers are copies of was started before."""
    origin = partial(registry.origin, "featcache.bridges")
    with closing(in_parallel(origin, deque(["npz", "csv"]), 2)) as done:
        assert [place for _, place in done] == ["featcache", "featcache"]
    files = {"bridges/mine.py": FILES["featcache.bridges"]}
    with (
        plugins.added([written(tmp_path, files)]),
        closing(in_parallel(origin, deque(["mine", "mine"]), 2)) as done,
    ):
        assert [place for _, place in done] == [str(tmp_path / "bridges/mine.py")] * 2


def run(*words):
    return CliRunner().invoke(main, [str(word) for word in words], catch_exceptions=False)


def test_list_shows_where_a_name_is_from(tmp_path):
    folder = written(tmp_path, {"methods/mine.py": '"""Mine."""\n' + METHOD})
    lines = run("list", "methods", "--plugins", folder).stdout.splitlines()
    assert f"mine            {folder}/methods/mine.py Mine." in lines
    assert [line for line in lines if line.startswith("rna             featcache  Relative")]
    assert "mine" not in run("list", "methods").stdout


def test_list_names_a_file_that_cannot_be_imported_and_the_rest(tmp_path):
    result = run("list", "nets", "--plugins", written(tmp_path, {"nets/mine.py": "nothing"}))
    assert result.exit_code == 1
    assert "adapter" in result.stdout
    assert f"{tmp_path}/nets/mine.py line 1: NameError" in result.stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_a_wrong_folder_is_one_sentence(tmp_path, place):
    option = ["--plugins", tmp_path / "gone"]
    result = run(*option, "list", "methods") if place == "before" else run("list", "methods", *option)
    assert result.exit_code == 1
    assert result.output.count("\n") == 1
    assert "gone does not exist" in result.output


def test_every_command_takes_plug_ins_and_warns_of_them():
    for path, command in commands():
        (option,) = [each for each in command.params if each.name == "plugins"]
        assert "programs that run with your rights" in option.help, path


def test_a_name_that_no_registry_has_points_to_plug_ins():
    with pytest.raises(ConfigError, match="no method 'mine'.*--plugins FOLDER"):
        registry.load("heads.methods", "mine", "method")
    with pytest.raises(ConfigError, match="no extractor 'mine'.*--plugins FOLDER"):
        extractors.load("mine")


def test_the_files_that_prove_themselves_outside_are_plug_ins(tmp_path):
    net, bridge = ((ROOT / "tests" / "data" / name).read_text() for name in ("linear.py", "json_rows.py"))
    with plugins.added([written(tmp_path, {"nets/linear.py": net, "bridges/json_rows.py": bridge})]):
        assert registry.load("heads.nets", "linear", "net").NET
        assert registry.load("featcache.bridges", "json_rows", "format").KEEPS
