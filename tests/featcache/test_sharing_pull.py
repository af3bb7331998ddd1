"""`pull` trusts neither the source nor the folder; the card and croissant.json of a push say only what is known."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

import featcache
from featcache import sums
from featcache.errors import ArgumentsError, ConfigError, StoreError
from featcache.manifest import Clip, Manifest
from featcache.sharing import card, croissant, licences
from featcache.sharing import pull as pulling
from featcache.sharing.content import Part
from featcache.store import StoreWriter
from pipelines.cli import main
from tests.helpers.stores import manifest, small_blocks, write_all


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A shared folder of two stores of several blocks."""
    folder = tmp_path_factory.mktemp("sharing")
    with small_blocks():
        featcache.push(write_all(folder / "stores"), folder / "shared", licence="MIT")
    return folder / "shared"


@pytest.fixture
def shared(pushed, tmp_path):
    """A copy of the shared folder."""
    with small_blocks():
        yield shutil.copytree(pushed, tmp_path / "shared")


def damage(path):
    data = bytearray(path.read_bytes())
    data[0] ^= 1
    path.write_bytes(data)


def listing(shared, **files):
    """Write files of a shared folder, and list them in its SHA256SUMS."""
    listed = sums.parse((shared / sums.NAME).read_bytes())
    for name, data in files.items():
        (shared / name).parent.mkdir(parents=True, exist_ok=True)
        (shared / name).write_bytes(data)
        listed[name] = hashlib.sha256(data).hexdigest()
    (shared / sums.NAME).write_bytes(sums.text(dict(sorted(listed.items()))))


def pull_fails(shared, folder, match, error=StoreError):
    """A pull that fails, and writes no file."""
    with pytest.raises(error, match=match):
        featcache.pull(shared, folder)
    assert not [path for path in folder.rglob("*") if path.is_file() and path.name != "..pull.lock"]


# ------------------------------------------------------------------------------------------------- hostile sources


@pytest.mark.parametrize("name", ["hog.zarr/manifest.csv", "hog.zarr/x.zarr/zarr.json", "toy/hog.zarr/a\x1b[2Jb"])
def test_names_that_are_not_those_of_a_push_are_refused(shared, tmp_path, name):
    listing(shared, **{name: b"x"})
    pull_fails(shared, tmp_path / "back", "no name of a file")


@pytest.mark.parametrize("name", ["other/manifest.csv", "other/hog.zarr/zarr.json"])
def test_a_manifest_has_stores_and_a_store_a_manifest(shared, tmp_path, name):
    listing(shared, **{name: b"x"})
    pull_fails(shared, tmp_path / "back", r"'other'.*push again")


@pytest.mark.parametrize("name", ["toy/hog.zarr/rows.csv", sums.NAME])
def test_a_file_that_memory_cannot_hold_is_not_fetched(shared, tmp_path, monkeypatch, name):
    largest = max(path.stat().st_size for path in shared.rglob("*") if path.is_file())
    monkeypatch.setattr(pulling, "LARGEST", largest)
    featcache.pull(shared, tmp_path / "whole")
    with (shared / name).open("ab") as file:
        file.write(bytes(largest))
    pull_fails(shared, tmp_path / "back", rf"{name} has .* and no file that .*push")


def test_a_full_disk_is_named_before_anything_is_fetched(shared, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    pull_fails(shared, tmp_path / "back", r"back.*1\.0 kB free; make room")
    monkeypatch.undo()
    featcache.pull(shared, tmp_path / "back")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=0))
    assert featcache.pull(shared, tmp_path / "back").fetched == 0


# --------------------------------------------------------------------------------------------------- the own folder


def test_a_damaged_store_is_not_taken_for_the_shared_one(shared, tmp_path):
    featcache.pull(shared, tmp_path / "back")
    store = tmp_path / "back" / "toy" / "hog.zarr"
    damage(store / "features" / "c" / "1" / "0" / "0")
    with pytest.raises(StoreError, match=r"hog\.zarr: block 1.*featcache repair.*fetch.*remove"):
        featcache.pull(shared, tmp_path / "back")
    shutil.rmtree(store)
    assert featcache.pull(shared, tmp_path / "back").fetched
    assert featcache.check(store) == {store: []}


def test_a_card_of_the_user_stays(shared, tmp_path):
    own = tmp_path / "back" / "toy" / "README.md"
    own.parent.mkdir(parents=True)
    own.write_text("my notes\n")
    for _ in range(2):
        featcache.pull(shared, tmp_path / "back")
        cards = {path.name: path.read_bytes() for path in own.parent.glob("*.md")}
        assert cards.pop("README.md") == b"my notes\n"
        assert list(cards.values()) == [(shared / "README.md").read_bytes()]


# ----------------------------------------------------------------------------------------------------------- errors


def test_the_manifest_of_the_user_can_be_replaced_alone(shared, tmp_path):
    featcache.pull(shared, tmp_path / "back")
    own = tmp_path / "back" / "toy" / "manifest.csv"
    own.write_bytes(own.read_bytes().replace(b"stir", b"mix "))
    with pytest.raises(StoreError, match=r"manifest\.csv exists and differs.*remove this file"):
        featcache.pull(shared, tmp_path / "back")
    own.unlink()
    assert featcache.pull(shared, tmp_path / "back").fetched == 0
    assert own.read_bytes() == (shared / "toy" / "manifest.csv").read_bytes()


def test_places_that_cannot_be_pulled_are_named_with_a_fix(shared, tmp_path, monkeypatch):
    back = tmp_path / "back"
    pull_fails(tmp_path / "nosuch", back, r"nosuch does not exist.*featcache push")
    pull_fails(shared / "toy", back, rf"toy is the folder of one manifest.*: {shared}$")
    monkeypatch.chdir(shared)
    pull_fails("toy", back, rf"pull the shared folder that it is in: {shared}$")
    for page in ("datasets/me/x", "datasets/me/x/tree/main/v1", "datasets/me/x/"):
        pull_fails(f"https://huggingface.co/{page}", back, r"write hf://datasets/me/x, or", ArgumentsError)
    done = CliRunner().invoke(main, ["pull", "https://huggingface.co/datasets/me/x", str(back)])
    assert done.exit_code
    assert "hf://datasets/me/x" in done.output


# --------------------------------------------------------------------------------------------------------- licences


@pytest.mark.parametrize(
    "text", ["none", "unknown", "yes", "TODO", "?", "-", "N/A", "not stated in the files", "other"]
)
def test_placeholders_are_no_licences(tmp_path, text):
    write_all(tmp_path / "stores")
    with pytest.raises(StoreError, match=r"no licence for the clips of toy.*placeholder.*--licence"):
        featcache.push(tmp_path / "stores", tmp_path / "shared", licence=text)
    (tmp_path / "card.md").write_text(f"| licence | {text} |\n")
    with pytest.raises(StoreError, match=r"no licence for the clips of toy.*--licence"):
        featcache.push(tmp_path / "stores", tmp_path / "shared", card=tmp_path / "card.md")
    assert not (tmp_path / "shared").exists()


@pytest.mark.parametrize("text", ["No rights reserved (CC0)", "Not for commercial use", "Licence of Lab X, version 2"])
def test_a_text_is_a_licence_if_the_user_gives_it(tmp_path, text):
    write_all(tmp_path / "stores")
    (tmp_path / "card.md").write_text(f"| licence | {text} |\n")
    with pytest.raises(StoreError, match=r"no identifier that the .*Hub knows; .*--licence"):
        featcache.push(tmp_path / "stores", tmp_path / "shared", card=tmp_path / "card.md")
    featcache.push(tmp_path / "stores", tmp_path / "shared", licence=text)
    described = json.loads((tmp_path / "shared" / "croissant.json").read_text())
    assert described["license"] == {"@type": "sc:CreativeWork", "name": text}


def test_names_of_other_licences_are_texts_of_yaml():
    yaml = pytest.importorskip("yaml")
    for text, name in (
        ("1.0", "1.0"),
        ("Null", "null"),
        ("Lab X", "lab-x"),
        ("€", "see-below"),
        ("a " * 30, "see-below"),
    ):
        assert yaml.safe_load("\n".join(licences.front_matter(text))) == {"license": "other", "license_name": name}
    assert licences.front_matter("CC BY 4.0") == ["license: cc-by-4.0"]


def test_the_name_of_a_benchmark_gives_neither_its_card_nor_its_licence(tmp_path):
    clips = Manifest("kitchens", manifest().clips)
    write_all(tmp_path / "stores", clips)
    with pytest.raises(StoreError, match=r"kitchens: it has no card.*--licence"):
        featcache.push(tmp_path / "stores", tmp_path / "shared")
    featcache.push(tmp_path / "stores", tmp_path / "shared", licence="MIT")
    assert "demo benchmark" not in (tmp_path / "shared" / "README.md").read_text()


def test_each_of_several_manifests_has_its_own_licence_and_card(tmp_path):
    for name in ("one", "two"):
        write_all(tmp_path / "stores", Manifest(name, manifest().clips))
        (tmp_path / f"{name}.md").write_text(f"# {name}\n\nThe card of {name}.\n\nlicence: MIT\n")
    stores, shared = tmp_path / "stores", tmp_path / "shared"
    with pytest.raises(ConfigError, match=r"--licence MIT: write --licence MANIFEST=VALUE"):
        featcache.push(stores, shared, licence="MIT")
    with pytest.raises(ConfigError, match=r"--card .*one\.md: write --card MANIFEST=VALUE"):
        featcache.push(stores, shared, licence={"one": "MIT", "two": "MIT"}, card=tmp_path / "one.md")
    with pytest.raises(StoreError, match=r"no licence for the clips of two"):
        featcache.push(stores, shared, licence="one=MIT")
    with pytest.raises(StoreError, match=r"'tow'.*did you mean 'two'"):
        featcache.push(stores, shared, licence=["one=MIT", "tow=MIT"])
    words = ["push", str(stores), str(shared), "--licence", "one=CC-BY-4.0", "--quiet"]
    cards = [word for name in ("one", "two") for word in ("--card", f"{name}={tmp_path}/{name}.md")]
    done = CliRunner().invoke(main, [*words, *cards])
    assert done.exit_code == 0, done.output
    text = (shared / "README.md").read_text()
    assert text.index("## Data set one") < text.index("The card of one") < text.index("## Data set two")
    assert {"| clips | one | CC-BY-4.0 |", "| clips | two | MIT |"} < set(text.splitlines())
    described = json.loads((shared / "croissant.json").read_text())
    assert described["license"] == [f"https://spdx.org/licenses/{name}.html" for name in ("CC-BY-4.0", "MIT")]


# --------------------------------------------------------------------------------------------- card and croissant.json


def test_texts_of_stores_cannot_be_read_as_markdown_or_html(tmp_path):
    evil, tag = "![t](http://evil/pixel.png)", "<img src=x>"
    clips = tuple(Clip(f"{n}", d, "train", "a.mp4", labels={"label": evil}) for n, d in enumerate((tag, "`a*_|")))
    write_toy(tmp_path / "stores", Manifest("toy", clips), reason=f"{evil} [a](b) &lt;")
    featcache.push(tmp_path / "stores", tmp_path / "shared", licence=f"Licence {tag}")
    text = (tmp_path / "shared" / "README.md").read_text().partition("\n---\n")[2]
    assert not re.search(r"(?<!\\)(!\[|\]\(|<|&|`a|\*)", text.replace("`*.zarr`", ""))
    assert text.count(r"\!\[t\](http://evil/pixel.png)") == 2
    assert r"| \`a\*\_\| | 1 | 0 | 0 |" in text


def write_toy(stores, clips, reason):
    """A store whose first clip failed for this reason."""
    clips.write(stores / "toy" / "manifest.csv")
    recipe = {"extractor": "hog", "version": 1, "modality": "rgb", "weights_sha256": "none", "dtype": "float32"}
    with StoreWriter.open(stores / "toy" / "hog.zarr", clips, recipe, row_shape=(1,), windows=1, facts={}) as writer:
        writer.failed(0, reason)
        writer.done(1, np.zeros((1, 1), np.float32), np.zeros(1), np.ones(1))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_the_card_of_a_dataset_keeps_its_meaning(end):
    lines = ["---", "license: mit", "---", "# Toy", "", "Clips.  ", "## Use", "```sh", "# a comment", "~~~", "```"]
    lines += ["#tag", "###### deep", "~~~~", "# code", "~~~", "# code", "~~~~", "# Last"]
    part = Part(Manifest("toy", ()), [], end.join(lines), "MIT")
    wanted = ["Clips.  ", "### Use", "```sh", "# a comment", "~~~", "```"]
    wanted += ["#tag", "###### deep", "~~~~", "# code", "~~~", "# code", "~~~~", "## Last"]
    assert card._dataset(part) == ["## Data set toy", "", *wanted, ""]


@pytest.mark.parametrize(
    ("url", "page"),
    [
        ("", None),
        ("s3://bucket/shared", "s3://bucket/shared"),
        ("hf://datasets/me/x", "https://hub.test/datasets/me/x"),
        ("hf://datasets/me/x@v1", "https://hub.test/datasets/me/x/tree/v1"),
        ("hf://datasets/me/x/a/b", "https://hub.test/datasets/me/x/tree/main/a/b"),
    ],
)
def test_croissant_has_the_required_properties_that_are_known(monkeypatch, url, page):
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.test/")
    part = Part(manifest(), [], "", "CC BY 4.0")
    described = json.loads(croissant.description([part], url, {"a": "0"}, {"a": 1}, "2026-01-01"))
    required = {"@context", "@type", "conformsTo", "name", "description", "license", "datePublished"}
    assert required < set(described)
    assert described.get("url") == page
    assert not {"creator", "publisher"} & set(described)
    assert described["license"] == "https://spdx.org/licenses/CC-BY-4.0.html"
