"""Digests of plug-ins, which runs and stores record: a changed file is another method, net or extractor."""

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from importlib.util import resolve_name
from pathlib import Path

from featcache.plugins._imports import file_of, texts
from featcache.plugins._places import canonical, folders, split


def digests(module: str) -> dict[str, str]:
    """Return file -> SHA-256 of a plug-in and of the plug-in files that it imports; {} for files of featcache.

    `methods/entropy.py` has this name wherever it is, in a folder or in a package.
    """
    found: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if file := file_of(name):
            label = _label(name, file)
            if label not in found:
                text = _text(name, file)
                found[label] = sha256(text).hexdigest()
                todo += _imports(name, text, file)
    return dict(sorted(found.items()))


def _label(module: str, file: Path) -> str:
    """Return the name of a file that does not depend on the folder, or on the package of an entry."""
    kind, name = split(canonical(module))
    if kind:
        return f"{kind}/{name}.py"
    ending = "/__init__.py" if file.name == "__init__.py" else ".py"
    return module.replace(".", "/") + ending


def _text(module: str, file: Path) -> bytes:
    """Return the text of a file: that which was imported, or else the first one that was read."""
    if file.parent.parent not in folders():
        return _read(file)
    if module not in texts:  # an import replaces it, and `forget_others` forgets it with the folder
        texts[module] = file, file.read_bytes()
    return texts[module][1]


@cache
def _read(file: Path) -> bytes:
    """Read a file of an installed package, once: a process does not import later versions of it."""
    return file.read_bytes()


def _imports(module: str, text: bytes, file: Path) -> Iterator[str]:
    """Yield every module that a file may import, and names in them; nothing for a file that is not Python."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level <= package.count(".") + 1:
            base = resolve_name("." * node.level + (node.module or ""), package)
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))
