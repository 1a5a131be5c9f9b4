"""Ruby's values in Python: which stands for which, and what is common to all of them.

nil, true, false are None, True, False; Integer, Float and String are int, float and str; Array is list.
Symbol, Hash and Range are the classes below. Responsible for truth, equality, order, to_s and inspect.
inspect is that of Ruby 1.9 to 3.3 ({:a=>1}); 3.4 writes {a: 1}, which no template of the gem's time can
have meant.
"""

import collections
import re
import unicodedata

from multibinder.erb.refusal import Refusal

FIXED_BELOW = 1e15


class Symbol(object):
    """A symbol; equal to itself only, so each name has one: use `symbol`."""

    __slots__ = ('name',)

    def __init__(self, name):
        self.name = name


_SYMBOLS = {}


def symbol(name):
    """Return the Symbol of a name."""
    found = _SYMBOLS.get(name)
    if found is None:
        found = _SYMBOLS[name] = Symbol(name)
    return found


class Hash(object):
    """A hash: keeps the order of its keys, and tells 1, 1.0 and true apart as keys."""

    __slots__ = ('pairs',)

    def __init__(self, pairs=()):
        self.pairs = collections.OrderedDict()      # by key_of(key): (key, value)
        for key, value in pairs:
            self.pairs[key_of(key)] = (key, value)

    def get(self, key, default=None):
        found = self.pairs.get(key_of(key))
        return default if found is None else found[1]

    def has(self, key):
        return key_of(key) in self.pairs

    def set(self, key, value):
        known = self.pairs.get(key_of(key))
        self.pairs[key_of(key)] = (key if known is None else known[0], value)

    def items(self):
        return list(self.pairs.values())


class Range(object):
    """A range of its two ends; `exclusive` leaves out the last."""

    __slots__ = ('first', 'last', 'exclusive')

    def __init__(self, first, last, exclusive):
        self.first = first
        self.last = last
        self.exclusive = exclusive

    def numbers(self):
        """Return a Python range. Raises RubyError for what has no next value."""
        if isinstance(self.first, int) and not isinstance(self.first, bool):
            if is_number(self.last):
                last = int(self.last // 1)
                if not self.exclusive or last != self.last:
                    last += 1
                return range(self.first, last)
        if isinstance(self.first, str):
            raise Refusal("ruby's range of strings is not supported here")
        raise RubyError("can't iterate from " + class_name(self.first))


class Environment(object):
    """ENV: reads of the environment. `names` is a mapping of str."""

    __slots__ = ('names',)

    def __init__(self, names):
        self.names = names


class Regexp(object):
    """A regular expression: as it was written, and Python's."""

    __slots__ = ('source', 'flags', 'compiled')

    def __init__(self, source, flags, compiled):
        self.source = source
        self.flags = flags
        self.compiled = compiled


class RubyClass(object):
    """A class that is named: only to be asked about, by is_a?, case and ===."""

    __slots__ = ('name', 'test')

    def __init__(self, name, test):
        self.name = name
        self.test = test


class RubyError(Exception):
    """What Ruby itself would have raised."""


def class_name(value):
    """Return the name of a value's class in Ruby."""
    kind = type(value)
    if kind is bool:
        return 'TrueClass' if value else 'FalseClass'
    names = {type(None): 'NilClass', int: 'Integer', float: 'Float', str: 'String', list: 'Array',
             Regexp: 'Regexp', Environment: 'ENV', RubyClass: 'Class'}
    return names.get(kind) or kind.__name__


def described(value):
    """Return how Ruby names a value in its messages."""
    if value is None or value is True or value is False:
        return inspect(value)
    if isinstance(value, str):
        return 'String ' + inspect(value if len(value) < 40 else value[:40] + '...')
    return class_name(value)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def truth(value):
    """Everything but nil and false is true."""
    return value is not None and value is not False


def key_of(value):
    """Return what is equal for two values exactly where Ruby's eql? says so, and can be hashed."""
    kind = type(value)
    if kind is str or kind is Symbol:
        return value
    if kind is list:
        return (list,) + tuple([key_of(item) for item in value])
    if kind is Hash:
        return (Hash, frozenset((key, key_of(item[1])) for key, item in value.pairs.items()))
    if kind is Range:
        return (Range, key_of(value.first), key_of(value.last), value.exclusive)
    if kind is Regexp:
        return (Regexp, value.source, value.flags)
    return (kind, value)


def equal(one, other):
    """Ruby's ==."""
    if is_number(one) and is_number(other):
        return one == other
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(equal(a, b) for a, b in zip(one, other))
    if isinstance(one, Hash):
        if len(one.pairs) != len(other.pairs):
            return False
        return all(key in other.pairs and equal(item[1], other.pairs[key][1]) for key, item in one.pairs.items())
    if isinstance(one, (Range, Regexp)):
        return key_of(one) == key_of(other)
    return one == other


def compare(one, other):
    """Ruby's <=>: -1, 0, 1, or None where there is no order."""
    if is_number(one) and is_number(other):
        if one != one or other != other:
            return None
        return (one > other) - (one < other)
    if isinstance(one, str) and isinstance(other, str):
        first, second = bytes_of(one), bytes_of(other)
        return (first > second) - (first < second)
    if isinstance(one, Symbol) and isinstance(other, Symbol):
        return compare(one.name, other.name)
    if isinstance(one, list) and isinstance(other, list):
        for a, b in zip(one, other):
            found = compare(a, b)
            if found != 0:
                return found
        return (len(one) > len(other)) - (len(one) < len(other))
    return 0 if equal(one, other) else None


def ordered(one, other):
    """Return compare(one, other). Raises RubyError where there is no order."""
    found = compare(one, other)
    if found is None:
        shown = inspect(other) if other is None or isinstance(other, (bool, float, int)) else class_name(other)
        raise RubyError('comparison of {} with {} failed'.format(class_name(one), shown))
    return found


def case_equal(pattern, value):
    """Ruby's ===, which `when` uses."""
    if isinstance(pattern, RubyClass):
        return pattern.test(value)
    if isinstance(pattern, Range):
        return covers(pattern, value)
    if isinstance(pattern, Regexp):
        text = value.name if isinstance(value, Symbol) else value
        return isinstance(text, str) and pattern.compiled.search(text) is not None
    return equal(pattern, value)


def covers(limits, value):
    """Tell whether a value lies in a Range."""
    low = compare(limits.first, value)
    high = compare(value, limits.last)
    if low is None or high is None:
        return False
    return low <= 0 and (high < 0 if limits.exclusive else high <= 0)


def bytes_of(text):
    """Return the bytes of a str; those that were no UTF-8 as they were."""
    return text.encode('utf-8', 'surrogateescape')


def to_s(value):
    """Ruby's to_s, which <%= %> and interpolation use."""
    kind = type(value)
    if kind is str:
        return value
    if value is None:
        return ''
    if kind is Symbol:
        return value.name
    if kind is Range:
        return to_s(value.first) + ('...' if value.exclusive else '..') + to_s(value.last)
    if kind is Regexp:
        raise Refusal("ruby's text of a regular expression is not supported here")
    return inspect(value)


def inspect(value):
    """Ruby's inspect: what arrays and hashes show of what is in them."""
    kind = type(value)
    if value is None:
        return 'nil'
    if kind is bool:
        return 'true' if value else 'false'
    if kind is str:
        return _quoted(value)
    if kind is int:
        return str(value)
    if kind is float:
        return _float(value)
    if kind is list:
        return '[' + ', '.join([inspect(item) for item in value]) + ']'
    if kind is Hash:
        return '{' + ', '.join([inspect(key) + '=>' + inspect(item) for key, item in value.items()]) + '}'
    if kind is Symbol:
        return ':' + (value.name if _PLAIN_SYMBOL.match(value.name) else _quoted(value.name))
    if kind is Range:
        return inspect(value.first) + ('...' if value.exclusive else '..') + inspect(value.last)
    if kind is Regexp:
        return '/' + value.source + '/' + value.flags
    if kind is RubyClass:
        return value.name
    raise Refusal("ruby's text of {} is not supported here".format('ENV' if kind is Environment else class_name(value)))


_PLAIN_SYMBOL = re.compile(r'(?:[^\W\d]\w*[?!=]?|\[\]=?|[-+]@?|\*\*?|/|%|<=>|===?|=~|!=?|<=?|>=?|<<|>>|!~|~|\^|&|\|)\Z')
_ESCAPES = {'\n': '\\n', '\t': '\\t', '\r': '\\r', '\x1b': '\\e', '\a': '\\a', '\b': '\\b', '\f': '\\f',
            '\v': '\\v', '"': '\\"', '\\': '\\\\'}


def _quoted(text):
    shown = []
    for index, sign in enumerate(text):
        if sign in _ESCAPES:
            shown.append(_ESCAPES[sign])
        elif sign == '#' and text[index + 1:index + 2] in ('{', '@', '$') and index + 1 < len(text):
            shown.append('\\#')
        elif '\udc80' <= sign <= '\udcff':
            shown.append('\\x%02X' % (ord(sign) - 0xdc00))
        elif unicodedata.category(sign) in ('Cc', 'Cn', 'Cs', 'Zl', 'Zp'):
            shown.append('\\u{%X}' % ord(sign) if ord(sign) > 0xffff else '\\u%04X' % ord(sign))
        else:
            shown.append(sign)
    return '"' + ''.join(shown) + '"'


def _float(number):
    if number != number:
        return 'NaN'
    if number in (float('inf'), float('-inf')):
        return 'Infinity' if number > 0 else '-Infinity'
    text = repr(number)
    if 'e' in text:
        return text if '.' in text else text.replace('e', '.0e')
    if abs(number) >= FIXED_BELOW:      # Python goes over to an exponent one digit later
        sign, digits = text[:text[0] == '-'], text.lstrip('-')
        exponent = digits.index('.') - 1
        digits = digits.replace('.', '').rstrip('0')
        return '{}{}.{}e+{}'.format(sign, digits[0], digits[1:] or '0', exponent)
    return text


def from_python(value):
    """Return what a value from outside (JSON, YAML, the scope) is in Ruby."""
    if isinstance(value, dict):
        return Hash([(from_python(key), from_python(item)) for key, item in value.items()])
    if isinstance(value, (list, tuple)):
        return [from_python(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)       # a date, out of YAML


def to_python(value):
    """Return what a value of Ruby is for the functions of the scope."""
    if isinstance(value, Symbol):
        return value.name
    if isinstance(value, list):
        return [to_python(item) for item in value]
    if isinstance(value, Hash):
        return dict((to_python(key), to_python(item)) for key, item in value.items())
    return value


def spread(value):
    """Return the list that *value gives."""
    if isinstance(value, list):
        return value
    if value is None:
        return []
    if isinstance(value, Hash):
        return [[key, item] for key, item in value.items()]
    if isinstance(value, Range):
        return list(value.numbers())
    return [value]
