"""Plug-ins: your own methods, nets, extractors, builders, bridges and experiments, without a clone of featcache.

A folder of plug-ins has sub-folders named after the registries: `mine/methods/entropy.py` is the method `entropy`, and
holds what a file in `heads/methods` holds. `--plugins mine` or the environment variable FEATCACHE_PLUGINS=mine names
the folder; several are separated as in PATH. Files that begin with an underscore are helpers of the others, and
`test_*.py` and `conftest.py` are not read. An installed package names its modules in entry points, such as
`entropy = mypackage.entropy` in the group `featcache.methods`.

The environment variable names the folders: child processes inherit it, and every look-up reads it. A relative path
means the folder that it named at first, wherever the process moves to. Nothing is imported before it is used. A file is
imported as `heads.methods.entropy`, as if it were in that folder, so that other processes can import it, too. A module
of a package keeps its own name, and `heads.methods.entropy` is the same module.

Plug-ins are programs that run with your rights: use only those that you trust.
"""

import sys

from featcache.plugins._digests import digests
from featcache.plugins._imports import Finder, added, failure, forget_others
from featcache.plugins._places import VARIABLE, Plugin, add, canonical, clash, described, folders, of, split, take

__all__ = [
    "VARIABLE",
    "Plugin",
    "add",
    "added",
    "canonical",
    "clash",
    "described",
    "digests",
    "failure",
    "folders",
    "forget_others",
    "of",
    "split",
    "take",
]

if not any(finder is Finder for finder in sys.meta_path):
    sys.meta_path.append(Finder)  # the last one, so that it never comes before featcache's own files
