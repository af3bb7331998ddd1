"""`featcache list experiments --figures`: every table and figure of the five papers, with its command or the reason."""

import re
import shlex

import pytest
from click.testing import CliRunner

from pipelines.cli import main
from pipelines.experiments import figures, load, names
from pipelines.experiments._papers import PAPERS, cells
from pipelines.tables.build import CV, build, norms_table
from pipelines.tasks import metric

PRINTED = {  #: paper -> numbers of its last table and of its last figure
    "XMC": (8, 8),
    "MTRAN": (7, 5),
    "RNA": (9, 6),
    "ACP": (4, 4),
    "CoDT": (2, 3),  # its supplement
}
COMMANDS = sorted(
    {
        (figure.paper, figure.item, command)
        for figure in figures()
        for command in figure.command.split(" && ")
        if command
    }
)


def test_every_table_and_figure_is_listed():
    listed = {paper: [figure.item for figure in figures() if figure.paper == paper] for paper in PAPERS}
    assert set(listed) == {figure.paper for figure in figures()}
    for paper, (tables, drawn) in PRINTED.items():
        items = [f"Table {k + 1}" for k in range(tables)] + [f"Figure {k + 1}" for k in range(drawn)]
        parts = [re.match(r"(Table|Figure) \d+", item) for item in listed[paper]]  # a figure may have parts a and b
        assert list(dict.fromkeys(part[0] for part in parts if part)) == items
    assert all(figure.content and (figure.command or figure.reason) for figure in figures())


@pytest.mark.parametrize(("paper", "item", "command"), COMMANDS)
def test_commands_are_valid(paper, item, command):
    """A command of the list is one of ours, and its experiment exists; click reads its options."""
    program, name, *arguments = shlex.split(command)
    assert program == "featcache"
    options = parsed(name, arguments)
    (loaded,) = options.get("experiments") or [options["experiment"]]  # `evaluate` takes any number of them
    experiment = load(loaded).changed(only=options.get("only", ()))
    assert experiment.rows == (options.get("only") or experiment.rows)
    if options.get("metric") == "norms":
        assert norms_table([], experiment)
    else:
        shifts = build([], experiment, options.get("metric")).shifts
        assert set(options.get("shifts", ())) <= set(shifts)
    assert options.get("metric") in (None, "norms") or metric(options["metric"])


def parsed(name, arguments):
    """The options that click reads."""
    found = main.commands[name].make_context(name, list(arguments), resilient_parsing=False)
    return found.params | {"only": tuple(dict.fromkeys(found.params.get("only", ())))}


def test_commands_write_pages_of_their_own():
    pages = {}
    for command in {command for _, _, command in COMMANDS if command.startswith("featcache report")}:
        options = parsed("report", shlex.split(command)[2:])
        pages.setdefault(options["out"] or options["runs"] / f"{options['experiment']}.html", []).append(command)
    assert not {out: commands for out, commands in pages.items() if len(commands) > 1}


def test_the_commands_of_a_table_print_all_metrics_of_its_published_numbers():
    made = {}
    for paper, item, command in COMMANDS:
        _, name, *arguments = shlex.split(command)
        if name == "table":
            experiment, chosen = load(arguments[0]), parsed(name, arguments)["metric"]
            shown = [chosen or experiment.headline()]
            if chosen == "norms":
                shown = [f"{kind}/verb" for kind in CV]
            made.setdefault((paper, item), set()).update(shown, [one + experiment.task.stand_in for one in shown])
            made[paper, item] |= {""} if experiment.headline() in shown else set()  # a column that names no metric
    printed = {}
    for cell in cells():
        printed.setdefault((cell.paper, cell.table), set()).add(cell.column.partition(" ")[2])
    assert not {key: found - made[key] for key, found in printed.items() if found - made[key]}


def test_every_experiment_of_a_paper_makes_something():
    made = {command.split()[2] for _, _, command in COMMANDS}
    of_papers = {name for name in names() if name.split("_")[0] in ("xmc", "mtran", "rna", "acp", "codt")}
    assert of_papers - {"codt_kinect"} == made  # which has our own data


def test_tables_with_numbers_have_a_command():
    commands = {(figure.paper, figure.item): figure.command for figure in figures()}
    assert not [key for key in dict.fromkeys((cell.paper, cell.table) for cell in cells()) if not commands[key]]


def test_the_command_prints_papers_items_commands_and_reasons():
    said = CliRunner().invoke(main, ["list", "experiments", "--figures"])
    assert said.exit_code == 0
    for figure in figures():
        assert figure.item in said.output
    assert all(title in said.output for title in PAPERS.values())
    assert re.search(r"Table 6 .*\n\s+featcache table rna_epic8", said.output)
    wrong = CliRunner().invoke(main, ["list", "methods", "--figures"])
    assert wrong.exit_code == 2
    assert "--figures" in wrong.output
    assert "methods" in wrong.output
