"""Template files as text: how they are found, decoded and quoted in messages, and how haproxy reads a line.

Bytes that are not UTF-8 become surrogate escapes, so that writing the text back with the same codec
gives the same bytes, whatever the encoding was. Nothing is known here of any template language.
"""

import os
import re

from multibinder.errors import TemplateError, reason_of
from multibinder.pattern import Pattern

FIRST_FD = 3                    # the first number that is not stdin, stdout or stderr
ENDINGS = ('.tmpl', '.erb', '.mb')
# HAProxy's configuration manual, section 2.2: a backslash, strong and weak quotes, a comment.
_WORDS = Pattern(r'''\\.|'([^']*)('|\Z)|"(?:[^"\\]|\\.)*("|\Z)|(\#)''', re.S)
SYSTEM_DIRECTORY = '/etc/haproxy'
SIZE_MAX = 64 * 1024 * 1024     # bytes: no config is larger, and a device node never ends


class Reader(object):
    """Reads each file once, and remembers its text for the messages that quote a line of it."""

    def __init__(self):
        self.texts = {}

    def read(self, path):
        """Return the text of a file. Raises TemplateError, which names the path and the reason."""
        text = self.texts.get(path)
        if text is None:
            try:
                with open(path, 'rb') as file:
                    data = file.read(SIZE_MAX + 1)
            except (OSError, ValueError) as error:
                reason = reason_of(error) if isinstance(error, OSError) else str(error)
                raise TemplateError('cannot read it: ' + reason, path) from None
            if len(data) > SIZE_MAX:
                raise TemplateError('cannot read it: larger than {} bytes'.format(SIZE_MAX), path)
            text = self.texts[path] = data.decode('utf-8', 'surrogateescape')
        return text

    def error(self, reason, path, line=None):
        """Return a TemplateError that quotes the line (int from 1, or None) of a file that was read."""
        return TemplateError(reason, *self.place(path, line))

    def place(self, path, line):
        """Return (path, line, the text of that line or None)."""
        lines = self.texts.get(path, '').split('\n') if line else ()
        return path, line, lines[line - 1].rstrip('\r') if line and line <= len(lines) else None

    def find(self, name, beside):
        """Return the path of the file `name` that the file `beside` asks for, or None: looked for
        beside that file and then in /etc/haproxy, a name that begins with / as it stands first."""
        for path in self.places(name, beside):
            if os.path.isfile(path):
                return path
        return None

    def places(self, name, beside):
        """Return the paths at which `find` looks, in its order (list of str)."""
        found = [name] if name.startswith('/') else []
        for directory in (os.path.dirname(beside), SYSTEM_DIRECTORY):
            path = os.path.normpath(os.path.join(directory, name.lstrip('/')))
            if path not in found:
                found.append(path)
        return found


def where_in_line(before):
    """Say where in a line of haproxy's a text ends up that stands behind `before`, the line's beginning:
    'a comment', "'...'" (strong quotes) or None."""
    if '#' not in before and "'" not in before:
        return None
    for found in _WORDS.finditer(before):
        if found.group(4):
            return 'a comment'
        if found.group(1) is not None and not found.group(2):
            return "'...'"
    return None


def in_comment(before):
    """Tell whether a comment has begun in the beginning of a line."""
    return where_in_line(before) == 'a comment'


def bare_name(path):
    """Return NAME of .../NAME.cfg.tmpl: the file's name without its endings."""
    name = os.path.basename(path)
    for ending in ENDINGS:
        if name.endswith(ending) and name != ending:
            name = name[:-len(ending)]
            break
    return name[:-len('.cfg')] if name.endswith('.cfg') and name != '.cfg' else name
