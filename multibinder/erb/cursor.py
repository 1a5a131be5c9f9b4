"""A place in Ruby's tokens, and the variables that are known there: what the parser moves and asks."""

from multibinder.erb.refusal import Refusal
from multibinder.erb.token import END, IVAR, KEYWORD, REGEXP, SEPARATOR, STRING, SYMBOL, TEXT, VALUE, VALUE_END, WORDS

REFUSED_WORDS = ('alias', 'begin', 'class', 'def', 'for', 'loop', 'module', 'redo', 'rescue', 'retry', 'return',
                 'super', 'undef', 'until', 'while', 'yield', 'BEGIN', 'END', 'ensure', '__FILE__', '__method__',
                 '__ENCODING__', 'defined?')


class Cursor(object):
    """Tokens with a position. `slots` is the number of variables declared so far."""

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
        wanted = ', wanted: ' + wanted if wanted else ''
        raise Refusal('{} cannot stand here{}'.format(_shown(token), wanted), token.line)

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

    def skip_newlines(self):
        while self.token.kind == SEPARATOR and self.token.value == '\n':
            self.index += 1


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
