"""Puts Ruby's tokens together to a tree, in the subset that templates use, and refuses the rest.

Responsible for precedence, for where a name is a variable and for where arguments without parentheses
end. A node is a tuple: its kind, its line, then what the kind carries (listed at `compiler`). Nothing is
evaluated here. Source: "Precedence", "Calling Methods" and "Assignment" of Ruby's documentation.
"""

from multibinder.erb.expressions import NESTING_MAX, Expressions
from multibinder.erb.refusal import Refusal
from multibinder.erb.token import (CONSTANT, END, FLOAT, INTEGER, IVAR, KEYWORD, NAME, REGEXP, SEPARATOR, SIGN, STRING,
                                   SYMBOL, TEXT, VALUE, VALUE_END, WORDS)

BLOCK_ENDS = ('end', 'else', 'elsif', 'when', 'in', 'rescue', 'ensure')


class Parser(Expressions):
    """One template. `program()` gives its body; `slots` is then how many variables it has."""

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
