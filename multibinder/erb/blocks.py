"""Blocks while they run: their parameters, and the ways out of them."""


class Next(Exception):
    """`next` in a block."""

    def __init__(self, value):
        Exception.__init__(self)
        self.value = value


class Break(Exception):
    """`break` out of the call that the block belongs to."""

    def __init__(self, value, block):
        Exception.__init__(self)
        self.value = value
        self.block = block


class Block(object):
    """A block, ready to be called with the values that its parameters take."""

    __slots__ = ('node', 'body', 'frame', 'parameters', 'first', 'fresh', 'simple')

    def __init__(self, node, body, frame):
        self.node = node
        self.body = body
        self.frame = frame
        self.parameters = parameters = node[2]
        self.first = node[4]
        self.fresh = [None] * (node[5] - node[4])
        self.simple = parameters[0][1] if len(parameters) == 1 and parameters[0][0] == 'slot' else None

    def __call__(self, *values):
        frame = self.frame
        # A block's own variables begin as nil each time.
        frame[self.first:self.first + len(self.fresh)] = self.fresh
        if self.simple is not None:
            frame[self.simple] = values[0] if values else None
        elif self.parameters:
            if len(self.parameters) > 1 and len(values) == 1 and type(values[0]) is list:
                values = values[0]
            _fill(frame, self.parameters, values)
        try:
            return self.body(frame)
        except Next as leaving:
            return leaving.value


def _fill(frame, parameters, values):
    """Give a block's parameters their values: too few are nil, too many are dropped."""
    splat = None
    for index, parameter in enumerate(parameters):
        if parameter[0] == 'splat':
            splat = index
    values = list(values)
    if splat is not None:
        behind = len(parameters) - splat - 1
        rest = values[splat:max(splat, len(values) - behind)]
        values = (values[:splat] + [None] * splat)[:splat] + [rest] + values[splat + len(rest):]
    for index, (kind, target) in enumerate(parameters):
        value = values[index] if index < len(values) else None
        if kind == 'slot' or kind == 'splat':
            if target is not None:
                frame[target] = value
        else:
            _fill(frame, target, value if isinstance(value, list) else [value])
