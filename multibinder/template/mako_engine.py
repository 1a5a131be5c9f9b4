"""Mako: a template's tokens through Mako's own compiler, and its failures as lines of the template.

Responsible for importing Mako without what it does not need here, for finding templates that one
template names, and for saying where something went wrong. Works with Mako 1.0.3 to 1.4, of which it
uses: lexer.Lexer.append_node, parsetree, template.Template, runtime.Context with its _data. What the text means is
`tokens`'.
"""

import bisect
import json
import re
import sys

from multibinder.errors import TemplateError
from multibinder.template import cheap_mako, names, tokens
from multibinder.template.deadline import Late
from multibinder.template.scope import MAKO_NAMES, BindRefused
from multibinder.template.sink import OUTPUT_MAX
from multibinder.template.text import NONE, NotText

cheap_mako.load()

from mako import exceptions, parsetree, runtime     # noqa: E402
from mako.lexer import Lexer                        # noqa: E402
from mako.pygen import adjust_whitespace            # noqa: E402
from mako.template import Template                  # noqa: E402

_METADATA = re.compile(r'__M_BEGIN_METADATA(.+?)__M_END_METADATA', re.S)
_WHERE = re.compile(r"( in file '.*')? at line: \d+ char: \d+\Z", re.S)


def render_mako(path, reader, scope, sink, scans):
    """Render the template at `path` into `sink`; `scans` (tmpl.Scans) gives the tokens. Raises TemplateError."""
    _Engine(reader, scope, sink, scans).render(path)


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
        start, line = self.piece_of(number)
        return line + min(number - start, self.spans.get(line, 0))

    def piece_of(self, number):
        """Return where the piece begins that a line of Mako's module belongs to: (line there, template's line)."""
        if self.starts is None:
            metadata = _METADATA.findall(self.template.code)[-1]
            self.map = dict((int(key), line) for key, line in json.loads(metadata)['line_map'].items())
            self.starts = sorted(self.map)
        index = bisect.bisect_right(self.starts, number) - 1
        if index < 0:
            return number, 1        # of Mako's own lines before the first piece
        return self.starts[index], self.map[self.starts[index]]


class _Engine(object):
    """The templates of one rendering, and Mako's lookup for them (get_template, adjust_uri)."""

    def __init__(self, reader, scope, sink, scans):
        self.reader = reader
        self.scope = scope
        self.sink = sink
        self.scans = scans
        self.sources = {}       # by uri
        self.uris = {}          # by path
        self.size = 0
        sink.locate = self.locate
        sink.write = self.write

    def render(self, path):
        try:
            template = self._template(path)
            context = runtime.Context(self.sink)
            # Not as keywords: a value may have the name of one of its parameters.
            context._data.update(self.scope.names)
            context._kwargs.update(self.scope.names)
            template.render_context(context)
        except TemplateError as error:      # of a template that another one names
            raise self._with_callers(error, self._place(error)) from None
        except Late as late:
            places = self._place(late)
            if places:
                late.place = self.reader.place(places[-1][0].path, places[-1][1])
            raise
        except (Exception, SystemExit) as error:    # whatever a template's own code raises
            raise self._failure(error, path) from None

    # -- Mako's lookup

    def get_template(self, uri):
        return self._template(uri)

    def has_template(self, uri):
        return True

    def adjust_uri(self, uri, relativeto):
        beside = self.sources[relativeto].path
        found = self.reader.find(uri, beside)
        if found is None:
            places = self.reader.places(uri, beside)
            raise _Missing('cannot find {!r}: there is no {}'.format(uri, ' and no '.join(places)))
        return found

    def filename_to_uri(self, filename):
        return filename

    def _template(self, path):
        uri = self.uris.get(path)
        if uri is not None:
            return self.sources[uri].template
        found = self.scans.scan(path)
        source = _Source(path, found)
        # Mako names its module after the uri with every odd sign made "_": the number keeps two apart.
        uri = '/%d/%s' % (len(self.sources), path)
        self.uris[path] = uri
        self.sources[uri] = source
        try:
            source.template = Template(
                text=self.reader.read(path), filename=path, uri=uri, lookup=self, lexer_cls=_lexer(found),
                default_filters=['mb_text_of'],
                imports=['from multibinder.template.text import text_of as mb_text_of'])
        except TemplateError:
            raise
        except Exception as error:      # Mako lets more through than its own kinds
            raise self._refusal(error, path) from None
        return source.template

    # -- writing

    def write(self, text):
        """Take a piece of text and where in Mako's module it was written."""
        if type(text) is not str and text is not NONE:
            if not isinstance(text, str):
                raise NotText(text)
            text = str.__str__(text)        # what the filter h gives joins in ways of its own
        self.size += len(text)
        if self.size > OUTPUT_MAX:
            raise OverflowError('the rendered text is larger than {} characters'.format(OUTPUT_MAX))
        frame = sys._getframe(1)
        # f_lasti and not f_lineno, which counts from the beginning of the function each time.
        self.sink.pieces.append((text, (frame.f_code, frame.f_lasti, frame.f_globals)))

    def locate(self, origin, text):
        code, instruction, module = origin
        source = self.sources.get(module.get('_template_uri'))
        if source is None:
            return None
        # By identity: to hash a code object is to read all of it.
        table = source.by_code.get(id(code))
        if table is None:
            table = source.by_code[id(code)] = _line_table(code)
        number = table[1][bisect.bisect_right(table[0], instruction) - 1]
        # Where the expression begins: a Python before 3.8 names the last line of a call.
        line = source.piece_of(number)[1]
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
            return TemplateError(self._reason(error), path)
        source, line, frame, number = places.pop()
        undefined = self._undefined(error, source, line, frame, number)
        if undefined:
            reason, line = 'nothing defines {}'.format(' or '.join(undefined[0])), undefined[1]
        else:
            reason = self._reason(error)
        return self._with_callers(self.reader.error(reason, source.path, line), places)

    def _with_callers(self, error, places):
        """Return a TemplateError that also says through which lines of other templates it came."""
        callers = []
        for source, line, _, _ in places:
            caller = '{}:{}'.format(source.path, line)
            if source.path != error.path and caller not in callers:
                callers.append(caller)
        if not callers:
            return error
        shown = callers if len(callers) <= 4 else callers[:2] + ['...'] + callers[-2:]
        return TemplateError('{} (by way of {})'.format(error.reason, ', '.join(shown)), error.path, error.line,
                             error.text)

    def _undefined(self, error, source, line, frame, number):
        """Return (names, line) where what went wrong is that nothing defines them, else None.

        Mako gives an undefined name a value of its own and says "Undefined" when that is used, so the
        names are those with this value in the code that failed.
        """
        words = str(error)
        if isinstance(error, NameError) and 'ndefined' not in words:
            named = re.search(r"name '(\w+)'", words)
            return ((named.group(1),), line) if named else None
        if 'ndefined' not in words and not isinstance(error, NotText):
            return None
        found = []
        at = None
        start, line = source.piece_of(number)
        rows = source.template.code.split('\n')[start - 1:]
        for row, text in enumerate(rows[:source.spans.get(line, 0) + 1]):
            for word in re.findall(r'[^\W\d]\w*', text):
                if frame.f_locals.get(word) is runtime.UNDEFINED and word != 'UNDEFINED' and word not in found:
                    found.append(word)
                    at = row if at is None else at
        return (found, line + at) if found else None

    def _reason(self, error):
        """Say in one sentence what an exception out of a template's code means."""
        words = str(error)
        if isinstance(error, (BindRefused, NotText, _Missing, OverflowError)):
            return words
        if isinstance(error, RecursionError):
            return 'it goes round in circles: a template or a def that includes itself'
        if isinstance(error, KeyError) and error.args and isinstance(error.args[0], str) and ' ' in error.args[0]:
            return error.args[0]
        if isinstance(error, TypeError) and 'bind_' in words:
            return words.replace('Scope.', '')
        for uri, source in self.sources.items():
            words = words.replace(uri, source.path)
        return '{}: {}'.format(type(error).__name__, words) if words else type(error).__name__

    def _refusal(self, error, path):
        """Return the TemplateError for an exception out of Mako's compiler."""
        if isinstance(error, SyntaxError) or isinstance(error.__context__, SyntaxError):
            # Which line Mako names differs between its versions, so it is looked for here.
            for token in self.scans.scan(path):
                found = names.mistake(token)
                if found:
                    return self.reader.error(found[1], path, found[0])
        reason = _WHERE.sub('', str(error))
        if reason.startswith('Reserved words'):
            for token in self.scans.scan(path):
                if names.assigned([token]).intersection(MAKO_NAMES):
                    return self.reader.error(reason, path, token[1])
        if reason.startswith('Fragment '):
            reason = 'a control line ends with a colon'
        return self.reader.error(reason, path, getattr(error, 'lineno', None))


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
                    # In brackets, so that `a, b` is a tuple here as it is in the value of a name.
                    code = '(' + token[2] + ('\n)' if '#' in token[2] else ')')
                    self.append_node(parsetree.Expression, code, token[3])
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


def _line_table(code):
    """Return (offsets, lines) of a code object, in rising order of offset."""
    import dis
    pairs = list(dis.findlinestarts(code))
    return [offset for offset, _ in pairs], [line for _, line in pairs]
