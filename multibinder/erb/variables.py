"""Closures that read and set variables, elements and constants: a part of `compiler`."""

from multibinder.erb import calls
from multibinder.erb.values import RubyError, truth


class Variables(object):
    """The part of compiler.Program for names and assignments; it uses compile(), _items(), host and line."""

    def _local(self, node):
        slot = node[2]
        return lambda frame: frame[slot]

    def _ivar(self, node):
        ivars, name = self.host.ivars, node[2]
        return lambda frame: ivars.get(name)

    def _constant(self, node):
        constants, name, program, line = self.host.constants, node[2], self, node[1]

        def constant(frame):
            try:
                return constants[name]
            except KeyError:
                program.line = line
                raise RubyError('uninitialized constant ' + name) from None
        return constant

    def _set(self, node):
        target, value = node[2], self.compile(node[3])
        return self._store(target, lambda frame, receiver, args: value(frame))

    def _set_or(self, node):
        return self._set_conditional(node, False)

    def _set_and(self, node):
        return self._set_conditional(node, True)

    def _set_conditional(self, node, wanted):
        value, read = self.compile(node[3]), self._reader(node[2])

        def new(frame, receiver, args):
            old = read(frame, receiver, args)
            return value(frame) if truth(old) == wanted else _Unchanged(old)
        return self._store(node[2], new)

    def _set_changed(self, node):
        """x += 1 and its like: what is between the brackets of x[...] is evaluated once."""
        value, read, operator = self.compile(node[3]), self._reader(node[2]), node[4]
        calls.check_name(operator, node[1])
        program, line = self, node[1]

        def new(frame, receiver, args):
            old = read(frame, receiver, args)
            other = value(frame)
            program.line = line
            return calls.call(program, old, operator, [other], None)
        return self._store(node[2], new)

    def _reader(self, target):
        """Return the function of (frame, receiver, arguments) that gives what a target holds."""
        if target[0] == 'index':
            def read(frame, receiver, args):
                return calls.call(self, receiver, '[]', args, None)
        elif target[0] == 'constant':
            constants, name = self.host.constants, target[2]

            def read(frame, receiver, args):
                return constants.get(name)
        else:
            load = self.compile(target)

            def read(frame, receiver, args):
                return load(frame)
        return read

    def _store(self, target, value):
        """Return the closure that puts value(frame, receiver, arguments) into a target."""
        kind, program, line = target[0], self, target[1]
        if kind == 'index':
            receiver, args = self.compile(target[2]), self._items(target[3])

            def store(frame):
                held, keys = receiver(frame), args(frame)
                found = value(frame, held, keys)
                if type(found) is _Unchanged:
                    return found.value
                program.line = line
                calls.call(program, held, '[]=', keys + [found], None)
                return found
            return store
        where = {'ivar': self.host.ivars, 'constant': self.host.constants}.get(kind)
        name = target[2]

        def keep(frame):
            found = value(frame, None, None)
            if type(found) is _Unchanged:
                return found.value
            (frame if where is None else where)[name] = found
            return found
        return keep


class _Unchanged(object):
    """What `||=` found there already."""

    __slots__ = ('value',)

    def __init__(self, value):
        self.value = value
