"""JSON documents: what breaks a rule of their dataclass is one sentence with the place, the value and the rule."""

import json
import time
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest

from featcache import schema
from featcache.errors import ConfigError, StoreError


@dataclass(frozen=True)
class Part:
    shape: tuple[schema.Count, ...]
    score: float = 0.0
    loss: schema.AnyFloat = 0.0


@dataclass(frozen=True)
class Whole:
    name: str
    parts: dict[str, Part]
    few: Annotated[int, schema.Range(1, 3)] = 1
    pair: tuple[int, int] = (0, 0)
    maybe: str | None = None
    rest: dict[str, Any] = field(default_factory=dict)


GOOD = {
    "name": "é",
    "parts": {"a": {"shape": [1, 2], "score": 1, "loss": 2}},
    "few": 3,
    "rest": {"b": [1.5, None, True]},
}


def test_a_good_document_is_its_dataclass():
    assert schema.parse(json.dumps(GOOD), Whole, "w.json") == Whole(
        "é", {"a": Part((1, 2), 1.0, 2.0)}, 3, rest={"b": [1.5, None, True]}
    )
    odd = schema.parse('{"shape": [0], "loss": NaN}', Part, "p.json")
    assert odd.loss != odd.loss
    assert type(schema.parse('{"shape": [], "score": 1}', Part, "").score) is float


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "JSON"),
        ("{", "JSON"),
        (b"\xff", "UTF-8 .*byte 0"),
        ("[" * 100_000, "64 levels"),
        ("[" * 70 + "]" * 70, "64 levels"),
        ('{"name": "a", "name": "b", "parts": {}}', "'name' comes twice"),
        ('{"name": "a", "parts": {}, "few": ' + "9" * 5000 + "}", "JSON"),
        ('{"name": "a", "parts": {}, "few": ' + "9" * 400 + "}", "few=9.* 64 bits"),
        ("[]", r"\[\] is not a group"),
        ('{"name": "a"}', "'parts' is missing"),
        ('{"name": "a", "parts": {}, "fews": 1}', "'fews'; did you mean 'few'"),
        ('{"name": 1, "parts": {}}', "name: 1 is not text"),
        ('{"name": "\\u0000", "parts": {}}', "name: .* no text"),
        ('{"name": "\\ud800", "parts": {}}', "name: .* no text"),
        ('{"name": "a", "parts": {"\\ud800": {"shape": []}}}', "parts: .* no text"),
        ('{"name": "a", "parts": {"b": {"shape": [1, -1]}}}', r"parts.b.shape\[1\]=-1 must be at least 0"),
        ('{"name": "a", "parts": {"b": {"shape": [true]}}}', r"parts.b.shape\[0\]: True is not a whole number"),
        ('{"name": "a", "parts": {"b": {"shape": [1.0]}}}', r"shape\[0\]: 1.0 is not a whole number"),
        ('{"name": "a", "parts": {"b": {"shape": {}}}}', "shape: {} is not a list"),
        ('{"name": "a", "parts": {"b": {"shape": [], "score": NaN}}}', "score=nan is not a finite"),
        ('{"name": "a", "parts": {"b": {"shape": [], "score": 1e999}}}', "score=inf is not a finite"),
        ('{"name": "a", "parts": {"b": {"shape": [], "score": "1"}}}', "score: '1' is not a number"),
        ('{"name": "a", "parts": {}, "few": 4}', "few=4 must be from 1 to 3"),
        ('{"name": "a", "parts": {}, "pair": [1]}', r"pair: \[1\] must have 2 values"),
        ('{"name": "a", "parts": {}, "maybe": 1}', "maybe: 1 is not text or none"),
        ('{"name": "a", "parts": {}, "rest": {"x": ["\\u0000"]}}', "rest.x: .* no text"),
        ('{"name": "a", "parts": {}, "rest": {"x": {"\\ud800": 1}}}', "rest.x: .* no text"),
    ],
)
def test_what_breaks_a_rule_is_named(text, words):
    with pytest.raises(StoreError, match=rf"(?s)^w.json: .*{words}.*; mend it$"):
        schema.parse(text, Whole, "w.json", error=StoreError, fix="mend it")


def test_any_takes_numbers_of_any_size():
    text = '{"name": "a", "parts": {}, "rest": {"x": [1e999, NaN], "y": %s}}' % ("9" * 400)
    rest = schema.parse(text, Whole, "w.json").rest
    assert rest["x"][0] == float("inf")
    assert rest["x"][1] != rest["x"][1]
    assert rest["y"] == 10**400 - 1


def test_a_key_that_comes_twice_among_many_is_found_at_once():
    pairs = ",".join(f'"k{k}": 1' for k in [*range(40_000), 39_999])
    start = time.process_time()
    with pytest.raises(ConfigError, match="'k39999' comes twice"):
        schema.loads("{" + pairs + "}", "w.json")
    assert time.process_time() - start < 2


def test_a_newer_version_may_add_keys(tmp_path):
    (tmp_path / "p.json").write_text('{"shape": [1], "other": {"deep": [1e999]}}')
    with pytest.raises(ConfigError, match="p.json: no setting 'other'"):
        schema.read(tmp_path / "p.json", Part)
    assert schema.read(tmp_path / "p.json", Part, newer=True) == Part((1,))
