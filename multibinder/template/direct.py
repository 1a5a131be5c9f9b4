"""Runs a template that needs nothing but text, ${...}, control lines and <% %> without loading Mako.

Most templates are of that kind, and loading Mako costs several times what they need. Responsible for
nothing but the good case: whatever looks like more (a tag, a filter, a name of Mako's own) and whatever
fails is given back, and Mako runs the template from the beginning. So there is one place where mistakes
are put into words, and what Mako means is what counts.
"""

import builtins
import re
import types

from multibinder.pattern import Pattern
from multibinder.template import tokens
from multibinder.template.deadline import Late
from multibinder.template.sink import OUTPUT_MAX
from multibinder.template.text import text_of

# Words that mean something in Mako's generated function, or that show how this one is made.
_MAKO_WORDS = Pattern(
    r'\b(?:context|local|self|parent|next|caller|loop|capture|pageargs|UNDEFINED|STOP_RENDERING|runtime|filters|cache|'
    r'locals|globals|vars|dir|exec|eval|global|nonlocal|return|yield|await|async|__\w+|_import_ns|mb_\w+)\b')
_KINDS = (tokens.TEXT, tokens.EXPRESSION, tokens.CONTROL, tokens.CODE)
FILE_NAME = '<template>'
# The blocks of control lines, and what may stand between their beginning and their end.
_BLOCKS = {'for': ('else',), 'if': ('elif', 'else'), 'while': (), 'try': ('except', 'finally'), 'with': ()}
_ATTRIBUTE = Pattern(r'\.[^\W\d]\w*')
_ARGUMENT = r'''(?:\w+ ?= ?)?(?:\w+|'[^'\\\n]*'|"[^"\\\n]*")'''
_SIMPLE_CALL = Pattern(r' *\w+\((?:{0}(?:, *{0})*)?\) *\Z'.format(_ARGUMENT))
# A bind with its words written out, the most frequent expression by far: it needs no compiling.
_WRITTEN_OUT = Pattern(
    r'''[ ]*(bind_tcp|bind_unix)\([ ]*(?:'([^'\\\n]*)'|"([^"\\\n]*)")(?:[ ]*,[ ]*(0|[1-9]\d{0,4}))?[ ]*\)[ ]*\Z''')


class NotDirect(Exception):
    """This template is Mako's to run."""


def render_direct(found, scope, sink, path, reader):
    """Run the tokens of a template into `sink`. Raises NotDirect with scope and sink as they were: the
    template may be any, and may do anything."""
    count = len(scope.endpoints)
    pieces = len(sink.pieces)
    program = None
    try:
        program = _Program(found)
        names = _copied(scope.names)
        function = program.function(names)
        sink.locate = lambda origin, text: (path, abs(origin), origin > 0)
        _run(function, sink, program.runs, names)
    except Late as late:
        line = program and program.line_of(late)
        late.place = line and reader.place(path, line)
        raise
    except Exception as error:      # of any kind: Mako will meet it again, and it will be reported there
        del scope.endpoints[count:]
        del sink.pieces[pieces:]
        raise NotDirect() from error


def _run(function, sink, runs, names):
    size = 0
    pieces = sink.pieces

    def write(piece):
        nonlocal size
        size += len(piece[0])
        if size > OUTPUT_MAX:
            raise OverflowError()
        pieces.append(piece)

    def write_run(index):
        for piece in runs[index]:
            if len(piece) == 3:
                name, words, line = piece
                piece = (text_of(names[name](*words)), -line)
            write(piece)
    function(write, text_of, write_run)


def _globals_of(code):
    """Return the names that a code object and those within it look up outside of themselves, attributes too."""
    found = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found |= _globals_of(constant)
    return found


def _copied(value):
    """Return a copy of plain data: what a template changes there, Mako must not find changed."""
    if isinstance(value, dict):
        copy = type(value)()
        copy.update((key, _copied(item)) for key, item in value.items())
        return copy
    if isinstance(value, list):
        return [_copied(item) for item in value]
    return value


class _Program(object):
    """Python source that writes what the tokens say: a function of (mb_w, mb_t, mb_r). Text and binds that
    are written out, as far as they follow each other, are one of the `runs`, which mb_r writes."""

    def __init__(self, found):
        self.rows = ['def mb_body(mb_w, mb_t, mb_r):']
        self.runs = []
        self.lines = [1]        # for each line of the source the line of the template
        self.indent = ' '
        self.line = 1
        self.attributes = set()     # '.name' of each that the code looks up
        self.opened = []        # keywords of the blocks that are open
        if any(token[0] not in _KINDS for token in found):
            raise NotDirect()
        # Only code could give bind_tcp another meaning.
        written_out = not any(token[0] == tokens.CODE or token[0] == tokens.CONTROL and 'bind_' in token[-1] or
                              token[0] == tokens.EXPRESSION and ':=' in token[2] for token in found)
        run = None
        for token in found:
            kind = token[0]
            piece = None
            if kind == tokens.TEXT:
                piece = (token[2], token[1])
            elif kind == tokens.EXPRESSION and written_out:
                piece = self._bind(*token[1:])
            if piece is not None:
                if run is None:
                    self.line = token[1]
                    run = []
                    self._add('mb_r(%d)' % len(self.runs))
                    self.runs.append(run)
                run.append(piece)
                continue
            run = None
            self.line = token[1]
            if kind == tokens.EXPRESSION:
                self._expression(*token[1:])
            elif kind == tokens.CONTROL:
                self._control(*token[1:])
            else:
                self._code(*token[1:])
        if self.opened:
            raise NotDirect()
        self._add('pass')

    def _add(self, row):
        self.rows.append(self.indent + row)
        self.lines.extend([self.line] * (row.count('\n') + 1))

    def _bind(self, line, code, filters):
        """Return (name, arguments, line) of a bind that is written out, or None."""
        found = _WRITTEN_OUT.match(code)
        if found is None or filters:
            return None
        name, quoted, double, port = found.groups()
        words = [double if quoted is None else quoted] + ([] if port is None else [int(port)])
        return (name, words, line)

    def _expression(self, line, code, filters):
        if filters:
            raise NotDirect()
        self._check(code)
        if not _SIMPLE_CALL.match(code):
            # Alone it has to be an expression, so that nothing closes what is put around it.
            compile('(' + code + '\n)', FILE_NAME, 'eval')
        self._add('mb_w((mb_t((%s)), -%d))' % (code + '\n' if '#' in code else code, line))

    def _control(self, line, keyword, is_end, text):
        self._check(text)
        if keyword in _BLOCKS and not is_end:
            self.opened.append(keyword)
        else:
            if not self.opened or keyword not in (self.opened[-1:] if is_end else _BLOCKS[self.opened[-1]]):
                raise NotDirect()
            self.indent = self.indent[:-1]
            if is_end:
                self.opened.pop()
                return
        if not text.rstrip().endswith(':'):
            raise NotDirect()
        self._add(text)
        self.indent += ' '
        self._add('pass')

    def _code(self, line, code, is_module):
        if is_module or '"""' in code or "'''" in code or '\\\n' in code:
            raise NotDirect()
        self._check(code)
        margin = None
        for number, row in enumerate(code.split('\n')):
            if not row.strip():
                continue
            if margin is None:
                margin = re.match(r'[ \t]*', row).group()
            if not row.startswith(margin):
                raise NotDirect()
            self.line = line + number
            self._add(row[len(margin):])

    def line_of(self, error):
        """Return the template's line that an exception passed through, or None."""
        trace = error.__traceback__
        row = None
        while trace:
            if trace.tb_frame.f_code.co_filename == FILE_NAME:
                row = trace.tb_lineno
            trace = trace.tb_next
        return row and self.lines[row - 1]

    def _check(self, code):
        if _MAKO_WORDS.search(code):
            raise NotDirect()
        if '.' in code:
            self.attributes.update(_ATTRIBUTE.findall(code))

    def function(self, names):
        """Return the function, with `names` as what it sees from outside."""
        code = compile('\n'.join(self.rows) + '\n', FILE_NAME, 'exec')
        inner = [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
        # What nothing defines has a meaning in Mako, so it is looked for before anything has happened.
        for name in _globals_of(inner[0]):
            if name not in names and not hasattr(builtins, name) and '.' + name not in self.attributes:
                raise NotDirect()
        return types.FunctionType(inner[0], dict(names, __builtins__=builtins))
