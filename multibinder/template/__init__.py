"""Templates: the text of a template in, the text for haproxy out.

Responsible for the one entrance, `render`, and for what it gives back, `Rendering`. A template whose
name ends in .erb or .mb is ERB, every other one is Mako. Pure: no socket is touched and no file is
written; the descriptor numbers in the text are a promise that whoever launches haproxy has to keep.
The trailing comment of a rendered config is not this package's.
"""

import os
import warnings

from multibinder.template.scope import Scope
from multibinder.template.sink import Sink
from multibinder.template.source import FIRST_FD, Reader, bare_name

ERB_ENDINGS = ('.erb', '.mb')

__all__ = ['FIRST_FD', 'Rendering', 'render']


class Rendering(object):
    """A rendered template: plain data, which passes through pickle.

    `text` (str; bytes that are not UTF-8 are surrogate escapes), `endpoints` (list of Endpoint: the i-th
    stands in the text as 'fd@N' with N = FIRST_FD + i), `lines` (list: for each line of the text, from
    index 0, the (path, line number) of the template it came from, or None), `warnings` (list of str).
    """

    __slots__ = ('text', 'endpoints', 'lines', 'warnings')

    def __init__(self, text, endpoints, lines, warnings):
        self.text = text
        self.endpoints = endpoints
        self.lines = lines
        self.warnings = warnings

    def __reduce__(self):
        return (Rendering, (self.text, self.endpoints, self.lines, self.warnings))


def render(path, instance=None, env=None, strict=False, clear=False, deadline=None):
    """Render the template at `path` (str) and return a Rendering. Raises TemplateError, nothing else.

    `instance` is the name of the instance (taken from the file's name when None) and `env` the
    environment that the template sees (a mapping of str, os.environ when None). With `strict` a
    ${name} that neither the template nor the environment knows is an error and not a warning. With
    `clear` haproxy's own spelling of each address stands in place of fd@N. `deadline` (seconds, None
    for none) bounds the whole; it uses SIGALRM and so works in the main thread only.

    Each call of bind_tcp or bind_unix takes a new descriptor number, for the same endpoint too.
    """
    path = os.path.abspath(path)
    if deadline is not None:
        from multibinder.template.deadline import limited
        return limited(deadline, path, lambda: render(path, instance, env, strict, clear))
    reader = Reader()
    reader.read(path)
    scope = Scope(bare_name(path) if instance is None else instance,
                  os.environ if env is None else env, clear)
    scope.load_values(path, reader)
    sink = Sink()
    if path.endswith(ERB_ENDINGS):
        from multibinder.erb import render_erb as engine
    else:
        from multibinder.template.tmpl import render_tmpl as engine
    with warnings.catch_warnings():
        # What Python's compiler thinks of a template's code would go to stderr, without its place.
        warnings.simplefilter('ignore')
        said = engine(path, reader, scope, sink, strict)
    text, lines = sink.finish()
    try:
        text.encode('utf-8', 'surrogateescape')
    except UnicodeEncodeError as error:
        place = lines[text.count('\n', 0, error.start)] or (path, None)
        raise reader.error('the value is no text: U+{:04X} is half a character'.format(ord(text[error.start])),
                           *place) from None
    said += sink.warnings + scope.misused(text, lines, path)
    return Rendering(text, scope.endpoints, lines, said)
