"""Ruby's expressions: operators by how strongly they bind, calls and their arguments, assignment.

Responsible for where an expression ends and what belongs to what in it. Single values, blocks and
statements are the parser's. Source: "Precedence", "Calling Methods" and "Assignment" of Ruby's
documentation of its syntax.
"""

from multibinder.erb.cursor import Cursor
from multibinder.erb.refusal import Refusal
from multibinder.erb.token import (CONSTANT, FLOAT, INTEGER, IVAR, KEYWORD, LABEL, NAME, REGEXP, SEPARATOR, SIGN,
                                   STRING, SYMBOL, TEXT, VALUE, WORDS)

# Binary operators by how strongly they bind; only ** associates to the right.
BINARY = {
    '||': 3, '&&': 4, '<=>': 6, '==': 6, '===': 6, '!=': 6, '=~': 6, '!~': 6,
    '<': 7, '<=': 7, '>': 7, '>=': 7, '|': 8, '^': 8, '&': 9, '<<': 10, '>>': 10, '+': 11, '-': 11,
    '*': 12, '/': 12, '%': 12, '**': 14,
}
NOT_CHAINED = ('==', '!=', '<=>', '=~', '!~', '===')
ASSIGNING = ('+=', '-=', '*=', '/=', '%=', '||=', '&&=', '<<=', '|=', '&=', '**=', '>>=', '^=')
VALUE_KINDS = (INTEGER, FLOAT, STRING, SYMBOL, REGEXP, WORDS, NAME, CONSTANT, IVAR, LABEL)
VALUE_WORDS = ('nil', 'true', 'false', 'self', 'not', 'defined?', '__LINE__')
VALUE_SIGNS = ('unary -', 'unary +', 'splat', 'block &', '!', '[')
NESTING_MAX = 60        # each level takes a dozen Python frames


class Expressions(Cursor):
    """The part of Parser that reads expressions; it uses its primary(), block() and statements."""

    # -- expressions

    def expression(self):
        """Assignment, choice or operation: everything but `not`, `and`, `or`."""
        self.nesting += 1
        if self.nesting > NESTING_MAX:
            raise Refusal('nested more than {} deep'.format(NESTING_MAX), self.token.line)
        start = self.index
        target = self.assignable()
        if target is not None:
            node = self.assignment(target)
        else:
            self.index = start
            node = self.choice()
            if self.token.is_sign('=') or self.token.is_sign(*ASSIGNING):
                node = self.assignment_to(node)
        self.nesting -= 1
        return node

    def assignable(self):
        """The name before = or +=: declared before its value is read, as in Ruby. None: no assignment."""
        token = self.token
        if token.kind not in (NAME, IVAR, CONSTANT):
            return None
        sign = self.tokens[self.index + 1]
        if not (sign.is_sign('=') or sign.is_sign(*ASSIGNING)):
            if token.kind == NAME and sign.is_sign(','):
                self.refuse_several()
            return None
        self.next()
        if token.kind == IVAR:
            return ('ivar', token.line, token.value)
        if token.kind == CONSTANT:
            return ('constant', token.line, token.value)
        if token.value[-1] in '?!':
            self.unexpected()
        return ('local', token.line, self.declare(token.value))

    def refuse_several(self):
        """Refuse `a, b = 1, 2`, which would otherwise be an unexpected comma."""
        index = self.index
        if index and self.tokens[index - 1].kind not in (SEPARATOR, TEXT, VALUE):
            return
        while self.tokens[index].kind in (NAME, IVAR) or self.tokens[index].is_sign(','):
            index += 1
        if self.tokens[index].is_sign('='):
            raise Refusal("ruby's assignment to several names is not supported here", self.token.line)

    def assignment_to(self, node):
        if node[0] == 'call' and node[3] == '[]':
            return self.assignment(('index', node[1], node[2], node[4]))
        if node[0] == 'call' and node[2] is not None and not node[4]:
            raise Refusal("ruby's assignment to .{} is not supported here".format(node[3]), node[1])
        self.unexpected()

    def assignment(self, target):
        sign = self.next()
        self.skip_newlines()
        value = self.not_expression() if self.token.is_keyword('not') else self.expression()
        if self.token.is_sign(',') and not self.inside_list:
            items = [value]
            while self.accept(','):
                items.append(self.argument_value())
            value = ('array', value[1], items)
        if sign.value == '=':
            return ('set', sign.line, target, value)
        operator = sign.value[:-1]
        if operator in ('||', '&&'):
            return ('set ' + operator, sign.line, target, value)
        return ('set changed', sign.line, target, value, operator)

    def choice(self):
        node = self.ranged()
        question = self.accept('?')
        if not question:
            return node
        self.skip_newlines()
        first = self.expression()
        self.skip_newlines()
        if not self.accept(':'):
            self.unexpected("the ':' of the choice of line {}".format(question.line))
        self.skip_newlines()
        return ('if', question.line, node, first, self.expression())

    def ranged(self):
        node = self.binary(3)
        sign = self.accept('..', '...')
        if sign:
            if not self.begins_value(self.token):
                raise Refusal("ruby's range without an end is not supported here", sign.line)
            node = ('range', sign.line, node, self.binary(3), sign.value == '...')
        return node

    def binary(self, least):
        node = self.unary()
        while True:
            token = self.token
            strength = BINARY.get(token.value) if token.kind == SIGN else None
            if strength is None or strength < least:
                return node
            self.next()
            self.skip_newlines()
            operator = token.value
            if operator in ('&&', '||'):
                right = ('not', self.token.line, self.not_expression()) if self.accept_word('not') else \
                    self.binary(strength + 1)
                node = ('and' if operator == '&&' else 'or', token.line, node, right)
                continue
            right = self.binary(strength if operator == '**' else strength + 1)
            if operator == '!=':
                node = ('not', token.line, ('call', token.line, node, '==', [right], None, False))
            elif operator == '!~':
                node = ('not', token.line, ('call', token.line, node, '=~', [right], None, False))
            else:
                node = ('call', token.line, node, operator, [right], None, False)
            if operator in NOT_CHAINED and self.token.is_sign(*NOT_CHAINED):
                self.unexpected()

    def unary(self):
        token = self.accept('!', 'unary -', 'unary +', '~')
        if not token:
            return self.postfix()
        if token.value == '~':
            raise Refusal("ruby's ~ is not supported here", token.line)
        if token.value == '!':
            return ('not', token.line, self.unary())
        number = self.token
        if number.kind in (INTEGER, FLOAT) and not number.spaced:
            # -2.abs is (-2).abs, but -2 ** 2 is -(2 ** 2).
            if token.value == 'unary -' and not self.tokens[self.index + 1].is_sign('**'):
                number.value = -number.value
                return self.postfix()
        operand = self.binary(13)
        return ('call', token.line, operand, '-@' if token.value == 'unary -' else '+@', [], None, False)

    # -- calls

    def postfix(self):
        node = self.primary()
        while True:
            token = self.token
            if token.is_sign('.', '&.'):
                node = self.method(node)
            elif token.is_sign('[') and not token.spaced:
                self.next()
                args = self.arguments(']', token)
                node = ('call', token.line, node, '[]', args, None, False)
            elif token.is_sign('::'):
                raise Refusal("ruby's :: is not supported here", token.line)
            else:
                return node

    def method(self, receiver):
        sign = self.next()
        self.skip_newlines()
        name = self.next()
        if name.kind == LABEL:
            # In `a ? b.c: d` and `{ |x| x.size: }` Ruby does not see a label either.
            self.index -= 1
            self.unexpected('the name of a method')
        if name.kind not in (NAME, CONSTANT, KEYWORD):
            self.index -= 1
            if name.is_sign('('):
                raise Refusal("ruby's .() is not supported here", name.line)
            self.unexpected('the name of a method')
        args, block = self.call_rest(name)
        return ('call', name.line, receiver, name.value, args, block, sign.value == '&.')

    def call_rest(self, name):
        """The arguments and the block behind the name of a method: (list of nodes, block or None)."""
        args = []
        token = self.token
        if token.is_sign('(') and not token.spaced:
            self.next()
            args = self.arguments(')', token)
        elif self.begins_argument(token):
            args = self.command_arguments()
        return self.with_block(args)

    def with_block(self, args):
        block = None
        if args and args[-1][0] == 'block &':
            block = args.pop()
        if self.token.is_sign('{') or self.token.is_keyword('do') and not self.without_do:
            if block:
                self.unexpected()
            block = self.block()
        return args, block

    def begins_argument(self, token):
        """Tell whether this token is the first of arguments without parentheses."""
        if not token.spaced:
            return False
        if token.kind == SIGN:
            if token.value == '[':
                return True
            if token.value == '(':
                return True
            if token.value == '!':
                return not token.spaced_behind
            return token.value in VALUE_SIGNS
        if token.kind == KEYWORD:
            return token.value in VALUE_WORDS or token.value == 'case'
        return token.kind in VALUE_KINDS

    def begins_value(self, token):
        if token.kind == SIGN:
            return token.value in VALUE_SIGNS or token.value in ('(', '{')
        return token.kind in VALUE_KINDS or token.kind == KEYWORD and token.value in VALUE_WORDS + ('case',)

    def command_arguments(self):
        outer = self.without_do, self.inside_list
        self.without_do = self.inside_list = True
        args = [self.argument()]
        while self.accept(','):
            self.skip_newlines()
            args.append(self.argument())
        self.without_do, self.inside_list = outer
        return _with_hash(args)

    def arguments(self, closing, opened):
        """Arguments or items up to the closing sign, which is taken."""
        outer = self.without_do, self.inside_list
        self.without_do, self.inside_list = False, True
        args = []
        self.skip_newlines()
        while not self.token.is_sign(closing):
            args.append(self.argument())
            self.skip_newlines()
            if not self.accept(','):
                break
            self.skip_newlines()
        self.expect(closing, opened)
        self.without_do, self.inside_list = outer
        return _with_hash(args)

    def argument(self):
        """A value, a splat, a &block, or a pair (which is not a node yet)."""
        token = self.token
        if token.kind == LABEL:
            self.next()
            self.skip_newlines()
            return ('pair', token.line, ('symbol', token.line, token.value), self.argument_value())
        if self.accept('splat'):
            return ('splat', token.line, self.argument_value())
        if self.accept('**'):
            raise Refusal("ruby's ** before an argument is not supported here", token.line)
        if self.accept('block &'):
            return ('block &', token.line, self.argument_value())
        value = self.argument_value()
        if self.accept('=>'):
            self.skip_newlines()
            return ('pair', token.line, value, self.argument_value())
        return value

    def argument_value(self):
        return self.not_expression() if self.token.is_keyword('not') else self.expression()


def _with_hash(args):
    """Return the arguments with the pairs among them, which stand last, as one hash."""
    pairs = [arg for arg in args if arg[0] == 'pair']
    if not pairs:
        return args
    rest = [arg for arg in args if arg[0] != 'pair']
    block = rest.pop() if rest and rest[-1][0] == 'block &' else None
    if args[:len(rest)] != rest:
        raise Refusal('a value cannot follow the pairs of key and value', pairs[0][1])
    rest.append(('hash', pairs[0][1], [(pair[2], pair[3]) for pair in pairs]))
    return rest + [block] if block else rest
