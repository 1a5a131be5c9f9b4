"""haproxy-multi-template(5): each example in it renders to what stands below it."""

import os
import re
import shutil
import subprocess

import pytest

from multibinder.template import render

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE = os.path.join(PROJECT, 'debian', 'man', 'haproxy-multi-template.5')


def blocks():
    """[(what the comment before a block says, the block's text)] in the order of the page."""
    with open(PAGE, encoding='utf-8') as file:
        source = file.read()
    found = []
    for label, text in re.findall(r'^\.\\" ([^\n]*)\n\.RS\n\.nf\n(.*?)^\.fi$', source, re.M | re.S):
        assert not re.search(r'(?m)^[.\']', text), 'roff would take this line for a request'
        for escape, sign in (('\\(aq', "'"), ('\\(dq', '"'), ('\\-', '-'), ('\\&', ''), ('\\e', '\\')):
            text = text.replace(escape, sign)
        found.append((label, text))
    return found


def test_each_example_renders_as_printed(tmpdir):
    rendered = 0
    template = None
    for label, text in blocks():
        kind, _, name = label.partition(' ')
        if kind == 'renders':
            rendering = render(template, env={'HOSTNAME': 'host'})
            assert rendering.text == text
            assert rendering.warnings == []
            rendered += 1
            continue
        path = os.path.join(str(tmpdir), name)
        with open(path, 'w') as file:
            file.write(text)
        if kind == 'template':
            template = path
    assert rendered == len([label for label, _ in blocks() if label.startswith('template')]) == 4


def test_the_page_has_no_mistakes():
    if shutil.which('man') is None or not os.path.exists('/usr/share/groff/current/tmac/an.tmac'):
        pytest.skip('man or groff is not installed')
    process = subprocess.Popen(['man', '--warnings', '-E', 'UTF-8', '-l', PAGE], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, env=dict(os.environ, LC_ALL='C.UTF-8', MANWIDTH='100'))
    out, err = process.communicate()
    assert process.returncode == 0 and err == b''
    assert b'bind_tcp' in out
