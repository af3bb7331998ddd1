"""The settings and rows of the experiment of a folder of stores, by task.

No setting was tuned on labels of a target. Classification has the recipe of `kitchens` and the rows of the suite;
retrieval and clustering have the rows of `pairs` and of CoDT's tables. Nets are narrower than in the papers (WIDTH), so
that a folder of a few hundred clips is trained in minutes.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from featcache import registry
from featcache.errors import ConfigError, WordError
from featcache.wording import unknown
from heads import methods, nets
from heads.methods import acp, capq, cdan_keels, codt, coral, dann, joints, mmd, sinkhorn, source_only
from heads.nets import Net, ce, mtran, stgcn, trn
from pipelines.config import Optim
from pipelines.experiments._choice import ALL
from pipelines.experiments._codt import rows as codt_rows
from pipelines.experiments._rows import Row
from pipelines.experiments._suite import SOURCE, SUPERVISED, suite
from pipelines.settings import name_of

STEPS = 300
WIDTH = 256
NETS = {  #: nets that are narrower here than by default
    "ce": ce.Params(dim=WIDTH),
    "mtran": mtran.Params(dim=WIDTH),
    "trn": trn.Params(dim=WIDTH, frame_dim=WIDTH, relation_dim=WIDTH),
}


@dataclass(frozen=True)
class Recipe:
    """The settings that all runs of a task share, and the rows that its table may have."""

    common: Mapping[str, Any]  #: fields of every RunConfig, `net` among them
    rows: Mapping[str, Row]  #: rows of all methods, the first and the reference row among them
    first: str  #: the row that the others are compared with
    usual: tuple[str, ...]  #: the rows of a table for which no method is chosen
    draw: str = "all"  #: windows of a clip that runs read


def recipe(task: str, net: str, several: bool) -> Recipe:
    """Return the recipe of a task. net: the name of another net than the recipe's; several: True with several feeds."""
    made = RECIPES[task](several)
    chosen = registry.load(nets, net, "net") if net else None
    if chosen is None:
        return made
    own = made.common["net"]
    common = {**made.common, "net": own if name_of(own) == net else NETS.get(net, chosen.Params())}
    rows = {  # every row is on the chosen net, and starts from the first row on this net
        name: replace(
            row,
            start=made.first if row.start in made.rows and "net" in made.rows[row.start].changes else row.start,
            changes={key: value for key, value in row.changes.items() if key != "net"},
        )
        for name, row in made.rows.items()
        if not (isinstance(row.method, source_only.Params) and "net" in row.changes)
    }
    return replace(made, common=common, rows=rows)


def _classification(several: bool) -> Recipe:
    """The recipe of `kitchens`, and every method of the suite; some bring the net that they need."""
    from pipelines.experiments import kitchens

    common = {name: value for name, value in kitchens.RECIPE.items() if name != "rna_params"}
    rows = suite(modalities=True, transformer=NETS["mtran"], relations=NETS["trn"], epoch=common["steps"] // 12)
    if not several:
        rows = {name: row for name, row in rows.items() if not name.endswith(", per modality")}
    return Recipe(common, rows, SOURCE, (SOURCE, *["RNA (DG)"] * several, "RNA (UDA)", SUPERVISED))


def _retrieval(several: bool) -> Recipe:
    """Methods between clips and captions, on collaborative experts."""
    rows = {
        SOURCE: Row(source_only.Params()),
        "MMD": Row(mmd.Params()),
        "CORAL": Row(coral.Params()),
        "DANN": Row(dann.Params()),
        "CDAN": Row(cdan_keels.Params(K=16)),
        "OT": Row(sinkhorn.Params()),
        "CAPQ (surrogate)": Row(capq.Params(), changes={"epoch": STEPS // 10}),
        "ACP": Row(acp.Params(N=16, K=16)),
        SUPERVISED: Row(source_only.Params(), supervised=True),
    }
    common = {
        "net": NETS["ce"],
        "absent": "mask",
        "steps": STEPS,
        "batch": (64, 64),
        "optim": Optim("adam", lr=0.001, weight_decay=0.0),
    }
    return Recipe(common, rows, SOURCE, tuple(rows), draw="mean")


def _clustering(several: bool) -> Recipe:
    """Clusters of the joints themselves, and CoDT with and without its parts."""
    rows = {"joints": Row(joints.Params(), changes={"steps": 0}), **codt_rows(codt.Params(), first={})}
    common = {
        "net": stgcn.Params(),
        "absent": "drop",
        "steps": STEPS,
        "epoch": "target",
        "batch": (32, 32),
        "optim": Optim(lr=0.01),
    }
    return Recipe(common, rows, "joints", tuple(name for name, row in rows.items() if row.shown))


def row_names() -> tuple[str, ...]:
    """The names of all rows, of all tasks."""
    return tuple(dict.fromkeys(name for task in RECIPES for name in recipe(task, "", True).rows))


def wanted(made: Recipe, words: Sequence[str], task: str, net: str) -> dict[str, dict[str, Row]]:
    """Return word -> the rows that it names; "" -> the usual rows if there is no word. net: the net that is chosen."""
    if not words:
        return {"": {name: made.rows[name] for name in made.usual}}
    named = {word: _named_rows(word, made, task, bool(net)) for word in words if word != ALL}
    return {ALL: _every_row(made, task, bool(net)), **named} if ALL in words else named


RECIPES: dict[str, Callable[[bool], Recipe]] = {
    "classification": _classification,
    "retrieval": _retrieval,
    "clustering": _clustering,
}


def chosen_task(words: Sequence[str], net: str, task: str, labelled: bool, captioned: bool) -> str:
    """Return the task of a choice: that of its net, one that its methods do, or the one that the labels are for.

    words: names of methods, or of rows, which decide nothing. labelled, captioned: what clips have.
    """
    of_net = registry.load(nets, net, "net").NET.task if net in registry.names(nets) else ""
    if net and not of_net:
        raise unknown("net", net, registry.names(nets), error=WordError)
    names = registry.names("pipelines.tasks")
    if task and task not in names:
        raise unknown("task", task, names, error=WordError)
    if len({task, of_net} - {""}) > 1:
        raise WordError(f"net {net!r} does {of_net}, not {task}; choose another net, or --task {of_net}")
    natural = "retrieval" if captioned and not labelled else "classification"
    done = {word: _tasks(method) for word in words if (method := _method(word))}
    able = [name for name in names if all(name in of_method for of_method in done.values())]
    if not able:
        each = ", ".join(f"{word} ({' and '.join(of_method)})" for word, of_method in done.items())
        raise WordError(f"no task is done by all of these methods: {each}; choose methods of one task")
    found = task or of_net or (natural if natural in able else able[0])
    for word, of_method in done.items():
        if found not in of_method:
            raise WordError(f"method {word!r} does {' and '.join(of_method)}, not {found}; choose a net of its task")
    return found


def _named_rows(word: str, made: Recipe, task: str, own_net: bool) -> dict[str, Row]:
    """Return the rows that a word names: those of a method, or a row itself, upper and lower case alike.

    own_net: True if the net is chosen, so that a method brings none.
    """
    by_name = {name.lower(): name for name, row in made.rows.items() if row.shown}
    if method := _method(word):
        rows = {name: row for name, row in made.rows.items() if row.shown and name_of(row.method) == method}
        if method == name_of(source_only.Params()):  # without those on nets of single methods
            rows = {name: row for name, row in rows.items() if "net" not in row.changes}
        return rows or {method: _of_file(method, made, own_net)}
    if word.lower() in by_name:
        name = by_name[word.lower()]
        return {name: made.rows[name]}
    able = list[str]()
    for name in _methods():
        with suppress(ConfigError):  # a plug-in that cannot be loaded is no choice, and not the mistake
            able += [name] if task in _tasks(name) else []
    raise unknown("method", word, able, error=WordError)


def _every_row(made: Recipe, task: str, own_net: bool) -> dict[str, Row]:
    """Return the rows of every method of a task, those of the recipe first."""
    shown = {name: row for name, row in made.rows.items() if row.shown}
    have = {name_of(row.method) for row in shown.values()}
    able = [name for name in _methods() if task in _tasks(name)]
    return shown | {name: _of_file(name, made, own_net) for name in able if name not in have}


def _of_file(name: str, made: Recipe, own_net: bool) -> Row:
    """Return the row of a method that the recipe does not have: with its defaults, on the net that its class names."""
    module = registry.load(methods, name, "method")
    try:
        wanted = inspect.get_annotations(module.METHOD, eval_str=True).get("net", Net)
    except NameError as error:
        raise ConfigError(f"{module.__file__}: {error}; import it outside of `if TYPE_CHECKING:`") from None
    changes = {}
    if wanted is not Net and not own_net:
        file = inspect.getmodule(wanted)
        if file is not None and hasattr(file, "Params") and getattr(file, "NET", None) is wanted:
            changes["net"] = file.Params()
    return Row(module.Params(), start=made.first if "init_from" in module.METHOD.needs else "", changes=changes)


def _methods() -> list[str]:
    return registry.names(methods)


def _tasks(method: str) -> tuple[str, ...]:
    return tuple(registry.load(methods, method, "method").METHOD.tasks)


def _method(word: str) -> str:
    """Return the method that a word names, upper and lower case alike; "" if it names a row, or nothing.

    A word in the exact case of a method is the method; in another case, a row comes first: CDAN is the row, cdan all
    rows of the method.
    """
    if word in (names := _methods()):
        return word
    if word.lower() in map(str.lower, row_names()):
        return ""
    return next((name for name in names if name.lower() == word.lower()), "")
