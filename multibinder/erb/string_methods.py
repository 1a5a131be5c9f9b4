"""Methods of String. Ruby's strings can be changed in place, these cannot: what would is refused."""

import re

from multibinder.erb.calls import integer, method, text
from multibinder.erb.formats import formatted
from multibinder.erb.refusal import Refusal
from multibinder.erb.values import Range, Regexp, RubyError, bytes_of, class_name, symbol

BLANKS = ' \t\n\v\f\r'
SIZE_MAX = 64 * 1024 * 1024     # characters: as the rendered text

_INTEGER = re.compile(r'[ \t\n\v\f\r]*([+-]?\d+(?:_\d+)*)')
_FLOAT = re.compile(r'[ \t\n\v\f\r]*([+-]?(?:\d+(?:_\d+)*(?:\.\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:[eE][+-]?\d+)?)')


@method(str, 'to_i', 0, 1)
def _to_i(program, value, args, block):
    base = integer(args[0]) if args else 10
    if base == 10:
        found = _INTEGER.match(value)
        return int(found.group(1).replace('_', '')) if found else 0
    if not 2 <= base <= 36:
        raise RubyError('invalid radix {}'.format(base))
    digits = '0123456789abcdefghijklmnopqrstuvwxyz'[:base]
    prefix = {16: '(?:0x)?', 8: '(?:0o?)?', 2: '(?:0b)?'}.get(base, '')
    found = re.match('[ \t\n\v\f\r]*([+-]?)' + prefix + '([' + digits + ']+(?:_[' + digits + ']+)*)', value, re.I)
    return int(found.group(1) + found.group(2).replace('_', ''), base) if found else 0


@method(str, 'to_f')
def _to_f(program, value, args, block):
    found = _FLOAT.match(value)
    return float(found.group(1).replace('_', '')) if found else 0.0


@method(str, 'to_sym intern')
def _to_sym(program, value, args, block):
    return symbol(value)


@method(str, 'to_str -@ +@')
def _itself(program, value, args, block):
    return value


@method(str, '+', 1, 1)
def _add(program, value, args, block):
    return value + text(args[0])


@method(str, '*', 1, 1)
def _repeat(program, value, args, block):
    count = integer(args[0])
    if count < 0:
        raise RubyError('negative argument')
    if count * len(value) > SIZE_MAX:
        raise RubyError('argument too big')
    return value * count


@method(str, '<<', 1, 1)
def _append(program, value, args, block):
    raise Refusal("ruby's << that changes a string is not supported here: write +=")


@method(str, '%', 1, 1)
def _format(program, value, args, block):
    return formatted(value, args[0] if isinstance(args[0], list) else [args[0]])


@method(str, 'size length')
def _size(program, value, args, block):
    return len(value)


@method(str, 'bytesize')
def _bytesize(program, value, args, block):
    return len(bytes_of(value))


@method(str, 'empty?')
def _empty(program, value, args, block):
    return not value


@method(str, 'include?', 1, 1)
def _include(program, value, args, block):
    return text(args[0]) in value


@method(str, 'start_with?', 0, None)
def _start_with(program, value, args, block):
    for arg in args:
        if isinstance(arg, Regexp):
            if arg.compiled.match(value):
                return True
        elif value.startswith(text(arg)):
            return True
    return False


@method(str, 'end_with?', 0, None)
def _end_with(program, value, args, block):
    return any([value.endswith(text(arg)) for arg in args])


@method(str, 'match?', 1, 1)
def _matches(program, value, args, block):
    if not isinstance(args[0], Regexp):
        raise Refusal("ruby's .match? with a {} is not supported here".format(class_name(args[0])))
    return args[0].compiled.search(value) is not None


@method(str, 'upcase')
def _upcase(program, value, args, block):
    return value.upper()


@method(str, 'downcase')
def _downcase(program, value, args, block):
    return value.lower()


@method(str, 'capitalize')
def _capitalize(program, value, args, block):
    return value[:1].upper() + value[1:].lower()


@method(str, 'swapcase')
def _swapcase(program, value, args, block):
    return value.swapcase()


@method(str, 'strip')
def _strip(program, value, args, block):
    return value.lstrip(BLANKS + '\0').rstrip(BLANKS + '\0')


@method(str, 'lstrip')
def _lstrip(program, value, args, block):
    return value.lstrip(BLANKS + '\0')


@method(str, 'rstrip')
def _rstrip(program, value, args, block):
    return value.rstrip(BLANKS + '\0')


@method(str, 'chomp', 0, 1)
def _chomp(program, value, args, block):
    if args:
        ending = text(args[0])
        if ending not in ('', '\n'):
            return value[:-len(ending)] if value.endswith(ending) else value
        if not ending:
            while value.endswith('\n'):
                value = value[:-2] if value.endswith('\r\n') else value[:-1]
            return value
    for ending in ('\r\n', '\n', '\r'):
        if value.endswith(ending):
            return value[:-len(ending)]
    return value


@method(str, 'chop')
def _chop(program, value, args, block):
    return value[:-2] if value.endswith('\r\n') else value[:-1]


@method(str, 'reverse')
def _reverse(program, value, args, block):
    return value[::-1]


@method(str, 'chars')
def _chars(program, value, args, block):
    return list(value)


@method(str, 'lines')
def _lines(program, value, args, block):
    return re.findall(r'[^\n]*\n|[^\n]+', value)


@method(str, 'each_line', 0, 0, 'must')
def _each_line(program, value, args, block):
    for line in _lines(program, value, (), None):
        block(line)
    return value


@method(str, 'each_char', 0, 0, 'must')
def _each_char(program, value, args, block):
    for sign in value:
        block(sign)
    return value


@method(str, 'ord')
def _ord(program, value, args, block):
    if not value:
        raise RubyError('empty string')
    return ord(value[0])


@method(str, 'hex')
def _hex(program, value, args, block):
    return _to_i(program, value, [16], None)


def _justified(name, place):
    @method(str, name, 1, 2)
    def justify(program, value, args, block):
        pad = text(args[1]) if len(args) > 1 else ' '
        if not pad:
            raise RubyError('zero width padding')
        missing = integer(args[0]) - len(value)
        if missing <= 0:
            return value
        if missing > SIZE_MAX:
            raise RubyError('argument too big')
        return place(value, lambda count: (pad * (count // len(pad) + 1))[:count], missing)


_justified('ljust', lambda value, fill, missing: value + fill(missing))
_justified('rjust', lambda value, fill, missing: fill(missing) + value)
_justified('center', lambda value, fill, missing: fill(missing // 2) + value + fill(missing - missing // 2))


@method(str, 'tr', 2, 2)
def _tr(program, value, args, block):
    source, target = text(args[0]), text(args[1])
    if source[:1] == '^' and len(source) > 1 or '\\' in source + target:
        raise Refusal("ruby's .tr({!r}) is not supported here".format(source))
    source, target = _spelt_out(source), _spelt_out(target)
    mapping = {}
    for index, sign in enumerate(source):
        mapping.setdefault(ord(sign), (target[index] if index < len(target) else target[-1]) if target else None)
    return value.translate(mapping)


@method(str, 'delete', 1, 1)
def _delete(program, value, args, block):
    return _tr(program, value, [args[0], ''], None)


def _spelt_out(signs):
    """Return the signs of a-z, spelt out."""
    found = []
    for first, last in re.findall(r'(.)(?:-(.))?', signs, re.S):
        if last and last < first:
            raise RubyError('invalid range "{}-{}" in string transliteration'.format(first, last))
        found.extend(chr(code) for code in range(ord(first), ord(last or first) + 1))
    return found


@method(str, 'squeeze')
def _squeeze(program, value, args, block):
    return re.sub(r'(.)\1+', r'\1', value, flags=re.S)


@method(str, 'count', 1, 1)
def _count(program, value, args, block):
    if len(text(args[0])) != 1:
        raise Refusal("ruby's .count of several signs is not supported here")
    return value.count(args[0])


@method(str, 'index', 1, 1)
def _index(program, value, args, block):
    if isinstance(args[0], Regexp):
        found = args[0].compiled.search(value)
        return found.start() if found else None
    at = value.find(text(args[0]))
    return None if at < 0 else at


@method(str, 'rindex', 1, 1)
def _rindex(program, value, args, block):
    at = value.rfind(text(args[0]))
    return None if at < 0 else at


@method(str, 'delete_prefix', 1, 1)
def _delete_prefix(program, value, args, block):
    prefix = text(args[0])
    return value[len(prefix):] if value.startswith(prefix) else value


@method(str, 'delete_suffix', 1, 1)
def _delete_suffix(program, value, args, block):
    suffix = text(args[0])
    return value[:-len(suffix)] if suffix and value.endswith(suffix) else value


@method(str, '[] slice', 1, 2)
def _slice(program, value, args, block):
    key = args[0]
    if isinstance(key, Regexp):
        found = key.compiled.search(value)
        group = integer(args[1]) if len(args) > 1 else 0
        return found.group(group) if found and group <= found.re.groups else None
    if isinstance(key, str):
        return key if key in value else None
    return sliced(value, args)


def sliced(value, args):
    """Return value[i], value[i, count] or value[range] of a str or list, None outside."""
    size = len(value)
    if isinstance(args[0], Range):
        start, last = integer(args[0].first), integer(args[0].last)
        start = start + size if start < 0 else start
        last = last + size if last < 0 else last
        count = last - start + (0 if args[0].exclusive else 1)
    elif len(args) == 2:
        start, count = integer(args[0]), integer(args[1])
        start = start + size if start < 0 else start
        if count < 0:
            return None
    else:
        at = integer(args[0])
        at = at + size if at < 0 else at
        return value[at] if 0 <= at < size else None
    if not 0 <= start <= size:
        return None
    return value[start:start + max(count, 0)]
