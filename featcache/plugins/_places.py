"""The places of plug-ins: folders that the environment names, and entry points of installed packages."""

import ast
import keyword
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from featcache.errors import ConfigError

VARIABLE = "FEATCACHE_PLUGINS"
GROUP = "featcache"  #: prefix of the groups of entry points


@dataclass(frozen=True)
class Registry:
    """A registry that plug-ins can extend."""

    package: str  #: the package that has the registry
    contents: tuple[str, ...]  #: names that each of its files defines
    base: str = ""  #: class in the registry from which the last one of these is derived


REGISTRIES = {
    "methods": Registry("heads", ("Params", "METHOD"), "Method"),
    "nets": Registry("heads", ("Params", "NET"), "Net"),
    "extractors": Registry("featcache", ("Params", "EXTRACTOR"), "Extractor"),
    "builders": Registry("featcache", ("build",)),
    "bridges": Registry("featcache", ("KEEPS", "read", "write")),
    "experiments": Registry("pipelines", ("RUNS",)),
}
FORM = f"FOLDER/{{{','.join(REGISTRIES)}}}/NAME.py"
#: names of folders that are meant to be a registry
MISNAMED = {kind[:-1]: kind for kind in REGISTRIES} | {"benchmarks": "builders", "formats": "bridges"}


@dataclass(frozen=True)
class Plugin:
    """A file of a folder, or a module of an installed package."""

    origin: str  #: the file, or the package and its version
    file: Path | None = None
    module: str = ""  #: the module of a package


def add(*folders: str | os.PathLike[str]) -> None:
    """Add folders of plug-ins for this process and those that it starts; ConfigError if one holds none."""
    for folder in folders:
        path = Path(folder).resolve()
        if os.pathsep in str(path):
            raise ConfigError(f"plug-ins: the path {path} has a {os.pathsep!r}, which separates folders; rename it")
        _folders(str(path))
        os.environ[VARIABLE] = os.pathsep.join(filter(None, [described(), str(path)]))


def described() -> str | None:
    """Return the text that another process, in any folder, needs to find the same plug-ins; None if there are none."""
    return os.pathsep.join(map(str, folders())) or None


def take(description: str | None) -> None:
    """Use the plug-ins that `described` has described in another process, and no other folders."""
    os.environ.pop(VARIABLE, None)
    if description is not None:
        os.environ[VARIABLE] = description


def folders() -> tuple[Path, ...]:
    """Return the folders of plug-ins; ConfigError if one holds none."""
    return _folders(os.environ.get(VARIABLE, ""))


def of(kind: str) -> dict[str, Plugin]:
    """Return name -> plug-in of a registry, with helper files; ConfigError if two have one name.

    {} for a folder that plug-ins cannot extend, such as `tasks`.
    """
    found: dict[str, Plugin] = {}
    if kind not in REGISTRIES:
        return found
    files = [(path.stem, Plugin(str(path), path)) for folder in folders() for path in _files(folder / kind)]
    for name, plugin in [*files, *_packages().get(kind, ())]:
        if name in found:
            raise clash(kind, name, found[name].origin, plugin.origin)
        found[name] = plugin
    return found


def clash(kind: str, name: str, first: str, second: str) -> ConfigError:
    """Make the error of a name that two files have."""
    noun = "helper" if name.startswith("_") else "name"
    return ConfigError(f"plug-ins: {first} and {second} have the same {noun} {name!r} in {kind}; rename one of them")


def split(module: str) -> tuple[str, str]:
    """Split `heads.methods.entropy` into the registry and the name; ("", "") for a module of no registry."""
    parent, _, name = module.rpartition(".")
    package, _, kind = parent.partition(".")
    return (kind, name) if kind in REGISTRIES and REGISTRIES[kind].package == package else ("", "")


def canonical(module: str) -> str:
    """Return the name that a module has in its registry: `mypackage.entropy` -> `heads.methods.entropy`."""
    for kind, entries in _packages().items():
        for name, plugin in entries:
            if plugin.module == module:
                return f"{REGISTRIES[kind].package}.{kind}.{name}"
    return module


def names_of(module: str) -> list[str]:
    """Return the names of a package's module in the registries of classes; it must have one."""
    return [
        name
        for kind, entries in _packages().items()
        for name, plugin in entries
        if plugin.module == module and REGISTRIES[kind].base
    ]


def installed() -> set[str]:
    """Return the packages that have entry points, by the first part of the names of their modules."""
    return {plugin.module.partition(".")[0] for entries in _packages().values() for _, plugin in entries}


@cache
def _folders(text: str) -> tuple[Path, ...]:
    found = tuple(dict.fromkeys(Path(part).resolve() for part in text.split(os.pathsep) if part))
    for folder in found:
        _check(folder)
    return found


def _check(folder: Path) -> None:
    """Raise ConfigError, with the fix, unless a folder holds plug-ins, each in its sub-folder."""
    if not folder.is_dir():
        problem = "is a file" if folder.exists() else "does not exist"
        raise ConfigError(f"plug-ins: {folder} {problem}; name a folder of {FORM} with --plugins or {VARIABLE}")
    for name, kind in MISNAMED.items():
        if list((folder / name).glob("*.py")):
            raise ConfigError(f"plug-ins: {folder / name} must have the name {kind}; rename the folder")
    if list((folder / "tasks").glob("*.py")):
        raise ConfigError(f"plug-ins: {folder / 'tasks'}: tasks cannot be added; remove it, or name a folder of {FORM}")
    is_empty = all(path.stem.startswith("_") for kind in REGISTRIES for path in _files(folder / kind))
    for path in sorted(folder.glob("*.py")):
        kind = _written_for(path)
        if kind and (is_empty or REGISTRIES[kind].base):  # else it may be a script, or an experiment of its own
            fix = f"name {folder.parent}" if folder.name == kind else f"move it to {folder / kind / path.name}"
            raise ConfigError(f"plug-ins: {path} must be in a sub-folder {kind} of the folder that is named; {fix}")
    if is_empty:
        raise ConfigError(f"plug-ins: {folder} holds none; put files into it as {FORM}")


def _written_for(path: Path) -> str:
    """Return the registry that a file is written for, by the names that it defines; "" if it is for none."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return ""
    targets = [target for node in body if isinstance(node, ast.Assign) for target in node.targets]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    names |= {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return next((kind for kind, registry in REGISTRIES.items() if names.issuperset(registry.contents)), "")


def _files(folder: Path) -> list[Path]:
    """Return the files of one registry in a folder of plug-ins; ConfigError for names that no module can have."""
    files = sorted(path for path in folder.glob("*.py") if path.name not in ("__init__.py", "conftest.py"))
    files = [path for path in files if not path.name.startswith("test_")]
    for path in files:
        if not _is_name(path.stem):
            good = path.stem.replace("-", "_")
            fix = f"rename it to {good}.py" if _is_name(good) else "rename it"
            raise ConfigError(f"plug-ins: {path} cannot be imported, because its name is no name in Python; {fix}")
    for path in folder.glob("*/__init__.py"):
        raise ConfigError(
            f"plug-ins: {path.parent} is a folder, but a plug-in is one file; write {path.parent}.py, and put helpers "
            "next to it, in files whose names begin with an underscore"
        )
    return files


def _is_name(text: str) -> bool:
    return text.isidentifier() and not keyword.iskeyword(text)


@cache
def _packages() -> dict[str, list[tuple[str, Plugin]]]:
    """Return registry -> (name, plug-in) of all installed packages; `_imports` checks the modules.

    ConfigError for a group that is no registry, and for a name that no module can have.
    """
    from importlib.metadata import entry_points

    found: dict[str, list[tuple[str, Plugin]]] = {}
    points = entry_points()
    for group in sorted(group for group in points.groups if group.startswith(f"{GROUP}.")):
        kind = group.removeprefix(f"{GROUP}.")
        for point in points.select(group=group):
            origin = f"{point.dist.name} {point.dist.version}" if point.dist else point.module
            if kind not in REGISTRIES:
                groups = ", ".join(f"{GROUP}.{each}" for each in REGISTRIES)
                fix = f"write {GROUP}.{MISNAMED[kind]}" if kind in MISNAMED else f"choose from {groups}"
                raise ConfigError(f"plug-ins: {origin} has entry points in {group}, which is no registry; {fix}")
            name = point.name.replace("-", "_")
            if not _is_name(name) or name.startswith("_"):
                raise ConfigError(
                    f"plug-ins: the entry point {point.name!r} of {origin} in {group} is no name of a plug-in; rename "
                    "it to a name in Python without an underscore at its beginning"
                )
            found.setdefault(kind, []).append((name, Plugin(origin, module=point.value)))
    return found
