"""The documentation site builds without a warning and without network, and has every command, option and name."""

import ast
import dataclasses
import importlib.util
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

import featcache
from featcache import table_files, windows
from featcache.manifest import OPTIONAL, REQUIRED
from pipelines import catalogue
from pipelines.config import RunConfig
from tests.conftest import ROOT
from tests.pipelines.test_cli import commands
from tests.test_dependencies import configparser
from tests.test_layers import FILES, module_of, tree_of

DOCS = ROOT / "docs"
REMOTE = re.compile(r"""<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^"' >]+""")


def load(name):
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


site = load("_site")


def first_cells(text):
    """The names in the first cells of the tables of a page."""
    rows = re.findall(r"^\| (`.*?`) \| ", text, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(.*?)`", row)]


def test_the_page_of_manifests_has_every_column_and_format():
    page = (DOCS / "manifest.md").read_text()
    columns, tables = page.split("\n## From a table of labels\n")
    assert sorted(first_cells(columns)) == sorted((*REQUIRED, *OPTIONAL, "label", "label:KIND"))
    assert sorted(first_cells(tables)) == sorted(table_files.READERS)
    example = re.search(r"```csv\n(.*?)```", page, re.DOTALL).group(1)
    from featcache.manifest import _parse

    assert len(list(_parse(example, Path("docs/manifest.md")))) == 3


def test_the_page_of_windows_has_every_plan():
    text = (DOCS / "windows.md").read_text()
    listed = re.findall(r"^\| `(\w+):[TS]` \|", text, re.MULTILINE)
    assert listed == list(windows.KINDS)
    for plan in re.findall(r"--windows (\S+)", text):
        windows.Plan.parse(plan)


def test_the_page_of_installation_has_every_extra():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = re.findall(r"^\| `(\w+)` \|", (DOCS / "install.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(config["options.extras_require"])


def test_the_citation_is_of_this_version():
    for page in (ROOT / "CITATION.cff", DOCS / "cite.md"):
        versions = re.findall(r"^\s*version\s*[:=]\s*\{?([\w.]+)\}?,?$", page.read_text(), re.MULTILINE)
        assert versions == [featcache.__version__], page


def test_links_lead_to_pages_on_the_site_and_to_files_on_a_code_host():
    """Links to code, which has no page of its own, become text."""
    text = "[a](guide.md#x) [b](../CONTRIBUTING.md) [c](../pipelines/config.py) [d](https://x.y) [e](#here)"
    assert site.relinked(text, "docs/store.md", "store.md") == (
        "[a](guide.md#x) [b](contributing.md) c [d](https://x.y) [e](#here)"
    )
    readme = "[docs/store.md](docs/store.md#a) [data_manifests](data_manifests) ![p](docs/report.png)"
    assert site.relinked(readme, "README.md", "index.md") == (
        "[docs/store.md](store.md#a) [data_manifests](reference/benchmarks.md) ![p](report.png)"
    )
    code = "```python\nmakers[name](guide.md)\n[k](x)\n```\nand `makers[name](x)`"
    assert site.relinked(code, "docs/store.md", "store.md") == code
    assert site.relinked("[t](docs/tutorials)", "README.md", "index.md") == "[t](tutorials/own_features.md)"
    card = site.relinked("[k](../docs/guide.md) [l](pairs.md)", "data_manifests/shifts.md", "data_manifests/shifts.md")
    assert card == "[k](../guide.md) [l](pairs.md)"


def test_docstrings_are_shown_as_they_are():
    pytest.importorskip("griffe", reason="needs the extra [docs]")
    text = load("_docstrings").as_markdown(
        "RUNS/<run id>\n\n    a <b>\n\n>>> f(1)[2][3]\n4\n\nof x[i][j] * 2 and `<c>`"
    )
    assert text == ("RUNS/&lt;run id>\n\n    a <b>\n\n```pycon\n>>> f(1)[2][3]\n4\n```\n\nof x[i]\\[j] \\* 2 and `<c>`")


def test_the_options_page_has_every_option():
    page = site.options()
    for path, command in commands():
        section = page.split(f"## featcache {' '.join(path)}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            names = parameter.opts if parameter.opts[0].startswith("-") else [parameter.make_metavar(None)]
            for name in (*names, *parameter.secondary_opts):
                assert name.strip("[].") in section, f"{path}: {name}"


def test_every_environment_variable_is_described():
    used = {name for path in FILES for name in re.findall(r"FEATCACHE_[A-Z_]*[A-Z]", path.read_text(encoding="utf-8"))}
    pages = "".join(path.read_text() for path in DOCS.glob("*.md"))
    assert [name for name in sorted(used) if f"`{name}" not in pages] == []


def test_every_registry_has_a_page():
    assert sorted(site.INTRODUCTIONS) == sorted(catalogue.KINDS)
    for kind in site.INTRODUCTIONS:
        assert f"reference/{kind}s.md" in (ROOT / "mkdocs.yml").read_text()


def sections(kind):
    """Yield the name and the section of every entry on the page of a kind."""
    page = site.entries(kind)
    for name in catalogue.names(kind):
        yield name, page.split(f"\n## {name}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("kind", ["extractor", "method", "net"])
def test_every_entry_has_its_parameters(kind):
    for name, section in sections(kind):
        file = f"{catalogue.FOLDERS[kind]}.{name.replace('-', '_')}"
        fields = [field.name for field in dataclasses.fields(importlib.import_module(file).Params)]
        assert re.findall(r"^\| `(\w+)` \| `", section, re.MULTILINE) == fields, name


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder of the built site; a warning stops the build."""
    pytest.importorskip("mkdocs", reason="needs the extra [docs]")
    folder = tmp_path_factory.mktemp("site")
    no_network = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **no_network, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


def words(page):
    """The text of a page without tags."""
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def public_names():
    """Module -> its public functions and classes, and the names in its `__all__`, read from the files."""
    for path in FILES:
        module, tree = module_of(path), tree_of(path)
        if site.is_inner(module):
            continue
        kinds = ast.FunctionDef | ast.ClassDef
        names = {node.name for node in tree.body if isinstance(node, kinds) and not node.name.startswith("_")}
        if any(isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__" for node in tree.body):
            names = set(importlib.import_module(module).__all__)
        yield module, sorted(names)


def documented_methods():
    """The methods and properties with a docstring of the classes on the site, under their whole names."""
    for path in re.findall(r"^::: (\S+)", "\n".join(site.python_pages().values()), re.MULTILINE):
        module, _, name = path.rpartition(".")
        value = getattr(importlib.import_module(module), name)
        members = vars(value).items() if isinstance(value, type) else ()
        for word, member in members:
            function = getattr(member, "__func__", getattr(member, "fget", getattr(member, "func", member)))
            own = getattr(function, "__qualname__", "") == f"{name}.{word}"  # no default of a field
            if own and not word.startswith("_") and function.__doc__:
                yield f"{path}.{word}"


@pytest.mark.slow
def test_the_site_has_every_command_option_parameter_and_public_name(built):
    """One test, because the site is built once."""
    options = words(built / "reference" / "options.html")
    overview = words(built / "commands.html")
    for path, command in commands():
        assert f"featcache {' '.join(path)}" in overview
        for option in (name for p in command.params for name in (*p.opts, *p.secondary_opts) if name.startswith("-")):
            assert option in options, f"{path} {option}"
    for kind in catalogue.KINDS:
        page = (built / "reference" / f"{kind}s.html").read_text()
        headings = [unescape(text) for text in re.findall(r"<h2 id=[^>]*>([^<]*)<", page)]
        assert headings == catalogue.names(kind), kind
    settings = words(built / "reference" / "experiments.html")
    for field in {field.name for field in dataclasses.fields(RunConfig)} - set(catalogue.OWN):
        assert len(re.findall(rf"^{field}(?:\.\w+)?$", settings, re.MULTILINE)) >= len(catalogue.names("experiment"))
    reference = "".join(path.read_text() for path in sorted((built / "reference" / "python").glob("*.html")))
    shown = set(re.findall(r"[\w.]+", unescape(re.sub(r"<[^>]+>", " ", reference))))
    missing = [f"{m}.{name}" for m, names in public_names() for name in names if f"{m}.{name}" not in shown]
    assert missing == []
    described = set(re.findall(r'id="([\w.]+)"', reference))
    assert [name for name in documented_methods() if name not in described] == []


@pytest.mark.slow
def test_pages_need_no_network_and_every_page_is_found(built):
    pages = sorted(built.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        assert not REMOTE.findall(page.read_text(encoding="utf-8")), page
    for style in built.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style
    home = (built / "index.html").read_text(encoding="utf-8")
    for path in DOCS.rglob("*.md"):
        page = path.relative_to(DOCS).with_suffix(".html").as_posix()
        assert f'href="{page}"' in home, f"{page} is not in the navigation"


def test_the_formats_of_tables_are_described():
    for ending in table_files.READERS:
        assert f"{ending}," in table_files.__doc__ or f"{ending} " in table_files.__doc__
