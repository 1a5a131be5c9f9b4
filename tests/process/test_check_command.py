"""multibinder-haproxy-check: haproxy's own verdict, and nothing that it changes."""

import os
import resource
import subprocess
import sys

import pytest

from running import DEADLINE, command_of, environment, free_port
from wrapper_running import HAPROXY, Files, refused, template


@pytest.fixture
def files():
    made = Files()
    yield made
    made.remove()


def snapshot(folder):
    """Return all that is in a folder: names, contents, times."""
    found = {}
    for directory, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(directory, name)
            with open(path, 'rb') as file:
                found[path] = (file.read(), os.stat(path).st_mtime, os.stat(path).st_mode)
    return found


def check(files, *words, **variables):
    """Run the check; return (status, output). The folder, the temporary folder and the ports are as before."""
    temporary = os.path.join(files.folder, 'tmp')
    os.makedirs(temporary, exist_ok=True)
    variables.setdefault('MULTIBINDER_SOCK', '/nonexistent/binder')
    variables.setdefault('MULTIBINDER_CONFIG_DIR', files.folder)
    variables.setdefault('MULTIBINDER_DEFAULTS_DIR', files.folder)
    before = snapshot(files.folder)
    result = subprocess.run(
        [sys.executable, command_of('multibinder-haproxy-check')] + list(words), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=environment(TMPDIR=temporary, **variables), timeout=DEADLINE, cwd=files.folder)
    assert snapshot(files.folder) == before
    output = result.stdout.decode('utf-8', 'surrogateescape')
    assert 'Traceback' not in output
    assert temporary not in output
    return result.returncode, output


def test_valid(files):
    port = free_port()
    files.write(template([port]))
    for name in ('foo', files.template, files.config, 'foo.cfg.tmpl'):
        status, said = check(files, name)
        assert status == 0 and 'onfiguration file is valid' in said
    assert refused(port)


def test_config_in_force_and_pidfile_are_left_alone(files):
    """Also one that is somebody's own, which a launch would refuse to replace."""
    files.write(template([free_port()], extra='    pidfile {}'.format(files.pidfile)))
    files.write('mine\n', files.config)
    assert check(files, 'foo')[0] == 0
    assert not os.path.exists(files.pidfile)


def test_complaints_have_the_real_names_and_the_templates_lines(files):
    files.write(template([free_port()]).replace('frontend web', '% for n in (1, 2):\n# ${n}\n% endfor\nfrontend web')
                .replace('    http-request', '    nonsense here\n    http-request'))
    status, said = check(files, 'foo')
    assert status == 1
    assert '[{}:'.format(files.config) in said
    assert '{}:15: nonsense here'.format(files.template) in said


def test_template_error(files):
    files.write(template([free_port()]) + '${1 / 0}\n')
    status, said = check(files, 'foo')
    assert status == 1
    assert '{}:13: '.format(files.template) in said and 'division by zero' in said


def test_no_template(files):
    status, said = check(files, 'bar')
    assert status == 1 and 'there is no template for' in said and 'bar.cfg.tmpl' in said


def test_config_without_a_template(files):
    """It is checked as it is; a rendered one whose template is gone is a mistake."""
    text = template([]).replace('frontend web', 'frontend web\n    bind 127.0.0.1:{}'.format(free_port()))
    files.write(text, files.config)
    status, said = check(files, 'foo')
    assert status == 0 and 'valid' in said
    assert check(files, '--show', 'foo') == (0, text)
    assert check(files, '--diff', 'foo') == (0, '')
    files.write(text + '    bogus\n', files.config)
    status, said = check(files, 'foo')
    assert status == 1 and '[{}:'.format(files.config) in said
    files.write(text + '# Rendered by multibinder from x\n', files.config)
    status, said = check(files, 'foo')
    assert status == 1 and 'there is no template for' in said


def test_strict(files):
    files.write('# ${misspelt}\n' + template([free_port()]))
    status, said = check(files, 'foo')
    assert status == 0 and 'misspelt' in said
    status, said = check(files, '--strict', 'foo')
    assert status == 1 and 'misspelt' in said


def test_several_names(files):
    files.write(template([free_port()]))
    files.write(template([free_port()], extra='    bogus'), os.path.join(files.folder, 'bar.cfg.tmpl'))
    status, said = check(files, 'foo', 'bar')
    assert status == 1 and 'bogus' in said and 'valid' in said


def test_addresses_that_are_not_held(files):
    """They are haproxy's own affair, but whoever wrote them should know."""
    port = free_port()
    files.write(template([port]).replace('    http-request', '    bind 127.0.0.1:{0}\n    bind "127.0.0.2:{0}" # x\n'
                                         '    # bind 127.0.0.3:1\n    http-request'.format(free_port())))
    status, said = check(files, 'foo')
    assert status == 0
    assert '{}:12: "bind 127.0.0.1:'.format(files.template) in said and said.count('not held') == 2


def test_show(files):
    port = free_port()
    files.write(template([port]))
    status, said = check(files, '--show', 'foo')
    assert status == 0
    assert '    bind 127.0.0.1:{}\n'.format(port) in said and 'fd@' not in said


def test_diff(files):
    """Numbers of descriptors and the mark are no differences."""
    port = free_port()
    files.write(template([port]))
    assert '+frontend web' in check(files, '--diff', 'foo')[1], 'nothing is in force'
    in_force = template([port], answer='old').replace("${{bind_tcp('127.0.0.1', {})}}".format(port), 'fd@77')
    in_force += '# Rendered by multibinder from x\n'
    files.write(in_force, files.config)
    status, said = check(files, '--diff', 'foo')
    assert status == 0
    changed = [line for line in said.splitlines()[2:] if line[0] in '+-']
    assert changed == ['-    http-request redirect location /old', '+    http-request redirect location /one']
    files.write(in_force.replace('/old', '/one'), files.config)
    assert check(files, '--diff', 'foo') == (0, '')


def test_extra_options_of_the_unit_count(files):
    files.write(template([free_port()]))
    files.write('EXTRAOPTS="-f {}/more.cfg"\n'.format(files.folder), os.path.join(files.folder, 'haproxy-foo'))
    files.write('global\n    bogus\n', os.path.join(files.folder, 'more.cfg'))
    status, said = check(files, 'foo')
    assert status == 1 and 'more.cfg:2' in said


def test_every_kind_of_listener(files):
    files.write("""\
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
frontend web
    bind ${bind_tcp('0.0.0.0', 80)}
    bind ${bind_tcp('::1', 80)}
    bind ${bind_tcp('::', 81, v6only=True)}
    bind ${bind_unix('/nonexistent/web.sock')}
    bind ${bind_tcp('203.0.113.9', 80, backlog=10, freebind=True)}
""")
    assert check(files, 'foo')[0] == 0


def test_many_binds(files):
    """Also under the soft limit that a shell has."""
    files.write(template([]).replace('frontend web\n', 'frontend web\n% for n in range(1000):\n'
                                     "    bind ${bind_tcp('127.0.0.1', 20000 + n)}\n% endfor\n"))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        assert check(files, 'foo')[0] == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_default_path_relative_to_the_config(files):
    files.write('errors\n', os.path.join(files.folder, 'list.lst'))
    files.write(template([free_port()], extra='    default-path config', defaults='')
                .replace('    http-request', '    http-request deny if { src -f list.lst } FALSE\n    http-request')
                .replace('errors\n', '127.0.0.9\n'))
    files.write('127.0.0.9\n', os.path.join(files.folder, 'list.lst'))
    assert check(files, 'foo')[0] == 0


def test_haproxy_that_is_not_there(files):
    files.write(template([free_port()]))
    status, said = check(files, '--haproxy', '/nonexistent/haproxy', 'foo')
    assert status == 1 and 'cannot run /nonexistent/haproxy' in said


def test_status_is_haproxys_own(files):
    files.write(template([free_port()]))
    stand_in = files.script('haproxy', '#!/bin/sh\necho words >&2\nexit 42\n')
    assert check(files, '--haproxy', stand_in, 'foo') == (42, 'words\n')
    stand_in = files.script('haproxy', '#!/bin/sh\nkill -SEGV $$\n')
    status, said = check(files, '--haproxy', stand_in, 'foo')
    assert status == 128 + 11 and 'SIGSEGV' in said


def test_as_somebody_who_may_not_write(files):
    """Nobody has to be root to check."""
    if os.geteuid() != 0:
        pytest.skip('only root can become somebody else')
    files.write(template([free_port()]))
    os.chmod(files.folder, 0o755)
    temporary = '/tmp'
    result = subprocess.run(
        ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', sys.executable, '-c',
         'import sys; sys.path.insert(0, {!r}); from multibinder.commands.check import main; '
         'sys.exit(main([{!r}]))'.format(os.path.dirname(os.path.dirname(command_of('multibinder-haproxy-check'))),
                                         files.template)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=DEADLINE,
        env=environment(TMPDIR=temporary), cwd='/')
    if 'No module named' in result.stdout or result.returncode in (126, 127):
        pytest.skip('the source tree or the interpreter cannot be read by others')
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize('words, status, said', [
    (['--help'], 0, 'usage:'), (['--version'], 0, 'multibinder-haproxy-check '), ([], 2, 'usage:'),
    (['--show', '--diff', 'foo'], 2, 'not allowed'), (['--nonsense', 'foo'], 2, 'usage:'),
])
def test_usage(files, words, status, said):
    found, output = check(files, *words)
    assert found == status and said in output


assert HAPROXY
