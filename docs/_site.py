"""The pages of the documentation site that are made of other files, and links that hold there and on a code host.

MkDocs calls `on_config`, `on_files` and `on_page_markdown` (mkdocs.yml, `hooks`). README, CONTRIBUTING, CHANGELOG and
the dataset cards become pages; pages of commands, parameters and Python names are made of the code, so that they are
complete.
"""

import importlib
import inspect
import pkgutil
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from pipelines import catalogue
from pipelines.cli import main

ROOT = Path(__file__).parents[1]
COPIED = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
CARDS = "data_manifests"
LINK = re.compile(r"(?<![\w\])])\[([^\]]*)\]\(([^)\s#]*)(#[^)\s]*)?\)")
CODE = re.compile(r"(^```.*?^```)", re.DOTALL | re.MULTILINE)  #: blocks, which are no text of the page
#: kind -> the introduction of its page of parameters
INTRODUCTIONS = {
    "extractor": "`featcache show extractor NAME` prints one of them; [extractors.md](../extractors.md) compares all.",
    "method": "`featcache show method NAME` prints one of these entries. [methods.md](../methods.md) compares them.",
    "net": "`featcache show net NAME` prints one of these entries.",
    "task": "`featcache show task NAME` prints one of these entries.",
    "experiment": "`featcache show experiment NAME` prints one of these entries, with the values that its runs have.",
    "benchmark": "`featcache manifest build NAME FOLDER` makes the manifest of one of these benchmarks.",
    "format": "[formats.md](../formats.md) compares the formats that `featcache import` reads and `export` writes.",
    "metric": "`featcache table --metric NAME` prints one of these metrics.",
}
PACKAGES = ("featcache", "heads", "pipelines")
#: rooms of which no name is an interface: the command line, measurements, the renderer of the demo
INNER = ("pipelines.cli", "pipelines.bench", "featcache.kitchens", "featcache.__main__")
REGISTRIES = tuple(catalogue.FOLDERS.values())


def on_config(config: Any) -> Any:
    """Complete the navigation: the dataset cards, the Python reference, and pages of docs/ that it does not name."""
    parts = {title: part for section in config.nav for title, part in section.items()}
    named = [page for pages in parts.values() if isinstance(pages, list) for page in pages]
    parts["Reference"] += [{"Dataset cards": [f"{CARDS}/{path.name}" for path in cards()]}]
    parts["Reference"] += [{"Python": sorted(python_pages(), key=lambda page: page.removesuffix(".md"))}]
    here = [path.relative_to(ROOT / "docs").as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))]
    parts["About"] += [path for path in here if path not in named]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made here."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Lead links to files of the repository to their pages."""
    source = origin(page.file.src_uri)
    return relinked(markdown, source, page.file.src_uri) if source else markdown


def pages() -> dict[str, str]:
    """Return path on the site -> Markdown, for all pages that are made of other files or of the code."""
    made = {site: (ROOT / path).read_text(encoding="utf-8") for path, site in COPIED.items()}
    made["glossary.md"] = glossary()
    made["reference/options.md"] = options()
    for kind in INTRODUCTIONS:
        made[f"reference/{kind}s.md"] = entries(kind)
    for path in cards():
        made[f"{CARDS}/{path.name}"] = path.read_text(encoding="utf-8")
    return made | python_pages()


def cards() -> list[Path]:
    """Return the dataset cards."""
    return sorted((ROOT / CARDS).glob("*.md"))


def origin(site: str) -> str:
    """Return the file of the repository that a page shows, from whose folder its links start; "" for others."""
    for path, copied in COPIED.items():
        if site == copied:
            return path
    return site if site.startswith(f"{CARDS}/") else "" if site.startswith("reference/") else f"docs/{site}"


def relinked(markdown: str, source: str, site: str) -> str:
    """Return a page whose links lead to pages of the site; links to other files of the repository become plain text."""

    def link(match: re.Match[str]) -> str:
        text, target, place = match[1], match[2], match[3] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        page = page_of(posixpath.normpath(posixpath.join(posixpath.dirname(source), target)))
        if not page:
            return text
        return f"[{text}]({posixpath.relpath(page, posixpath.dirname(site) or '.')}{place})"

    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in CODE.split(markdown))


def page_of(path: str) -> str:
    """Return the page on the site that shows a file or folder of the repository; "" if none does."""
    if path == CARDS:
        return "reference/benchmarks.md"
    if path.startswith("docs/") and (ROOT / path).is_dir():
        path = min(inner.relative_to(ROOT).as_posix() for inner in (ROOT / path).glob("*.md"))
    if path in COPIED or path.startswith(f"{CARDS}/"):
        return COPIED.get(path, path)
    return path.removeprefix("docs/") if path.startswith("docs/") else ""


def glossary() -> str:
    """Return the glossary of docs/architecture.md as a page."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return "# Glossary" + page.split("\n## Glossary")[1].split("\n## ")[0]


def commands(group: click.Group = main, path: str = "featcache") -> Iterator[tuple[str, click.Command]]:
    """Yield all commands with their whole names."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def options() -> str:
    """Return a page with the help of every command."""
    parts = ["# Options of all commands", "Every command prints this text with `--help`."]
    for name, command in commands():
        with click.Context(command, info_name=name, max_content_width=100, terminal_width=100) as context:
            parts.append(f"## {name}\n\n```text\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


def entries(kind: str) -> str:
    """Return a page with all entries of a kind, and their parameters."""
    shown = [catalogue.show(kind, name).markdown() for name in catalogue.names(kind)]
    title = f"{kind.capitalize()}s" if kind != "experiment" else "Experiments and their settings"
    return "\n\n".join([f"# {title}", INTRODUCTIONS[kind], *shown])


@cache
def python_pages() -> dict[str, str]:
    """Return a page for each room with its public names, each of which mkdocstrings describes once."""
    modules = {name: importlib.import_module(name) for name in public_modules()}
    homes = {path: name for name, module in modules.items() for path in defined(module).values()}
    rooms: dict[str, list[str]] = {}
    for name, module in modules.items():
        own = {word: path for word, path in exported(module).items() if homes.setdefault(path, name) == name}
        others = {word: path for word, path in exported(module).items() if word not in own}
        if own or others:
            parts = [f"## {name}", paragraph(module), *(described(name, word, path) for word, path in own.items())]
            lines = [f"- [{name}.{word}]({room_of(homes[path])}.md#{path})" for word, path in others.items()]
            lines += [f"- `{name}.{word} = {value!r}`" for word, value in constants(module).items()]
            rooms.setdefault(room_of(name), [f"# {room_of(name)}"]).extend([*parts, "\n".join(lines)])
    return {f"reference/python/{room}.md": "\n\n".join(filter(None, parts)) + "\n" for room, parts in rooms.items()}


def public_modules() -> list[str]:
    """Return the modules whose names are for others: not those that begin with _, nor the entries of registries."""
    names = list(PACKAGES)
    for package in PACKAGES:
        path = importlib.import_module(package).__path__
        names += [found.name for found in pkgutil.walk_packages(path, f"{package}.", onerror=lambda name: None)]
    return [name for name in sorted(names) if not is_inner(name)]


def is_inner(module: str) -> bool:
    """Return True for modules that are no interface."""
    private = any(part.startswith("_") for part in module.split("."))
    return private or module.rpartition(".")[0] in REGISTRIES or any(f"{module}.".startswith(f"{m}.") for m in INNER)


def defined(module: ModuleType) -> dict[str, str]:
    """Return the public functions and classes that a module defines: name -> where they are described."""
    return {
        word: f"{module.__name__}.{word}"
        for word, value in vars(module).items()
        if not word.startswith("_") and is_described(value) and value.__module__ == module.__name__
    }


def exported(module: ModuleType) -> dict[str, str]:
    """Return the public names of a module: those of `__all__`, or else those that it defines."""
    if not hasattr(module, "__all__"):
        return defined(module)
    values = {word: getattr(module, word) for word in module.__all__}
    return {w: f"{value.__module__}.{value.__qualname__}" for w, value in values.items() if is_described(value)}


def constants(module: ModuleType) -> dict[str, Any]:
    """Return the values in `__all__` that are neither our own functions or classes nor modules."""
    values = {word: getattr(module, word) for word in getattr(module, "__all__", ())}
    return {w: value for w, value in values.items() if not is_described(value) and not inspect.ismodule(value)}


def is_described(value: Any) -> bool:
    """Return True for our own functions and classes, also with a cache around them."""
    ours = getattr(value, "__module__", None) or ""
    plain = inspect.unwrap(value) if callable(value) else value
    return (inspect.isfunction(plain) or inspect.isclass(plain)) and ours.split(".")[0] in PACKAGES


def described(module: str, word: str, path: str) -> str:
    """Return the directive of one object, under its public name."""
    return f"::: {path}\n    options:\n      heading: {module}.{word}\n      toc_label: {word}"


def room_of(module: str) -> str:
    """Return the room of a module, such as featcache.store: a folder; the package for its files."""
    room = ".".join(module.split(".")[:2])
    return room if (ROOT / room.replace(".", "/")).is_dir() else module.split(".")[0]


def paragraph(module: ModuleType) -> str:
    """Return the first paragraph of a module's docstring."""
    text = " ".join((inspect.getdoc(module) or "").split("\n\n")[0].split())
    return catalogue.escaped(text)
