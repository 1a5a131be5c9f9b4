"""Imports Mako without what it imports and does not use here.

`import mako.template` takes most of its time for pygments, which colours HTML pages of errors, for
importlib.metadata, which finds plug-ins, and for what writes compiled templates to disk. The first is
kept out of the import and stays importable for everyone else; the others become modules that load
themselves when they are first looked into.
"""

import importlib
import importlib.util
import sys

# The second is what Mako imports on a Python that lacks the first.
LAZY = ('importlib.metadata', 'importlib_metadata', 'tempfile', 'shutil')


def load():
    """Import mako.template. Raises ImportError where there is no Mako."""
    if 'mako.template' in sys.modules:
        return
    for name in LAZY:
        _make_lazy(name)
    hidden = 'pygments' not in sys.modules
    if hidden:
        sys.modules['pygments'] = None      # the import system's word for "not there"
    try:
        importlib.import_module('mako.template')
    finally:
        if hidden:
            sys.modules.pop('pygments', None)


def _make_lazy(name):
    if name in sys.modules:
        return
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    parent, _, child = name.rpartition('.')
    if parent:
        setattr(sys.modules[parent], child, module)
