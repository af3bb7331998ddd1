"""The fields of a `Params`, or of any dataclass of settings, with their explanations: a class -> a list of `Parameter`.

A field's explanation is the comment after `#:` on its line, or the lines of such comments above it:

    lambda_g: float = within(1.0, 0)  #: λ_g, global norm ratio, Eq. 1 [ours]

`featcache show` and the documentation print these lists; the contract tests require a comment for each field.

>>> from heads.methods import rna
>>> one = parameters(rna.Params)[0]
>>> one.name, one.type, one.default, one.allowed, one.source
('lambda_g', 'float', '1.0', 'at least 0', 'ours')
>>> one.meaning
'λ_g, global norm ratio, Eq. 1; between modalities and (UDA) domains'
"""

import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any

SOURCE = re.compile(r"\s*\[((?:paper|code|ours)(?:[,:] [^\]]+)?)\]$")


@dataclass(frozen=True)
class Parameter:
    """One field: its type, its default and its range as text, its meaning, and the source of the default."""

    name: str
    type: str
    default: str
    allowed: str  #: such as "9 to 512" or "above 0"; "": any value of the type
    meaning: str
    source: str  #: paper, code or ours, with details as in "paper, Eq. 3"; "" where none is given


def parameters(params: type) -> list[Parameter]:
    """Return the fields of a dataclass in their order."""
    comments = _comments(params)
    return [_parameter(field, comments.get(field.name, "")) for field in fields(params)]


def _parameter(field: Field[Any], comment: str) -> Parameter:
    source = SOURCE.search(comment)
    meaning = comment[: source.start()] if source else comment
    kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", "")
    if not kind or getattr(field.type, "__args__", None):
        kind = str(field.type)
    return Parameter(field.name, kind, _default(field), _allowed(field), meaning, source[1] if source else "")


def _default(field: Field[Any]) -> str:
    if field.default is not MISSING:
        return repr(field.default)
    return repr(field.default_factory()) if field.default_factory is not MISSING else "required"


def _allowed(field: Field[Any]) -> str:
    """Return the range of a number as text: that of `extractors.bounded`, or that of `heads.params.within`."""
    if "low" in field.metadata:
        return f"{field.metadata['low']:g} to {field.metadata['high']:g}"
    return str(field.metadata.get("range", ""))


def _comments(params: type) -> dict[str, str]:
    """Return field -> its comment; fields of parent classes are explained there."""
    found: dict[str, str] = {}
    for parent in reversed(params.__mro__[:-1]):
        try:
            lines = textwrap.dedent(inspect.getsource(parent)).splitlines()
        except (OSError, TypeError):  # a class without a file
            continue
        found |= dict(_declared(lines))
    return found


def _declared(lines: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the name of each field and its comment, from the lines of a class."""
    above: list[str] = []
    for line in lines:
        code, mark, comment = line.partition("#:")
        if mark and not code.strip():
            above.append(comment.strip())
            continue
        if name := re.match(r"    (\w+):", code):
            yield name[1], " ".join([*above, comment.strip()]).strip()
        above = []
