"""Puts Ruby's tokens together to a tree, in the subset that templates use, and refuses the rest.

Responsible for precedence, for where a name is a variable and for where arguments without parentheses
end. A node is a tuple: its kind, its line, then what the kind carries (listed at `compiler`). Nothing is
evaluated here. Source: "Precedence", "Calling Methods" and "Assignment" of Ruby's documentation.
"""

from multibinder.erb import lexer
from multibinder.erb.lexer import (CONSTANT, END, FLOAT, INTEGER, IVAR, KEYWORD, LABEL, NAME, REGEXP, SEPARATOR,
                                   SIGN, STRING, SYMBOL, TEXT, VALUE, VALUE_END, WORDS)
from multibinder.erb.refusal import Refusal

# Binary operators by how strongly they bind; (strength, associates to the right).
BINARY = {
    '||': 3, '&&': 4, '<=>': 6, '==': 6, '===': 6, '!=': 6, '=~': 6, '!~': 6,
    '<': 7, '<=': 7, '>': 7, '>=': 7, '|': 8, '^': 8, '&': 9, '<<': 10, '>>': 10, '+': 11, '-': 11,
    '*': 12, '/': 12, '%': 12, '**': 14,
}
RANGE = 2
NOT_CHAINED = ('==', '!=', '<=>', '=~', '!~', '===')
ASSIGNING = ('+=', '-=', '*=', '/=', '%=', '||=', '&&=', '<<=', '|=', '&=', '**=', '>>=', '^=')
VALUE_KINDS = (INTEGER, FLOAT, STRING, SYMBOL, REGEXP, WORDS, NAME, CONSTANT, IVAR, LABEL)
VALUE_WORDS = ('nil', 'true', 'false', 'self', 'not', 'defined?', '__LINE__')
VALUE_SIGNS = ('unary -', 'unary +', 'splat', 'block &', '!', '[')
REFUSED_WORDS = ('alias', 'begin', 'class', 'def', 'for', 'loop', 'module', 'redo', 'rescue', 'retry', 'return',
                 'super', 'undef', 'until', 'while', 'yield', 'BEGIN', 'END', 'ensure', '__FILE__', '__method__',
                 '__ENCODING__', 'defined?')
BLOCK_ENDS = ('end', 'else', 'elsif', 'when', 'in', 'rescue', 'ensure')
NESTING_MAX = 60        # each level takes a dozen Python frames


class Parser(object):
    """One template. `program()` gives its body; `slots` is then how many variables it has."""

    def __init__(self, tokens):
        self.tokens = tokens
        self.index = 0
        self.scopes = [{}]
        self.slots = 0
        self.without_do = False     # in arguments without parentheses `do` belongs to the call
        self.inside_list = False    # there a comma does not make `a = 1, 2` an array
        self.nesting = 0

    # -- tokens

    @property
    def token(self):
        return self.tokens[self.index]

    def next(self):
        token = self.tokens[self.index]
        self.index += 1
        return token

    def accept(self, *signs):
        if self.token.is_sign(*signs):
            return self.next()
        return None

    def accept_word(self, *words):
        if self.token.is_keyword(*words):
            return self.next()
        return None

    def expect(self, sign, opened):
        if not self.token.is_sign(sign):
            self.unexpected('{!r} to close the {!r} of line {}'.format(sign, opened.value, opened.line))
        return self.next()

    def unexpected(self, wanted=None):
        token = self.token
        if token.kind == KEYWORD and token.value in REFUSED_WORDS:
            raise Refusal("ruby's {} is not supported here".format(token.value), token.line)
        raise Refusal('{} cannot stand here{}'.format(_shown(token), ', wanted: ' + wanted if wanted else ''), token.line)

    def skip(self):
        while self.token.kind == SEPARATOR:
            self.index += 1

    # -- variables

    def declare(self, name):
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return self.declare_here(name)

    def declare_here(self, name):
        slot = self.scopes[-1][name] = self.slots
        self.slots += 1
        return slot

    def lookup(self, name):
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    # -- statements

    def program(self):
        body = self.body()
        if self.token.kind != END:
            if self.token.is_keyword(*BLOCK_ENDS):
                raise Refusal('{} closes nothing'.format(self.token.value), self.token.line)
            self.unexpected()
        return body

    def body(self):
        """Statements up to a word or sign that cannot begin one."""
        self.nesting += 1
        if self.nesting > NESTING_MAX:
            raise Refusal('nested more than {} deep'.format(NESTING_MAX), self.token.line)
        statements = []
        line = self.token.line
        self.skip()
        while not (self.token.kind in (END, VALUE_END) or self.token.is_sign('}', ')') or
                   self.token.is_keyword(*BLOCK_ENDS)):
            statements.append(self.statement())
            if self.token.kind not in (SEPARATOR, END, VALUE_END, TEXT, VALUE) and \
                    not self.token.is_sign('}', ')') and not self.token.is_keyword(*BLOCK_ENDS):
                self.unexpected()
            self.skip()
        self.nesting -= 1
        return ('body', line, statements)

    def statement(self):
        token = self.token
        if token.kind == TEXT:
            self.next()
            return ('text', token.line, token.value)
        if token.kind == VALUE:
            self.next()
            body = self.body()
            if self.token.kind != VALUE_END:
                self.unexpected('the end of <%= %>')
            self.next()
            return ('out', token.line, body)
        node = self.expression_statement()
        while True:
            word = self.accept_word('if', 'unless')
            if not word:
                break
            condition = self.expression_statement()
            empty = ('nil', word.line)
            node = ('if', word.line, condition, node, empty) if word.value == 'if' else \
                ('if', word.line, condition, empty, node)
        return node

    def expression_statement(self):
        """An expression with the words `not`, `and` and `or`, which bind least."""
        node = self.not_expression()
        while True:
            word = self.accept_word('and', 'or')
            if not word:
                return node
            self.skip()
            node = (word.value, word.line, node, self.not_expression())

    def not_expression(self):
        word = self.accept_word('not')
        if word:
            return ('not', word.line, self.not_expression())
        return self.expression()

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
        return ('set', sign.line, target, ('call', sign.line, target if target[0] != 'index' else
                                           ('call', sign.line, target[2], '[]', target[3], None, False),
                                           operator, [value], None, False))

    def skip_newlines(self):
        while self.token.kind == SEPARATOR and self.token.value == '\n':
            self.index += 1

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

    def block(self):
        opened = self.next()
        closing = '}' if opened.value == '{' else 'end'
        outer = self.without_do, self.inside_list
        self.without_do = self.inside_list = False
        self.scopes.append({})
        first = self.slots
        parameters = self.parameters() if self.accept('|') else []
        if self.accept('||'):
            parameters = []
        body = self.body()
        if closing == '}':
            if not self.token.is_sign('}'):
                self.unexpected("'}}' to close the block of line {}".format(opened.line))
            self.next()
        else:
            self.expect_end(opened)
        self.scopes.pop()
        self.without_do, self.inside_list = outer
        return ('block', opened.line, parameters, body, first, self.slots)

    def expect_end(self, opened):
        if not self.accept_word('end'):
            if self.token.kind == VALUE_END:
                raise Refusal('<%= %> cannot hold the beginning of a block', opened.line)
            if self.token.kind == END:
                raise Refusal('{} is not closed by end'.format(opened.value), opened.line)
            self.unexpected("end, to close the {} of line {}".format(opened.value, opened.line))

    def parameters(self, closing='|'):
        """The names between the bars, as patterns: ('slot', N), ('splat', N or None) or ('several', [...])."""
        found = []
        while not self.token.is_sign(closing):
            token = self.next()
            if token.kind == NAME:
                found.append(('slot', self.declare_here(token.value)))
                if self.token.is_sign('='):
                    raise Refusal("ruby's default for a block's parameter is not supported here", token.line)
            elif token.is_sign('('):
                found.append(('several', self.parameters(')')))
            elif token.is_sign('*', 'splat'):
                name = self.next() if self.token.kind == NAME else None
                found.append(('splat', self.declare_here(name.value) if name else None))
            else:
                self.index -= 1
                self.unexpected('the name of a parameter')
            if not self.accept(','):
                break
            if self.token.is_sign(closing):
                found.append(('splat', None))   # |a, | takes the first of several
        if not self.token.is_sign(closing):
            self.unexpected('the end of the parameters')
        self.next()
        return found

    # -- primary

    def primary(self):
        token = self.next()
        kind, value, line = token.kind, token.value, token.line
        if kind in (INTEGER, FLOAT):
            return ('value', line, value)
        if kind == STRING:
            return ('string', line, self.parts(value))
        if kind == SYMBOL:
            return ('symbol', line, value[0]) if len(value) == 1 and isinstance(value[0], str) else \
                ('to symbol', line, self.parts(value))
        if kind == REGEXP:
            return ('regexp', line, self.parts(value[0]), value[1])
        if kind == WORDS:
            one = 'symbol' if value[0] == 'i' else 'string'
            return ('array', line, [(one, line, word if one == 'symbol' else [word]) for word in value[1]])
        if kind == IVAR:
            return ('ivar', line, value)
        if kind == CONSTANT:
            if self.token.is_sign('(') and not self.token.spaced or self.token.kind == STRING and self.token.spaced:
                args, block = self.call_rest(token)
                return ('call', line, None, value, args, block, False)
            return ('constant', line, value)
        if kind == NAME:
            return self.named(token)
        if kind == SIGN:
            return self.bracketed(token)
        if kind == KEYWORD:
            return self.worded(token)
        self.index -= 1
        return self.unexpected()

    def named(self, token):
        slot = self.lookup(token.value)
        if slot is not None and not (self.token.is_sign('(') and not self.token.spaced):
            return ('local', token.line, slot)
        bare = not self.token.is_sign('(') or self.token.spaced
        args, block = self.call_rest(token)
        bare = bare and not args and not block
        return ('name' if bare else 'call', token.line, None, token.value, args, block, False)

    def parts(self, parts):
        """Parse the interpolations among the parts of a literal."""
        found = []
        for part in parts:
            if not isinstance(part, str):
                outer = self.tokens, self.index
                self.tokens, self.index = part, 0
                body = self.body()
                if self.token.kind != END:
                    self.unexpected('the end of the interpolation')
                self.tokens, self.index = outer
                part = body
            found.append(part)
        return found

    def bracketed(self, token):
        if token.value == '[':
            return ('array', token.line, self.arguments(']', token))
        if token.value == '(':
            outer = self.without_do, self.inside_list
            self.without_do = self.inside_list = False
            body = self.body()
            self.expect(')', token)
            self.without_do, self.inside_list = outer
            return body
        if token.value == '{':
            pairs = self.arguments('}', token)
            if len(pairs) > 1 or pairs and pairs[0][0] != 'hash':
                raise Refusal('a hash has pairs of key and value', token.line)
            return pairs[0] if pairs else ('hash', token.line, [])
        if token.value in ('..', '...'):
            raise Refusal("ruby's range without a beginning is not supported here", token.line)
        self.index -= 1
        return self.unexpected()

    def worded(self, token):
        word, line = token.value, token.line
        if word in ('nil', 'true', 'false', 'self'):
            return (word, line)
        if word == '__LINE__':
            return ('value', line, line)
        if word in ('if', 'unless'):
            return self.condition(token)
        if word == 'case':
            return self.case(token)
        if word in ('next', 'break'):
            value = ('nil', line)
            if self.begins_value(self.token):
                value = self.expression()
            return (word, line, value)
        self.index -= 1
        return self.unexpected()

    def condition(self, opened):
        condition = self.expression_statement()
        self.then('the condition of {}'.format(opened.value))
        first = self.body()
        second = ('nil', opened.line)
        if opened.value == 'if' and self.token.is_keyword('elsif'):
            second = self.condition_of_elsif()
        elif self.accept_word('else'):
            second = self.body()
            self.expect_end(opened)
        else:
            self.expect_end(opened)
        if opened.value == 'if':
            return ('if', opened.line, condition, first, second)
        return ('if', opened.line, condition, second, first)

    def condition_of_elsif(self):
        word = self.next()
        word.value = 'if'
        return self.condition(word)

    def then(self, after):
        if self.token.kind not in (SEPARATOR, TEXT, VALUE) and not self.token.is_keyword('then'):
            self.unexpected('then or a new line after {}'.format(after))
        self.skip_separators_to_then()

    def skip_separators_to_then(self):
        self.skip()
        self.accept_word('then')

    def case(self, opened):
        subject = None
        if self.token.kind != SEPARATOR and not self.token.is_keyword('when'):
            subject = self.expression_statement()
        self.skip()
        if self.token.kind in (TEXT, VALUE):
            raise Refusal('text stands between case and its first when, which Ruby does not take either: write '
                          'both into one tag', self.token.line)
        branches = []
        while self.accept_word('when'):
            outer, self.inside_list = self.inside_list, True
            values = [self.argument()]
            while self.accept(','):
                self.skip_newlines()
                values.append(self.argument())
            self.inside_list = outer
            self.then('the values of when')
            branches.append((values, self.body()))
        if not branches:
            if self.token.is_keyword('in'):
                raise Refusal("ruby's case with in is not supported here", self.token.line)
            self.unexpected('when')
        otherwise = self.body() if self.accept_word('else') else ('nil', opened.line)
        self.expect_end(opened)
        return ('case', opened.line, subject, branches, otherwise)


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


def _shown(token):
    if token.kind == END:
        return 'the end of the template'
    if token.kind == VALUE_END:
        return 'the end of <%= %>'
    if token.kind in (TEXT, VALUE):
        return 'what follows the tag'
    if token.kind == SEPARATOR:
        return 'the end of the statement'
    if token.kind == STRING:
        return 'the string {!r}'.format(''.join(part for part in token.value if isinstance(part, str)))
    if token.kind in (SYMBOL, REGEXP, WORDS):
        return 'the ' + token.kind
    if token.kind == IVAR:
        return '@' + token.value
    return repr(token.value).replace('unary ', '').replace('block &', '&').replace('splat', '*')


__all__ = ['Parser', 'lexer']
