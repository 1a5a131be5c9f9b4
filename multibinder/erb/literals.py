"""Ruby's literals: numbers, strings with what is interpolated into them, symbols, regular expressions.

Responsible for where a literal ends and what its escapes mean. Which of them a sign begins is the lexer's.
"""

import re

from multibinder.erb.refusal import Refusal
from multibinder.erb.token import (END, FLOAT, INTEGER, IVAR, LABEL, STRING, SYMBOL, WORDS)

_PERCENT = re.compile(r'%([wWiIqQ]?)(.)', re.S)
_NAME = re.compile(r'[^\W\d]\w*')
_NUMBER = re.compile(r'0[xX][0-9a-fA-F_]+|0[bB][01_]+|0[oO]?[0-7_]+(?![.\d])|'
                     r'\d[\d_]*(?:\.\d[\d_]*)?(?:[eE][+-]?\d+)?')
SYMBOL_FORM = re.compile(r':([^\W\d]\w*(?:[?!]|=(?![=~>]))?|\[\]=?|\+@?|-@?|\*\*?|/|%|<=>|===?|=~|!=|!|<=?|>=?|<<|>>)')
_SIMPLE_ESCAPES = {'n': '\n', 't': '\t', 's': ' ', 'r': '\r', 'e': '\x1b', 'a': '\a', 'b': '\b', 'f': '\f',
                   'v': '\v', '\n': ''}
_ESCAPE = re.compile(r'x([0-9a-fA-F]{1,2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F \t]+)\}|([0-7]{1,3})')
_PAIRS = {'(': ')', '[': ']', '{': '}', '<': '>'}


class Literals(object):
    """The part of lexer.Source that reads literals; it uses its text, position, line(), refuse() and _put()."""

    def _number(self, at, spaced):
        found = _NUMBER.match(self.text, at)
        word = found.group()
        self.position = found.end()
        if word.endswith('_') or '__' in word or re.compile(r'\w').match(self.text, self.position):
            raise Refusal('{!r} is no number'.format(self.text[at:self.position + 1]), self.line())
        plain = word.replace('_', '')
        if re.match(r'\d+\Z', plain) and not (len(plain) > 1 and plain[0] == '0'):
            self._put(INTEGER, int(plain), spaced)
        elif plain[:2].lower() in ('0x', '0b', '0o'):
            self._put(INTEGER, int(plain, 0), spaced)
        elif re.match(r'0[0-7]+\Z', plain):
            self._put(INTEGER, int(plain, 8), spaced)
        elif re.match(r'\d+\Z', plain):
            raise Refusal('{!r} is no number: a 0 in front means octal'.format(word), self.line())
        else:
            self._put(FLOAT, float(plain), spaced)

    def _string(self, parts, spaced):
        text = self.text
        previous = self._previous()
        if text[self.position:self.position + 1] == ':' and text[self.position:self.position + 2] != '::' and \
                previous is not None and previous.is_sign('{', ',', '(') and all(isinstance(p, str) for p in parts):
            self.position += 1
            self._put(LABEL, ''.join(parts), spaced)
            return
        if previous is not None and previous.kind == STRING:
            previous.value.extend(parts)    # 'a' "b" is one string
            previous.spaced_behind = False
            return
        self._put(STRING, parts, spaced)

    def _symbol(self, at, spaced):
        found = SYMBOL_FORM.match(self.text, at)
        if found:
            self.position = found.end()
            self._put(SYMBOL, [found.group(1)], spaced)
            return
        quote = self.text[at + 1]
        self.position = at + 2
        self._put(SYMBOL, self._quoted(quote, quote, quote == '"', ':' + quote), spaced)

    def _percent(self, at, spaced):
        found = _PERCENT.match(self.text, at)
        letter, opening = found.groups()
        self.position = found.end()
        if letter in ('W', 'I'):
            self.refuse('%' + letter)
        closing = _PAIRS.get(opening, opening)
        parts = self._quoted(opening, closing, letter in ('', 'Q'), found.group())
        if letter in ('w', 'i'):
            self._put(WORDS, (letter, ''.join(parts).split()), spaced)
        else:
            self._string(parts, spaced)

    def _quoted(self, opening, closing, interpolates, shown, regexp=False):
        """The inside of a literal from here to its end: a list of str and of interpolations (each a
        list of tokens)."""
        text = self.text
        line = self.line()
        parts = []
        plain = []
        depth = 0
        while True:
            at = self.position
            sign = text[at:at + 1]
            if not sign:
                raise Refusal('{} is not closed in its tag'.format(shown), line)
            self.position += 1
            if sign == '\\':
                plain.append(self._escape(opening, closing, interpolates, regexp))
            elif sign == closing and not depth:
                break
            elif interpolates and sign == '#' and text[at + 1:at + 2] in ('{', '@', '$'):
                if text[at + 1] == '$':
                    self.refuse('global variable in #$')
                found = _NAME.match(text, at + 2)
                if text[at + 1] == '@' and not found:
                    plain.append(sign)
                    continue
                if plain:
                    parts.append(''.join(plain))
                    plain = []
                parts.append(self._interpolation(found))
            else:
                if sign == '\r' and text[at + 1:at + 2] == '\n':
                    continue    # Ruby reads a line end as \n in its source
                if opening != closing:
                    depth += (sign == opening) - (sign == closing)
                plain.append(sign)
        if plain:
            parts.append(''.join(plain))
        return parts

    def _interpolation(self, ivar):
        lexer = self.lexer
        outer = lexer.out
        lexer.out = []
        if ivar and self.text[self.position] == '@':
            lexer._put(IVAR, ivar.group(), self.line())
            self.position = ivar.end()
        else:
            inner = type(self)(lexer, self.text, self.first, self.position + 1, True)
            inner.run()
            self.position = inner.position + 1
        lexer._put(END, None, self.line())
        found = lexer.out
        lexer.out = outer
        return found

    def _escape(self, opening, closing, interpolates, regexp):
        text = self.text
        sign = text[self.position:self.position + 1]
        if text[self.position:self.position + 2] == '\r\n':
            self.position += 1
            sign = '\n'
        self.position += 1
        if regexp:
            return sign if sign == '/' else '\\' + sign
        if not interpolates:
            return sign if sign in ('\\', opening, closing) else '\\' + sign
        if sign in _SIMPLE_ESCAPES:
            return _SIMPLE_ESCAPES[sign]
        found = _ESCAPE.match(text, self.position - 1)
        if not found:
            if sign in ('x', 'u', 'c', 'C', 'M'):
                self.refuse('escape \\' + sign)
            return sign
        self.position = found.end()
        hexadecimal, four, several, octal = found.groups()
        if several is not None or four is not None:
            codes = [int(word, 16) for word in (several or four).split()]
            if any(code > 0x10ffff or 0xd800 <= code <= 0xdfff for code in codes):
                raise Refusal('\\u{} is no character'.format(several or four), self.line())
            return ''.join([chr(code) for code in codes])
        number = int(hexadecimal, 16) if hexadecimal else int(octal, 8) & 0xff
        # Above ASCII it is a byte and no character: kept as the bytes of the file are.
        return chr(number) if number < 0x80 else chr(0xdc00 + number)
