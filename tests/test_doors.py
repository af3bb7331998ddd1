"""The doors `featcache` and `pipelines`: a function per command with the same words, typed, documented and silent."""

import ast
import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import click
import pytest

import featcache
import pipelines
from featcache.arguments import worker_count
from featcache.errors import ArgumentsError, FeatcacheError
from tests.conftest import ROOT
from tests.pipelines.test_cli import commands

DOORS = (featcache, pipelines)
FUNCTIONS = {
    "manifest scan": "featcache.scan",
    "manifest build": "featcache.build",
    "manifest from-csv": "featcache.from_csv",
    "manifest join": "featcache.join",
    "extract": "featcache.extract",
    "merge": "featcache.merge",
    "train-head": "pipelines.train",
    "sweep": "pipelines.sweep",
    "evaluate": "pipelines.evaluate",
    "table": "pipelines.table",
    "choose": "pipelines.choose",
    "compare": "pipelines.compare",
    "report": "pipelines.write_report",
    "predict": "pipelines.predict",
    "search": "pipelines.search",
    "export-head": "pipelines.export_head",
    "check": "featcache.check",
    "repair": "featcache.repair",
    "info": "featcache.info",
    "import": "featcache.import_features",
    "export": "featcache.export_features",
    "pack": "featcache.pack",
    "unpack": "featcache.unpack",
    "push": "featcache.push",
    "pull": "featcache.pull",
    "weights list": "featcache.weights.listed",
    "weights fetch": "featcache.weights.fetch",
    "weights verify": "featcache.weights.verify",
    "list": "pipelines.names",
    "show": "pipelines.show",
}
#: options that print an object in another way, or that have a function of their own
ELSEWHERE = {
    "table": {"format": "Table.text"},
    "info": {"json": "json.dumps", "failures": "all of them are returned"},
    "list": {"figures": "pipelines.experiments.figures"},
    "predict": {"words": "run and clips"},
}
ONLY_PYTHON = {"progress", "report", "note"}  #: parameters that receive what the command prints while it works


def function_of(command):
    module, *names = FUNCTIONS[command].split(".")
    found = sys.modules[module]
    for name in names:
        found = getattr(found, name)
    return found


def options_of(command):
    """Word of the command line -> its parameter of click.

    --plugins is `featcache.plugins.add` for all functions, --no-locks the environment variable FEATCACHE_NO_LOCKS.
    """
    words = {}
    for param in command.params:
        name = param.name
        if isinstance(param, click.Option):
            name = max(param.opts, key=len).lstrip("-").replace("-", "_")
        if name not in ("help", "plugins", "no_locks", "quiet"):
            words[name] = param
    return words


ALL = {" ".join(path): command for path, command in commands()}


def test_every_command_has_a_function():
    assert sorted(FUNCTIONS) == sorted(ALL)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_words_of_its_command(name):
    parameters = inspect.signature(function_of(name)).parameters
    words = {word: param for word, param in options_of(ALL[name]).items() if word not in ELSEWHERE.get(name, {})}
    missing = {
        word
        for word, param in words.items()
        if word not in parameters
        and not (isinstance(param, click.Argument) and param.nargs == -1 and word.removesuffix("s") in parameters)
    }
    assert not missing, f"{FUNCTIONS[name]} lacks {sorted(missing)}, which `featcache {name}` has"
    singular = {word.removesuffix("s") for word, param in words.items() if isinstance(param, click.Argument)}
    of_others = {"run", "clips"} if name == "predict" else set()
    more = set(parameters) - set(words) - singular - ONLY_PYTHON - of_others
    assert not more, f"{FUNCTIONS[name]} has {sorted(more)}, which `featcache {name}` lacks"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_defaults_are_those_of_the_command(name):
    parameters = inspect.signature(function_of(name)).parameters
    for word, param in options_of(ALL[name]).items():
        if word in parameters and isinstance(param, click.Option) and word != "workers":
            ours, theirs = parameters[word].default, param.get_default(click.Context(ALL[name]))
            if isinstance(theirs, bool | int | float | str | Path) and theirs != "":
                assert str(ours) == str(theirs), word
            else:  # click has marks of its own for "not given"
                assert ours in (None, "", (), inspect.Parameter.empty), word


def public():
    for door in DOORS:
        for name in door.__all__:
            found = getattr(door, name)
            if inspect.isfunction(found):
                yield pytest.param(found, id=f"{door.__name__}.{name}")


def listed_parameters(docstring):
    """The names before colons where a line or a sentence begins: `name:`, or in a list, `one, two (a remark):`."""
    item = r"\w+(?: \([^)]*\))?"
    lists = re.findall(rf"(?:^ *|[.;)] +)({item}(?:,\s+{item})*):(?=\s)", docstring, re.MULTILINE)
    return {name for text in lists for name in re.findall(r"\w+", re.sub(r"\([^)]*\)", "", text))}


@pytest.mark.parametrize("function", [*public()])
def test_functions_are_typed_and_documented(function):
    hints = {**inspect.get_annotations(function)}
    parameters = inspect.signature(function).parameters
    assert set(hints) == {*parameters, "return"}
    assert not any(hint is typing.Any for hint in hints.values())
    assert parameters.keys() <= listed_parameters(function.__doc__)
    assert "Raises" in function.__doc__ or "Error" in function.__doc__ or not parameters


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_a_door_lists_its_names_and_opens_them(door):
    assert set(door.__all__) <= set(dir(door))
    assert sorted(door.__all__) == sorted(door._HOME)
    for name in door.__all__:
        assert getattr(door, name) is not None, name
    with pytest.raises(AttributeError, match=f"'nonesuch'.*{door.__all__[0]}"):
        _ = door.nonesuch
    assert re.fullmatch(r"\d+\.\d+\.\d+", featcache.__version__)


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_editors_and_mypy_see_the_same_names(door):
    """The imports under TYPE_CHECKING name what `__getattr__` imports."""
    tree = ast.parse((ROOT / door.__name__ / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: node.module for node in block.body for alias in node.names}
    assert seen == {name: home for name, home in door._HOME.items() if home != f"{door.__name__}.{name}"}


def test_a_door_imports_nothing_before_it_is_used():
    code = (
        "import sys, featcache, pipelines, heads; dir(featcache), dir(pipelines), featcache.__version__; "
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not {"torch", "click", "zarr", "pandas", "numpy", "tqdm"} & set(run.stdout.split())
    alone = subprocess.run(
        [sys.executable, "-c", "import sys, featcache; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert "pipelines" not in alone.stdout.split()


def test_types_are_announced():
    for package in ("featcache", "heads", "pipelines"):
        assert (ROOT / package / "py.typed").exists()
        section = (ROOT / "setup.cfg").read_text().split("[options.package_data]")[1].split("\n[")[0]
        assert re.search(rf"^{package} =\n    py\.typed$", section, re.MULTILINE)


def clips(folder):
    """Return a manifest of one clip."""
    return featcache.Manifest("m", (featcache.Clip("a", "day", "train", "a.mp4"),), folder)


WRONG = {
    "scan": lambda folder: featcache.scan(folder / "none", "{clip_id}"),
    "build": lambda folder: featcache.build("nonesuch", folder),
    "join": lambda folder: featcache.join([folder / "a.csv"], folder / "b.csv"),
    "extract": lambda folder: featcache.extract(folder / "a.csv", "hog", folder),
    "check": lambda folder: featcache.check(folder),
    "repair": lambda folder: featcache.repair(folder / "a.zarr"),
    "info": lambda folder: featcache.info(folder / "a.zarr"),
    "import": lambda folder: featcache.import_features([folder / "a.npz"], "npz", folder / "a.csv", folder),
    "export": lambda folder: featcache.export_features([folder / "a.zarr"], "npz", folder / "a.npz"),
    "pack": lambda folder: featcache.pack(folder / "a.zarr", folder / "b.zarr"),
    "unpack": lambda folder: featcache.unpack(folder / "a.zarr", folder / "b.zarr"),
    "fetch": lambda folder: featcache.weights.fetch("nonesuch"),
    "verify": lambda folder: featcache.weights.verify("nonesuch"),
    "train": lambda folder: pipelines.train("nonesuch"),
    "train no run": lambda folder: pipelines.train([]),
    "sweep": lambda folder: pipelines.sweep("kitchens", folder, folder),
    "evaluate": lambda folder: pipelines.evaluate(runs=folder),
    "evaluate all": lambda folder: pipelines.evaluate(all=True, runs=folder),
    "table": lambda folder: pipelines.table("kitchens", runs=folder),
    "table by": lambda folder: pipelines.table("kitchens", runs=folder, by="clip"),
    "choose": lambda folder: pipelines.choose("kitchens", folder),
    "compare": lambda folder: pipelines.compare("a", "b", runs=folder),
    "compare one": lambda folder: pipelines.compare("a", runs=folder),
    "report": lambda folder: pipelines.write_report("kitchens", folder, folder, only="nonesuch"),
    "search": lambda folder: pipelines.search(folder, "a dog"),
    "predict": lambda folder: pipelines.predict(folder / "run", folder),
    "predict no run": lambda folder: pipelines.predict([], folder),
    "results": lambda folder: pipelines.results(folder),
    "names": lambda folder: pipelines.names("dogs"),
    "show": lambda folder: pipelines.show("method", "nonesuch"),
    "export-head": lambda folder: pipelines.export_head(folder / "run", folder / "head.pt2"),
    "from-csv": lambda folder: featcache.from_csv(folder / "a.csv", clip_id="clip"),
    "extract nothing": lambda folder: featcache.extract(clips(folder), [], folder),
    "extract dtype": lambda folder: featcache.extract(clips(folder), "hog", folder, dtype="f16"),
    "extract precision": lambda folder: featcache.extract(clips(folder), "hog", folder, precision="fp64"),
    "extract compile": lambda folder: featcache.extract(clips(folder), "hog", folder, compile="yes"),
    "extract workers": lambda folder: featcache.extract(clips(folder), "hog", folder, workers=-3),
    "join nothing": lambda folder: featcache.join([], folder / "o.csv"),
    "train batch": lambda folder: pipelines.train("kitchens", folder, folder, batch="of"),
    "sweep batch": lambda folder: pipelines.sweep("kitchens", folder, folder, batch="of"),
    "train None": lambda folder: pipelines.train(None),
    "train number": lambda folder: pipelines.train(3),
    "evaluate number": lambda folder: pipelines.evaluate(3),
    "report compare": lambda folder: pipelines.write_report("kitchens", folder, folder, compare=("source-only",)),
    "Run": lambda folder: pipelines.Run.open(folder / "none"),
}


@pytest.mark.parametrize("call", WRONG.values(), ids=WRONG)
def test_mistakes_are_errors_and_nothing_is_printed(call, tmp_path, capfd):
    with pytest.raises(FeatcacheError):
        call(Path(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_workers_are_at_least_one():
    assert worker_count(2) == 2
    assert worker_count(None) >= 1
    for number in (0, -1):
        with pytest.raises(ArgumentsError, match=str(number)):
            worker_count(number)
