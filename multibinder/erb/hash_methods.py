"""Methods of Hash that Array has not."""

from multibinder.erb.calls import method
from multibinder.erb.values import Hash, RubyError, equal, inspect, truth


@method(Hash, '[]', 1, 1)
def _get(program, value, args, block):
    return value.get(args[0])


@method(Hash, '[]= store', 2, 2)
def _set(program, value, args, block):
    value.set(args[0], args[1])
    return args[1]


@method(Hash, 'fetch', 1, 2, 'may')
def _fetch(program, value, args, block):
    if value.has(args[0]):
        return value.get(args[0])
    if block:
        return block(args[0])
    if len(args) > 1:
        return args[1]
    raise RubyError('key not found: ' + inspect(args[0]))


@method(Hash, 'key? has_key? include? member?', 1, 1)
def _has(program, value, args, block):
    return value.has(args[0])


@method(Hash, 'value? has_value?', 1, 1)
def _has_value(program, value, args, block):
    return any(equal(item, args[0]) for _, item in value.items())


@method(Hash, 'key', 1, 1)
def _key(program, value, args, block):
    for key, item in value.items():
        if equal(item, args[0]):
            return key
    return None


@method(Hash, 'keys')
def _keys(program, value, args, block):
    return [key for key, _ in value.items()]


@method(Hash, 'values')
def _values(program, value, args, block):
    return [item for _, item in value.items()]


@method(Hash, 'values_at', 0, None)
def _values_at(program, value, args, block):
    return [value.get(arg) for arg in args]


@method(Hash, 'size length', 0, 0)
def _size(program, value, args, block):
    return len(value.pairs)


@method(Hash, 'count', 0, 0, 'may')
def _count(program, value, args, block):
    if block is None:
        return len(value.pairs)
    return len([1 for key, item in value.items() if truth(block([key, item]))])


@method(Hash, 'empty?')
def _empty(program, value, args, block):
    return not value.pairs


@method(Hash, 'each_key', 0, 0, 'must')
def _each_key(program, value, args, block):
    for key, _ in value.items():
        block(key)
    return value


@method(Hash, 'each_value', 0, 0, 'must')
def _each_value(program, value, args, block):
    for _, item in value.items():
        block(item)
    return value


@method(Hash, 'select filter', 0, 0, 'must')
def _select(program, value, args, block):
    return Hash([(key, item) for key, item in value.items() if truth(block(key, item))])


@method(Hash, 'reject', 0, 0, 'must')
def _reject(program, value, args, block):
    return Hash([(key, item) for key, item in value.items() if not truth(block(key, item))])


@method(Hash, 'to_h to_hash')
def _itself(program, value, args, block):
    return value


@method(Hash, 'dup clone')
def _dup(program, value, args, block):
    return Hash(value.items())


@method(Hash, 'merge', 0, None)
def _merge(program, value, args, block):
    found = Hash(value.items())
    for other in args:
        if not isinstance(other, Hash):
            raise RubyError('no implicit conversion into Hash')
        for key, item in other.items():
            found.set(key, item)
    return found


@method(Hash, 'invert')
def _invert(program, value, args, block):
    return Hash([(item, key) for key, item in value.items()])


@method(Hash, 'delete', 1, 1)
def _delete(program, value, args, block):
    found = value.get(args[0])
    if value.has(args[0]):
        from multibinder.erb.values import key_of
        del value.pairs[key_of(args[0])]
    return found
