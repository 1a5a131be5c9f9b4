"""NAME.cfg.tmpl: a template in Mako, run in the cheapest way that means the same.

Responsible for scanning a template's text once, for the warnings that come of it and for the choice
between a plain config, `direct` and Mako.
"""

from multibinder.template import tokens


def render_tmpl(path, reader, scope, sink, strict):
    """Render the template at `path` into `sink`. Returns the warnings (list of str); raises TemplateError."""
    scans = Scans(reader, scope, strict)
    found = scans.scan(path)
    if all(token[0] == tokens.TEXT for token in found):
        sink.locate = lambda origin, text: (path, origin, True)
        sink.pieces.extend((token[2], token[1]) for token in found)
        return scans.warnings
    from multibinder.template.direct import NotDirect, render_direct
    try:
        render_direct(found, scope, sink, path, reader)
    except NotDirect:
        from multibinder.template.mako_engine import render_mako
        render_mako(path, reader, scope, sink, scans)
    return scans.warnings


class Scans(object):
    """The templates of one rendering as tokens, each scanned once. `warnings` is a list of str."""

    def __init__(self, reader, scope, strict):
        self.reader = reader
        self.scope = scope
        self.strict = strict
        self.warnings = []
        self.found = {}

    def scan(self, path):
        """Return the tokens of a template. Raises TemplateError."""
        if path not in self.found:
            scanner = tokens.Scanner(self.reader.read(path), self.scope.names, self.scope.env.__contains__)
            try:
                self.found[path] = scanner.scan()
            except tokens.Mistake as error:
                raise self.reader.error(str(error), path, error.line) from None
            self._report(path, scanner)
        return self.found[path]

    def _report(self, path, scanner):
        for line, name in scanner.unknown:
            sentence = ('${{{0}}} is left to haproxy: nothing here defines {0}, and the environment has '
                        'none').format(name)
            if self.strict:
                raise self.reader.error(sentence, path, line)
            self.warnings.append('{}:{}: {}'.format(path, line, sentence))
        for line, sentence in scanner.doubts:
            self.warnings.append('{}:{}: {}'.format(path, line, sentence))
