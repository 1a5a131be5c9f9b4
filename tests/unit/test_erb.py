"""ERB: what comes out is what real Ruby made of the same template (tests/data/templates/erb_expected.json)."""

import json
import os
import sys

import pytest

from multibinder.errors import TemplateError
from multibinder.template import render

DATA = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), 'data', 'templates')
sys.path.insert(0, DATA)

import make_erb_expected    # noqa: E402

CASES = make_erb_expected.cases()
with open(os.path.join(DATA, 'erb_expected.json')) as stream:
    EXPECTED = json.load(stream)

# What erb_oracle.rb gives its templates.
VALUES = {'backends': [{'name': 'web1', 'ip': '10.0.0.1'}, {'name': 'web2', 'ip': '10.0.0.2'}],
          'title': 'a "title"', 'count': 3, 'ratio': 0.25, 'enabled': True, 'nothing': None}
ENVIRONMENT = {'GREETING': 'hello'}


def render_text(directory, text, values=True, name='foo.cfg.erb', **options):
    """Render a template's text (surrogate escapes for its odd bytes) in a directory of the test's own."""
    path = os.path.join(str(directory), name)
    with open(path, 'wb') as file:
        file.write(text.encode('utf-8', 'surrogateescape'))
    if values:
        with open(os.path.join(str(directory), 'foo.vars.json'), 'w') as file:
            # The order of the ports is what the template shows, and a dict has none on Python 3.5.
            file.write(json.dumps(VALUES)[:-1] + ', "ports": {"http": 80, "https": 443}}')
    return render(path, env=ENVIRONMENT, **options)


def test_the_expected_texts_belong_to_the_cases():
    assert list(CASES) == [title for title in EXPECTED if title != 'made by'] or sys.version_info < (3, 6)
    assert set(CASES) == set(EXPECTED) - {'made by'}


@pytest.mark.parametrize('title', sorted(CASES))
def test_as_ruby(title, tmpdir):
    expected = EXPECTED[title]
    if 'text' in expected:
        rendering = render_text(tmpdir, CASES[title])
        assert rendering.text == expected['text']
        unfinished = rendering.text != '' and not rendering.text.endswith('\n')
        assert len(rendering.lines) == rendering.text.count('\n') + unfinished
    else:
        with pytest.raises(TemplateError):
            render_text(tmpdir, CASES[title])


@pytest.mark.parametrize('line, template, words', [
    (2, 'a\n<%= `ls` %>', "ruby's backtick is not supported here"), (1, '<%= $stdout %>', "ruby's global variable $stdout"),
    (1, '<%= @@x %>', "ruby's @@ (a class variable)"), (3, '\n\n<% def f; end %>', "ruby's def"), (1, '<% class A; end %>', "ruby's class"),
    (1, '<% while true %>x<% end %>', "ruby's while"), (1, '<% begin; x; rescue; end %>', "ruby's begin"), (1, '<%= ->(x) { x } %>', "ruby's lambda ->"),
    (1, "<% puts 'x' %>", "ruby's puts"), (1, "<% require 'json' %>", "ruby's require"), (2, "\n<%= File.read('/x') %>", "ruby's File.read"),
    (1, "<%= eval('1') %>", "ruby's eval"), (1, "<%= system 'ls' %>", "ruby's system"), (1, '<%= %x(ls) %>', "ruby's %x"), (1, '<%= A::B %>', "ruby's ::"),
    (1, '<%= <<EOS\nx\nEOS\n%>', "ruby's heredoc <<EOS"), (2, "<%\n'a'.unpack('x') %>", "ruby's .unpack"), (1, '<%= defined?(x) %>', "ruby's defined?"),
    (1, '<%= x rescue 1 %>', "ruby's rescue"), (1, '<%= self %>', "ruby's self"), (1, '<% a, b = 1, 2 %>', "ruby's assignment to several names"),
    (1, '<%= [1].map %>', "ruby's .map without a block"), (1, "<%= 'a' << 'b' %>", "ruby's << that changes a string"), (1, '<%= 1.. %>', 'without an end'),
    (1, "<% ('a'..'c').each { |x| } %>", "ruby's range of strings"), (1, '<%= /(?<n>x)/ =~ "x" %>', "ruby's (?<"), (1, '<%= "%q" % 1 %>', "ruby's format '%q'"),
    (1, "<% ENV['x'] = 'y' %>", "ruby's assignment to ENV"), (1, '<%= 1.send(:x) %>', "ruby's .send"), (2, '\n<%= [3].sum.foo %>', "ruby's .foo"),
    (1, '<%= nope %>', 'nothing defines nope'), (3, 'a\nb\n<% nope(1) %>', 'nothing defines nope'), (1, '<%= NOPE %>', 'uninitialized constant NOPE'),
    (1, '<%= nil.upcase %>', "undefined method 'upcase' for nil"), (5, "\n<%\n\n  z = 1\n  z.split(',')\n%>", "Integer has no method 'split'"),
    (1, "<%= 1 + 'a' %>", "String can't be coerced into Integer"), (1, "<%= 'a' + 1 %>", 'no implicit conversion of Integer into String'),
    (1, '<%= 1 / 0 %>', 'divided by 0'), (1, "<%= ENV.fetch('NOPE') %>", 'key not found: "NOPE"'), (1, '<%= {}.fetch(:a) %>', 'key not found: :a'),
    (1, "<%= [3, 'a'].sort %>", 'comparison of'), (2, "\n<%= bind_tcp('x', 80) %>", "address 'x' is no IPv4"), (1, "<%= bind_tcp('*') %>", 'missing 1 required'),
    (1, "<%= bind_tcp('*', 80, nope: 1) %>", "unknown option 'nope'"), (1, "<%= Integer('x') %>", 'invalid value for Integer(): "x"'),
    (1, '<% if true %>x', 'if is not closed by end'), (2, 'x\n<% end %>', 'end closes nothing'), (1, '<% [1].each do |x| %>x', 'do is not closed by end'),
    (1, '<%= [1].each do |x| %>x<% end %>', 'cannot hold the beginning of a block'), (1, '<% case 1 %>\n<% when 1 %><% end %>', 'between case and its first when'),
    (1, '<%= 1 + %>', 'the end of <%= %> cannot stand here'), (1, '<%= (1 %>', "to close the '(' of line 1"), (1, "<%= 'abc %>", 'not closed in its tag'),
    (1, '<%= "a#{1 %>', 'the interpolation #{ is not closed'), (2, '\n<%= 1 2 %>', '2 cannot stand here'), (1, '<%= 1 # x %>', 'a comment swallows the end of <%= %>'),
    (1, '<%= 09 %>', 'no number'), (1, '<% next %>', 'next stands outside of any block'), (1, "<%= 'a' * 99999999999 %>", 'too big'), (1, '<%= 10 ** 99999 %>', 'too large'),
    (1, '<%= ' + '(' * 300 + '1' + ')' * 300 + ' %>', 'nested more than'), (1, '<%= "\\u{110000}" %>', 'no character'), (1, '<%= [1] <=> %>', 'cannot stand here'),
    (1, "<%= 'x'.gsub('x') %>", 'without a replacement'), (1, '<%= [1, 2].first(-1) %>', 'negative array size'), (1, '<%= 1.upto(3) %>', 'without a block'),
])
def test_what_is_refused(line, template, words, tmpdir):
    with pytest.raises(TemplateError) as caught:
        render_text(tmpdir, template)
    error = caught.value
    assert words in error.reason and '\n' not in error.reason
    assert (error.path, error.line) == (os.path.join(str(tmpdir), 'foo.cfg.erb'), line)
    assert error.text == template.split('\n')[line - 1]


def test_endpoints_lines_and_clear(tmpdir):
    template = ('global\n<% [80, 443].each do |port| %>\nfrontend f<%= port %>\n  bind <%= bind_tcp("0.0.0.0", port) %>\n<% end %>\n'
                '<%# gone\n %>  bind <%= bind_unix "/run/x", :mode => "660" %>\n<%= "a\nb" %>\n')
    rendering = render_text(tmpdir, template, instance='other')
    assert rendering.text == ('global\n\nfrontend f80\n  bind fd@3\n\nfrontend f443\n  bind fd@4\n\n  bind fd@5\na\nb\n')
    assert [place[1] for place in rendering.lines] == [1, 2, 3, 4, 2, 3, 4, 5, 7, 8, 8]
    assert [str(endpoint) for endpoint in rendering.endpoints] == ['tcp 0.0.0.0:80', 'tcp 0.0.0.0:443', 'unix /run/x']
    assert rendering.warnings == []
    clear = render_text(tmpdir, template, clear=True)
    assert 'bind 0.0.0.0:443\n' in clear.text and 'bind unix@/run/x mode 660\n' in clear.text and len(clear.endpoints) == 3


def test_names_of_the_scope(tmpdir):
    assert render_text(tmpdir, '<%= instance %> <%= title %> <%= @title %> <%= ports["http"] %>', name='foo.cfg.mb').text == \
        'foo a "title" a "title" 80'
    host, count = render_text(tmpdir, '<%= hostname %> <%= cpu_count %>').text.split()
    assert host == os.uname()[1] and int(count) >= 1
    # A variable of the template goes before a name of the scope.
    assert render_text(tmpdir, '<% instance = "mine" %><%= instance %>').text == 'mine'


def test_a_deadline(tmpdir):
    render_text(tmpdir, 'a\n')      # loads the engine, which is not to be what takes the time
    with pytest.raises(TemplateError) as caught:
        render_text(tmpdir, 'a\n<% 1000000000000.times do |i| %>\n<% x = i %><% end %>', deadline=1)
    assert 'longer than 1 seconds' in caught.value.reason and caught.value.line in (2, 3)


def test_large_templates(tmpdir):
    text = ''.join('server s{0} 10.0.0.1:80 weight <%= {0} % 7 %> <%# c %>\n'.format(number) for number in range(3000))
    assert render_text(tmpdir, text).text.count('\n') == 3000
    branches = '<% if @count == 0 %>0' + ''.join('<% elsif @count == {} %>x'.format(n + 10) for n in range(150)) + '<% end %>'
    assert render_text(tmpdir, branches).text == ''
