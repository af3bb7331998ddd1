"""An extension of mkdocstrings: docstrings are plain text with examples, not Markdown."""

import re
from typing import Any

import griffe


class PlainText(griffe.Extension):
    """Makes blocks of code of examples, and keeps what looks like a tag of HTML or like a link."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    r"""Return a docstring as Markdown that shows the same.

    >>> as_markdown("In STORES/<manifest>:\n\n>>> 1 + 1\n2")
    'In STORES/&lt;manifest>:\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    paragraphs = re.split(r"\n{2,}", docstring)
    return "\n\n".join(
        f"```pycon\n{text}\n```" if text.startswith(">>> ") else "\n".join(map(escaped, text.splitlines()))
        for text in paragraphs
    )


def escaped(line: str) -> str:
    """Escape what Markdown would take for a tag, a reference or emphasis, outside of `code` and indented lines."""
    if line.startswith("    "):
        return line
    return "".join(
        part if part.startswith("`") else part.replace("<", "&lt;").replace("][", "]\\[").replace("*", "\\*")
        for part in re.split(r"(`[^`]*`)", line)
    )
