"""What an ERB template's code can reach: the functions of the scope and a few of Ruby's own, instance
variables, constants and the sink."""

from multibinder.erb.calls import integer
from multibinder.erb.refusal import Refusal
from multibinder.erb.formats import formatted, strict_float, strict_integer
from multibinder.erb.values import (Environment, Hash, Range, Regexp, RubyClass, RubyError, Symbol, class_name,
                                    from_python, inspect, is_number, symbol, to_python, to_s)
from multibinder.template.sink import OUTPUT_MAX

# What Ruby has everywhere and a template could mean by a bare word.
REFUSED = frozenset('''abort at_exit autoload binding block_given? caller catch eval exec exit exit! fail fork gets
lambda load local_variables loop open p pp print printf proc putc puts raise rand readline readlines require
require_relative select sleep spawn sprintf! srand syscall system test throw trap warn instance_variable_get send define_method
attr_accessor include extend concat capture render'''.split())

CLASSES = {
    'String': lambda value: isinstance(value, str),
    'Integer': lambda value: isinstance(value, int) and not isinstance(value, bool),
    'Fixnum': lambda value: isinstance(value, int) and not isinstance(value, bool),
    'Float': lambda value: isinstance(value, float),
    'Numeric': is_number,
    'Array': lambda value: isinstance(value, list),
    'Hash': lambda value: isinstance(value, Hash),
    'Symbol': lambda value: isinstance(value, Symbol),
    'Range': lambda value: isinstance(value, Range),
    'Regexp': lambda value: isinstance(value, Regexp),
    'NilClass': lambda value: value is None,
    'TrueClass': lambda value: value is True,
    'FalseClass': lambda value: value is False,
    'Enumerable': lambda value: isinstance(value, (list, Hash, Range)),
    'Comparable': lambda value: isinstance(value, str) or is_number(value),
    'Object': lambda value: True,
}


class Host(object):
    """The surroundings of one program. `write` takes the pieces of text."""

    def __init__(self, scope, sink):
        self.scope = scope
        self.size = 0
        self.pieces = sink.pieces
        self.constants = dict((name, RubyClass(name, test)) for name, test in CLASSES.items())
        self.constants['ENV'] = Environment(scope.env)
        self.ivars = {}
        for name, value in scope.values.items():
            self.ivars[name] = from_python(value)

    def write(self, piece):
        self.size += len(piece[0])
        if self.size > OUTPUT_MAX:
            raise RubyError('the rendered text is larger than {} characters'.format(OUTPUT_MAX))
        self.pieces.append(piece)

    def function(self, name, line):
        """Return the function of (arguments, block) that a bare name calls; Refusal for what Ruby has and
        is not here."""
        own = OWN.get(name)
        if own:
            return own
        if name in ('bind_tcp', 'bind_unix'):
            bind = self.scope.names[name]
            return lambda args, block: self._bind(bind, args)
        if name in self.scope.names and name not in ('env', 'ENV'):
            value = self.ivars[name] if name in self.scope.values else from_python(self.scope.names[name])
            return lambda args, block: _plain(name, value, args)
        if name == 'env':
            return lambda args, block: _plain(name, self.constants['ENV'], args)
        if name in REFUSED:
            raise Refusal("ruby's {} is not supported here".format(name), line)

        def missing(args, block):
            raise RubyError('nothing defines {}'.format(name))
        return missing

    @staticmethod
    def _bind(bind, args):
        options = {}
        if args and isinstance(args[-1], Hash):
            options = to_python(args[-1])
            args = args[:-1]
        try:
            return bind(*[to_python(arg) for arg in args], **_words(options))
        except TypeError as error:      # too few arguments, or too many
            raise RubyError(str(error).replace('Scope.', '')) from None


def _words(options):
    for name in options:
        if not isinstance(name, str):
            raise RubyError('the option {} is no name'.format(inspect(name)))
    return options


def _plain(name, value, args):
    if args:
        raise RubyError('{}: wrong number of arguments (given {}, expected 0)'.format(name, len(args)))
    return value


def _format(args, block):
    if not args or not isinstance(args[0], str):
        raise RubyError('format needs a String')
    return formatted(args[0], args[1:])


def _integer(args, block):
    _one('Integer', args)
    if isinstance(args[0], str):
        return strict_integer(args[0])
    if args[0] is None:
        raise RubyError("can't convert nil into Integer")
    return integer(args[0])


def _float(args, block):
    _one('Float', args)
    if isinstance(args[0], str):
        return strict_float(args[0])
    if not is_number(args[0]):
        raise RubyError("can't convert {} into Float".format('nil' if args[0] is None else class_name(args[0])))
    return float(args[0])


def _string(args, block):
    _one('String', args)
    return to_s(args[0])


def _array(args, block):
    from multibinder.erb.values import spread
    _one('Array', args)
    return spread(args[0])


def _one(name, args):
    if len(args) != 1:
        raise RubyError('{}: wrong number of arguments (given {}, expected 1)'.format(name, len(args)))


OWN = {'format': _format, 'sprintf': _format, 'Integer': _integer, 'Float': _float, 'String': _string, 'Array': _array}

__all__ = ['Host', 'symbol']
