"""Imports of plug-ins by the names that they have in their registries, and the errors of files that fail."""

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import find_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

from featcache.errors import ConfigError, FeatcacheError
from featcache.plugins._places import REGISTRIES, VARIABLE, Plugin, add, folders, installed, names_of, of, split, take

texts: dict[str, tuple[Path, bytes]] = {}  #: module -> a folder's file that was imported or read, and its text


class Finder:
    """Finds modules such as `heads.methods.entropy` among the plug-ins, where featcache has no such file."""

    @classmethod
    def find_spec(cls, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Return how to import a plug-in; None for other modules."""
        kind, name = split(fullname)
        plugin = of(kind).get(name) if kind else None
        if plugin is None:
            return None
        if plugin.file is None:
            return ModuleSpec(fullname, _OfPackage(plugin))  # type: ignore[arg-type]
        return spec_from_file_location(fullname, plugin.file, loader=_OfFolder(fullname, str(plugin.file)))


class _OfFolder(SourceFileLoader):
    """Imports a file of a folder, and keeps the text that was imported. It writes no compiled file."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the file; ConfigError with the line of an error."""
        text = self.get_data(self.path)
        texts[self.name] = Path(self.path), text
        try:
            exec(self.source_to_code(text, self.path), module.__dict__)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{self.path}{failure(error, Path(self.path))}") from error
        _check_contents(module, self.name, self.path)


class _OfPackage:
    """Gives a module of an installed package its name in a registry."""

    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin
        self.place = f"{plugin.module} of {plugin.origin}"

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Import the module by its own name; ConfigError with the line of an error."""
        self.name = spec.name
        if ":" in self.plugin.module:
            module_only = self.plugin.module.partition(":")[0]
            raise ConfigError(
                f"{self.place}: an entry point must name a module; write {spec.name.rpartition('.')[2]} = {module_only}"
            )
        try:
            module = importlib.import_module(self.plugin.module)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"{self.place}{failure(error, file_of(spec.name))}") from error
        self.own = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Leave the module as it is."""
        module.__spec__ = self.own
        if len(names := names_of(self.plugin.module)) > 1:
            raise ConfigError(f"{self.place} has several entries, {' and '.join(names)}; write a module for each")
        _check_contents(module, self.name, self.place)


def file_of(module: str) -> Path | None:
    """Return the file of a plug-in, by the name in its registry or its own, or of a helper; None for other modules."""
    kind, name = split(module)
    plugin = of(kind).get(name) if kind else None
    if plugin and plugin.file:
        return plugin.file
    own = plugin.module if plugin else module
    try:
        spec = find_spec(own) if own.partition(".")[0] in installed() else None
    except Exception:  # a name in a module, or a package that cannot be imported
        return None
    return Path(spec.origin) if spec and spec.origin and spec.has_location else None


@contextmanager
def added(folders: Sequence[str | os.PathLike[str]]) -> Iterator[None]:
    """Add folders of plug-ins inside the block only; another block imports their files again."""
    before = os.environ.get(VARIABLE)
    try:
        add(*folders)
        yield
    finally:
        take(before)
        forget_others()


def forget_others() -> None:
    """Forget the modules of folders that are no longer named, so that other files may have their names."""
    known = folders() if texts else ()
    for module, (file, _) in [*texts.items()]:
        if file.parent.parent not in known:
            del texts[module]
            if sys.modules.pop(module, None):
                package, _, name = module.rpartition(".")
                vars(sys.modules[package]).pop(name, None)


def _check_contents(module: ModuleType, name: str, place: str) -> None:
    """Raise ConfigError, with the fix, for a plug-in that lacks what the files of its registry have."""
    kind, stem = split(name)
    registry, package = REGISTRIES[kind], name.rpartition(".")[0]
    if stem.startswith("_"):
        return
    if missing := [each for each in registry.contents if not hasattr(module, each)]:
        needs = " and ".join(registry.contents)
        raise ConfigError(f"{place} has no {' and no '.join(missing)}; a file in {kind} defines {needs}")
    if kind == "builders":
        _check_build(module, place)
    if not registry.base:
        return
    last = registry.contents[-1]
    made, params = getattr(module, last), module.Params
    if not isinstance(made, type) or not issubclass(made, getattr(sys.modules[package], registry.base)):
        raise ConfigError(f"{place}: {last} must be a class derived from {package}.{registry.base}, not {made!r}")
    frozen = getattr(getattr(params, "__dataclass_params__", None), "frozen", False)
    if not isinstance(params, type) or not frozen or params.__module__ != module.__name__:
        raise ConfigError(f"{place}: Params must be a frozen dataclass of this file; write @dataclass(frozen=True)")
    try:
        params()
    except TypeError as error:
        raise ConfigError(f"{place}: Params() fails ({error}); give every field a default") from None
    command = stem.replace("_", "-")
    if kind == "extractors" and (own := getattr(made, "name", None)) != command:
        problem = "is missing" if own is None else f"is {own!r}"
        raise ConfigError(f"{place}: {made.__name__}.name {problem}; write name = {command!r}, the name of the file")


def _check_build(module: ModuleType, place: str) -> None:
    """Raise ConfigError unless `build` can be called as `featcache manifest build` calls it."""
    try:
        inspect.signature(module.build).bind(Path(), progress=None)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{place}: build: {error}; write def build(folder, *, progress=silent)") from None


def failure(error: BaseException, file: Path | None) -> str:
    """Return ` line N: MESSAGE` of an error that arose while this file was imported.

    The name and line of a module next to the file follow if the error arose there.
    """
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    lines = [f" line {line}" for name, line in frames if file and Path(name) == file and line]
    beside = [
        f": {Path(name).name} line {line}"
        for name, line in frames
        if file and Path(name) != file and Path(name).parent == file.parent and line
    ]
    return f"{''.join([*lines[-1:], *beside[-1:]])}: {_complaint(error)}"


def _complaint(error: BaseException) -> str:
    """Return the message of an error; with its class, unless it is our own or the parser's."""
    if isinstance(error, SyntaxError):
        return error.msg
    text = str(error) if isinstance(error, FeatcacheError) else f"{type(error).__name__}: {error}"
    ours = isinstance(error, ImportError) and any(f"{r.package}.{kind}" in text for kind, r in REGISTRIES.items())
    return f"{text}; --plugins FOLDER finds files of your own" if ours else text
