"""Which names a piece of Python binds and which it needs: decides what ${name} means."""

import ast
import builtins

from multibinder.pattern import Pattern

ANY = '*'       # stands in a set of names for those of a namespace that is imported as a whole
# What has to stand before a control line, for it to be a statement.
_HEADS = {'else': 'if x: pass\n', 'elif': 'if x: pass\n', 'except': 'try: pass\n', 'finally': 'try: pass\n'}
_WORD = Pattern(r'[A-Za-z_]\w*')


def parses(code):
    """Tell whether a text is Python statements."""
    try:
        ast.parse(code)
        return True
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False


def mistake(token):
    """Return (line, reason) of what is no Python in a token of code, or None."""
    kind, line = token[:2]
    if kind == 'expression':
        code, before = '(' + token[2] + '\n)', 0
    elif kind == 'code':
        code, before = _evened(token[2])
    elif kind == 'control' and not token[3]:
        head = _HEADS.get(token[2], '')
        code, before = _completed(token[2], token[4]), -head.count('\n')
    else:
        return None
    try:
        ast.parse(code)
    except SyntaxError as error:
        last = line + (token[4] if kind == 'control' else token[2]).count('\n')
        return min(line + before + max(error.lineno or 1, 1) - 1, last), error.msg
    except (ValueError, RecursionError, MemoryError) as error:
        return line, str(error) or type(error).__name__
    return None


def missing(code, is_defined):
    """Return the sorted names that an expression needs and nothing defines; None if it is none."""
    try:
        tree = ast.parse('(' + code.strip() + '\n)', mode='eval')
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    bound = set()
    loaded = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (loaded if isinstance(node.ctx, ast.Load) else bound).add(node.id)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
    return sorted(name for name in loaded - bound if not is_defined(name) and not hasattr(builtins, name))


def assigned(tokens):
    """Return the set of names that the tokens of a template bind; ANY in it: more than can be seen."""
    found = set()
    for token in tokens:
        kind = token[0]
        if kind == 'code':
            _statements(token[2], found)
        elif kind == 'control' and not token[3]:
            _statements(_completed(token[2], token[4]), found)
        elif kind == 'tag':
            _tag(token[2], token[3], found)
    return found


def _tag(keyword, attributes, found):
    if keyword in ('def', 'block', 'page', 'namespace', 'call') or ':' in keyword:
        for name in ('name', 'args', 'import'):
            # Also the names in a default value get in: they are names that the author means.
            found.update(_WORD.findall(attributes.get(name, '')))
    if '*' in attributes.get('import', ''):
        found.add(ANY)


def _completed(keyword, line):
    """Return a control line as a whole statement."""
    tail = '\nexcept: pass' if keyword == 'try' else ''
    return _HEADS.get(keyword, '') + line + '\n pass' + tail


def _evened(code):
    """Return (code without its margin, number of empty lines that stood before it)."""
    rows = code.split('\n')
    before = 0
    while before < len(rows) - 1 and not rows[before].strip():
        before += 1
    margin = len(rows[before]) - len(rows[before].lstrip())
    return '\n'.join(row[margin:] if not row[:margin].strip() else row for row in rows[before:]), before


def _statements(code, found):
    """Add the names that statements bind. Text that is no Python binds none: the engine will say so."""
    try:
        tree = ast.parse(_evened(code)[0])
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            found.add(node.id)
        elif isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((alias.asname or alias.name).split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
