"""Makes Python closures of the tree of an ERB template, and runs them.

Responsible for variables, for the order of evaluation, for blocks and for saying in which line
something failed. What the methods do is `calls`'. Nothing of the template's text reaches Python's own
compiler. A closure takes the frame: the list of the variables' values.

The nodes, by kind, with what follows kind and line: body(statements) text(str) out(body)
if(condition, first, second) case(subject or None, [(values, body)], otherwise) and/or(left, right) not(node)
set(target, value) 'set ||'/'set &&'(target, value) 'set changed'(target, value, operator) local(slot) ivar(name) constant(name)
index(receiver, arguments) name/call(receiver or None, name, arguments, block, safe) next/break(value) nil
true false self value(v) string([str or body]) symbol(str) 'to symbol'(parts) regexp(parts, flags)
array(items) hash([(key, value)]) range(first, last, exclusive) splat(node) and, for blocks, block(parameters,
body, first slot, slots) or 'block &'(node).
"""

import operator

from multibinder.erb import calls
from multibinder.erb.blocks import Block, Break, Next
from multibinder.erb.refusal import Refusal
from multibinder.erb.values import (Hash, Range, RubyError, Symbol, case_equal, compare, inspect, spread, symbol, to_s,
                                    truth)
from multibinder.erb.variables import Variables

_FAST = {'+': operator.add, '-': operator.sub, '*': operator.mul}


class Program(Variables):
    """A compiled template. `line` is, while it runs, the line it is at."""

    def __init__(self, slots, host):
        self.slots = slots
        self.host = host            # runtime.Host: functions, instance variables, constants
        self.line = 1
        self.blocks = []            # the blocks being compiled, innermost last

    def compile(self, node):
        """Return the closure of a node."""
        return getattr(self, '_' + _METHODS.get(node[0], node[0]))(node)

    def run(self, closure):
        closure([None] * self.slots)

    # -- statements

    def _body(self, node):
        statements = [self.compile(statement) for statement in node[2]]
        if not statements:
            return lambda frame: None
        if len(statements) == 1:
            return statements[0]
        last = statements.pop()

        def body(frame):
            for statement in statements:
                statement(frame)
            return last(frame)
        return body

    def _text(self, node):
        write = self.host.write
        piece = (node[2], (node[1], True))
        return lambda frame: write(piece)

    def _out(self, node):
        body = self.compile(node[2])
        write = self.host.write
        origin = (node[1], False)
        program = self
        line = node[1]

        def out(frame):
            program.line = line
            value = body(frame)
            write((value if type(value) is str else to_s(value), origin))
        return out

    def _if(self, node):
        condition, first, second = [self.compile(part) for part in node[2:]]

        def choose(frame):
            value = condition(frame)
            return second(frame) if value is None or value is False else first(frame)
        return choose

    def _case(self, node):
        subject = self.compile(node[2]) if node[2] else None
        branches = [(self._items(values), self.compile(body)) for values, body in node[3]]
        otherwise = self.compile(node[4])

        def case(frame):
            value = subject(frame) if subject else None
            for patterns, body in branches:
                for pattern in patterns(frame):
                    if case_equal(pattern, value) if subject else truth(pattern):
                        return body(frame)
            return otherwise(frame)
        return case

    def _and(self, node):
        left, right = self.compile(node[2]), self.compile(node[3])

        def both(frame):
            value = left(frame)
            return right(frame) if truth(value) else value
        return both

    def _or(self, node):
        left, right = self.compile(node[2]), self.compile(node[3])

        def either(frame):
            value = left(frame)
            return value if truth(value) else right(frame)
        return either

    def _not(self, node):
        inner = self.compile(node[2])
        return lambda frame: not truth(inner(frame))

    def _next(self, node):
        if not self.blocks:
            raise Refusal('next stands outside of any block', node[1])
        value = self.compile(node[2])

        def leave(frame):
            raise Next(value(frame))
        return leave

    def _break(self, node):
        if not self.blocks:
            raise Refusal('break stands outside of any block', node[1])
        value, block = self.compile(node[2]), self.blocks[-1]

        def leave(frame):
            raise Break(value(frame), block)
        return leave

    # -- literals

    def _nil(self, node):
        return lambda frame: None

    def _true(self, node):
        return lambda frame: True

    def _false(self, node):
        return lambda frame: False

    def _self(self, node):
        raise Refusal("ruby's self is not supported here", node[1])

    def _value(self, node):
        value = node[2]
        return lambda frame: value

    def _symbol(self, node):
        value = symbol(node[2])
        return lambda frame: value

    def _string(self, node):
        parts = node[2]
        if all(isinstance(part, str) for part in parts):
            value = ''.join(parts)
            return lambda frame: value
        parts = [part if isinstance(part, str) else self.compile(part) for part in parts]

        def string(frame):
            return ''.join([part if type(part) is str else to_s(part(frame)) for part in parts])
        return string

    def _to_symbol(self, node):
        text = self._string(node)
        return lambda frame: symbol(text(frame))

    def _regexp(self, node):
        from multibinder.erb import regexp
        text, flags, line = self._string(node), node[3], node[1]
        if all(isinstance(part, str) for part in node[2]):
            value = regexp.translated(''.join(node[2]), flags, line)
            return lambda frame: value
        if any(not isinstance(part, str) for part in node[2]):
            raise Refusal("ruby's interpolation in a regular expression is not supported here", line)
        return lambda frame: regexp.translated(text(frame), flags, line)

    def _array(self, node):
        return self._items(node[2])

    def _items(self, nodes):
        """Return the closure that gives the values of several nodes as a new list, splats spread."""
        if any(node[0] == 'splat' for node in nodes):
            parts = [(node[0] == 'splat', self.compile(node[2] if node[0] == 'splat' else node)) for node in nodes]

            def spread_out(frame):
                values = []
                for splat, part in parts:
                    if splat:
                        values.extend(spread(part(frame)))
                    else:
                        values.append(part(frame))
                return values
            return spread_out
        items = [self.compile(node) for node in nodes]
        if len(items) == 1:
            item = items[0]
            return lambda frame: [item(frame)]
        return lambda frame: [item(frame) for item in items]

    def _hash(self, node):
        pairs = [(self.compile(key), self.compile(value)) for key, value in node[2]]
        return lambda frame: Hash([(key(frame), value(frame)) for key, value in pairs])

    def _range(self, node):
        first, last, exclusive = self.compile(node[2]), self.compile(node[3]), node[4]
        program, line = self, node[1]

        def build(frame):
            one, other = first(frame), last(frame)
            if compare(one, other) is None:
                program.line = line
                raise RubyError('bad value for range')
            return Range(one, other, exclusive)
        return build

    # -- calls

    def _name(self, node):
        """A bare name that is no variable: a function of the scope, or a mistake."""
        function, line, program = self.host.function(node[3], node[1]), node[1], self

        def call(frame):
            program.line = line
            return function([], None)
        return call

    def _call(self, node):
        line, receiver, name, args, block, safe = node[1:]
        block = self._block(block) if block else None
        values = self._items(args) if args else None
        program = self
        if receiver is None:
            function = self.host.function(name, line)

            def call_function(frame):
                found = values(frame) if values else []
                program.line = line
                return function(found, block and block(frame))
            return call_function
        calls.check_name(name, line, receiver[2] if receiver[0] == 'constant' else '')
        held = self.compile(receiver)
        fast = _FAST.get(name) if len(args) == 1 else None

        def call(frame):
            value = held(frame)
            if safe and value is None:
                return None
            found = values(frame) if values else []
            if fast and type(value) is int and type(found[0]) is int:
                return fast(value, found[0])
            program.line = line
            if block is None:
                return calls.call(program, value, name, found, None)
            given = block(frame)
            try:
                return calls.call(program, value, name, found, given)
            except Break as leaving:
                if leaving.block is not given.node:
                    raise
                return leaving.value
        return call

    def _block(self, node):
        """Return the closure that gives, for a frame, the function of the block: called with a list of
        values, it returns the block's value."""
        if node[0] == 'block &':
            return self._block_of_symbol(node)
        self.blocks.append(node)
        body = self.compile(node[3])
        self.blocks.pop()
        return lambda frame: Block(node, body, frame)

    def _block_of_symbol(self, node):
        inner = self.compile(node[2])
        program, line = self, node[1]
        if node[2][0] == 'symbol':
            calls.check_name(node[2][2], line)

        def bound(frame):
            value = inner(frame)
            if not isinstance(value, Symbol):
                raise Refusal("ruby's & with {} is not supported here".format(inspect(value)), line)

            def block(*values):
                return calls.call(program, values[0], value.name, list(values[1:]), None)
            return block
        return bound

    def _splat(self, node):
        raise Refusal("ruby's * is not supported here", node[1])


_METHODS = {'set ||': 'set_or', 'set changed': 'set_changed', 'set &&': 'set_and', 'to symbol': 'to_symbol'}
