"""Cuts Ruby into tokens, over the tags of a template: what Ruby's ERB would have made one program.

Responsible for the words; what they mean together is the parser's. Of Ruby's literals it knows those
that the parser takes; the others are refused here, with the words at fault. Source: the chapters
"Literals" and "Assignment" of Ruby's documentation of its syntax.
"""

import re

from multibinder.erb import segments
from multibinder.erb.literals import SYMBOL_FORM, Literals
from multibinder.erb.refusal import Refusal
from multibinder.erb.token import (CONSTANT, END, IVAR, KEYWORD, LABEL, NAME, REGEXP, SEPARATOR, SIGN, STRING, TEXT,
                                   VALUE, VALUE_END, Token)

KEYWORDS = frozenset('''alias and begin break case class def defined? do else elsif end ensure false for if in
module next nil not or redo rescue retry return self super then true undef unless until when while yield
BEGIN END __FILE__ __LINE__ __method__ __ENCODING__'''.split())
# After these a value begins: a sign that could be either is a literal's.
VALUE_FOLLOWS = frozenset('''and begin case do else elsif if in not or return then unless until when while
break next'''.split())

_BLANK = re.compile(r'(?:[ \t\r\f\v]|\\\r?\n)+')
_NAME = re.compile(r'[^\W\d]\w*')
_SIGNS = re.compile(r'\*\*=|<=>|===|\.\.\.|<<=|>>=|&&=|\|\|=|\*\*|==|=~|!=|!~|>=|<=|&&|\|\||&\.|<<|>>|\+=|-=|\*=|/=|'
                    r'%=|\|=|&=|\^=|=>|->|\.\.|::|[-+*/%=<>!?:.,()\[\]{}|&^~]')
_GAP = re.compile(r'(?:\s|#[^\n]*\n)*')
_GLOBAL = re.compile(r'\$\w*.?')
_PERCENT = re.compile(r'%[wWiIqQ]?[^\w\s=]')
_PERCENT_OTHER = re.compile(r'%[xrs][^\w\s=]')
_HEREDOC = re.compile(r'<<[~-]?["\'`A-Z_]\S*')
_CHARACTER = re.compile(r'\?\w(?!\w)')
_FLAGS = re.compile('[a-z]*')
_ASSIGNED = re.compile(r'[ \t]*(?:[-+*/%|&]|\|\||&&)?=(?![=~>])')
# What a sign is called where a value begins.
_UNARY = {'-': 'unary -', '+': 'unary +', '*': 'splat', '&': 'block &'}
_LEADING_DOT = re.compile(r'\.(?!\.)|&\.')


class Lexer(object):
    """Tokens of one template. `tokens()` gives the list; raises Refusal."""

    def __init__(self, pieces):
        self.pieces = pieces
        self.out = []
        self.swallowing = False     # a comment runs on: Ruby ends it at the next newline only
        self.locals = set()         # names that were assigned so far: they take no arguments

    def tokens(self):
        for kind, line, content in self.pieces:
            if kind == segments.TEXT:
                if not self.swallowing:
                    self._put(TEXT, content, line)
                self._end_of_piece(content, line)
            elif kind == segments.VALUE:
                self._value(line, content)
            else:
                self._code(line, content)
        self._put(END, None, self.pieces[-1][1] if self.pieces else 1)
        return self.out

    def _end_of_piece(self, content, line):
        if '\n' in content:
            self.swallowing = False
        self._separator(line)

    def _value(self, line, content):
        if self.swallowing:
            if '\n' in content:
                raise Refusal('a comment swallows the beginning of this tag', line)
            return
        self._put(VALUE, None, line)
        if Source(self, content, line).run():
            raise Refusal('a comment swallows the end of <%= %>', line)
        self._put(VALUE_END, None, line + content.count('\n'))
        self._separator(line)

    def _code(self, line, content):
        if self.swallowing:
            _, newline, rest = content.partition('\n')
            if not newline:
                return
            self.swallowing = False
            self._separator(line)
            content = rest
            line += 1
        self.swallowing = Source(self, content, line).run()
        self._separator(line)

    def _separator(self, line):
        if self.out and self.out[-1].kind != SEPARATOR:
            self._put(SEPARATOR, None, line)

    def _put(self, kind, value, line, spaced=False):
        token = Token(kind, value, line, spaced)
        self.out.append(token)
        return token


class Source(Literals):
    """Ruby of one tag, or of one interpolation. Tokens go to the lexer's list."""

    def __init__(self, lexer, text, line, position=0, inside=False):
        self.lexer = lexer
        self.text = text
        self.first = line
        self.position = position
        self.inside = inside        # an interpolation: ends at the brace that closes it
        self.start = len(lexer.out)
        self.depth = []             # the open brackets
        self.counted = 0
        self.newlines = 0
        self._spaced = False
        self.gap_end = -1           # of the blank lines and comments that were looked over

    def line(self):
        # Counted on from the last place: a tag may have thousands of lines.
        if self.position < self.counted:
            self.counted = 0
            self.newlines = 0
        self.newlines += self.text.count('\n', self.counted, self.position)
        self.counted = self.position
        return self.first + self.newlines

    def refuse(self, words, line=None):
        raise Refusal("ruby's {} is not supported here".format(words), line or self.line())

    def run(self):
        """Lex to the end; returns whether a comment is open there."""
        text = self.text
        size = len(text)
        while self.position < size:
            at = self.position
            sign = text[at]
            blank = _BLANK.match(text, at)
            if blank:
                self.position = blank.end()
                if len(self.lexer.out) > self.start:
                    self.lexer.out[-1].spaced_behind = True
                self._spaced = True
                continue
            spaced = self._spaced
            self._spaced = False
            if sign == '\n':
                self.position += 1
                self._newline()
            elif sign == '#':
                end = text.find('\n', at)
                if end < 0:
                    if self.inside:
                        raise Refusal('a comment swallows the end of the interpolation', self.line())
                    self.position = size
                    return True
                self.position = end
            elif sign == ';':
                self.position += 1
                self._put(SEPARATOR, ';', spaced)
            elif self._word(at, sign, spaced):
                pass
            elif self.inside and sign == '}' and not self.depth:
                return False
            else:
                self._sign(at, spaced)
        if self.inside:
            raise Refusal('the interpolation #{ is not closed', self.first)
        return False

    def _put(self, kind, value, spaced, line=None):
        return self.lexer._put(kind, value, line or self.line(), spaced)

    def _previous(self):
        return self.lexer.out[-1] if len(self.lexer.out) > self.start else None

    def _newline(self):
        previous = self._previous()
        if previous is not None and previous.kind == SIGN and previous.value not in (')', ']', '}', '|'):
            return      # an operator wants more
        if previous is not None and previous.kind == SIGN and previous.value == '|' and not self._ends_parameters():
            return
        if previous is not None and previous.is_keyword('and', 'or', 'not'):
            return
        if self.position > self.gap_end:
            self.gap_end = _GAP.match(self.text, self.position).end()
        if _LEADING_DOT.match(self.text, self.gap_end):
            return
        if previous is not None and previous.kind != SEPARATOR:
            self._put(SEPARATOR, '\n', False, self.line() - 1)

    def _ends_parameters(self):
        """Tell whether the | just seen is the second of |a, b|."""
        out = self.lexer.out
        for index in range(len(out) - 2, self.start - 1, -1):
            if out[index].is_sign('|'):
                before = out[index - 1] if index else None
                return before is not None and (before.is_keyword('do') or before.is_sign('{'))
            if out[index].kind == SEPARATOR:
                return False
        return False

    def value_may_begin(self, spaced, at):
        """Tell whether at this place a value begins rather than an operator goes on: what decides about
        signs that are both."""
        previous = self._previous()
        if previous is None or previous.kind in (SEPARATOR, LABEL, TEXT, VALUE):
            return True
        if previous.kind == SIGN:
            if previous.value == '|' and self._ends_parameters():
                return True
            return previous.value not in (')', ']', '}')
        if previous.kind == KEYWORD:
            return previous.value in VALUE_FOLLOWS
        if previous.kind == NAME and spaced and previous.value not in self.lexer.locals:
            # `f -1` calls f with -1 where f is no variable; `f - 1` subtracts.
            return not self.text[at + 1:at + 2].isspace()
        return False

    def _word(self, at, sign, spaced):
        """A literal or a name at `at`; tells whether there was one."""
        text = self.text
        if sign.isdigit():
            self._number(at, spaced)
        elif sign == '"' or sign == "'":
            self.position += 1
            parts = self._quoted(sign, sign, sign == '"', sign)
            self._string(parts, spaced)
        elif sign == '@':
            found = _NAME.match(text, at + 1)
            if not found:
                self.refuse(text[at:at + 2] + ' (a class variable)' if text[at:at + 2] == '@@' else '@')
            self.position = found.end()
            self._put(IVAR, found.group(), spaced)
        elif sign == '`':
            self.refuse('backtick')
        elif sign == '$':
            self.refuse('global variable ' + _GLOBAL.match(text, at).group().strip())
        elif sign.isalpha() or sign == '_':
            self._name(at, spaced)
        elif sign == ':' and text[at:at + 2] != '::' and self._symbol_may_stand(spaced) and \
                (SYMBOL_FORM.match(text, at) or text[at + 1:at + 2] in ('"', "'")):
            self._symbol(at, spaced)
        elif sign == '/' and self.value_may_begin(spaced, at):
            self.position += 1
            parts = self._quoted('/', '/', True, '/', True)
            flags = _FLAGS.match(text, self.position)
            self.position = flags.end()
            self._put(REGEXP, (parts, flags.group()), spaced)
        elif sign == '%' and self.value_may_begin(spaced, at) and _PERCENT.match(text, at):
            self._percent(at, spaced)
        elif sign == '%' and self.value_may_begin(spaced, at) and _PERCENT_OTHER.match(text, at):
            self.refuse(text[at:at + 2])
        elif sign == '<' and _HEREDOC.match(text, at) and self.value_may_begin(spaced, at):
            self.refuse('heredoc ' + _HEREDOC.match(text, at).group())
        elif sign == '?' and self.value_may_begin(spaced, at) and _CHARACTER.match(text, at):
            self.position += 2
            self._put(STRING, [text[at + 1]], spaced)
        else:
            return False
        return True

    def _name(self, at, spaced):
        text = self.text
        found = _NAME.match(text, at)
        word = found.group()
        end = found.end()
        previous = self._previous()
        after_dot = previous is not None and previous.is_sign('.', '&.')
        if text[end:end + 1] in ('?', '!') and text[end + 1:end + 2] != '=' or \
                text[end:end + 1] in ('?', '!') and text[end + 1:end + 3] in ('==', '=~'):
            # `x ? a : b` has a blank before its sign, `x.nil?` has none.
            word += text[end]
            end += 1
        if text[end:end + 1] == ':' and text[end:end + 2] != '::' and not after_dot and self._label_may_stand():
            self.position = end + 1
            self._put(LABEL, word, spaced)
            return
        self.position = end
        if word in KEYWORDS and not after_dot:
            self._put(KEYWORD, word, spaced)
        elif word[0].isupper() and not after_dot:
            self._put(CONSTANT, word, spaced)
        else:
            self._put(NAME, word, spaced)
            if not after_dot and (_ASSIGNED.match(text, end) or
                                  self._in_parameters()):
                self.lexer.locals.add(word)

    def _symbol_may_stand(self, spaced):
        """Behind a value a colon belongs to `a ? b : c`."""
        previous = self._previous()
        if previous is None or previous.kind in (SEPARATOR, LABEL, TEXT, VALUE):
            return True
        if previous.kind in (SIGN, KEYWORD):
            return self.value_may_begin(spaced, self.position)
        return spaced and previous.kind in (NAME, CONSTANT) and previous.value not in self.lexer.locals

    def _label_may_stand(self):
        """`a ? b: c` and `a ? b : c` are choices, `f(b: c)` and `f b: c` have a label."""
        out = self.lexer.out
        for index in range(len(out) - 1, self.start - 1, -1):
            token = out[index]
            if token.kind == SEPARATOR or token.is_sign('(', '[', '{', ','):
                return True
            if token.is_sign('?'):
                return False
        return True

    def _in_parameters(self):
        out = self.lexer.out
        for index in range(len(out) - 2, self.start - 1, -1):
            token = out[index]
            if token.is_sign('|'):
                return index > 0 and (out[index - 1].is_keyword('do') or out[index - 1].is_sign('{'))
            if not (token.kind in (NAME, IVAR) or token.is_sign(',', '(', ')', '*', 'splat')):
                return False
        return False

    def _sign(self, at, spaced):
        found = _SIGNS.match(self.text, at)
        if not found:
            raise Refusal("{!r} cannot stand here".format(self.text[at]), self.line())
        sign = found.group()
        if sign == '->':
            self.refuse('lambda ->')
        unary = self.value_may_begin(spaced, at)
        self.position = found.end()
        if sign in '([{':
            self.depth.append(sign)
        elif sign in ')]}':
            if self.depth:
                self.depth.pop()
        token = self._put(SIGN, sign, spaced)
        if unary:
            token.value = _UNARY.get(sign, sign)
