"""Methods of Array that the others of Enumerable have not."""

from multibinder.erb.calls import call, integer, method, text
from multibinder.erb.enumerable_methods import count_of
from multibinder.erb.string_methods import SIZE_MAX, sliced
from multibinder.erb.values import Hash, RubyError, equal, key_of, to_s, truth


@method(list, 'each_index', 0, 0, 'must')
def _each_index(program, value, args, block):
    for index in range(len(value)):
        block(index)
    return value


@method(list, 'reverse_each', 0, 0, 'must')
def _reverse_each(program, value, args, block):
    for item in reversed(list(value)):
        block(item)
    return value


@method(list, 'count', 0, 1, 'may')
def _count(program, value, args, block):
    if args:
        return len([item for item in value if equal(item, args[0])])
    return len([item for item in value if truth(block(item))]) if block else len(value)


@method(list, 'reverse')
def _reverse(program, value, args, block):
    return value[::-1]


@method(list, 'uniq', 0, 0, 'may')
def _uniq(program, value, args, block):
    seen = set()
    found = []
    for item in value:
        key = key_of(block(item) if block else item)
        if key not in seen:
            seen.add(key)
            found.append(item)
    return found


# -- parts


@method(list, '[] slice', 1, 2)
def _slice(program, value, args, block):
    return sliced(value, args)


@method(list, '[]=', 2, 2)
def _store(program, value, args, block):
    at = integer(args[0])
    at = at + len(value) if at < 0 else at
    if at < 0:
        raise RubyError('index {} too small for array'.format(integer(args[0])))
    if at > len(value) + 100000:
        raise RubyError('index {} too big'.format(at))
    value.extend([None] * (at + 1 - len(value)))
    value[at] = args[1]
    return args[1]


@method(list, 'fetch', 1, 2, 'may')
def _fetch(program, value, args, block):
    wanted = integer(args[0])
    at = wanted + len(value) if wanted < 0 else wanted
    if 0 <= at < len(value):
        return value[at]
    if block:
        return block(args[0])
    if len(args) > 1:
        return args[1]
    raise RubyError('index {} outside of array bounds: {}...{}'.format(wanted, -len(value), len(value)))


@method((list, Hash), 'dig', 1, None)
def _dig(program, value, args, block):
    found = call(program, value, '[]', [args[0]], None)
    if len(args) == 1 or found is None:
        return found
    return call(program, found, 'dig', list(args[1:]), None)


@method(list, 'first', 0, 1)
def _first(program, value, args, block):
    if args:
        return value[:count_of(args[0])]
    return value[0] if value else None


@method(list, 'last', 0, 1)
def _last(program, value, args, block):
    if args:
        count = count_of(args[0])
        return value[-count:] if count else []
    return value[-1] if value else None


@method(list, 'values_at', 0, None)
def _values_at(program, value, args, block):
    return [sliced(value, [arg]) for arg in args]


@method(list, 'index find_index', 0, 1, 'may')
def _index(program, value, args, block):
    for at, item in enumerate(value):
        if equal(item, args[0]) if args else truth(block(item)):
            return at
    return None


@method(list, 'include? member?', 1, 1)
def _include(program, value, args, block):
    return any(equal(item, args[0]) for item in value)


@method(list, 'size length')
def _size(program, value, args, block):
    return len(value)


@method(list, 'empty?')
def _empty(program, value, args, block):
    return not value


@method(list, 'to_h')
def _to_h(program, value, args, block):
    for item in value:
        if not isinstance(item, list) or len(item) != 2:
            raise RubyError('wrong element type in an array that is to be a hash')
    return Hash([(key, item) for key, item in value])


@method(list, 'join', 0, 1)
def _join(program, value, args, block):
    between = text(args[0]) if args and args[0] is not None else ''
    return between.join(_joined(value))


def _joined(value):
    found = []
    for item in value:
        if isinstance(item, list):
            inner = _joined(item)
            found.extend(inner if inner else [''])
        else:
            found.append(to_s(item))
    return found


@method(list, 'compact')
def _compact(program, value, args, block):
    return [item for item in value if item is not None]


@method(list, 'flatten', 0, 1)
def _flatten(program, value, args, block):
    return _flat(value, integer(args[0]) if args and args[0] is not None else -1)


def _flat(value, depth):
    found = []
    for item in value:
        if isinstance(item, list) and depth:
            found.extend(_flat(item, depth - 1))
        else:
            found.append(item)
    return found


@method(list, 'zip', 0, None)
def _zip(program, value, args, block):
    return [[item] + [sliced(_list(arg), [at]) for arg in args] for at, item in enumerate(value)]


def _list(value):
    if not isinstance(value, list):
        raise RubyError('wrong argument type (must be an Array)')
    return value


# -- operators and changes


@method(list, '+', 1, 1)
def _add(program, value, args, block):
    return value + _list(args[0])


@method(list, 'concat', 1, 1)
def _concat(program, value, args, block):
    value.extend(_list(args[0]))
    return value


@method(list, '- difference', 1, 1)
def _subtract(program, value, args, block):
    gone = set(key_of(item) for item in _list(args[0]))
    return [item for item in value if key_of(item) not in gone]


@method(list, '& intersection', 1, 1)
def _intersect(program, value, args, block):
    kept = set(key_of(item) for item in _list(args[0]))
    return _uniq(program, [item for item in value if key_of(item) in kept], (), None)


@method(list, '| union', 1, 1)
def _unite(program, value, args, block):
    return _uniq(program, value + _list(args[0]), (), None)


@method(list, '*', 1, 1)
def _multiply(program, value, args, block):
    if isinstance(args[0], str):
        return _join(program, value, args, None)
    count = integer(args[0])
    if count < 0 or count * len(value) > SIZE_MAX:
        raise RubyError('argument too big' if count > 0 else 'argument must be non-negative')
    return value * count


@method(list, '<<', 1, 1)
def _append(program, value, args, block):
    value.append(args[0])
    return value


@method(list, 'push append', 0, None)
def _push(program, value, args, block):
    value.extend(args)
    return value


@method(list, 'unshift prepend', 0, None)
def _unshift(program, value, args, block):
    value[0:0] = args
    return value


@method(list, 'pop')
def _pop(program, value, args, block):
    return value.pop() if value else None


@method(list, 'shift')
def _shift(program, value, args, block):
    return value.pop(0) if value else None


@method((list, str), 'dup clone')
def _dup(program, value, args, block):
    return value[:]
