"""multibinder-haproxy-erb: the gem's calling convention."""

import os
import signal
import subprocess
import sys

import pytest

from running import DEADLINE, Binder, Running, command_of, environment, free_port
from wrapper_running import HAPROXY, Files, ask, refused, template, until


@pytest.fixture
def files():
    made = Files()
    yield made
    made.remove()


@pytest.fixture
def port():
    return free_port()


def run(files, *words, **variables):
    """Run the command to its end; return (status, output)."""
    result = subprocess.run(
        [sys.executable, command_of('multibinder-haproxy-erb')] + list(words), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, env=environment(**variables), timeout=DEADLINE, cwd=files.folder,
        universal_newlines=True)
    assert 'Traceback' not in result.stdout
    return result.returncode, result.stdout


def start(files, binder_path, *words):
    return Running([sys.executable, command_of('multibinder-haproxy-erb'), HAPROXY] + list(words),
                   env=environment(MULTIBINDER_SOCK=binder_path), cwd=files.folder)


def serves(port):
    def answer():
        try:
            return ask(port)
        except OSError:
            return None
    return until(answer, 'haproxy answers')


def test_becomes_haproxy(files, port):
    """The process is haproxy's own, and the claim outlives it: it was made for good."""
    files.write(template([port]))
    with Binder('--linger', '0') as binder:
        for _ in range(2):
            haproxy = start(files, binder.path, '-db', '-f', 'foo.cfg.tmpl')
            assert serves(port) == 'one'
            with open('/proc/{}/cmdline'.format(haproxy.pid)) as cmdline:
                assert cmdline.read().split('\0')[:-1] == [HAPROXY, '-db', '-f', files.config]
            with open('/proc/{}/status'.format(haproxy.pid)) as status:
                assert 'SigBlk:\t0000000000000000' in status.read()
            haproxy.stop(signal.SIGUSR1)
            assert not refused(port)
    assert 'bind fd@3\n' in files.read()


def test_erb_template(files, port):
    files.write(template([port]).replace('${', '<%= ').replace('}', ' %>'), files.config + '.erb')
    with Binder() as binder:
        haproxy = start(files, binder.path, '-f', files.config + '.erb', '-db')
        assert serves(port) == 'one'
        haproxy.stop()


def test_write_only(files, port):
    """Nothing is claimed and nothing is run: neither a binder nor haproxy has to be there."""
    files.write(template([port]))
    for words in (['-f', 'foo.cfg.tmpl', '--erb-write-only'], ['--erb-write-only', '-f', files.template],
                  ['/nonexistent/haproxy', '-Ds', '-f', files.config, '--erb-write-only', '-p', 'x']):
        assert run(files, *words, MULTIBINDER_SOCK='/nonexistent') == (0, '')
        assert 'bind fd@3\n' in files.read()
        os.unlink(files.config)
        assert os.listdir(files.folder) == ['foo.cfg.tmpl']
    assert refused(port)


def test_in_clear(files, port):
    files.write(template([port]))
    status, said = run(files, '-f', files.template, '--erb-write-only', MULTIBINDER_SOCK='')
    assert status == 0 and 'MULTIBINDER_SOCK is set to the empty string' in said
    assert 'bind 127.0.0.1:{}\n'.format(port) in files.read()


def test_binder_away(files, port):
    files.write(template([port]))
    status, said = run(files, HAPROXY, '-db', '-f', files.template, MULTIBINDER_SOCK=files.folder + '/nobody')
    assert status == 1
    assert 'cannot reach the binder on {}/nobody'.format(files.folder) in said
    assert os.listdir(files.folder) == ['foo.cfg.tmpl']


def test_errors_leave_nothing(files, port):
    files.write(template([port]) + '${nothing.there}\n')
    status, said = run(files, HAPROXY, '-f', files.template)
    assert status == 1 and files.template + ':13' in said
    files.write(template([port]))
    files.write('mine\n', files.config)
    status, said = run(files, '-f', files.template, '--erb-write-only')
    assert status == 1 and 'was not rendered by multibinder' in said
    assert files.read() == 'mine\n'
    assert sorted(os.listdir(files.folder)) == ['foo.cfg', 'foo.cfg.tmpl']


def test_check_of_old_units_changes_nothing(files, port):
    """The gem's way of checking wrote over the config in force."""
    files.write(template([port]))
    files.write('# Rendered by multibinder from x\n', files.config)
    status, said = run(files, HAPROXY, '-c', '-q', '-f', files.template, MULTIBINDER_SOCK='/nonexistent')
    assert status == 0
    files.write(template([port], extra='    bogus'))
    status, said = run(files, HAPROXY, '-c', '-f', files.template, MULTIBINDER_SOCK='/nonexistent')
    assert status == 1 and "unknown keyword 'bogus'" in said
    assert files.read() == '# Rendered by multibinder from x\n'
    assert sorted(os.listdir(files.folder)) == ['foo.cfg', 'foo.cfg.tmpl']


def test_missing_haproxy(files, port):
    files.write(template([port]))
    with Binder() as binder:
        status, said = run(files, '/nonexistent/haproxy', '-f', files.template, MULTIBINDER_SOCK=binder.path)
    assert status == 1 and 'cannot run /nonexistent/haproxy: No such file or directory' in said


@pytest.mark.parametrize('words, status, said', [
    (['--help'], 0, '--erb-write-only'), (['--version'], 0, 'multibinder-haproxy-erb '), ([], 2, 'no haproxy command'),
    (['--nonsense'], 2, '--nonsense'), (['haproxy'], 2, 'no config was given'),
    (['--erb-write-only'], 2, 'no config was given'),
])
def test_usage(files, words, status, said):
    found, output = run(files, *words)
    assert found == status and said in output
