"""The formats of exported heads: a traced head and its facts -> bytes -> a function of arrays.

pt2: `torch.export.load(FILE).module()(features)` with a dictionary of tensors; the facts are the extra file `FACTS`.
onnx: inputs and outputs by name; the facts are the entry `FACTS` of metadata_props.
"""

import importlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.graph_signature import InputKind

from featcache.errors import ConfigError
from featcache.wording import first_line
from pipelines.exporting.head import PRESENT, Input

FACTS = "featcache.json"
ROWS = {"clips": 3, "captions": 4}  #: rows of the example that is traced; a traced head takes any number of them
LARGEST = 2**31 - 1  #: bytes of an ONNX file
Arrays = dict[str, NDArray[Any]]
Facts = dict[str, Any]
Predict = Callable[[Mapping[str, NDArray[Any]]], Arrays]


def traced(head: nn.Module, inputs: Mapping[str, Input]) -> tuple[ExportedProgram, dict[str, Input]]:
    """Record what a head does with rows of these inputs, for any number of rows; ConfigError if that is impossible.

    Returns the inputs as they were recorded: none of them varies where only one number of windows could be recorded.
    """
    fixed = {name: replace(each, varies=False) for name, each in inputs.items()}
    reason = ""
    for taken in (inputs, fixed) if fixed != inputs else (fixed,):
        for strict in (False, True):  # strict allows more Python, such as len(tensor), but takes longer
            example, shapes = _example(taken)
            try:
                with quiet(), torch.no_grad():
                    program = torch.export.export(head, (example,), dynamic_shapes=(shapes,), strict=strict)
            except Exception as error:  # any error of the method's own code, or of torch.export
                reason = reason or first_line(error)
            else:
                return pruned(program), dict(taken)
    raise ConfigError(
        f"torch.export cannot record the predictions of this method and net ({reason}); a head that can be exported "
        "computes with tensors only, and takes no decision by their values"
    )


def _example(inputs: Mapping[str, Input]) -> tuple[dict[str, Tensor], dict[str, dict[int, Dim]]]:
    """Return an example of each input, and its axes whose length is not fixed."""
    example, axes = {}, {}
    rows = {kind: Dim(kind, min=0) for kind in ROWS}
    for name, each in inputs.items():
        T, *row_shape = each.shape
        m = name.removesuffix(PRESENT)
        axes[name] = {0: rows[each.rows]}
        if each.varies:  # the mask of a modality has as many windows as its rows
            axes[name][1] = axes[m][1] if m in axes and m != name else Dim(f"windows{len(axes)}", min=T)
        # of ones: no net divides by a length of 0
        example[name] = torch.ones(ROWS[each.rows], T + each.varies, *row_shape, dtype=each.dtype)
    return example, axes


def pruned(program: ExportedProgram) -> ExportedProgram:
    """Remove the tensors that no output depends on, such as discriminators and memories, and the paths of our code."""
    graph, signature = program.graph_module.graph, program.graph_signature
    graph.eliminate_dead_code()
    unused = {node.name: node for node in graph.nodes if node.op == "placeholder" and not node.users}
    for spec in list(signature.input_specs):
        if spec.kind != InputKind.USER_INPUT and spec.arg.name in unused:
            signature.input_specs.remove(spec)
            graph.erase_node(unused[spec.arg.name])
            program.state_dict.pop(spec.target or "", None)
            program.constants.pop(spec.target or "", None)
    for node in graph.nodes:
        node.meta.pop("stack_trace", None)
    program.graph_module.recompile()
    return program


# ----------------------------------------------------------------------------------------------------------------- pt2


def write_pt2(program: ExportedProgram, facts: Facts) -> bytes:
    """Write a traced head as a file of torch.export."""
    file = io.BytesIO()
    with quiet():
        torch.export.save(program, file, extra_files={FACTS: json.dumps(facts)})
    return file.getvalue()


def read_pt2(data: bytes) -> Predict:
    """Load a head that `write_pt2` has just written."""
    with quiet():
        module = torch.export.load(io.BytesIO(data)).module()

    def predict(features: Mapping[str, NDArray[Any]]) -> Arrays:
        with torch.no_grad():
            found: dict[str, Tensor] = module({name: torch.from_numpy(value) for name, value in features.items()})
        return {name: value.numpy() for name, value in found.items()}

    return predict


# ---------------------------------------------------------------------------------------------------------------- onnx


def write_onnx(program: ExportedProgram, facts: Facts) -> bytes:
    """Write a traced head as an ONNX file; ConfigError if an operation has no equivalent, or the file is too large."""
    if (size := sum(value.nbytes for value in program.state_dict.values())) > LARGEST:
        raise ConfigError(f"this head takes {size} bytes, and an ONNX file at most {LARGEST}; take a file .pt2")
    try:
        with quiet():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                input_names=list(facts["inputs"]),
                output_names=list(facts["outputs"]),
                custom_translation_table={torch.ops.aten.sort.stable: _sorted},
            )
    except Exception as error:  # the exporter raises anything
        reason = first_line(error.__cause__ or error)
        raise ConfigError(f"this head has no equivalent in ONNX ({reason}); export it to a file .pt2") from None
    assert exported is not None
    model = exported.model
    model.metadata_props[FACTS] = json.dumps(facts)
    for node in model.graph.all_nodes():
        node.metadata_props.clear()  # the paths of our code
    for value in (*model.graph.inputs, *model.graph.outputs):
        rows = (facts["inputs"] | facts["outputs"])[value.name]["shape"][0]
        assert value.shape is not None
        value.shape = type(value.shape)([rows, *list(value.shape)[1:]])
    return bytes(exported.model_proto.SerializeToString())


def read_onnx(data: bytes) -> Predict:
    """Load a head that `write_onnx` has just written; ConfigError if onnxruntime lacks one of its operations."""
    runtime = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # of errors, which are raised
    try:
        session = runtime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of a type of its own for each kind
        raise ConfigError(f"onnxruntime cannot run this head ({first_line(error)}); export it to a file .pt2") from None

    def predict(features: Mapping[str, NDArray[Any]]) -> Arrays:
        found = session.run(None, dict(features))
        return dict(zip((output.name for output in session.get_outputs()), found, strict=True))

    return predict


def needed(package: str) -> Any:
    """Import a package of an extra; ConfigError if it is missing."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs {package} ({error}): pip install 'featcache[onnx]', or name a file .pt2"
        ) from None


def _sorted(x: Any, stable: bool = False, dim: int = -1, descending: bool = False) -> Any:
    """Translate a stable sort, for which torch has no translation: of equal values TopK takes the first one first."""
    op = needed("onnxscript").opset18
    size = op.Reshape(op.Gather(op.Shape(x), op.Constant(value_int=dim)), op.Constant(value_ints=[1]))
    values, places = op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)
    return values, places


class Format(NamedTuple):
    """A format of exported heads."""

    write: Callable[[ExportedProgram, Facts], bytes]
    read: Callable[[bytes], Predict]
    packages: tuple[str, ...] = ()  #: that it needs, of an extra


FORMATS = {  #: ending of the file -> format
    ".pt2": Format(write_pt2, read_pt2),
    ".onnx": Format(write_onnx, read_onnx, ("onnx", "onnxscript", "onnxruntime")),
}


@contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's warnings and log lines about its own export."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
