"""Ruby's regular expressions as Python's, where both mean the same; everything else is refused."""

import re

from multibinder.erb.refusal import Refusal
from multibinder.erb.values import Regexp

_CLASSES = {'alpha': 'a-zA-Z', 'digit': '0-9', 'alnum': 'a-zA-Z0-9', 'upper': 'A-Z', 'lower': 'a-z',
            'space': ' \\t\\n\\v\\f\\r', 'xdigit': '0-9a-fA-F', 'punct': None}
_PIECE = re.compile(r'\\(.)|\[\^?\]?|\(\?(.)?|\[:(\^?\w+):\]|[$^]|[*+?}][+]|\(|.', re.S)
# Escapes that mean the same in both, and what stands for the others.
_SAME = frozenset('dDwWsSbBntrfv.\\/|()[]{}*+?^$-"\'#:=@,&%!<>~`;_ ')
_OTHER = {'A': '\\A', 'z': '\\Z', 'Z': '(?=\\n?\\Z)', 'h': '[0-9a-fA-F]', 'H': '[^0-9a-fA-F]', 'e': '\\x1b', 'a': '\\a'}


def translated(source, flags, line):
    """Return a Regexp. Raises Refusal."""
    def refuse(words):
        raise Refusal("ruby's {} in a regular expression is not supported here".format(words), line)

    options = re.M | re.A       # ^ and $ match at each line in Ruby, \d and \w are ASCII
    for flag in flags:
        if flag == 'i':
            options |= re.I
        elif flag == 'm':
            options |= re.S
        else:
            refuse('option ' + flag)
    out = []
    inside = False
    position = 0
    while position < len(source):
        found = _PIECE.match(source, position)
        piece = found.group()
        if inside:
            # In [...] only an escape, a named class or the end is more than itself.
            found = re.compile(r'\\(.)|\[:(\w+):\]|&&|.', re.S).match(source, position)
            piece = found.group()
            if piece == ']':
                inside = False
            elif piece == '&&' or piece == '[':
                refuse(piece + ' in [...]')
            elif found.group(2):
                if not _CLASSES.get(found.group(2)):
                    refuse(piece)
                piece = _CLASSES[found.group(2)]
            elif found.group(1) is not None:
                if found.group(1) == 'h':
                    piece = '0-9a-fA-F'
                elif found.group(1) not in _SAME:
                    refuse(piece)
        elif found.group(1) is not None:
            piece = _escape(found.group(1), refuse)
        elif piece[0] == '[':
            if piece.endswith(']'):
                refuse('empty [...]')
            inside = True
        elif piece.startswith('(?'):
            if found.group(2) not in (':', '=', '!'):
                refuse('(?' + (found.group(2) or ''))
        elif len(piece) == 2 and piece[1] == '+':
            refuse('possessive ' + piece)
        elif piece == '$':
            piece = '(?=\\n|\\Z)'
        out.append(piece)
        position = found.end()
    try:
        return Regexp(source, flags, re.compile(''.join(out), options))
    except (re.error, OverflowError, RecursionError) as error:
        raise Refusal('the regular expression /{}/ is not valid: {}'.format(source, error), line) from None


def _escape(sign, refuse):
    if sign in _SAME or sign.isdigit() and sign != '0':
        return '\\' + sign if sign not in '"\'/:=@,&%!<>~`;_ ' else sign
    if sign in _OTHER:
        return _OTHER[sign]
    return refuse('\\' + sign)
