"""Mako: a template's tokens through Mako's own compiler, and its failures as lines of the template.

Responsible for importing Mako without what it does not need here, for finding templates that one
template names, and for saying where something went wrong. Works with Mako 1.0.3 to 1.4, of which it
uses: lexer.Lexer.append_node, parsetree, template.Template, runtime.Context. What the text means is
`tokens`'.
"""

import bisect
import json
import re
import sys

from multibinder.errors import TemplateError
from multibinder.template import cheap_mako, tokens
from multibinder.template.scope import BindRefused
from multibinder.template.sink import OUTPUT_MAX

cheap_mako.load()

from mako import exceptions, parsetree, runtime     # noqa: E402
from mako.lexer import Lexer                        # noqa: E402
from mako.template import Template                  # noqa: E402

_METADATA = re.compile(r'__M_BEGIN_METADATA(.+?)__M_END_METADATA', re.S)
_WHERE = re.compile(r"( in file '.*')? at line: \d+ char: \d+\Z", re.S)
# What Python shows of an object that has no text of its own, a generator for one.
_NO_TEXT = re.compile(r'<.* at 0x[0-9a-f]+>\Z', re.S)
_PARSER_WORDS = re.compile(r"\A\(\w+\) (.*?)( \(<unknown>, line \d+\))?( \(['\"].*)?\Z", re.S)


def render_mako(path, reader, scope, sink, strict):
    """Render the template at `path` into `sink`. Returns the warnings (list of str); raises TemplateError."""
    return _Engine(reader, scope, sink, strict).render(path)


def text_of(value):
    """Return what an expression's value is in the text. Raises NotText."""
    if type(value) is str:
        return value
    if isinstance(value, (bytes, bytearray)) or callable(value) and value is not runtime.UNDEFINED:
        raise NotText(value)
    text = str(value)
    if text[:1] == '<' and _NO_TEXT.match(text):
        raise NotText(value)
    return text


class NotText(Exception):
    """A value that has no text of its own."""

    def __init__(self, value):
        Exception.__init__(self, 'the value is no text but {}'.format(_described(value)))


class _Missing(Exception):
    """A template that another one names and that is nowhere."""


class _Source(object):
    """One template of a rendering: its path, its Mako template and the map of its lines."""

    def __init__(self, path, found):
        self.path = path
        self.spans = {}         # line at which code of several lines begins: how many newlines it has
        self.texts = set()      # (line, text) of text
        for token in found:
            if token[0] == tokens.TEXT:
                self.texts.add((token[1], token[2]))
            elif token[0] in (tokens.CODE, tokens.EXPRESSION, tokens.CONTROL):
                self.spans[token[1]] = token[4 if token[0] == tokens.CONTROL else 2].count('\n')
        self.template = None
        self.starts = None
        self.by_code = {}

    def line_of(self, number):
        """Return the template's line for a line of Mako's module."""
        if self.starts is None:
            metadata = _METADATA.findall(self.template.code)[-1]
            self.map = dict((int(key), line) for key, line in json.loads(metadata)['line_map'].items())
            self.starts = sorted(self.map)
        index = bisect.bisect_right(self.starts, number) - 1
        if index < 0:
            return 1
        start = self.starts[index]
        line = self.map[start]
        return line + min(number - start, self.spans.get(line, 0))


class _Engine(object):
    """The templates of one rendering, and Mako's lookup for them (get_template, adjust_uri)."""

    def __init__(self, reader, scope, sink, strict):
        self.reader = reader
        self.scope = scope
        self.sink = sink
        self.strict = strict
        self.sources = {}       # by uri
        self.uris = {}          # by path
        self.warnings = []
        self.size = 0
        sink.locate = self.locate
        sink.write = self.write

    def render(self, path):
        template = None
        try:
            template = self._template(path)
            template.render_context(runtime.Context(self.sink, **self.scope.names))
        except TemplateError:
            raise
        except Exception as error:      # whatever a template's own code raises
            raise self._failure(error, path) from None
        return self.warnings

    # -- Mako's lookup

    def get_template(self, uri):
        return self._template(uri)

    def has_template(self, uri):
        return True

    def adjust_uri(self, uri, relativeto):
        beside = self.sources[relativeto].path
        found = self.reader.find(uri, beside)
        if found is None:
            raise _Missing('cannot find {!r}: there is no {}'.format(uri, ' and no '.join(self.reader.places(uri, beside))))
        return found

    def filename_to_uri(self, filename):
        return filename

    def _template(self, path):
        uri = self.uris.get(path)
        if uri is not None:
            return self.sources[uri].template
        text = self.reader.read(path)
        try:
            scanner = tokens.Scanner(text, self.scope.names, self.scope.env.__contains__)
            found = scanner.scan()
        except tokens.Mistake as error:
            raise self.reader.error(str(error), path, error.line) from None
        self._report(path, scanner)
        source = _Source(path, found)
        # Mako names its module after the uri with every odd sign made "_": the number keeps two apart.
        uri = '/%d/%s' % (len(self.sources), path)
        self.uris[path] = uri
        self.sources[uri] = source
        try:
            source.template = Template(
                text=text, filename=path, uri=uri, lookup=self, lexer_cls=_lexer(found), default_filters=['mb_text_of'],
                imports=['from multibinder.template.mako_engine import text_of as mb_text_of'])
        except TemplateError:
            raise
        except Exception as error:      # Mako lets more through than its own kinds
            raise self._refusal(error, path) from None
        return source.template

    def _report(self, path, scanner):
        for line, name in scanner.unknown:
            sentence = '${{{0}}} is left to haproxy: nothing here defines {0}, and the environment has none'.format(name)
            if self.strict:
                raise self.reader.error(sentence, path, line)
            self.warnings.append('{}:{}: {}'.format(path, line, sentence))
        for line, sentence in scanner.doubts:
            self.warnings.append('{}:{}: {}'.format(path, line, sentence))

    # -- writing

    def write(self, text):
        """Take a piece of text and where in Mako's module it was written."""
        if type(text) is not str:
            raise NotText(text)
        self.size += len(text)
        if self.size > OUTPUT_MAX:
            raise OverflowError('the rendered text is larger than {} characters'.format(OUTPUT_MAX))
        frame = sys._getframe(1)
        # f_lasti and not f_lineno, which counts from the beginning of the function each time.
        self.sink.pieces.append((text, (frame.f_code, frame.f_lasti, frame.f_globals)))

    def locate(self, origin, text):
        code, instruction, names = origin
        source = self.sources.get(names.get('_template_uri'))
        if source is None:
            return None
        table = source.by_code.get(code)
        if table is None:
            table = source.by_code[code] = _line_table(code)
        line = source.line_of(table[1][bisect.bisect_right(table[0], instruction) - 1])
        return source.path, line, (line, text) in source.texts

    # -- failures

    def _place(self, error):
        """Return the places in templates that a traceback goes through, outermost first: a list of
        (source, line, frame, line of the module)."""
        places = []
        trace = error.__traceback__
        while trace:
            frame = trace.tb_frame
            source = self.sources.get(frame.f_globals.get('_template_uri'))
            if source is not None and source.template is not None:
                places.append((source, source.line_of(trace.tb_lineno), frame, trace.tb_lineno))
            trace = trace.tb_next
        return places

    def _failure(self, error, path):
        """Return the TemplateError for an exception out of a running template."""
        places = self._place(error)
        if not places:
            return TemplateError(_reason(error), path)
        source, line, frame, number = places[-1]
        return self.reader.error(_reason(error, frame, source, number), source.path, line)

    def _refusal(self, error, path):
        """Return the TemplateError for an exception out of Mako's compiler."""
        line = getattr(error, 'lineno', None)
        words = error.__context__
        if isinstance(error, SyntaxError):
            return self.reader.error(error.msg, path, None)
        if isinstance(words, SyntaxError):
            if line:
                line += (words.lineno or 1) - 1
            return self.reader.error(words.msg, path, line)
        reason = _WHERE.sub('', str(error))
        return self.reader.error(reason, path, line)


def _lexer(found):
    """Return the lexer class that gives Mako the tokens of one template."""

    class TokenLexer(Lexer):

        def parse(self):
            self.encoding = 'utf-8'
            for token in found:
                kind, self.matched_lineno = token[:2]
                self.matched_charpos = 1
                if kind == tokens.TEXT:
                    self.append_node(parsetree.Text, token[2])
                elif kind == tokens.EXPRESSION:
                    self.append_node(parsetree.Expression, token[2], token[3])
                elif kind == tokens.CONTROL:
                    self._control(*token[2:])
                elif kind == tokens.CODE:
                    self.append_node(parsetree.Code, adjust_whitespace(token[2]) + '\n', token[3])
                elif kind == tokens.TAG:
                    self.append_node(parsetree.Tag, token[2], token[3])
                    if token[4]:
                        self.tag.pop()
                else:
                    self._tag_end(token[2])
            if self.tag:
                self._refuse('<%{0}> is not closed by </%{0}>'.format(self.tag[-1].keyword), self.tag[-1].lineno)
            if self.control_line:
                opened = self.control_line[-1]
                self._refuse('% {0} is not closed by % end{0}'.format(opened.keyword), opened.lineno)
            return self.template

        def _control(self, keyword, is_end, line):
            if is_end:
                opened = self.control_line[-1].keyword if self.control_line else None
                if opened != keyword:
                    self._refuse('% end{} closes nothing'.format(keyword) if opened is None else
                                 '% end{} stands where % end{} should'.format(keyword, opened))
            elif keyword not in ('for', 'if', 'while', 'try', 'with') and not self.control_line:
                self._refuse('% {} stands outside of any block'.format(keyword))
            self.append_node(parsetree.ControlLine, keyword, is_end, line)

        def _tag_end(self, keyword):
            opened = self.tag[-1].keyword if self.tag else None
            if opened != keyword:
                self._refuse('</%{}> closes nothing'.format(keyword) if opened is None else
                             '</%{}> stands where </%{}> should'.format(keyword, opened))
            self.tag.pop()

        def _refuse(self, reason, line=None):
            raise exceptions.SyntaxException(reason, '', line or self.matched_lineno, 1, self.filename)

    return TokenLexer


from mako.pygen import adjust_whitespace    # noqa: E402


def _line_table(code):
    """Return (offsets, lines) of a code object, in rising order of offset."""
    import dis
    pairs = list(dis.findlinestarts(code))
    return [offset for offset, _ in pairs], [line for _, line in pairs]


def _described(value):
    if isinstance(value, (bytes, bytearray)):
        return 'bytes: {!r}'.format(bytes(value[:40]))
    return 'a ' + type(value).__name__


def _reason(error, frame=None, source=None, number=None):
    """Say in one sentence what an exception out of a template's code means."""
    if isinstance(error, (BindRefused, NotText, _Missing, OverflowError)):
        return str(error)
    if isinstance(error, RecursionError):
        return 'it goes round in circles: a template or a def that includes itself'
    if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str) and ' ' in error.args[0]:
        return error.args[0]
    undefined = _undefined(error, frame, source, number) if frame is not None else ()
    if undefined:
        return 'nothing defines {}'.format(' or '.join(undefined))
    return '{}: {}'.format(type(error).__name__, error)


def _undefined(error, frame, source, number):
    """Return the names of the module's line that nothing defines, where that is what went wrong."""
    if isinstance(error, NameError) and 'ndefined' not in str(error):
        found = re.search(r"name '(\w+)'", str(error))
        return (found.group(1),) if found else ()
    if 'ndefined' not in str(error):
        return ()
    rows = source.template.code.split('\n')
    row = rows[number - 1] if number <= len(rows) else ''
    words = re.findall(r'[A-Za-z_]\w*', row)
    found = []
    for word in words:
        if frame.f_locals.get(word) is runtime.UNDEFINED and word not in found:
            found.append(word)
    return found
