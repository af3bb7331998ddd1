"""The parts of a method that a term reaches."""

from heads.testing.problems import SPEC, batch


def check_reach(method, term, parts):
    """The term has a gradient in these attributes of the method only; L_C alone reaches the net's classifier."""
    method.losses(batch(SPEC), 0.5)[term].backward()
    reached = {name for name, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert {name.split(".")[0] for name in reached} == parts
    assert any("classifier" in name for name in reached) == (term == "L_C")
