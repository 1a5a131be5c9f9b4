"""Whatever stands in a template: a rendering that holds together, or a TemplateError; never anything else.

Seeded generators put pieces together that mean something to one of the three languages involved; with
hypothesis, where it is installed, come arbitrary bytes. A failure names the seed or the text.
"""

import os
import random

import pytest

from multibinder.errors import TemplateError
from multibinder.template import FIRST_FD, direct, render

COUNT = int(os.environ.get('MULTIBINDER_FUZZ_TEMPLATES', '400'))
SEED = int(os.environ.get('MULTIBINDER_FUZZ_SEED', '1'))

PIECES = [
    '${', '}', '${1 + 1}', '${instance}', '${UNSET}', '${SET}', '${UNSET-x}', '${bind_tcp("*", 80)}', '${bind_tcp("*"', '<%', '%>', '<%=',
    '<%#', '<% x = 1 %>', '<%! y = 2 %>', '${x}', '${y}', '<%def name="d()">', '</%def>', '${d()}', '<%block name="b">', '</%block>',
    '<%text>', '</%text>', '<%doc>', '</%doc>', '<%include file="inc"/>', '<%inherit file="inc"/>', '<%namespace name="n" file="inc"/>',
    '\n% if x:\n', '\n% if 1:\n', '\n% else:\n', '\n% endif\n', '\n% for i in (1, 2):\n', '\n% endfor\n', '${i}', '${loop.index}', '%', '%%', '\n%',
    '##', '#', '\n## ', '\n# ', '\\', '\\\n', '\n', '\r\n', ' ', '\t', "'", '"', "'''", '|', 'h', '{', '(', ')', '[', ']', ':', 'a', 'bind ',
    'ä', '\udcff', '\0', '%[src]', '<%[var(x)]>', '<%ci>', '$', '{}', '${None}', '${{}', '\ufeff', '\u2028', '${"', '"}', 'import os', 'x = 1',
    '<%page args="z=1"/>', '${z}', '<%call expr="d()">', '</%call>', '<%n:d/>', '${self.body}', '${capture(d)}', '-%>', '<%-', '${env["SET"]}',
]
RUBY = [
    '<%', '<%=', '<%#', '%>', '-%>', '<%-', '<%%', '%%>', ' if ', ' else ', ' elsif ', ' end ', ' do ', ' unless ', ' case ', ' when ', ' then ', '|x|',
    '{', '}', '(', ')', '[', ']', '1', '2.5', "'a'", '"b"', '"#{', "'", '"', ':s', '@v', 'x', 'x = ', '+', '-', '*', '/', '%', '==', '<', '&&', '||', '!',
    '?', ':', ',', '.', '..', '.each', '.map', '.to_s', '.size', '.join', '.first', '=>', 'a: ', 'nil', 'true', ' and ', ' or ', ' not ', '\n', ' ', ';',
    '#', '\\', 'ENV', "['k']", "bind_tcp('*', 80)", '[1, 2]', '{1 => 2}', 'ä', '\udcff', '\0', '\r\n', '`', '$', '/x/', '%w(a b)', '&:s', '<<', '~',
    '<% [1, 2].each do |x| %>', '<% end %>', '<%= x %>', '<% if x %>', '?a', '->', '::', '@', '&.', '**', 'text',
]


def pieced(seed, pieces):
    generator = random.Random(seed)
    return ''.join(generator.choice(pieces) for _ in range(generator.randrange(1, 14)))


def check(directory, text, name):
    """Render a text and look at the rendering as a whole. Returns what came of it, or None."""
    path = os.path.join(str(directory), name)
    with open(path, 'wb') as file:
        file.write(text.encode('utf-8', 'surrogateescape') if not isinstance(text, bytes) else text)
    try:
        rendering = render(path, env={'SET': 'value'}, deadline=60)
    except TemplateError as error:
        assert error.reason and 'Error(' not in error.reason
        if error.path == path and error.line is not None:
            assert 1 <= error.line <= len(text.split(b'\n' if isinstance(text, bytes) else '\n'))
        assert error.path and os.path.dirname(error.path) == str(directory)
        str(error).encode('utf-8', 'surrogateescape')
        return None
    rendering.text.encode('utf-8', 'surrogateescape')
    unfinished = rendering.text != '' and not rendering.text.endswith('\n')
    assert len(rendering.lines) == rendering.text.count('\n') + unfinished
    for place in rendering.lines:
        assert place is None or os.path.exists(place[0]) and place[1] >= 1
    for number in range(len(rendering.endpoints)):
        assert 'fd@{}'.format(FIRST_FD + number) in rendering.text or rendering.warnings
    return rendering


@pytest.fixture
def directory(tmpdir):
    with open(os.path.join(str(tmpdir), 'inc'), 'w') as file:
        file.write('included ${1 + 1}\n<%def name="d()">defined</%def>')
    return tmpdir


def test_mako_put_together_at_random(directory, monkeypatch):
    original = direct.render_direct

    def never(*args):
        raise direct.NotDirect()
    rendered = 0
    for seed in range(SEED, SEED + COUNT):
        text = pieced(seed, PIECES)
        try:
            monkeypatch.setattr(direct, 'render_direct', original)
            first = check(directory, text, 'foo.cfg.tmpl')
            monkeypatch.setattr(direct, 'render_direct', never)
            second = check(directory, text, 'foo.cfg.tmpl')
            # The two ways to run a template may differ in what they load, never in what comes out.
            assert (first is None) == (second is None)
            if first:
                rendered += 1
                assert (first.text, first.lines, first.warnings) == (second.text, second.lines, second.warnings)
        except BaseException:
            print('seed {}: {!r}'.format(seed, text))
            raise
    assert rendered > COUNT // 10


def test_erb_put_together_at_random(directory):
    rendered = 0
    for seed in range(SEED, SEED + COUNT * 4):
        text = pieced(seed, RUBY)
        try:
            rendered += check(directory, text, 'foo.cfg.erb') is not None
        except BaseException:
            print('seed {}: {!r}'.format(seed, text))
            raise
    assert rendered > COUNT // 10


def test_text_without_a_sign_of_mako(directory):
    for seed in range(SEED, SEED + COUNT):
        text = pieced(seed, [piece for piece in PIECES if '<%' not in piece and '${' not in piece and '\n%' not in piece
                             and '</%' not in piece] + ['<%[x]>', '${A}', '${A-b}', '\n%[src]', '%ci'])
        if '${' in text.replace('${A}', '').replace('${A-b}', '') or '<%' in text.replace('<%[x]>', ''):
            continue    # two pieces have made one
        assert check(directory, text, 'foo.cfg.tmpl').text == text, 'seed {}'.format(seed)


@pytest.mark.parametrize('name', ['foo.cfg.tmpl', 'foo.cfg.erb', 'foo.vars.json'])
def test_arbitrary_bytes(name, directory):
    hypothesis = pytest.importorskip('hypothesis')
    strategies = pytest.importorskip('hypothesis.strategies')
    signs = [sign.encode('utf-8', 'surrogateescape') for sign in (RUBY if name.endswith('erb') else PIECES)]

    @hypothesis.settings(max_examples=COUNT // 2, deadline=None, database=None,
                         suppress_health_check=list(hypothesis.HealthCheck))
    @hypothesis.given(strategies.lists(strategies.one_of(strategies.binary(max_size=8), strategies.sampled_from(signs)),
                                       max_size=20))
    def examine(parts):
        data = b''.join(parts)
        if name.endswith('.json'):
            with open(os.path.join(str(directory), name), 'wb') as file:
                file.write(data)
            data = b'${1 + 1}'
            try:
                check(directory, data, 'foo.cfg.tmpl')
            except AssertionError:
                raise AssertionError(repr(parts))
        else:
            check(directory, data, name)
    examine()
