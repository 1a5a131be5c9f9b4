"""A regular expression that is compiled at its first use.

Responsible for nothing else. A template uses few of the many expressions that a scanner knows, and
compiling all of them takes longer than rendering it.
"""

import re

_METHODS = ('match', 'search', 'sub', 'findall', 'finditer')


class Pattern(object):
    """Stands for `re.compile(expression, flags)`, with its methods match, search, sub, findall and
    finditer."""

    def __init__(self, expression, flags=0):
        self.expression = expression
        self.flags = flags

    def __getattr__(self, name):
        if name not in _METHODS:
            raise AttributeError(name)
        compiled = re.compile(self.expression, self.flags)
        for method in _METHODS:
            setattr(self, method, getattr(compiled, method))    # the next use finds it at once
        return getattr(compiled, name)
