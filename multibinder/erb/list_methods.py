"""Methods of Array, and those of Enumerable that Array, Hash and Range have in common."""

import functools

from multibinder.erb.calls import call, integer, method, text
from multibinder.erb.refusal import Refusal
from multibinder.erb.string_methods import SIZE_MAX, sliced
from multibinder.erb.values import (Hash, Range, RubyError, case_equal, equal, inspect, is_number, key_of, ordered,
                                    spread, to_s, truth)

EACH = (list, Hash, Range)


def _items(value):
    """Return what .each gives, one by one: of a hash its pairs."""
    if isinstance(value, list):
        return value
    return spread(value)


@method((list, Range), 'each', 0, 0, 'must')
def _each(program, value, args, block):
    for item in value if isinstance(value, list) else value.numbers():
        block(item)
    return value


@method(Hash, 'each each_pair', 0, 0, 'must')
def _each_pair(program, value, args, block):
    for key, item in value.items():
        block([key, item])
    return value


@method(EACH, 'each_with_index', 0, 0, 'may')
def _each_with_index(program, value, args, block):
    if block is None:
        raise Refusal("ruby's .each_with_index without a block is not supported here")
    for index, item in enumerate(_items(value)):
        block(item, index)
    return value


@method(EACH, 'each_slice', 1, 1, 'must')
def _each_slice(program, value, args, block):
    count = integer(args[0])
    if count <= 0:
        raise RubyError('invalid slice size')
    items = list(_items(value))
    for start in range(0, len(items), count):
        block(items[start:start + count])
    return value


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


@method(EACH, 'map collect', 0, 0, 'must')
def _map(program, value, args, block):
    return [block(item) for item in _items(value)]


@method(EACH, 'flat_map', 0, 0, 'must')
def _flat_map(program, value, args, block):
    found = []
    for item in _items(value):
        result = block(item)
        found.extend(result if isinstance(result, list) else [result])
    return found


@method((list, Range), 'select filter', 0, 0, 'must')
def _select(program, value, args, block):
    return [item for item in _items(value) if truth(block(item))]


@method((list, Range), 'reject', 0, 0, 'must')
def _reject(program, value, args, block):
    return [item for item in _items(value) if not truth(block(item))]


@method(EACH, 'find detect', 0, 0, 'must')
def _find(program, value, args, block):
    for item in _items(value):
        if truth(block(item)):
            return item
    return None


@method(EACH, 'partition', 0, 0, 'must')
def _partition(program, value, args, block):
    yes, no = [], []
    for item in _items(value):
        (yes if truth(block(item)) else no).append(item)
    return [yes, no]


@method(EACH, 'group_by', 0, 0, 'must')
def _group_by(program, value, args, block):
    found = Hash()
    for item in _items(value):
        key = block(item)
        if not found.has(key):
            found.set(key, [])
        found.get(key).append(item)
    return found


@method(EACH, 'inject reduce', 0, 1, 'must')
def _inject(program, value, args, block):
    items = list(_items(value))
    if args:
        total = args[0]
    elif items:
        total = items.pop(0)
    else:
        return None
    for item in items:
        total = block(total, item)
    return total


@method(EACH, 'each_with_object', 1, 1, 'must')
def _each_with_object(program, value, args, block):
    for item in _items(value):
        block(item, args[0])
    return args[0]


def _asking(names, answer):
    @method(EACH, names, 0, 1, 'may')
    def ask(program, value, args, block):
        if args:
            results = [case_equal(args[0], item) for item in _items(value)]
        elif block:
            results = (truth(block(item)) for item in _items(value))
        else:
            results = [truth(item) for item in _items(value)]
        return answer(results)


_asking('any?', any)
_asking('all?', all)
_asking('none?', lambda results: not any(results))


@method(list, 'count', 0, 1, 'may')
def _count(program, value, args, block):
    if args:
        return len([item for item in value if equal(item, args[0])])
    return len([item for item in value if truth(block(item))]) if block else len(value)


@method(EACH, 'sum', 0, 1, 'may')
def _sum(program, value, args, block):
    total = args[0] if args else 0
    items = [block(item) if block else item for item in _items(value)]
    if any(isinstance(item, float) for item in items):
        if all(is_number(item) for item in items) and is_number(total):
            import math
            return math.fsum([total] + items)   # Ruby compensates, too
    for item in items:
        total = call(program, total, '+', [item], None)
    return total


# -- order

@method(EACH, 'sort', 0, 0, 'may')
def _sort(program, value, args, block):
    items = list(_items(value))
    if block is None:
        return sorted(items, key=functools.cmp_to_key(ordered))

    def by_block(one, other):
        found = block(one, other)
        if not is_number(found):
            raise RubyError('comparison of {} with {} failed'.format(inspect(one), inspect(other)))
        return found
    return sorted(items, key=functools.cmp_to_key(by_block))


@method(EACH, 'sort_by', 0, 0, 'must')
def _sort_by(program, value, args, block):
    keyed = [(block(item), item) for item in _items(value)]
    return [item for _, item in sorted(keyed, key=functools.cmp_to_key(lambda a, b: ordered(a[0], b[0])))]


@method((list, Hash), 'min', 0, 0)
def _min(program, value, args, block):
    items = _sort(program, value, (), None)
    return items[0] if items else None


@method((list, Hash), 'max', 0, 0)
def _max(program, value, args, block):
    found = None
    for index, item in enumerate(_items(value)):
        if not index or ordered(item, found) > 0:
            found = item
    return found


@method(EACH, 'min_by', 0, 0, 'must')
def _min_by(program, value, args, block):
    items = _sort_by(program, value, (), block)
    return items[0] if items else None


@method(EACH, 'max_by', 0, 0, 'must')
def _max_by(program, value, args, block):
    best = None
    for item in _items(value):
        key = block(item)
        if best is None or ordered(key, best[0]) > 0:
            best = (key, item)
    return best[1] if best else None


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
        return value[:_count_of(args[0])]
    return value[0] if value else None


@method(Hash, 'first', 0, 1)
def _first_pair(program, value, args, block):
    return _first(program, _items(value), args, None)


@method(list, 'last', 0, 1)
def _last(program, value, args, block):
    if args:
        count = _count_of(args[0])
        return value[-count:] if count else []
    return value[-1] if value else None


@method(EACH, 'take', 1, 1)
def _take(program, value, args, block):
    return list(_items(value))[:_count_of(args[0])]


@method(EACH, 'drop', 1, 1)
def _drop(program, value, args, block):
    return list(_items(value))[_count_of(args[0]):]


def _count_of(value):
    count = integer(value)
    if count < 0:
        raise RubyError('negative array size')
    return count


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


@method(EACH, 'to_a entries')
def _to_a(program, value, args, block):
    return value if isinstance(value, list) else list(_items(value))


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
