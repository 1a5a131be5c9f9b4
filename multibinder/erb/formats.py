"""Ruby's format(), and numbers out of text where anything else in it is an error."""

import re

from multibinder.erb.calls import integer
from multibinder.erb.refusal import Refusal
from multibinder.erb.values import Hash, RubyError, Symbol, class_name, inspect, symbol, to_s

_FORMAT = re.compile(r'%([-+ 0#]*)(\d+|\*)?(?:\.(\d+))?(?:<(\w+)>|\{(\w+)\})?(.?)', re.S)


def formatted(template, args):
    """Return Ruby's format(template, *args)."""
    rest = list(args)

    def argument():
        if not rest:
            raise RubyError('too few arguments')
        return rest.pop(0)

    def one(found):
        flags, width, precision, named, braced, kind = found.groups()
        if kind == '%' and not (flags or width or precision or named or braced):
            return '%'
        if width == '*' or len(width or '') > 4 or len(precision or '') > 4:
            raise Refusal("ruby's format {!r} is not supported here".format(found.group()))
        if braced:
            return _padded(to_s(_named_argument(args, braced)), flags, width) + kind
        value = _named_argument(args, named) if named else None
        if kind in ('s', 'p') and kind:
            shown = (to_s if kind == 's' else inspect)(value if named else argument())
            return _padded(shown[:int(precision)] if precision else shown, flags, width)
        if kind in ('d', 'i', 'u', 'x', 'X', 'o', 'f', 'e', 'g') and kind:
            number = value if named else argument()
            number = _float_of(number) if kind in 'feg' else _integer_of(number)
            if number < 0 and kind in 'xXo' or number != number or number in (float('inf'), float('-inf')) or \
                    '#' in flags:
                raise Refusal("ruby's format {!r} of {} is not supported here".format(found.group(), to_s(number)))
            digits = '.' + precision if precision else ''
            return ('%' + flags + (width or '') + digits + kind.replace('u', 'd')) % number
        raise Refusal("ruby's format {!r} is not supported here".format(found.group()))
    return _FORMAT.sub(one, template)


def _padded(shown, flags, width):
    return shown.ljust(int(width or 0)) if '-' in flags else shown.rjust(int(width or 0))


def _named_argument(args, name):
    if len(args) != 1 or not isinstance(args[0], Hash):
        raise RubyError('one hash required')
    if not args[0].has(symbol(name)):
        raise RubyError('key<{}> not found'.format(name))
    return args[0].get(symbol(name))


def _integer_of(value):
    if isinstance(value, str):
        return strict_integer(value)
    if value is None:
        raise RubyError("can't convert nil into Integer")
    return int(value // 1) if isinstance(value, float) else integer(value)


def _float_of(value):
    if isinstance(value, str):
        return strict_float(value)
    if value is None:
        raise RubyError("can't convert nil into Float")
    if isinstance(value, (Symbol, list, Hash, bool)):
        raise RubyError("can't convert {} into Float".format(class_name(value)))
    return float(value)


def strict_integer(value):
    """Return Integer(value) of a str."""
    found = re.match(r'\s*([+-]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|[1-9]\d*(?:_\d+)*|0)\s*\Z', value)
    if not found:
        raise RubyError('invalid value for Integer(): ' + inspect(value))
    sign, digits = found.groups()
    digits = digits.replace('_', '')
    if re.match(r'0[0-7]+\Z', digits):
        number = int(digits, 8)
    else:
        number = int(digits, 0)
    return -number if sign == '-' else number


def strict_float(value):
    """Return Float(value) of a str."""
    if not re.match(r'\s*[+-]?\d+(?:_\d+)*(?:\.\d+(?:_\d+)*)?(?:[eE][+-]?\d+)?\s*\Z', value):
        raise RubyError('invalid value for Float(): ' + inspect(value))
    return float(value.replace('_', ''))
