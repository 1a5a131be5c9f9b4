"""Methods of Enumerable that Array, Hash and Range have in common."""

import functools
import math

from multibinder.erb.calls import call, integer, method
from multibinder.erb.refusal import Refusal
from multibinder.erb.values import Hash, Range, RubyError, case_equal, inspect, is_number, ordered, spread, truth

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


@method(EACH, 'sum', 0, 1, 'may')
def _sum(program, value, args, block):
    total = args[0] if args else 0
    items = [block(item) if block else item for item in _items(value)]
    if any(isinstance(item, float) for item in items):
        if all(is_number(item) for item in items) and is_number(total):
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


@method(Hash, 'first', 0, 1)
def _first_pair(program, value, args, block):
    items = _items(value)
    return items[:count_of(args[0])] if args else items[0] if items else None


@method(EACH, 'take', 1, 1)
def _take(program, value, args, block):
    return list(_items(value))[:count_of(args[0])]


@method(EACH, 'drop', 1, 1)
def _drop(program, value, args, block):
    return list(_items(value))[count_of(args[0]):]


def count_of(value):
    count = integer(value)
    if count < 0:
        raise RubyError('negative array size')
    return count


@method(EACH, 'to_a entries')
def _to_a(program, value, args, block):
    return value if isinstance(value, list) else list(_items(value))
