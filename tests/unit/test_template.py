"""Mako templates: HAProxy's own text stays as it is, each line knows where it came from, mistakes have a line."""

import json
import os
import pickle
import subprocess
import sys

import pytest

from multibinder.errors import TemplateError
from multibinder.template import FIRST_FD, render, tmpl

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Templates(object):
    """A directory of templates."""

    def __init__(self, directory):
        self.directory = str(directory)

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, 'wb') as file:
            file.write(text if isinstance(text, bytes) else text.encode('utf-8'))
        return path

    def render(self, text, name='foo.cfg.tmpl', **options):
        options.setdefault('env', {'SET': 'value'})
        return render(self.write(name, text), **options)

    def text(self, text, **options):
        return self.render(text, **options).text

    def error(self, text, **options):
        with pytest.raises(TemplateError) as caught:
            self.render(text, **options)
        assert 'Traceback' not in str(caught.value) and '.py' not in str(caught.value)
        return caught.value


@pytest.fixture
def templates(tmpdir):
    return Templates(tmpdir)


@pytest.fixture(params=['direct', 'mako'])
def both(request, templates, monkeypatch):
    """The templates, once as they are run and once by Mako whatever they need."""
    if request.param == 'mako':
        from multibinder.template import direct

        def never(*args):
            raise direct.NotDirect()
        monkeypatch.setattr(direct, 'render_direct', never)
    return templates


# -- HAProxy's own text

PLAIN = [
    'global\n    daemon\n', 'no newline at the end', '', '\n\n', 'a\r\nb\r\n', 'log-format "%ci:%cp [%t] %ft"\n',
    'server a "${HOST}:80" check\n', 'bind "${ADDR-127.0.0.1}:${PORT:-80}"\n', 'server "${NAMES[*]}"\n',
    'http-request set-header X %[src] if { path_beg /a }\n', 'log-format method=<%[var(txn.x)]>\n',
    '## a comment of two signs ${x}\n    ## indented\n', '# ends with a backslash \\\n    bind :80\n', 'a \\\n  b\n',
    'log-format <%ci:%cp> <%{+Q}r> %{+Q}r %% <%% </%[x]>\n', '%[src]\n  %ci\n%%\n%\n', '# ${ not closed\n',
    '# ${no expression at all} ${x:?word} ${1} ${} ${ } ${@}\n', "# don't <% begin\n# or <%# this\n# <%text> nor <%def\n",
    "reqrep '^a${1}b' '${two}'\n", "http-request return string '${a.b} <%'\n", '\xef\xbb\xbfglobal\n', '\t%s\n',
    'path_reg ^/a\\${b$\n'.replace('\\${b', '\\$'), '# -*- coding: latin-1 -*-\nglobal\n', '$VAR ${VAR} \\${VAR} $${VAR}\n',
    '# %if x\n', 'a\x00b\n', 'unquoted ${UNSET}:80\n', '<% in a value\n'.replace('<%', "'<%'"), 'a\\\r\n# b \\\r\nc\r\n',
]


@pytest.mark.parametrize('text', PLAIN)
def test_a_plain_config_comes_out_as_it_is(text, templates):
    rendering = templates.render(text)
    assert rendering.text == text
    path = os.path.join(templates.directory, 'foo.cfg.tmpl')
    assert rendering.lines == [(path, number + 1) for number in range(len(text.split('\n')) - (text[-1:] in ('', '\n')))]


# A backslash that joins lines and %% at the beginning of one mean something in a template that is one.
BESIDE = [text for text in PLAIN if not ('\\\n' in text.replace('backslash \\\n', '') or '\\\r\n' in text or '%%' in text)]


@pytest.mark.parametrize('text', BESIDE)
def test_and_beside_something_of_mako(text, both):
    assert both.text(text + '\n<% x = 1 %>${x}') == text + '\n1'


def test_any_bytes_come_out_as_they_are(templates):
    data = bytes(bytearray(range(256))).replace(b'$', b'').replace(b'<%', b'')
    rendering = templates.render(data + b'\n${1 + 1}')
    assert rendering.text.encode('utf-8', 'surrogateescape') == data + b'\n2'
    assert templates.text(b"${'\xe9'}\xe9").encode('utf-8', 'surrogateescape') == b'\xe9\xe9'


def test_unknown_names_are_reported_and_refused_when_strict(templates):
    text = 'a ${instance}\nserver "${HSOT}:80" ${SET} ${HAPROXY_CFGFILES}\nsetenv LATER x\nuse "${LATER}"\n'
    rendering = templates.render(text)
    assert rendering.text == text.replace('${instance}', 'foo')
    path = os.path.join(templates.directory, 'foo.cfg.tmpl')
    assert rendering.warnings == [
        path + ':2: ${HSOT} is left to haproxy: nothing here defines HSOT, and the environment has none']
    error = templates.error(text, strict=True)
    assert (error.path, error.line, error.text) == (path, 2, 'server "${HSOT}:80" ${SET} ${HAPROXY_CFGFILES}')
    assert 'HSOT' in error.reason
    assert templates.render(text.replace('HSOT', 'SET'), strict=True).warnings == []


def test_a_name_is_the_templates_where_the_template_binds_it(both):
    assert both.text('<% name = 5 %>${name}') == '5'
    assert both.text('% for name in [1, 2]:\n${name}\n% endfor\n') == '1\n2\n'
    assert both.text('<%\n    def twice(x):\n        return 2 * x\n    import os.path as here\n%>${twice(4)}${here.sep}') == '8/'
    assert both.text('<%def name="line(name, other=1)">${name}${other}</%def>${line("a")}') == 'a1'
    assert both.text('% try:\n<% 1 / 0 %>\n% except ZeroDivisionError as error:\n${error}\n% endtry\n') == \
        'division by zero\n'
    assert both.text('${n-1}<% n = 3 %>${n - 1}') == '${n-1}2'


def test_doubts_are_said(templates):
    said = '\n'.join(templates.render(
        '<% n = 1 %>\n${n-1}\n% fi n:\n# ${nobody.home}\n\'${nobody.home}\'\n<%includ file="x"/>\n${None or None}\n').warnings)
    for number, words in ((2, '${n-1} is left to haproxy'), (3, 'is no control line'), (4, 'stands in a comment'),
                          (5, "stands in '...'"), (6, 'no tag <%includ'), (7, 'is None')):
        assert any(':{}:'.format(number) in line and words in line for line in said.split('\n')), (words, said)


# -- what a template sees

def test_scope(both):
    both.write('foo.vars.json', json.dumps({'buffer': 'b', 'data': 'd', 'port': 8080, 'servers': [{'name': 'a'}], 'title': 'ä'}))
    rendering = both.render(
        'bind ${bind_tcp("0.0.0.0", port)}\nbind <%= bind_tcp("::1", 443, v6only=True) %>\nbind ${bind_unix("/run/x")}\n'
        '${env["SET"]} ${ENV["SET"]} ${env.get("NO", "no")} ${instance} ${title} ${servers[0]["name"]}${buffer}${data}<%# gone %>\n')
    assert rendering.text == 'bind fd@3\nbind fd@4\nbind fd@5\nvalue value no foo ä abd\n'
    assert [str(endpoint) for endpoint in rendering.endpoints] == ['tcp 0.0.0.0:8080', 'tcp [::1]:443', 'unix /run/x']
    assert FIRST_FD == 3 and rendering.warnings == []
    host, count = both.text('${hostname} ${cpu_count}').split()
    assert host == os.uname()[1] and int(count) >= 1
    assert both.text('${instance}', instance='other') == 'other'


def test_each_call_takes_a_new_descriptor(both):
    rendering = both.render('bind ${bind_tcp("*", 80)}\nbind ${bind_tcp("0.0.0.0", 80)}\n')
    assert rendering.text == 'bind fd@3\nbind fd@4\n' and len(set(rendering.endpoints)) == 1


def test_clear_writes_addresses(both):
    rendering = both.render('bind ${bind_tcp("0.0.0.0", 80)}\nbind ${bind_tcp("::1", 81, v6only=True)} name x\n'
                            'bind ${bind_unix("/run/x", mode="660")}\n', clear=True)
    assert rendering.text == 'bind 0.0.0.0:80\nbind [::1]:81 v6only name x\nbind unix@/run/x mode 660\n'
    assert len(rendering.endpoints) == 3 and rendering.warnings == []


def test_a_rendering_travels_between_processes(templates):
    rendering = templates.render('<%def name="x()">y\n</%def>${x()}bind ${bind_tcp("*", 80, backlog=5)}\n')
    other = pickle.loads(pickle.dumps(rendering))
    assert (other.text, other.lines, other.warnings) == (rendering.text, rendering.lines, rendering.warnings)
    assert other.endpoints[0].to_params() == rendering.endpoints[0].to_params()
    assert json.loads(json.dumps(rendering.lines))


def test_values_from_yaml(templates):
    pytest.importorskip('yaml')
    templates.write('foo.vars.yaml', 'port: 81\nlist: [1, 2]\n')
    assert templates.text('${port} ${list}') == '81 [1, 2]'
    templates.write('foo.vars.json', '{}')
    assert 'two files of values' in templates.error('x').reason


@pytest.mark.parametrize('name, text, line, words', [
    ('foo.vars.json', '{\n"a": 1,\n}', 3, 'no JSON'), ('foo.vars.json', '[1]', None, 'no mapping'),
    ('foo.vars.json', '{"bind_tcp": 1}', None, "'bind_tcp' is taken"), ('foo.vars.json', b'\xff', 1, 'no JSON'),
    ('foo.vars.yaml', 'a: 1\nb: [\n', 3, 'no YAML'), ('foo.vars.yaml', '1: 2', None, 'no text'),
    ('foo.vars.json', '{"context": 1}', None, "'context' is taken"),
])
def test_values_that_cannot_be_used(name, text, line, words, templates):
    if name.endswith('yaml'):
        pytest.importorskip('yaml')
    path = templates.write(name, text)
    error = templates.error('x')
    assert words in error.reason and error.path == path and error.line in (line, line and line - 1)


def test_claims_that_no_bind_line_uses_are_reported(both):
    warnings = both.render('# bind ${bind_tcp("*", 80)}\n<% bind_tcp("*", 81) %>\n<% x = bind_tcp("*", 82) %>'
                           'bind ${x}\nbind ${x} # ${x}\nbind ${bind_tcp("*", 83)}\n').warnings
    path = os.path.join(both.directory, 'foo.cfg.tmpl')
    assert path + ':1: tcp 0.0.0.0:80 stands in a comment' in warnings
    assert any('tcp 0.0.0.0:80 is claimed and stands on no line' in warning for warning in warnings)
    assert any('tcp 0.0.0.0:81 is claimed and stands on no line' in warning for warning in warnings)
    assert path + ':4: the descriptor of tcp 0.0.0.0:82 stands on 2 lines: each bind line needs a bind call of its own' \
        in warnings
    assert not any(':83' in warning for warning in warnings)


# -- Mako

def test_mako_in_full(templates):
    templates.write('base.tmpl', 'global\n<%block name="settings">    maxconn 5\n</%block>${self.body()}# end of ${self.title()}\n'
                                 '<%def name="title()">base</%def>\\\n')
    templates.write('parts.tmpl', '<%def name="server(name, port=80)">    server ${name} 10.0.0.1:${port}\n</%def>')
    templates.write('tail.inc', '<%page args="word"/>tail ${word} ${instance}\n')
    rendering = templates.render(
        '<%inherit file="base.tmpl"/>\n<%namespace name="parts" file="parts.tmpl"/>\n<%! import os.path %>\n'
        '<%def name="title()">foo</%def>\n<%block name="settings">    maxconn 9\n</%block>\n'
        'backend b\n% for name in ("x", "y"):\n${parts.server(name)}\\\n% if loop.last:\n    # the last\n% endif\n% endfor\n'
        '<%include file="tail.inc" args="word=os.path.sep"/>\n<%text>${raw} <% %></%text>\n<%doc>\nnothing\n</%doc>'
        '<%call expr="wrapped()">inside</%call><%def name="wrapped()">[${caller.body()}]</%def>\n'
        '<%parts:server name="z" port="81"/>${capture(parts.server, "q").strip() | h}\n')
    rows = [row for row in rendering.text.split('\n') if row]
    assert rows == ['global', '    maxconn 9', 'backend b', '    server x 10.0.0.1:80', '    server y 10.0.0.1:80',
                    '    # the last', 'tail / foo', '${raw} <% %>', '[inside]', '    server z 10.0.0.1:81',
                    'server q 10.0.0.1:80', '# end of foo']
    origins = dict(zip(rendering.text.split('\n'), rendering.lines))
    names = dict((row, (os.path.basename(place[0]), place[1])) for row, place in origins.items() if row)
    assert names == {
        'global': ('base.tmpl', 1), '    maxconn 9': ('foo.cfg.tmpl', 5), 'backend b': ('foo.cfg.tmpl', 7),
        '    server x 10.0.0.1:80': ('parts.tmpl', 1), '    server y 10.0.0.1:80': ('parts.tmpl', 1),
        '    # the last': ('foo.cfg.tmpl', 11), 'tail / foo': ('tail.inc', 1), '${raw} <% %>': ('foo.cfg.tmpl', 15),
        '[inside]': ('foo.cfg.tmpl', 18), '    server z 10.0.0.1:81': ('parts.tmpl', 1),
        'server q 10.0.0.1:80': ('foo.cfg.tmpl', 19), '# end of foo': ('base.tmpl', 3)}


def test_templates_are_found_beside_the_template_and_in_the_system_directory(templates, tmpdir, monkeypatch):
    from multibinder.template import source
    system = tmpdir.mkdir('system')
    monkeypatch.setattr(source, 'SYSTEM_DIRECTORY', str(system))
    below = Templates(tmpdir.mkdir('below'))
    Templates(system).write('common.inc', 'common\n<%include file="own.inc"/>')
    Templates(system).write('own.inc', 'system')
    below.write('own.inc', 'beside')
    assert below.text('<%include file="own.inc"/> <%include file="common.inc"/>') == 'beside common\nsystem'
    assert below.text('<%include file="/own.inc"/>') == 'beside'
    assert below.text('<%include file="../system/own.inc"/> <%include file="{}/own.inc"/>'.format(system)) == 'system system'
    error = below.error('\n<%include file="none.inc"/>')
    assert error.line == 2 and str(system) in error.reason and below.directory in error.reason


def test_two_templates_whose_names_differ_in_one_sign(templates):
    # Mako makes both names the same module name.
    templates.write('a-b.inc', 'minus ${1}'.replace('${1}', '${1 + 0}'))
    templates.write('a_b.inc', 'line ${2 + 0}')
    rendering = templates.render('<%include file="a-b.inc"/>\n<%include file="a_b.inc"/>\n')
    assert rendering.text == 'minus 1\nline 2\n'
    assert [os.path.basename(place[0]) for place in rendering.lines] == ['a-b.inc', 'a_b.inc']


def test_names_of_an_imported_namespace(templates):
    templates.write('parts.inc', '<%def name="known()">yes</%def>')
    text = '<%namespace file="parts.inc" import="*"/>${known()} ${UNSET} "${UNSET-x}"'
    assert templates.text(text) == 'yes ${UNSET} "${UNSET-x}"'
    assert templates.text('<%namespace file="parts.inc" import="known"/>${known()}') == 'yes'


@pytest.mark.parametrize('text', [
    'a\n% for i in range(3):\nline ${i}\n  % if i == 1:\nodd\n  % elif i == 2:\ntwo\n  % else:\nnone\n  % endif\n% endfor\nz\n',
    '% while True:\nx\n<% break %>\n% endwhile\n', 'a ${1}\\\nb ${2 + 3} \\\n c\n% if 1:\n% endif\n', '<%\n  x = 1\n  if x:\n    y = 2\n%>${y}\n',
    '<% x = [i * 2 for i in range(3)] %>${x}${[y for y in x]}\n', '${"%s-%d" % ("a", 5)}\n${"x" * 3}${{"a": 1}["a"]}\n',
    '${1, 2} ${"a" "b"} ${lambda_ if False else 3}<% lambda_ = 1 %>\n', '${"a\\nb"}x\n', '<%= 1 %><%= "%>" %>\n', '  %% x\n%%% y\n${1.5}\n',
    '% if True: # comment\nyes\n% endif # comment\n', '<% a = 1 %>${a}# ${a} ${b}\n', '<% x = "${y}" %>${x}\n', 'a\r\n% if 1:\r\nb ${2}\r\n% endif\r\nc',
    '% for a, b in {"k": 1}.items():\n${a}${b}\n% endfor\n', '% with open("/dev/null") as file:\n${file.read()}|\n% endwith\n', '${None}|${True}\n',
    '${"}" + "{"}|${"|"}|${{1: 2}}\n', '<% x = 1 # comment %>\n%>${x}\n', '${1 # comment\n}\n', "${'''a\nb'''}\nz", '% if True:\n${1 +\n 1}\n% endif\nz ${3 + 0}\n',
])
def test_both_ways_write_the_same(text, templates, monkeypatch):
    text = text.replace('${1}', '${1 + 0}').replace('${2}', '${2 + 0}')
    first = templates.render(text)
    from multibinder.template import direct

    def never(*args):
        raise direct.NotDirect()
    monkeypatch.setattr(direct, 'render_direct', never)
    second = templates.render(text)
    assert (first.text, first.lines, first.warnings) == (second.text, second.lines, second.warnings)


# -- mistakes

@pytest.mark.parametrize('line, text, words', [
    (2, 'a\nb ${foo(1)}\n', 'nothing defines foo'), (2, 'a\n${ foo }', 'nothing defines foo'),
    (2, 'x\n${foo.bar}', 'nothing defines foo'), (3, '\n\n% for x in y:\n${x}\n% endfor', 'nothing defines y'),
    (3, 'x\n${instance\n+ foo}', 'nothing defines foo'), (1, '${bind_tcp(host, 80)}', 'nothing defines host'),
    (1, '${a, b}', 'nothing defines a or b'), (1, "${'a' | nofilter}", 'nothing defines nofilter'),
    (4, '<%\nx = 1\n\ny = nowhere + 1\n%>', 'nothing defines nowhere'), (2, 'x\n${1/0}', 'ZeroDivisionError'),
    (2, "a\n${bind_tcp('x', 80)}", "address 'x' is no IPv4 or IPv6 address"), (1, '${bind_tcp("*", 99999)}', 'port 99999'),
    (1, "${bind_tcp('*', 80, bcklog=1)}", "unknown option 'bcklog'"), (1, "${bind_tcp('*')}", "missing 1 required"),
    (1, '${bind_unix("x")}', "path 'x' is not absolute"), (1, '${bind_tcp("*", 80, v6only="y")}', 'option v6only'),
    (1, '${env["NOPE"]}', "the environment has no variable 'NOPE'"), (2, "x\n${b'x'}", 'the value is no text but bytes'),
    (1, '${(x for x in [1])}', 'the value is no text'), (1, '${open("/dev/null").read}', 'the value is no text'),
    (2, 'a\n% if x\nfoo\n% endif', 'ends with a colon'), (2, 'a\n% if True:\nfoo', '% if is not closed'),
    (2, 'a\n% endif\n', '% endif closes nothing'), (3, 'a\n% for x in [1]:\n% endif\n', '% endif stands where % endfor should'),
    (2, 'a\n% else:\n', '% else stands outside'), (2, 'a\n${1 +}', 'invalid syntax'), (2, 'a\n${', 'not closed by }'),
    (2, 'a\n${foo(', 'not closed'), (2, 'a\n<% x = %>', 'invalid syntax'), (4, 'a\n<%\n x = 1\n y = 5 5\n%>', 'syntax'),
    (3, '<%\n x = 1\n y = 1/0\n%>', 'ZeroDivisionError'), (2, "a\n<%def name='x()'>\nfoo\n", 'not closed by </%def>'),
    (1, '</%def>', 'closes nothing'), (2, "a\n<%include file='nope'/>", "cannot find 'nope'"), (2, 'a\n<%include x>', 'not well formed'),
    (1, "<%inherit file='nope.tmpl'/>", 'cannot find'), (2, "<% raise ValueError('boo')\n %>\n".replace('<% ', '<%\n'), 'ValueError: boo'),
    (2, '<% import sys\nsys.exit(3) %>', 'SystemExit'), (1, "${1) + (2}", 'not closed'), (2, "x\n<%! x = %>", 'syntax'),
    (1, "<%def name='f()'>${f()}</%def>${f()}", 'goes round in circles'), (2, "x\n<% # never closed", 'not closed by %>'),
    (1, '<%def>x</%def>', "name"), (2, "\n<%namespace name='n' file='n.inc'/>${n.x()}", 'cannot find'), (1, '${5 | n}', 'no text'),
    (2, 'x\n<%self:foo x="1"/>', "no member 'foo'"), (2, '\n${instance.nope}', "no attribute 'nope'"), (1, '<% context = 1 %>', 'context'),
])
def test_a_mistake_is_reported_at_its_line(line, text, words, templates):
    error = templates.error(text)
    path = os.path.join(templates.directory, 'foo.cfg.tmpl')
    assert words in error.reason and '\n' not in error.reason
    assert (error.path, error.line) == (path, line)
    assert error.text == text.split('\n')[line - 1]
    assert str(error).startswith('{}:{}: '.format(path, line))


def test_mistakes_in_included_templates(templates):
    inner = templates.write('inner.inc', 'x\ny ${1/0}\n')
    templates.write('outer.inc', '\n<%include file="inner.inc"/>')
    error = templates.error('<%include file="outer.inc"/>')
    assert (error.path, error.line, error.text) == (inner, 2, 'y ${1/0}')
    assert error.reason == 'ZeroDivisionError: division by zero (by way of {0}/foo.cfg.tmpl:1, {0}/outer.inc:2)'.format(
        templates.directory)
    templates.write('inner.inc', 'x\n${oops oops}\n')
    error = templates.error('<%include file="outer.inc"/>')
    assert (error.path, error.line) == (inner, 2)
    assert error.reason.endswith('(by way of {0}/foo.cfg.tmpl:1, {0}/outer.inc:2)'.format(templates.directory))
    base = templates.write('base.tmpl', 'a\n\n${next.body()}\n${self.nothing()}\n')
    error = templates.error('<%inherit file="base.tmpl"/>\nx\n')
    assert (error.path, error.line) == (base, 4) and 'nothing' in error.reason
    error = templates.error('<%inherit file="base.tmpl"/>\n\n${nobody()}\n')
    assert error.path.endswith('foo.cfg.tmpl') and error.line == 3
    templates.write('self.inc', '<%include file="self.inc"/>')
    assert 'circles' in templates.error('<%include file="self.inc"/>').reason


@pytest.mark.parametrize('text, line', [
    ('a\n% while True:\n% endwhile\n', 2), ('a\n\n<% x = 1\nwhile x: pass %>', 4), ('<%def name="x()">\n% while True:\na\n% endwhile\n</%def>${x()}', 3),
    ('<% \nwhile 1:\n    try:\n        while 1: pass\n    except Exception: pass\n%>', 4),
])
def test_a_deadline(text, line, templates):
    import signal
    before = signal.getsignal(signal.SIGALRM)
    templates.text('<%def name="x()">y</%def>${x()}')      # loads Mako, which is not to be what takes the time
    error = templates.error(text, deadline=1)       # to come to the loop, on a machine that is busy
    assert error.reason == 'rendering took longer than 1 seconds'
    assert abs(error.line - line) <= 1
    assert signal.getsignal(signal.SIGALRM) is before and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert templates.text('${1 + 1}', deadline=20) == '2'


def test_output_has_a_limit(templates, monkeypatch):
    from multibinder.template import direct, mako_engine
    monkeypatch.setattr(direct, 'OUTPUT_MAX', 1000)
    monkeypatch.setattr(mako_engine, 'OUTPUT_MAX', 1000)
    error = templates.error('a\n% while True:\nxxxxxxxxxxxxxxxx\n% endwhile\n')
    assert 'larger than' in error.reason and error.line == 3


@pytest.mark.parametrize('name', ['foo.cfg.tmpl', 'foo.cfg.erb'])
def test_half_a_character(name, templates):
    templates.write('foo.vars.json', '{"half": "\\ud800"}')
    error = templates.error('a\n<%= half %>\n', name=name)
    assert error.line == 2 and 'U+D800 is half a character' in error.reason


@pytest.mark.parametrize('name', ['none.cfg.tmpl', '.', 'x\0y'])
def test_a_file_that_cannot_be_read(name, tmpdir):
    with pytest.raises(TemplateError) as caught:
        render(os.path.join(str(tmpdir), name))
    assert 'cannot read it' in caught.value.reason


def test_code_that_complains_says_nothing_on_stderr(templates, capfd):
    assert templates.text("${'\\d'}${1 if 1 is 1 else 2}") == '\\d1'
    assert capfd.readouterr() == ('', '')


# -- the cost

def run(code, *arguments):
    process = subprocess.Popen([sys.executable, '-c', code] + list(arguments), stdout=subprocess.PIPE, cwd=PROJECT)
    out, _ = process.communicate()
    assert process.returncode == 0
    return out.decode('ascii').split()


def test_a_simple_template_loads_no_engine(templates):
    path = templates.write('foo.cfg.tmpl', '% for i in range(3):\nbind ${bind_tcp("*", 80 + i)}\n% endfor\n')
    loaded = run('import sys\nfrom multibinder.template import render\nrender(sys.argv[1])\nprint(*sys.modules)', path)
    assert not {'mako', 'ast', 'inspect', 'multibinder.erb', 'yaml', 'json'} & set(loaded)


def test_mako_is_loaded_without_what_it_does_not_need_and_nothing_is_broken(templates):
    path = templates.write('foo.cfg.tmpl', '<%def name="x()">y</%def>${x()}')
    loaded = run(
        'import sys\nfrom multibinder.template import render\nrender(sys.argv[1])\nprint(*sys.modules)\n'
        'assert sys.modules.get("pygments", 1) is not None\n'
        'try:\n    import importlib.metadata\nexcept ImportError:\n    pass\nelse:\n'
        '    assert importlib.metadata.PackageNotFoundError and importlib.metadata.version\n'
        '    from importlib import metadata\n    assert metadata is importlib.metadata\n'
        'try:\n    import pygments.lexers\nexcept ImportError:\n    pass\n', path)
    assert 'mako.template' in loaded and 'pygments' not in loaded and 'email.message' not in loaded


def test_templates_are_scanned_once(templates, monkeypatch):
    scanned = []
    original = tmpl.tokens.Scanner.scan
    monkeypatch.setattr(tmpl.tokens.Scanner, 'scan', lambda self: scanned.append(1) or original(self))
    templates.write('x.inc', 'x')
    templates.text('<%include file="x.inc"/><%include file="x.inc"/>${1 / 1}')
    assert len(scanned) == 2


def test_what_a_template_changes_is_not_changed_twice(templates):
    # Nothing defines `debug`: Mako runs it from the beginning.
    templates.write('foo.vars.json', '{"servers": ["a"], "deep": {"list": []}}')
    text = '<% servers.append("b")\ndeep["list"].append(1)\nenv["NEW"] = "x" + env.get("NEW", "") %>'
    for more in ('', '% if debug:\nno\n% endif\n', '<%def name="x()">x</%def>', '${loop if False else ""}', '${[1][0:1][5] if 0 else ""}'):
        assert templates.text(text + '\n' + more + '${servers} ${deep["list"]} ${env["NEW"]}').split('\n')[-1].endswith(
            "['a', 'b'] [1] x")
    assert 'NEW' not in os.environ


def test_a_failure_is_not_hidden_by_the_second_way(templates):
    error = templates.error('<% servers = [1] %>\nbind ${bind_tcp("*", 80)}\n${servers[5]}')
    assert error.line == 3 and 'IndexError' in error.reason


def test_values_keep_their_order_on_a_python_whose_dicts_have_none():
    yaml = pytest.importorskip('yaml')
    from multibinder.template import values
    text = 'base: &b {z: 1}\n' + ''.join('k{}: {}\n'.format(n * 7 % 10, n) for n in range(10)) + 'm: {<<: *b, a: 2}\n'
    loaded = yaml.load(text, values._ordered(yaml))
    assert list(loaded) == ['base'] + ['k{}'.format(n * 7 % 10) for n in range(10)] + ['m']
    assert dict(loaded['m']) == {'z': 1, 'a': 2}
