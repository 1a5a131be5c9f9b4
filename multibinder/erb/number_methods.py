"""Methods of Integer and Float."""

import math

from multibinder.erb.calls import integer, method
from multibinder.erb.refusal import Refusal
from multibinder.erb.values import RubyError, class_name, is_number, ordered

NUMBERS = (int, float)
POWER_MAX = 4096        # bits: no config has a larger number


def _other(value, operand):
    if not is_number(operand):
        shown = {None: 'nil', True: 'true', False: 'false'}.get(operand) if operand is None or \
            isinstance(operand, bool) else class_name(operand)
        raise RubyError("{} can't be coerced into {}".format(shown, class_name(value)))
    return operand


def _arithmetic(name, function):
    @method(NUMBERS, name, 1, 1)
    def operate(program, value, args, block):
        try:
            return function(value, _other(value, args[0]))
        except OverflowError:
            raise RubyError('a number is too large') from None
    return operate


def _divide(one, other):
    if isinstance(one, int) and isinstance(other, int):
        if not other:
            raise RubyError('divided by 0')
        return one // other
    if not other:
        if not one or one != one:
            return float('nan')
        return math.copysign(float('inf'), math.copysign(1, one) * math.copysign(1, other))
    return one / other


def _modulo(one, other):
    if isinstance(one, int) and isinstance(other, int):
        if not other:
            raise RubyError('divided by 0')
        return one % other
    return one % other if other else float('nan')


def _power(one, other):
    if isinstance(one, int) and isinstance(other, int):
        if other < 0:
            raise Refusal("ruby's ** with a negative exponent is not supported here")
        if abs(one).bit_length() * other > POWER_MAX:
            raise RubyError('a number is too large')
    found = one ** other
    if isinstance(found, complex):
        raise Refusal("ruby's complex numbers are not supported here")
    return found


_arithmetic('+', lambda one, other: one + other)
_arithmetic('-', lambda one, other: one - other)
_arithmetic('*', lambda one, other: one * other)
_arithmetic('/', _divide)
_arithmetic('% modulo', _modulo)
_arithmetic('**', _power)


def _ordering(name, function):
    @method(NUMBERS + (str,), name, 1, 1)
    def order(program, value, args, block):
        if is_number(value) and is_number(args[0]):
            return function(value, args[0])     # NaN is in no order and is no error
        return function(ordered(value, args[0]), 0)
    return order


_ordering('<', lambda one, other: one < other)
_ordering('<=', lambda one, other: one <= other)
_ordering('>', lambda one, other: one > other)
_ordering('>=', lambda one, other: one >= other)


@method(NUMBERS, '-@')
def _minus(program, value, args, block):
    return -value


@method(NUMBERS, '+@')
def _plus(program, value, args, block):
    return value


@method(NUMBERS, 'to_i to_int truncate')
def _to_i(program, value, args, block):
    try:
        return int(value)
    except (ValueError, OverflowError):
        raise RubyError('a Float without a number in it has no to_i') from None


@method(NUMBERS, 'to_f')
def _to_f(program, value, args, block):
    return float(value)


@method(int, 'to_s', 0, 1)
def _integer_to_s(program, value, args, block):
    base = integer(args[0]) if args else 10
    if base == 10:
        return str(value)
    if not 2 <= base <= 36:
        raise RubyError('invalid radix {}'.format(base))
    digits = []
    rest = abs(value)
    while rest or not digits:
        rest, digit = divmod(rest, base)
        digits.append('0123456789abcdefghijklmnopqrstuvwxyz'[digit])
    return ('-' if value < 0 else '') + ''.join(reversed(digits))


@method(NUMBERS, 'abs magnitude')
def _abs(program, value, args, block):
    return abs(value)


@method(NUMBERS, 'zero?')
def _zero(program, value, args, block):
    return value == 0


@method(NUMBERS, 'positive?')
def _positive(program, value, args, block):
    return value > 0


@method(NUMBERS, 'negative?')
def _negative(program, value, args, block):
    return value < 0


@method(int, 'even?')
def _even(program, value, args, block):
    return value % 2 == 0


@method(int, 'odd?')
def _odd(program, value, args, block):
    return value % 2 == 1


@method(int, 'succ next')
def _succ(program, value, args, block):
    return value + 1


@method(int, 'pred')
def _pred(program, value, args, block):
    return value - 1


@method(int, 'chr')
def _chr(program, value, args, block):
    if not 0 <= value < 128:
        raise Refusal("ruby's .chr above 127 is not supported here")
    return chr(value)


@method(NUMBERS, 'floor')
def _floor(program, value, args, block):
    return int(math.floor(value))


@method(NUMBERS, 'ceil')
def _ceil(program, value, args, block):
    return int(math.ceil(value))


@method(NUMBERS, 'round', 0, 1)
def _round(program, value, args, block):
    digits = integer(args[0]) if args else 0
    if isinstance(value, int) and digits >= 0:
        return value
    if digits < 0 or digits > 14:
        raise Refusal("ruby's .round({}) is not supported here".format(digits))
    if value != value or abs(value) == float('inf'):
        if digits:
            return value
        raise RubyError('a Float without a number in it has no round')
    # Ruby rounds halves away from zero, and takes for a half what is one when it is divided again.
    scale = 10.0 ** digits
    size = abs(value) * scale
    whole = math.floor(size + 0.5) if size < 2.0 ** 52 else size
    if whole - size > 0.5:
        whole -= 1
    if digits and (whole + 0.5) / scale <= abs(value):
        whole += 1
    rounded = math.copysign(whole / scale, value)
    return rounded if digits else int(rounded)


@method(int, 'times', 0, 0, 'must')
def _times(program, value, args, block):
    for number in range(value):
        block(number)
    return value


@method(int, 'upto', 1, 1, 'must')
def _upto(program, value, args, block):
    for number in range(value, integer(args[0]) + 1):
        block(number)
    return value


@method(int, 'downto', 1, 1, 'must')
def _downto(program, value, args, block):
    for number in range(value, integer(args[0]) - 1, -1):
        block(number)
    return value


@method(int, 'step', 2, 2, 'must')
def _step(program, value, args, block):
    stride = integer(args[1])
    if not stride:
        raise RubyError("step can't be 0")
    last = integer(args[0])
    for number in range(value, last + (1 if stride > 0 else -1), stride):
        block(number)
    return value
