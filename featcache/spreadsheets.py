"""Faults of CSV files that spreadsheets write, as text with the way out: separators, decimal commas, empty columns."""

import re

SEPARATORS = ";\t|"
NUMBER = r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?"
SEPARATED = re.compile(rf"\s*{NUMBER}\s*([{SEPARATORS}])\s*{NUMBER}\b")  #: two numbers in one cell, as in 25;1
DECIMAL_COMMA = re.compile(r"\s*[-+]?\d+,\d+(?:[eE][-+]?\d+)?\s*")
UTF8 = "save it as UTF-8 (in a spreadsheet: CSV UTF-8)"  #: the way out for text in another encoding


def fault(cells: list[str]) -> str:
    """Return what is wrong with names or numbers of a line, and the way out; "" if nothing is recognised.

    >>> fault(["clip_id;f0;f1"])
    "cells are separated by ';'; separate them by commas, and write decimals with points"
    >>> fault(["a", "0,25"]), fault(["a", "0.25"])
    ("'0,25' has a decimal comma; write '0.25'", '')
    >>> fault(["a", "0.25", ""])
    'the last cell is empty; remove the comma at the end of each line'
    """
    separator = next((c for c in SEPARATORS if len(cells) == 1 and c in cells[0]), "")
    pairs = [match[1] for match in map(SEPARATED.match, cells) if match]
    if separator := pairs[0] if pairs else separator:
        return f"cells are separated by {separator!r}; separate them by commas, and write decimals with points"
    for cell in cells:
        if DECIMAL_COMMA.fullmatch(cell):
            return f"{cell!r} has a decimal comma; write {cell.replace(',', '.')!r}"
    if len(cells) > 2 and not cells[-1].strip():
        return "the last cell is empty; remove the comma at the end of each line"
    return ""


def advice(cells: list[str]) -> str:
    """Return `fault` as the end of a message: "; the last cell is empty, ...", or ""."""
    problem = fault(cells)
    return f"; {problem}" if problem else ""
