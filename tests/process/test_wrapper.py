"""The wrapper on real haproxy and a real binder: start, reload, and every way in which a reload fails."""

import os
import signal
import socket
import stat

import pytest

from running import DEADLINE, Binder, free_port
from wrapper_running import HAPROXY, Binary, Files, Wrapper, ask, refused, template, until


@pytest.fixture
def files():
    made = Files()
    yield made
    made.remove()


@pytest.fixture
def binder():
    with Binder() as running:
        yield running


@pytest.fixture
def port():
    yield free_port()
    while TAKEN:
        TAKEN.pop().close()


def pid_said(files):
    return int(files.read(files.pidfile))


def test_start_reload_and_stop(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path) as wrapper:
        first = wrapper.serving()
        assert ask(port) == 'one'
        assert pid_said(files) == first
        assert '\n    bind fd@3\n' in files.read()
        for answer in ('two', 'three'):
            files.write(template([port], answer))
            assert wrapper.reload() == (0, '')
            assert ask(port) == answer
            assert files.temporary() == []
            assert pid_said(files) == wrapper.serving() != first
        wrapper.kill(signal.SIGTERM)
        assert wrapper.wait() == 0
        assert not os.path.exists(files.pidfile)
    assert answer in files.read(), 'the rendered config stays'


def test_command_line_that_haproxy_gets(files, binder, port):
    """Old words are corrected once, the owner's own ones pass."""
    files.write(template([port]))
    words = ['-Ds', '-f', files.template, '-p', files.pidfile, '-dr', '-L', 'peer']
    with Wrapper(files, binder.path, words=words) as wrapper:
        assert 'takes -Ds for -D and would leave the foreground: it is run with -W' in wrapper.output
        with open('/proc/{}/cmdline'.format(wrapper.serving())) as cmdline:
            given = cmdline.read().split('\0')[:-1]
        assert given[given.index('-f'):][:6] == ['-f', files.config, '-p', files.pidfile, '-dr', '-L']
        assert wrapper.reload() == (0, '')
        wrapper.wait_for(' serves')
        assert wrapper.output.count('takes -Ds') == 1


def test_haproxy_inherits_what_it_is_meant_to(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path, NOTIFY_SOCKET='/nowhere', LISTEN_FDS='3') as wrapper:
        pid = wrapper.serving()
        with open('/proc/{}/environ'.format(pid)) as environ:
            variables = dict(entry.partition('=')[::2] for entry in environ.read().split('\0'))
        assert 'LISTEN_FDS' not in variables
        assert variables.get('NOTIFY_SOCKET') != '/nowhere', 'haproxy must not speak to systemd itself'
        with open('/proc/{}/status'.format(wrapper.pid)) as status:
            assert 'SigBlk:\t0000000000000000' in status.read()
        sockets = {}
        for name in os.listdir('/proc/{}/fd'.format(pid)):
            try:
                sockets[int(name)] = os.readlink('/proc/{}/fd/{}'.format(pid, name))
            except OSError:
                continue        # haproxy has closed it meanwhile
        # 0, 1, 2, the listener, its command line; whatever else is haproxy's own.
        assert sockets[2].startswith('pipe:')
        held = {os.readlink('/proc/{}/fd/{}'.format(wrapper.pid, fd)) for fd in wrapper.descriptors()}
        assert sockets[3] in held
        assert stat.S_IMODE(os.stat(os.path.join(files.runtime, 'cli')).st_mode) == 0o600


@pytest.mark.parametrize('extra', ['    daemon', '    master-worker', '    daemon\n    master-worker\n    quiet'])
def test_modes_in_the_config_do_no_harm(files, binder, port, extra):
    files.write(template([port], extra=extra))
    with Wrapper(files, binder.path) as wrapper:
        assert ask(port) == 'one'
        assert wrapper.reload() == (0, '')
        assert ask(port) == 'one'


def failing(name, port, files):
    """Return a template that fails, and words of the reason."""
    if name == 'template error':
        return template([port]) + '${nothing.at.all}\n', files.template
    if name == 'rejected':
        return template([port], extra='    bogus yes'), "unknown keyword 'bogus'"
    if name == 'dies after the parse':
        return template([port], extra='    chroot /nonexistent/at/all'), 'Cannot chroot'
    if name == 'dies after the parse, the master stays':
        return template([port], extra='    master-worker no-exit-on-failure\n    chroot /nonexistent/at/all'), 'chroot'
    if name == 'no address of ours':
        return template([port, free_port()], address='203.0.113.7'), 'cannot bind tcp 203.0.113.7'
    if name == 'an address of its own that is taken':
        taken = socket.socket()
        taken.bind(('127.0.0.1', 0))
        taken.listen(1)
        TAKEN.append(taken)
        number = taken.getsockname()[1]
        return template([port], defaults='frontend own\n    bind 127.0.0.1:{}'.format(number)), 'cannot bind socket'
    if name == 'template gone':
        return None, 'there is no template'
    raise AssertionError(name)


FAILURES = ('template error', 'rejected', 'dies after the parse', 'dies after the parse, the master stays',
            'no address of ours', 'an address of its own that is taken', 'template gone')
TAKEN = []


@pytest.mark.parametrize('name', FAILURES)
def test_failed_reload_changes_nothing(files, binder, port, name):
    files.write(template([port]))
    with Wrapper(files, binder.path) as wrapper:
        pid = wrapper.serving()
        config = files.read()
        for _ in range(2):
            text, reason = failing(name, port, files)
            if text is None:
                if os.path.exists(files.template):
                    os.unlink(files.template)
            else:
                files.write(text)
            status, said = wrapper.reload()
            assert status != 0
            assert reason in said
            assert 'serves on' in said
            assert ask(port) == 'one'
            assert wrapper.serving() == pid == pid_said(files)
            assert files.read() == config
            assert files.temporary() == []
        files.write(template([port], 'better'))
        assert wrapper.reload() == (0, '')
        assert ask(port) == 'better'
    binder.wait_for('went away')


@pytest.mark.parametrize('name', FAILURES)
def test_failed_start_leaves_nothing(files, binder, port, name):
    text, reason = failing(name, port, files)
    if text is not None:
        files.write(text)
    wrapper = Wrapper(files, binder.path)
    assert wrapper.wait() == 1, wrapper.output
    assert reason in wrapper.output
    assert 'Traceback' not in wrapper.output
    until(lambda: wrapper.processes() == [], 'what was killed has ended')
    assert not os.path.exists(files.config)
    assert not os.path.exists(files.pidfile)
    assert not os.path.isdir(files.runtime) or os.listdir(files.runtime) == []


def test_complaint_names_the_line_of_the_template(files, binder, port):
    text = template([port])
    files.write(text)
    with Wrapper(files, binder.path) as wrapper:
        lines = text.splitlines()
        lines.insert(8, '% for n in range(3):\n    timeout nonsense ${n}s\n% endfor')
        files.write('\n'.join(lines) + '\n')
        _, said = wrapper.reload()
        assert '{}:10: timeout nonsense ${{n}}s'.format(files.template) in said


def test_haproxy_that_never_gets_ready(files, binder, port):
    """The deadline passes, it is ended with all its children, and the old generation serves on."""
    files.write(template([port]))
    stand_in = files.script('haproxy', '#!/bin/sh\n'
                            'case "$1" in -v*) exec {0} "$@";; esac\n'
                            'if test -e {1}/hang; then echo 999999 >{1}/foo.pid; sleep 600 & sleep 600; fi\n'
                            'exec {0} "$@"\n'.format(HAPROXY, files.folder))
    # The deadline is that of the real one's start, too: long enough for a machine that is busy.
    with Wrapper(files, binder.path, haproxy=stand_in, MULTIBINDER_START_TIMEOUT='10') as wrapper:
        pid = wrapper.serving()
        files.write('', os.path.join(files.folder, 'hang'))
        status, said = wrapper.reload(60)
        assert status == 1 and 'was not ready within 10 s' in said
        assert wrapper.serving() == pid == pid_said(files)
        # All are killed and only the first is waited for: the others are gone when they were scheduled once more.
        until(lambda: not any('sleep' in words for words in wrapper.command_lines().values()), 'no child of it is left')
        os.unlink(os.path.join(files.folder, 'hang'))
        assert wrapper.reload(60)[0] == 0


def test_renderer_that_never_ends(files, binder, port):
    files.write(template([port]))
    # The other renderings have to be done within it, on a machine that is busy, too.
    with Wrapper(files, binder.path, MULTIBINDER_RENDER_TIMEOUT='10') as wrapper:
        files.write(template([port]) + '<%\nwhile True:\n    pass\n%>\n')
        status, said = wrapper.reload(60)
        assert status == 1 and files.template in said
        assert ask(port) == 'one'
        files.write(template([port], 'two'))
        assert wrapper.reload() == (0, '')


def test_renderer_that_dies(files, binder, port):
    files.write(template([port]))
    with Wrapper(files, binder.path) as wrapper:
        files.write(template([port]) + '<%\nimport os\nos.kill(os.getpid(), 9)\n%>\n')
        status, said = wrapper.reload()
        assert status == 1 and 'the renderer died without a word (killed by SIGKILL)' in said
        assert ask(port) == 'one'


def test_renderer_that_leaves_a_child_behind(files, binder, port):
    """It holds the report's pipe open; it is not waited for."""
    files.write(template([port]))
    with Wrapper(files, binder.path, MULTIBINDER_RENDER_TIMEOUT='600') as wrapper:
        files.write(template([port], 'two') + '<%\nimport os, time\nif not os.fork():\n    time.sleep(600)\n%>\n')
        assert wrapper.reload() == (0, '')
        assert ask(port) == 'two'
        for pid, words in wrapper.command_lines().items():      # the old haproxy may be about to end
            if pid != wrapper.pid and 'wrapper' in words[1]:
                os.kill(pid, signal.SIGKILL)


def test_somebody_elses_config_is_not_overwritten(files, binder, port):
    files.write(template([port]))
    files.write('# mine\n', files.config)
    wrapper = Wrapper(files, binder.path)
    assert wrapper.wait() == 1
    assert 'was not rendered by multibinder' in wrapper.output
    assert files.read() == '# mine\n'
    assert files.temporary() == []


def test_killed_in_the_middle_of_a_launch(files, binder, port):
    """The next start brings the config in force back, before anything else."""
    files.write(template([port]))
    with Wrapper(files, binder.path):
        good = files.read()
    os.rename(files.config, os.path.join(files.folder, '.foo.cfg.old'))
    files.write(good.replace('one', 'unproved'))
    files.write('half', os.path.join(files.folder, '.foo.cfg.new'))
    files.write(template([port], extra='    bogus'))
    wrapper = Wrapper(files, binder.path)
    assert wrapper.wait() == 1
    assert files.read() == good
    assert files.temporary() == []


def test_rendered_config_is_as_readable_as_its_template(files, binder, port):
    files.write(template([port]))
    os.chmod(files.template, 0o640)
    with Wrapper(files, binder.path):
        assert stat.S_IMODE(os.stat(files.config).st_mode) == 0o640
        assert files.read().splitlines()[-1].startswith('# Rendered by multibinder from ' + files.template)


def test_ports_come_and_go(files, binder, port):
    """An added port is served after the reload, a removed one is refused right after it, although an old
    generation still holds a copy while it finishes."""
    added = free_port()
    files.write(template([port, added]))
    with Wrapper(files, binder.path) as wrapper:
        assert ask(added) == 'one'
        with socket.create_connection(('127.0.0.1', port)) as slow:
            slow.sendall(b'GET / HTTP/1.1\r\n')     # keeps its generation from ending
            ask(port)
            files.write(template([port], 'two'))
            assert wrapper.reload() == (0, '')
            until(lambda: len(wrapper.haproxies()) == 2, 'two generations, and no renderer any more')
            assert refused(added)
            assert ask(port) == 'two'
        files.write(template([port, added], 'three'))
        assert wrapper.reload() == (0, '')
        assert ask(added) == ask(port) == 'three'


def test_same_address_twice_gets_two_descriptors(files, binder, port):
    files.write(template([port, port]))
    with Wrapper(files, binder.path) as wrapper:
        assert 'bind fd@3\n    bind fd@4' in files.read()
        assert ask(port) == 'one'
        assert wrapper.reload() == (0, '')


def test_several_configs_share_one_numbering(files, binder, port):
    other = free_port()
    files.write(template([port]))
    more = os.path.join(files.folder, 'more.cfg')
    files.write('frontend more\n    bind ${{bind_tcp("127.0.0.1", {})}}\n    mode http\n    timeout client 5s\n'
                '    http-request redirect location /more\n'.format(other),
                more + '.tmpl')
    plain = os.path.join(files.folder, 'plain.cfg')
    files.write('backend nobody\n    mode http\n    timeout connect 1s\n    timeout server 1s\n', plain)
    words = ['-f', files.config, '-f', plain, '-f', more + '.tmpl', '-p', files.pidfile]
    with Wrapper(files, binder.path, words=words) as wrapper:
        assert 'fd@3' in files.read() and 'fd@4' in files.read(more)
        assert ask(port) == 'one' and ask(other) == 'more'
        assert wrapper.reload() == (0, '')
        assert ask(port) == 'one' and ask(other) == 'more'


def test_two_templates_for_one_config(files, binder, port):
    files.write(template([port]))
    files.write(template([port]), files.config + '.erb')
    wrapper = Wrapper(files, binder.path)
    assert wrapper.wait() == 1
    assert files.config + '.tmpl' in wrapper.output and files.config + '.erb' in wrapper.output


def test_missing_haproxy(files, binder, port):
    files.write(template([port]))
    wrapper = Wrapper(files, binder.path, haproxy='/nonexistent/haproxy')
    assert wrapper.wait() == 1
    assert 'cannot run /nonexistent/haproxy: No such file or directory' in wrapper.output


def test_many_binds_start_and_reload(files, binder):
    """The master of 2.5 to 3.0 has no room for 250 inherited descriptors; nobody has to know that, and the
    owner's maxconn stays what it was."""
    first = free_port()
    # Addresses, not ports: a thousand free ports in a row are not to be had.
    binds = '\n'.join("    bind ${{bind_tcp('127.{}.{}.1', {})}}".format(50 + n // 250, n % 250, first)
                      for n in range(1000))
    text = template([]).replace('frontend web\n', 'frontend web\n' + binds + '\n')
    files.write(text)
    with Wrapper(files, binder.path) as wrapper:
        assert ask(first, '127.50.0.1') == ask(first, '127.53.249.1') == 'one'
        files.write(text.replace('/one', '/two'))
        assert wrapper.reload(60) == (0, '')
        assert ask(first, '127.50.0.1') == ask(first, '127.53.249.1') == 'two'
        with socket.socket(socket.AF_UNIX) as cli:
            cli.connect(os.path.join(files.runtime, 'cli'))
            cli.settimeout(DEADLINE)
            cli.sendall(b'@1 show info\n' if Binary([HAPROXY]).version().has_master_cli else b'show info\n')
            info = b''
            while b'Maxconn' not in info:
                data = cli.recv(65536)
                assert data, info
                info += data
        assert b'Maxconn: 50\n' in info


def test_addresses_in_clear_without_a_binder(files, port):
    files.write(template([port]))
    with Wrapper(files, '') as wrapper:
        assert 'MULTIBINDER_SOCK is set to the empty string' in wrapper.output
        assert '    bind 127.0.0.1:{}\n'.format(port) in files.read()
        assert ask(port) == 'one'
        files.write(template([port], 'two'))
        assert wrapper.reload() == (0, '')

        def answered():
            try:
                return ask(port) == 'two'
            except OSError:
                return False        # reset with the old generation's socket, which nobody holds here
        until(answered, 'the new generation answers')
    assert refused(port)
