"""Methods that every value has, and those of nil, true, false, Symbol, Regexp, Range and ENV."""

from multibinder.erb.calls import TABLES, integer, method, text
from multibinder.erb.refusal import Refusal
from multibinder.erb.values import (Environment, Hash, Range, Regexp, RubyClass, RubyError, Symbol, case_equal,
                                    class_name, compare, covers, equal, inspect, key_of, ordered, symbol, to_s)

EVERY = tuple(TABLES)


@method(EVERY, 'to_s')
def _to_s(program, value, args, block):
    return to_s(value)


@method(EVERY, 'inspect')
def _inspect(program, value, args, block):
    return inspect(value)


@method(EVERY, '==', 1, 1)
def _equal(program, value, args, block):
    return equal(value, args[0])


@method(EVERY, 'eql?', 1, 1)
def _same(program, value, args, block):
    return key_of(value) == key_of(args[0])


@method(EVERY, '===', 1, 1)
def _case_equal(program, value, args, block):
    return case_equal(value, args[0])


@method(EVERY, '<=>', 1, 1)
def _compare(program, value, args, block):
    return compare(value, args[0])


@method(EVERY, 'nil?')
def _is_nil(program, value, args, block):
    return value is None


@method(EVERY, 'is_a? kind_of? instance_of?', 1, 1)
def _is_a(program, value, args, block):
    if not isinstance(args[0], RubyClass):
        raise RubyError('class or module required')
    return args[0].test(value)


@method(EVERY, 'freeze')
def _freeze(program, value, args, block):
    return value


@method(EVERY, 'frozen?')
def _frozen(program, value, args, block):
    raise Refusal("ruby's .frozen? is not supported here")


@method(EVERY, 'respond_to?', 1, 1)
def _respond_to(program, value, args, block):
    name = args[0].name if isinstance(args[0], Symbol) else text(args[0])
    return name in TABLES[type(value)]


@method((type(None),), 'to_a')
def _nil_to_a(program, value, args, block):
    return []


@method((type(None),), 'to_i')
def _nil_to_i(program, value, args, block):
    return 0


@method((type(None),), 'to_f')
def _nil_to_f(program, value, args, block):
    return 0.0


@method((type(None),), 'to_h')
def _nil_to_h(program, value, args, block):
    return Hash()


@method((bool, type(None)), '&', 1, 1)
def _both(program, value, args, block):
    return bool(value) and args[0] is not None and args[0] is not False


@method((bool, type(None)), '|', 1, 1)
def _either(program, value, args, block):
    return bool(value) or args[0] is not None and args[0] is not False


@method(Symbol, 'to_sym')
def _symbol_itself(program, value, args, block):
    return value


@method(Symbol, 'size length')
def _symbol_size(program, value, args, block):
    return len(value.name)


@method(Symbol, 'empty?')
def _symbol_empty(program, value, args, block):
    return not value.name


@method(Symbol, 'upcase')
def _symbol_upcase(program, value, args, block):
    return symbol(value.name.upper())


@method(Symbol, 'downcase')
def _symbol_downcase(program, value, args, block):
    return symbol(value.name.lower())


@method(Symbol, 'start_with?', 0, None)
def _symbol_starts(program, value, args, block):
    return value.name.startswith(tuple(text(arg) for arg in args))


@method(Symbol, 'end_with?', 0, None)
def _symbol_ends(program, value, args, block):
    return value.name.endswith(tuple(text(arg) for arg in args))


@method((Symbol,), '<', 1, 1)
def _less(program, value, args, block):
    return ordered(value, args[0]) < 0


@method((Symbol,), '>', 1, 1)
def _more(program, value, args, block):
    return ordered(value, args[0]) > 0


@method(RubyClass, 'name')
def _class_name(program, value, args, block):
    return value.name


@method(Regexp, 'source')
def _source(program, value, args, block):
    return value.source


@method(Regexp, 'match?', 1, 1)
def _regexp_matches(program, value, args, block):
    return case_equal(value, args[0])


@method((str, Symbol), '=~', 1, 1)
def _match(program, value, args, block):
    if not isinstance(args[0], Regexp):
        raise RubyError("wrong argument type {} (expected Regexp)".format(class_name(args[0])))
    found = args[0].compiled.search(value.name if isinstance(value, Symbol) else value)
    return found.start() if found else None


@method(Regexp, '=~', 1, 1)
def _match_of(program, value, args, block):
    return None if args[0] is None else _match(program, args[0], [value], None)


@method((type(None),), '=~', 1, 1)
def _no_match(program, value, args, block):
    return None


# -- Range


@method(Range, 'first begin min', 0, 1)
def _range_first(program, value, args, block):
    if args:
        return list(value.numbers()[:_not_negative(args[0])])
    return value.first


@method(Range, 'last end', 0, 1)
def _range_last(program, value, args, block):
    if args:
        count = _not_negative(args[0])
        return list(value.numbers())[-count:] if count else []
    return value.last


@method(Range, 'max')
def _range_max(program, value, args, block):
    numbers = value.numbers()
    return numbers[-1] if numbers else None


@method(Range, 'size count')
def _range_size(program, value, args, block):
    return len(value.numbers())


@method(Range, 'include? member? cover?', 1, 1)
def _range_includes(program, value, args, block):
    return covers(value, args[0])


@method(Range, 'step', 1, 1, 'may')
def _range_step(program, value, args, block):
    numbers = value.numbers()[::_positive(args[0])]
    if block is None:
        raise Refusal("ruby's .step without a block is not supported here")
    for number in numbers:
        block(number)
    return value


def _not_negative(value):
    count = integer(value)
    if count < 0:
        raise RubyError('negative array size (or size too big)')
    return count


def _positive(value):
    count = integer(value)
    if count <= 0:
        raise RubyError("step can't be 0" if not count else "step can't be negative")
    return count


# -- ENV


@method(Environment, '[]', 1, 1)
def _env_get(program, value, args, block):
    return value.names.get(text(args[0]))


@method(Environment, 'fetch', 1, 2, 'may')
def _env_fetch(program, value, args, block):
    name = text(args[0])
    found = value.names.get(name)
    if found is not None:
        return found
    if block:
        return block(name)
    if len(args) > 1:
        return args[1]
    raise RubyError('key not found: ' + inspect(name))


@method(Environment, 'key? has_key? include? member?', 1, 1)
def _env_has(program, value, args, block):
    return text(args[0]) in value.names


@method(Environment, 'to_h to_hash')
def _env_hash(program, value, args, block):
    return Hash(sorted(value.names.items()))


@method(Environment, '[]=', 2, 2)
def _env_set(program, value, args, block):
    raise Refusal("ruby's assignment to ENV is not supported here")
