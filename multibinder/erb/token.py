"""The kinds of token that Ruby is cut into, and the token itself."""

INTEGER, FLOAT, STRING, SYMBOL, REGEXP, WORDS = 'integer', 'float', 'string', 'symbol', 'regexp', 'words'
NAME, CONSTANT, IVAR, LABEL, KEYWORD, SIGN = 'name', 'constant', 'ivar', 'label', 'keyword', 'sign'
SEPARATOR, TEXT, VALUE, VALUE_END, END = 'separator', 'text', 'value', 'value end', 'end'


class Token(object):
    """A token: kind, value, line, whether a blank stands before it and whether one stands behind."""

    __slots__ = ('kind', 'value', 'line', 'spaced', 'spaced_behind')

    def __init__(self, kind, value, line, spaced):
        self.kind = kind
        self.value = value
        self.line = line
        self.spaced = spaced
        self.spaced_behind = False

    def is_sign(self, *signs):
        return self.kind == SIGN and self.value in signs

    def is_keyword(self, *words):
        return self.kind == KEYWORD and self.value in words
