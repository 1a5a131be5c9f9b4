"""Calls methods on Ruby's values, and refuses those that are not here.

Responsible for finding the method by the value's class, for the number of arguments and for refusing a
block that a method would not look at. The methods themselves are in the modules NAME_methods, which are
loaded here.
"""

import importlib

from multibinder.erb.refusal import Refusal
from multibinder.erb.values import (Environment, Hash, Range, Regexp, RubyClass, RubyError, Symbol, class_name,
                                    described)

# By class: name to (function, least arguments, most arguments or None, whether it takes a block, whether
# it needs one). The functions take (program, receiver, arguments, block).
TABLES = dict((kind, {}) for kind in (
    type(None), bool, int, float, str, list, Symbol, Hash, Range, Regexp, RubyClass, Environment))
_NAMES = set()
_BLOCK_CLASSES = {}


def method(kinds, names, least=0, most=0, block=None):
    """Make a function a method: of classes (a class or several), under names (words), for a number of
    arguments from `least` to `most` (None: any), `block` is None, 'may' or 'must'."""
    def register(function):
        for kind in kinds if isinstance(kinds, tuple) else (kinds,):
            for name in names.split():
                TABLES[kind][name] = (function, least, most, block)
                _NAMES.add(name)
        return function
    return register


def call(program, receiver, name, args, block):
    """Call a method. Raises Refusal (not supported) or RubyError (what Ruby raises, too)."""
    found = TABLES[type(receiver)].get(name)
    if found is None:
        raise RubyError("undefined method '{}' for {}".format(name, described(receiver)) if receiver is None else
                        "{} has no method '{}' here".format(described(receiver), name))
    function, least, most, takes = found
    count = len(args)
    if count < least or most is not None and count > most:
        expected = str(least) if most == least else '{}+'.format(least) if most is None else \
            '{}..{}'.format(least, most)
        raise RubyError("{}: wrong number of arguments (given {}, expected {})".format(name, count, expected))
    if block is None:
        if takes == 'must':
            raise Refusal("ruby's .{} without a block is not supported here".format(name))
    elif takes is None:
        raise Refusal("ruby's .{} with a block is not supported here".format(name))
    return function(program, receiver, args, block)


def check_name(name, line, owner=''):
    """Refuse the name of a method that no class here has. `owner` is the constant that it is called on."""
    if name not in _NAMES:
        shown = name if not (name[0].isalpha() or name[0] == '_') else owner + '.' + name
        raise Refusal("ruby's {} is not supported here".format(shown), line)


def integer(value, what='argument'):
    """Return an argument that has to be an Integer; a Float is cut, as Ruby does."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float):
        return int(value)
    raise RubyError('no implicit conversion {} into Integer'.format(
        'from nil' if value is None else 'of ' + _named(value)))


def text(value):
    """Return an argument that has to be a String."""
    if isinstance(value, str):
        return value
    raise RubyError('no implicit conversion of {} into String'.format(_named(value)))


def _named(value):
    return {None: 'nil', True: 'true', False: 'false'}[value] if value is None or isinstance(value, bool) else \
        class_name(value)


for _module in ('object', 'number', 'string', 'pattern', 'enumerable', 'list', 'hash'):
    importlib.import_module('multibinder.erb.{}_methods'.format(_module))
