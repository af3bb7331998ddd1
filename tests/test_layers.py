"""Who may import whom: the table of docs/architecture.md, checked on every file."""

import ast
import functools
import gc
import re
import subprocess
import sys
from pathlib import Path

import pytest

import featcache
import pipelines
from featcache import registry
from tests.conftest import ROOT

FORBIDDEN = {
    "featcache": {"heads", "pipelines", "click", "tqdm"},
    "heads": {"featcache", "pipelines", "zarr", "pandas", "click", "tqdm", "h5py", "av", "cv2", "pathlib", "os", "io"},
    "pipelines": set(),
}
#: `featcache.extract` and `featcache.merge`, imported when they are used
DOOR = ("featcache/__init__.py", "pipelines.commands.extract")
EXCEPTIONS = {
    DOOR,
    (DOOR[0], f"{DOOR[1]}.extract"),
    (DOOR[0], f"{DOOR[1]}.merge"),
    ("featcache/progress.py", "tqdm.auto"),  # the bar of progress=True, imported when it is asked for
    ("featcache/progress.py", "tqdm.auto.tqdm"),
}
TESTING = {("featcache", "testing"), ("heads", "testing")}  #: contract tests for files outside the repository
ROOMS = [
    "settings",
    "measures",
    "tasks",
    "extraction",
    "config",
    "data",
    "training",
    "experiments",
    "catalogue",
    "tracking",
    "evaluation",
    "predicting",
    "exporting",
    "tables",
    "sweeps",
    "report",
    "commands",
    "cli",
    "bench",
]
FILES = [path.relative_to(ROOT) for package in FORBIDDEN for path in sorted((ROOT / package).rglob("*.py"))]


def module_of(path):
    """featcache/store/__init__.py -> featcache.store, featcache/store/reader.py -> featcache.store.reader."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}
DOORS = {door.__name__: door._HOME for door in (featcache, pipelines)}  #: public name -> its module
LAZY = {f"{door}.{name}": module for door, home in DOORS.items() for name, module in home.items()}


@functools.cache
def trees():
    """File -> its syntax tree.

    The garbage collector would pass over all trees again and again, which takes three times as long as the parser.
    """
    gc.disable()
    try:
        return {path: ast.parse((ROOT / path).read_text(encoding="utf-8")) for path in FILES}
    finally:
        gc.enable()


def tree_of(path):
    """The syntax tree of a file. Do not change it: tests share it."""
    return trees()[path]


@functools.cache
def nodes_of(path):
    """All nodes of the syntax tree of a file."""
    return list(ast.walk(tree_of(path)))


def named(nodes):
    """The modules that a file names in strings, as for importlib; f"a.b.{name}" names all public modules of a.b.

    The entries that `registry.load(package, name, ...)` imports are not among them: they import their package, which
    finds them by its folder.
    """
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "." in node.value:
            if node.value in MODULES:  # without a dot it may be a word: "featcache" is a command, too
                yield node.value
        elif isinstance(node, ast.JoinedStr) and len(node.values) == 2 and isinstance(node.values[0], ast.Constant):
            package, _, rest = node.values[0].value.rpartition(".")
            if not rest and package in MODULES:
                yield from (module for module in MODULES if re.fullmatch(rf"{re.escape(package)}\.[a-z]\w*", module))


@functools.cache
def imports(path):
    """Every module that a file imports, at any depth of nesting, or names in a string; dotted."""
    modules = [*named(nodes_of(path))]
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: relative imports hide where a name comes from"
            modules += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return modules


def imported(files=FILES):
    """(file, module) for every import of these files."""
    return [(path, module) for path in files for module in imports(path)]


def test_imports_point_one_way():
    for path, module in imported():
        package = path.parts[0]
        parts = module.split(".")
        # featcache.testing is the one place to look for all contracts, so its __init__ names those of heads, too
        allowed = path.parts == ("featcache", "testing", "__init__.py") and parts[:2] == ["heads", "testing"]
        allowed |= (path.as_posix(), module) in EXCEPTIONS
        allowed |= path.parts == ("featcache", "__main__.py") and parts[:2] == ["pipelines", "cli"]  # the command
        assert parts[0] not in FORBIDDEN[package] or allowed, f"{path} imports {module}"


def test_only_the_command_line_needs_click():
    for path, module in imported():
        assert module.partition(".")[0] != "click" or path.parts[:2] == ("pipelines", "cli"), f"{path} imports {module}"


def test_only_contract_tests_need_pytest():
    for path, module in imported():
        parts = module.split(".")
        of_tests = parts[0] == "pytest" or (*parts[:2],) in TESTING
        assert not of_tests or path.parts[:2] in TESTING, f"{path} imports {module}"


@functools.cache
def arrows():
    """Module -> the modules that it imports, at any depth: inside functions, under TYPE_CHECKING and by a string, too.

    `from a import b` is an arrow to the module a.b if there is one, else to the module that a imports b from when b is
    first used, else to a, whose `__init__` has the name b. So a door has no arrows to the modules of its names.
    `import a.b` is an arrow to a.b only: that Python runs a's `__init__` on the way makes no circle.
    """
    graph = {}
    for module, path in MODULES.items():
        graph[module] = set(named(nodes_of(path))) - {module}
        for node in nodes_of(path):
            if isinstance(node, ast.Import):
                graph[module].update(alias.name for alias in node.names if alias.name in MODULES)
            elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
                for whole in (f"{node.module}.{alias.name}" for alias in node.names):
                    graph[module].add(whole if whole in MODULES else LAZY.get(whole, node.module))
        graph[module] -= set(DOORS.get(module, {}).values())
    return graph


def circles(graph):
    """The sets of modules that reach each other."""
    reach = {}
    for start in graph:
        reached, todo = set(), [start]
        while todo:
            new = graph[todo.pop()] - reached
            reached |= new
            todo += new
        reach[start] = reached
    return {frozenset(m for m in reach[module] if module in reach[m]) for module in graph if module in reach[module]}


def of_rooms(graph):
    """The same arrows between rooms: featcache.store.reader is in the room featcache.store."""
    rooms = {}
    for module, imported in graph.items():
        room = ".".join(module.split(".")[:2])
        rooms.setdefault(room, set()).update({".".join(other.split(".")[:2]) for other in imported} - {room})
    return rooms


@pytest.mark.parametrize("graph", [arrows, lambda: of_rooms(arrows())], ids=["modules", "rooms"])
def test_no_circle_of_imports(graph):
    for circle in circles(graph()):
        raise AssertionError(f"imports in a circle: {sorted(circle)}")


def test_a_circle_is_seen():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"d"}, "e": {"a"}, "f": set()}
    assert circles(graph) == {frozenset("abc"), frozenset("d")}


def test_imports_by_a_string_are_seen():
    tree = ast.parse("import_module('heads.nets'); import_module(f'pipelines.tasks.{name}'); print('featcache', 'a.b')")
    tasks = {f"pipelines.tasks.{task}" for task in registry.names("pipelines.tasks")}
    assert set(named(ast.walk(tree))) == {"heads.nets"} | tasks
    graph = arrows()
    assert "pipelines.report.retrieval" in graph["pipelines.report.write"]
    assert "featcache.store" in graph["pipelines.data.tiers"]
    assert "featcache" not in graph["pipelines.data.tiers"]


def test_no_method_imports_another():
    for path, module in imported([p for p in FILES if p.parts[:2] == ("heads", "methods")]):
        parts = module.split(".")
        own = len(parts) < 3 or parts[2] in ("Method", path.stem) or parts[2].startswith("_")  # _helpers are shared
        foreign = parts[:2] == ["heads", "methods"] and not own
        assert not foreign or path.stem == "__init__", f"{path} imports {module}"


def test_rooms_import_lower_rooms_only():
    files = [p for p in FILES if p.parts[0] == "pipelines"]
    for path in files:
        own = path.with_suffix("").parts[1]
        assert own in (*ROOMS, "__init__"), f"{path} is in no room; add its room to ROOMS, where its imports allow"
    for path, module in imported(files):
        own = path.with_suffix("").parts[1]
        parts = module.split(".")
        is_door = own == "__init__"  # it imports nothing before it is used
        if parts[0] == "pipelines" and len(parts) > 1 and parts[1] in ROOMS and parts[1] != own and not is_door:
            assert ROOMS.index(parts[1]) < ROOMS.index(own), f"{path} imports {module}, which is a higher room"


@pytest.mark.parametrize("room", [room for room in ROOMS if (ROOT / "pipelines" / room).is_dir()])
def test_a_room_begins_with_its_input_and_output(room):
    first = ast.get_docstring(tree_of(Path("pipelines", room, "__init__.py"))).splitlines()[0]
    assert re.search(r"\w -> \w", first), f"pipelines/{room}/__init__.py begins with no 'input -> output': {first!r}"


OF_TASKS = {("pipelines", "tasks"), ("heads", "nets"), ("heads", "testing")}  #: rooms of what differs between tasks
ASKS = r"task(\.name)? (==|!=)|(==|!=) \S*\.task\b|(isinstance|issubclass)\(.*\b(Retrieval|Classification|Clustering)\b"


def asks_for_the_task(line):
    """True if a line of code decides by the task; an assert decides nothing, but gives mypy the type of a net."""
    return bool(re.search(ASKS, line)) and not line.strip().startswith("assert ")


def test_only_the_files_of_a_task_know_which_task_it_is():
    for path in FILES:
        if path.parts[:2] not in OF_TASKS:
            for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
                assert not asks_for_the_task(line), f"{path} line {number}: {line.strip()}"


def test_questions_for_the_task_are_seen():
    questions = ("if task == name:", "x = run.task.name != 'retrieval'", "if 'retrieval' == config.task:")
    assert all(map(asks_for_the_task, (*questions, "if isinstance(self.net, Retrieval):", "if name != net.task:")))
    assert not any(map(asks_for_the_task, ("tasks == {}", "assert isinstance(net, Retrieval)", "x == multitask")))


def test_modules_have_a_docstring_and_short_functions():
    for path in FILES:
        tree = tree_of(path)
        assert (ROOT / path).stat().st_size == 0 or ast.get_docstring(tree), f"{path} has no docstring"
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= 60, f"{path} line {node.lineno}: {node.name} has {lines} lines; at most 60"


def test_what_is_private_stays_in_its_room():
    """A room is a folder such as featcache/store: no other room imports its `_format`, or any `_name` of its files."""
    for path, module in imported():
        room = module_of(path).split(".")[:2]
        parts = module.split(".")
        private = any(part.startswith("_") and not part.startswith("__") for part in parts)
        assert not (parts[0] in FORBIDDEN and private) or parts[:2] == room, f"{path} imports {module}"


def test_no_open_ended_keyword_arguments():
    """A misspelt keyword must be an error where it is written."""
    # click hands a command its options by keyword, and the command passes them to a function that names them; those of
    # runs are RunConfig's, which refuses others at once
    allowed = {"extract", "with_job", "with_tracking", "runs"}
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef) and node.args.kwarg is not None:
                assert node.name in allowed, f"{path} line {node.lineno}: {node.name}(**{node.args.kwarg.arg})"


@pytest.mark.parametrize(
    "code", ["import featcache", "from pipelines.cli import main; main(['--help'], standalone_mode=False)"]
)
def test_nothing_heavy_is_imported_at_the_start(code):
    """No torch, zarr, pandas, Ray or client of an object store before they are needed."""
    libraries = {"torch", "zarr", "pandas", "cv2", "av", "ray", "obstore"}
    heavy = f"import sys; print(*({libraries} & set(sys.modules)), file=sys.stderr)"
    run = subprocess.run(
        [sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert run.stderr.strip() == ""
