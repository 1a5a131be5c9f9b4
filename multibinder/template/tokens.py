"""Cuts the text of a Mako template into tokens, and leaves HAProxy's own text alone.

Responsible for what is Mako's and what is HAProxy's where both use the same signs; it knows neither
Mako's modules nor what a token will do. Sources: Mako's manual, "Syntax" and "Defs and Blocks";
HAProxy's configuration manual, sections 2.2 (quoting) and 2.3 (environment variables).

Where the two clash HAProxy wins:
- ${NAME} for a NAME that nothing defines, ${NAME-text}, ${NAME:-text}, ${NAME[*]}, ${1} are text;
- a line that begins with ## is text as a whole (in both languages it is a comment);
- <% that opens no tag of Mako is text, and so is </% that closes none;
- a line that begins with % and is no control line is text;
- a backslash at the end of a comment is text and does not join lines;
- in a comment or inside '...' an expression that is no Python, or that uses a name which nothing
  defines, is text: prose and patterns look like that. Everywhere else it is a mistake;
- a file in which nothing is Mako's is text, whatever its backslashes and percent signs look like.
"""

import re

from multibinder.pattern import Pattern
from multibinder.template.scope import MAKO_NAMES
from multibinder.template.source import where_in_line

# Kinds of token. A token is a tuple: kind, line (from 1), then what the kind carries.
TEXT = 'text'           # the text
EXPRESSION = 'expression'   # code, filters
CONTROL = 'control'     # keyword, whether it is an end, the whole line without %
CODE = 'code'           # code, whether it is the module's
TAG = 'tag'             # keyword, attributes (dict), whether it closes itself
TAG_END = 'tag end'     # keyword

TAGS = ('include', 'namespace', 'def', 'block', 'inherit', 'page', 'text', 'doc', 'call')
CONTROLS = 'for|if|while|try|with|else|elif|except|finally'

_NEXT = Pattern(r'\$\{|</?%|^[ \t]*(?:%|##)|\\\r?\n', re.M)
_HAPROXY = Pattern(r'\$\{([A-Za-z_][A-Za-z0-9_]*)(\}|\[\*\](?::?-[^}\n]*)?\}|:?-[^}\n]*\})|\$\{[0-9]+\}')
# ${name(...)} on one line, with nothing nested, no comment, filter, escape or odd byte: it ends where it seems to.
_CALL = Pattern(r'''\$\{( *\w+\((?:[\w.,:=/@ -]|'[ -&(-[\]-~]*'|"[ !#-[\]-~]*")*\) *)\}''')
_CONTROL = Pattern(r'[ \t]*%[ \t]*((end)?(' + CONTROLS + r')\b(?:\\\r?\n|[^\r\n]|\r(?!\n))*)(?:\r?\n|\Z)')
_LINE = Pattern(r'[^\n]*(?:\n|\Z)')
_TAG = Pattern(r'''<%(\w+(?:[:.]\w+)*)((?:\s*(?:,\s*)?\w+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*(/?)>''')
_ATTRIBUTE = Pattern(r'''(\w+)\s*=\s*(?:"([^"]*)"|'([^']*)')''')
_TAG_END = Pattern(r'</%[ \t]*([^\s>]+)[ \t]*>')
_TAG_WORD = Pattern(r'<%(\w+)')
_INSIDE = Pattern(r'''#[^\n]*|("""|\'\'\'|"|')(?:[^\\]|\\.)*?\1|[{}()\[\]|]|%>''', re.S)
_CONSTRUCT = Pattern(r'\$\{[^}]*\}|<%.*?%>')
_ODD = Pattern('[\udc80-\udcff]')
_SETENV = Pattern(r'^[ \t]*(?:pre)?setenv[ \t]+"?(\w+)', re.M)
OPENING = '([{'


class Mistake(Exception):
    """Text that is neither Mako's nor HAProxy's: a reason (the text of the exception) and a line."""

    def __init__(self, reason, line):
        Exception.__init__(self, reason)
        self.line = line


class Scanner(object):
    """One pass over one text. `known` is the set of names that are passed in, `in_environment` tells of
    a name whether haproxy will find it in its environment.

    `scan` returns the tokens. `unknown` is filled with (line, name) of each ${name} that was left to
    haproxy and that its environment lacks, `doubts` with (line, sentence).
    """

    def __init__(self, text, known, in_environment):
        self.text = text
        self.known = known
        self.in_environment = in_environment
        self.tokens = []
        self.unknown = []
        self.set_here = None    # names that the config itself sets
        self.doubts = []
        self.defaults = []      # (line, text, name) of each ${name-text}
        self.position = 0       # up to here has been looked at
        self.start = 0          # from here on the text is in no token yet
        self.line = 1           # of self.counted
        self.counted = 0

    def scan(self):
        """Return the list of tokens. Raises Mistake."""
        text = self.text
        search = _NEXT.search
        handlers = {'$': self._expression, '<': self._opening, '\\': self._joint}
        found = search(text)
        while found:
            start = found.start()
            self.position = found.end()
            handlers.get(text[start], self._line_start)(start, found)
            found = search(text, self.position)
        self._text_until(len(text))
        return self._resolved()

    def line_at(self, position):
        """Return the line (from 1) of a position; positions are asked for in rising order."""
        if position >= self.counted:
            self.line += self.text.count('\n', self.counted, position)
            self.counted = position
            return self.line
        return self.text.count('\n', 0, position) + 1

    def _text_until(self, end):
        if end > self.start:
            self.tokens.append((TEXT, self.line_at(self.start), self.text[self.start:end]))
        self.start = end

    def _add(self, start, end, kind, *rest):
        """Make a token of text[start:end], after the text before it."""
        self._text_until(start)
        self.tokens.append((kind, self.line_at(start)) + rest)
        self.start = self.position = end

    # -- ${...}

    def _expression(self, start, found):
        call = _CALL.match(self.text, start)
        if call and not self._outside(start):
            self._text_until(start)
            self.tokens.append((EXPRESSION, self.line_at(start), call.group(1), ''))
            self.start = self.position = call.end()
            return
        haproxy = _HAPROXY.match(self.text, start)
        if haproxy:
            name = haproxy.group(1)
            if haproxy.group(2) == '}':
                # Whether the template defines the name is known only at its end.
                kind = EXPRESSION if name in self.known else 'maybe'
                self._add(start, haproxy.end(), kind, name, '')
            else:
                self.position = haproxy.end()
                if name and '-' in haproxy.group(2):
                    self.defaults.append((self.line_at(start), haproxy.group(), name))
            return
        self._code_or_text(start, start + 2, '}', self._outside(start))

    def _code_or_text(self, start, begin, closing, outside):
        """The expression whose code begins at `begin`. `outside` says why it may be text, if it may."""
        end, bar = self._closing(begin, closing, True, outside)
        if end is None:
            if not outside:
                raise Mistake('{} is not closed by {}'.format(self.text[start:begin], closing), self.line_at(start))
            return
        code = self._code(begin, bar if bar else end)
        if not code.strip():
            # ${} is nothing of either; <%= %> is empty, as it is in ERB.
            if closing != '}':
                self._add(start, end + len(closing), 'nothing')
            return
        filters = self.text[bar + 1:end].strip() if bar else ''
        self._add(start, end + len(closing), 'if known' if outside else EXPRESSION, code, filters)
        if outside:
            self.tokens[-1] += (self.text[start:self.position], outside)

    def _code(self, begin, end):
        """Python code out of the text. A byte that is no UTF-8 can only mean something in a string literal,
        and there its escape means the same."""
        code = self.text[begin:end].replace('\r\n', '\n')
        return _ODD.sub(lambda found: '\\u%04x' % ord(found.group()), code) if _ODD.search(code) else code

    def _closing(self, position, closing, watch_nesting, outside):
        """Return (end of the code, position of the bar before its filters or None), (None, None) where
        it does not end: in the text, or in its line where it may be none. Strings and comments are
        Python's."""
        depth = 0
        bar = None
        line_end = self.text.find('\n', position) if outside else -1
        for found in _INSIDE.finditer(self.text, position, line_end if line_end >= 0 else len(self.text)):
            sign = found.group()
            if sign == closing and (depth <= 0 or not watch_nesting):
                return found.start(), bar
            if sign in OPENING:
                depth += 1
            elif sign in ')]}':
                depth -= 1
                if depth < 0 and watch_nesting:
                    return None, None
            elif sign == '|' and watch_nesting and depth <= 0 and bar is None:
                bar = found.start()
        return None, None

    def _outside(self, position):
        """Say where a position stands that haproxy does not look into: 'a comment', "'...'" or None."""
        start = self.text.rfind('\n', 0, position) + 1
        before = self.text[start:position]
        if '#' not in before and "'" not in before:
            return None
        return where_in_line(_CONSTRUCT.sub('', before))

    # -- <% ... and </% ...

    def _opening(self, start, found):
        text = self.text
        if found.group() == '</%':
            closing = _TAG_END.match(text, start)
            if closing and (closing.group(1) in TAGS or ':' in closing.group(1)):
                self._add(start, closing.end(), TAG_END, closing.group(1))
            return
        sign = text[start + 2:start + 3]
        outside = self._outside(start)
        if sign == '=':
            self._code_or_text(start, start + 3, '%>', outside)
        elif sign == '#':
            end = text.find('%>', start)
            if end >= 0 and not (outside and '\n' in text[start:end]):
                self._text_until(start)
                self.tokens.append(('nothing', 0))
                self.start = self.position = end + 2
            elif not outside:
                raise Mistake('<%# is not closed by %>', self.line_at(start))
        elif sign == '!' or sign.isspace():
            self._block(start, start + (3 if sign == '!' else 2), sign == '!', outside)
        elif sign.isalpha() or sign == '_':
            self._tag(start, outside)

    def _block(self, start, begin, is_module, outside):
        end = self._closing(begin, '%>', False, outside)[0]
        if end is None:
            if not outside:
                raise Mistake('<% is not closed by %>', self.line_at(start))
        elif not outside or _names().parses(self.text[begin:end].strip()):
            self._add(start, end + 2, CODE, self._code(begin, end), is_module)

    def _tag(self, start, outside):
        text = self.text
        tag = _TAG.match(text, start)
        keyword = tag.group(1) if tag else _TAG_WORD.match(text, start).group(1)
        if tag and (keyword in TAGS or ':' in keyword and self._is_closed(tag, keyword)):
            if keyword in ('text', 'doc') and not tag.group(3):
                self._verbatim(start, tag, keyword, outside)
                return
            attributes = {}
            for name, double, single in _ATTRIBUTE.findall(tag.group(2)):
                attributes[name] = (double or single).replace('\r\n', '\n')
            self._add(start, tag.end(), TAG, keyword, attributes, bool(tag.group(3)))
        elif keyword in TAGS and not tag:
            if not outside:
                raise Mistake('the tag <%{} is not well formed'.format(keyword), self.line_at(start))
        elif not tag:
            # Code without a blank behind <%, as in <%import os%>; a bare word is HAProxy's: <%ci%>.
            end = self._closing(start + 2, '%>', False, outside)[0]
            if end is not None and keyword != text[start + 2:end] and _names().parses(text[start + 2:end]):
                self._add(start, end + 2, CODE, self._code(start + 2, end), False)
        elif tag.group(2):
            self.doubts.append((self.line_at(start), 'Mako has no tag <%{}, it is left to haproxy'.format(keyword)))

    def _is_closed(self, tag, keyword):
        return tag.group(3) or self.text.find('</%' + keyword + '>', tag.end()) >= 0

    def _verbatim(self, start, tag, keyword, outside):
        end = self.text.find('</%' + keyword + '>', tag.end())
        if end < 0:
            if not outside:
                raise Mistake('<%{0}> is not closed by </%{0}>'.format(keyword), self.line_at(start))
            return
        self._text_until(start)
        self.tokens.append(('nothing', 0))
        self.start = tag.end()
        if keyword == 'text':
            if 'filter' in tag.group(2):
                self.tokens.append((TAG, self.line_at(start), 'text',
                                    dict((n, d or s) for n, d, s in _ATTRIBUTE.findall(tag.group(2))), False))
                self._text_until(end)
                self.tokens.append((TAG_END, self.line_at(end), 'text'))
            self._text_until(end)
        self.start = self.position = end + len('</%>') + len(keyword)

    # -- lines

    def _line_start(self, start, found):
        text = self.text
        if found.group().endswith('##'):
            self.position = _LINE.match(text, start).end()
            return
        control = _CONTROL.match(text, start)
        if control:
            self._add(start, control.end(), CONTROL, control.group(3), bool(control.group(2)),
                      control.group(1).replace('\r\n', '\n'))
        elif text.startswith('%%', found.end() - 1):
            self._text_until(found.end() - 1)
            self.tokens.append(('percent', self.line_at(found.end() - 1)))
            self.start = found.end()
        else:
            line = text[start:_LINE.match(text, start).end()].strip()
            self.doubts.append((self.line_at(start), 'the line begins with % but is no control line, it is left '
                                'to haproxy: {}'.format(line)))

    def _joint(self, start, found):
        if self._outside(start) != 'a comment':
            self._text_until(start)
            self.tokens.append(('joint', self.line_at(start), found.group()))
            self.start = self.position

    # -- at the end

    def _known_to_haproxy(self, name):
        """haproxy sets variables of its own, and a config can set some for what follows."""
        if self.set_here is None:
            self.set_here = set(_SETENV.findall(self.text))
        return name.startswith('HAPROXY_') or self.in_environment(name) or name in self.set_here

    def _resolved(self):
        """Decide what had to wait for the whole text: return the tokens, text joined with text."""
        tokens = self.tokens
        own = None
        if self.defaults or any(token[0] in ('maybe', 'if known') for token in tokens):
            names = _names()
            own = names.assigned(tokens)
        is_defined = lambda name: name in own or name in self.known or name in MAKO_NAMES    # noqa: E731
        for line, text, name in self.defaults:
            if name in own or name in self.known:
                self.doubts.append((line, "{} is left to haproxy, which reads it as a default for {}; with a space "
                                          "before the sign it is the template's".format(text, name)))
        decided = []
        plain = True
        for token in tokens:
            kind, line = token[:2]
            if kind == 'maybe':
                name = token[2]
                if name in own:
                    token = (EXPRESSION, line, name, '')
                elif names.ANY in own:
                    token = (EXPRESSION, line, "{0} if {0} is not UNDEFINED else '${{' '{0}' '}}'".format(name), '')
                else:
                    if not self._known_to_haproxy(name):
                        self.unknown.append((line, name))
                    token = (TEXT, line, '${' + name + '}')
            elif kind == 'if known':
                code, filters, source, where = token[2:]
                missing = names.missing(code, is_defined)
                if missing is None or missing and names.ANY not in own:
                    self.doubts.append((line, '{} stands in {} and is left to haproxy: {}'.format(
                        source, where, 'it is no expression' if missing is None else
                        'nothing defines {}'.format(', '.join(missing)))))
                    token = (TEXT, line, source)
                else:
                    token = (EXPRESSION, line, code, filters)
            if token[0] not in (TEXT, 'joint', 'percent'):
                plain = False
            decided.append(token)
        if plain:
            return [(TEXT, 1, self.text)]
        return _joined(decided)


def _names():
    """Return the module `names`: with Python's parser, it is loaded for the templates that need it only."""
    from multibinder.template import names
    return names


def _joined(tokens):
    """Return the tokens with neighbouring text made one, so that a run of text is one write; text whose
    newlines were taken out in between stays apart, because its lines are counted from its first."""
    result = []
    parts = []
    for token in tokens + [('nothing', 0)]:
        kind = token[0]
        if kind == TEXT:
            if not parts:
                begun = token[1]
            parts.append(token[2])
        elif kind != 'percent':
            if parts:
                result.append((TEXT, begun, ''.join(parts)))
                parts = []
            if kind not in ('joint', 'nothing'):
                result.append(token)
    return result
