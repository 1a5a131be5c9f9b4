"""bash completion: the options of --help, instances, templates, and the endpoints of a running binder."""

import os
import re
import shutil

import pytest

import package

FILE = 'debian/completion/multibinder'
FUNCTIONS = {
    'multibinder': '_multibinder', 'multibinderctl': '_multibinderctl',
    'multibinder-exec': '_multibinder_exec', 'multibinder-haproxy-check': '_multibinder_haproxy_check',
    'multibinder-haproxy-erb': '_multibinder_haproxy_run', 'multibinder-haproxy-wrapper': '_multibinder_haproxy_run',
}
SCRIPT = '''
source "$1"; function=$2; shift 2
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
"$function" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
'''


def complete(words, directory='/', function=None):
    """What is offered for the last of the words; bash has cut them at colons already."""
    status, out = package.run(
        ['bash', '-c', SCRIPT, 'bash', package.path(FILE), function or FUNCTIONS[os.path.basename(words[0])]] + words,
        cwd=str(directory))
    assert status == 0, out
    return sorted(out.split('\n')[:-1]) if out.strip() else []


def test_every_command_is_completed():
    assert sorted(FUNCTIONS) == package.executables()
    status, out = package.run(['bash', '-c', 'source "$1"; complete -p', 'bash', package.path(FILE)])
    assert {name: function for function, name in re.findall(r'^complete -F (\S+) (\S+)$', out, re.MULTILINE)} == FUNCTIONS


def test_links_for_every_command():
    directory = 'usr/share/bash-completion/completions/'
    lines = [line.split() for line in package.text(package.PREFIX + 'links').splitlines()]
    links = [word for line in lines for word in line if line[0].startswith(directory)]
    assert sorted([directory + 'multibinder'] + links[1::2]) == sorted(directory + name for name in FUNCTIONS)
    assert set(links[::2]) == {directory + 'multibinder'}


@pytest.mark.parametrize('name', sorted(FUNCTIONS))
def test_options_of_help(name):
    wanted = set(re.findall(r'(?<![\w-])--[a-z][a-z-]+', package.help_of(name)))
    assert set(complete([name, '--'])) - {'--'} == wanted


@pytest.mark.parametrize('words', package.verbs_of('multibinderctl'), ids=' '.join)
def test_options_of_a_verb(words):
    wanted = set(re.findall(r'(?<![\w-])--[a-z][a-z-]+', package.help_of('multibinderctl', words).partition('options:')[2]))
    assert set(complete(['multibinderctl'] + words + ['--'])) == wanted
    assert words[-1] in complete(['multibinderctl'] + words[:-1] + [words[-1][:2]])


def test_templates_and_directories(tmp_path):
    for name in ('foo.cfg.tmpl', 'bar.cfg.erb', 'baz.cfg.mb', 'haproxy.cfg', 'x y.cfg.tmpl'):
        (tmp_path / name).write_text('')
    (tmp_path / 'sub').mkdir()
    offered = ['bar.cfg.erb', 'baz.cfg.mb', 'foo.cfg.tmpl', 'sub', 'x y.cfg.tmpl']
    assert complete(['multibinder-haproxy-wrapper', '/usr/sbin/haproxy', '-f', ''], tmp_path) == offered
    assert complete(['multibinder-haproxy-check', './f'], tmp_path) == ['./foo.cfg.tmpl']


def test_endpoints_come_from_the_binder(tmp_path):
    fake = tmp_path / 'multibinderctl'
    fake.write_text('#!/bin/sh\necho "$@" >"%s"\n' % (tmp_path / 'asked') + '''cat <<'END'
ENDPOINT            STATE    QUEUE   AGE   CLAIMS
tcp 0.0.0.0:80      claimed  0/4096  1.1s  lease haproxy-multi@foo.service (pid 1)
tcp [::1]:8080      claimed  0/4096  1.1s  plain pid 2
unix /run/x.sock    claimed  -       1.1s  plain pid 2
END
''')
    fake.chmod(0o755)
    command = str(fake)
    assert complete([command, '--socket', '/run/b', 'release', '']) == ['/run/x.sock', '0.0.0.0:80', '[::1]:8080']
    assert (tmp_path / 'asked').read_text() == '--socket /run/b list\n'
    # What bash has cut at a colon is completed behind the last one.
    assert complete([command, 'release', '0.0.0.0', ':', '8']) == ['80']
    assert complete([command, 'release', '0.0.0.0', ':']) == ['80']


def test_instances(tmp_path):
    source = package.text(FILE).replace('/etc/haproxy', str(tmp_path))
    (tmp_path / 'foo.cfg.tmpl').write_text('')
    (tmp_path / 'bar.cfg.erb').write_text('')
    (tmp_path / 'haproxy.cfg').write_text('')
    status, out = package.run(['bash', '-c', source + '\n_multibinder_instances'])
    assert (status, sorted(out.split())) == (0, ['bar', 'foo'])


def test_shellcheck():
    if not shutil.which('shellcheck'):
        pytest.skip('shellcheck is not installed')
    status, out = package.run(['shellcheck', '--shell=bash', package.path(FILE)])
    assert status == 0, out
