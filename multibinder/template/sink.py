"""Where a template writes to: the rendered text, and for each of its lines the template's line.

A piece of text is kept with its origin and not looked at while the template runs; the lines are worked
out once at the end. What an origin means is the engine's: it gives `locate`.
"""

from multibinder.template.text import NONE

OUTPUT_MAX = 64 * 1024 * 1024   # characters


class Sink(object):
    """Pieces of text in the order written. An engine appends (text, origin) to `pieces` and sets
    `locate`, a function of (origin, text) that returns (path, line, literal) or None.

    `literal` tells text that stood in the template over several lines (its next line is the template's
    next line) from the value of an expression (all its lines are from that expression's line).
    """

    def __init__(self):
        self.pieces = []
        self.locate = None
        self.warnings = []

    def finish(self):
        """Return (text, lines) as Rendering has them."""
        lines = []
        known = {}              # one tuple for each template line: they are many and equal
        at = None               # where the first sign that is no blank of the unfinished line came from
        blank = None            # where its first blank came from
        begun = False
        for text, origin in self.pieces:
            if not text:
                continue
            found = self.locate(origin, text)
            path, number, literal = found or (None, None, False)
            if text is NONE:
                self.warnings.append('{}:{}: the value of the expression is None'.format(path, number))
            rows = text.split('\n')
            last = len(rows) - 1
            for row, piece in enumerate(rows):
                if at is None and (piece or row < last):
                    place = None
                    if path is not None:
                        key = (path, number + row if literal else number)
                        place = known.setdefault(key, key)
                    if piece.strip() or not begun and row < last:
                        at = place
                    elif blank is None:
                        blank = place
                    begun = True
                if row < last:
                    lines.append(at or blank)
                    at = blank = None
                    begun = False
        if begun:
            lines.append(at or blank)
        return ''.join([text for text, _ in self.pieces]), lines
