"""The way of a haproxy that already runs into the binder, and back: with real ones, and a load on them."""

import os
import signal
import socket
import subprocess
import sys

import pytest

from adopting import (
    Stock, Traffic, answer, answers, ctl, held, keepers, listening, port_nobody_uses, refused, version_of)
from running import DEADLINE, Binder, Running, command_of, environment
from wrapper_running import HAPROXY, Files, Wrapper, until

pytestmark = [pytest.mark.skipif(not os.path.exists(HAPROXY), reason='no haproxy here'),
              pytest.mark.skipif(os.geteuid() != 0, reason='takes root')]

RATE = 300
VERSION = version_of(HAPROXY)

TEMPLATE = """\
global
    maxconn 500
defaults
    mode http
    backlog 4096
    timeout connect 5s
    timeout client 20s
    timeout server 20s
frontend web
    bind ${bind_tcp('127.0.0.1', %d)}
    bind ${bind_tcp('::1', %d, v6only=True)}
    http-request return status 200 content-type text/plain string "ours"
"""


@pytest.fixture
def binder():
    with Binder('--linger', '20') as running:
        yield running
        until(lambda: not keepers(running), 'no keeper is left')
        assert held(running) == {}, 'the binder holds nothing any more'


@pytest.fixture
def files():
    files = Files()
    yield files
    files.remove()


@pytest.fixture
def ports():
    return port_nobody_uses(), port_nobody_uses(socket.AF_INET6)


def binds(ports):
    return ['127.0.0.1:{}'.format(ports[0]), '::1:{}'.format(ports[1])]


@pytest.mark.parametrize('source', ['haproxy', 'pid'])
def test_from_a_stock_haproxy_to_an_instance_and_back(binder, files, ports, source):
    """Under load: adopt, start the instance, let the old haproxy finish; then the same the other way."""
    files.write(TEMPLATE % ports)
    offer = os.path.join(files.folder, 'offer')
    targets = {'v4': ('127.0.0.1', ports[0], RATE), 'v6': ('::1', ports[1], RATE)}
    # From 2.3 on haproxy takes a specific IPv6 address from nobody unless its line says v6only; before, it
    # compares the line with what came along, which a descriptor alone does not tell.
    lines = [binds(ports)[0], binds(ports)[1] + (' v6only' if source == 'haproxy' or VERSION >= (2, 3) else '')]
    with Stock(lines) as stock, Traffic(None, targets, backend=port_nobody_uses(), timeout=DEADLINE) as traffic:
        traffic.wait_new('v6', (), DEADLINE)
        before = [listening(port) for port in ports]
        traffic.segment('forth')
        printed = ctl(binder, 'adopt', source, stock.path if source == 'haproxy' else str(stock.pid))
        assert 'tcp 127.0.0.1:{} adopted'.format(ports[0]) in printed
        assert 'tcp [::1]:{} adopted'.format(ports[1]) in printed
        assert [{one['inode'] for one in held(binder).values()}] == [before[0] | before[1]]
        with Wrapper(files, binder.path) as wrapper:
            stock.finish()
            until(lambda: not keepers(binder), 'the keeper ends with the old haproxy')
            assert {answer(port, host) for port, host in zip(ports, ('127.0.0.1', '::1'))} == {'ours'}
            report = traffic.report()
            assert {name: one['failed'] for name, one in report.items()} == {'v4': 0, 'v6': 0}, report
            assert [listening(port) for port in ports] == before, 'the very same sockets, and no others'
            assert {claim['kind'] for one in held(binder).values() for claim in one['claims']} == {'lease'}

            traffic.segment('back')
            giving = Running([sys.executable, command_of('multibinderctl'), '--socket', binder.path, 'offer', offer])
            giving.wait_for('offered at ' + offer)
            with Stock(lines, 'again', words=['-x', offer]):
                assert giving.wait() == 0, giving.output
                assert not os.path.exists(offer)
                wrapper.stop()      # told once: the second time, as __exit__ does it, ends what is still being answered
                wrapper.__exit__(None, None, None)
                assert answers(ports[0]) == answers(ports[1], '::1') == {'again'}
                report = traffic.report()
                assert {name: one['failed'] for name, one in report.items()} == {'v4': 0, 'v6': 0}, report
                assert [listening(port) for port in ports] == before
                traffic.__exit__(None, None, None)
    until(lambda: all(refused(port, host) for port, host in zip(ports, ('127.0.0.1', '::1'))),
          'the ports are closed with the last haproxy, without linger')


def test_adopting_changes_nothing_for_a_haproxy_that_stays(binder, ports):
    """No linger time may shut its sockets down: the claim is kept over its reload, as long as it runs."""
    with Stock(binds(ports)) as stock:
        ctl(binder, 'adopt', 'haproxy', stock.path)
        ctl(binder, 'adopt', 'haproxy', stock.path)     # twice: one keeper remains
        until(lambda: len(keepers(binder)) == 1, 'one keeper')
        before = [listening(port) for port in ports]
        workers = set(children(stock.pid))
        stock.kill(signal.SIGUSR2)
        until(lambda: not workers & set(children(stock.pid)) and children(stock.pid), 'the old worker has ended')
        assert answers(ports[0]) == {'stock'}
        until(lambda: len(keepers(binder)) == 1, 'one keeper')
        # Its own reload keeps no specific IPv6 address from 2.3 on, held or not.
        assert listening(ports[0]) == before[0]
        assert 'tcp 127.0.0.1:{}'.format(ports[0]) in held(binder)
    until(lambda: refused(ports[0]), 'refused with its end')


def test_held_for_good(binder, ports):
    with Stock(binds(ports)) as stock:
        ctl(binder, 'adopt', 'haproxy', '--hold', stock.path)
        assert not keepers(binder)
        stock.finish()
        assert {claim['kind'] for one in held(binder).values() for claim in one['claims']} == {'plain'}
        assert not refused(ports[0]), 'clients wait in the queue'
        ctl(binder, 'release', '127.0.0.1:{}'.format(ports[0]), '[::1]:{}'.format(ports[1]))
        assert refused(ports[0]) and refused(ports[1], '::1')


def test_what_cannot_be_held_is_said(binder, ports, files):
    path = os.path.join(files.folder, 'web')
    shards = ' shards 2' if VERSION >= (2, 5) else ''
    more = ['unix@' + path, 'abns@' + os.path.basename(files.folder), '127.0.0.1:{}{}'.format(ports[1], shards)]
    with Stock(['127.0.0.1:{}'.format(ports[0])] + more) as stock:
        printed = ctl(binder, 'adopt', 'haproxy', stock.path)
        assert ('left: tcp 127.0.0.1:{} has several sockets'.format(ports[1]) in printed) == bool(shards)
        assert 'left: {} is known to the kernel under the name of a temporary file'.format(path) in printed
        assert 'left: @{} is an abstract name that is filled'.format(os.path.basename(files.folder)) in printed
        assert len(held(binder)) == 2


def test_another_socket_is_held_there(binder, ports):
    """Two haproxies with a socket each at one address (SO_REUSEPORT): the second one's is not taken."""
    with Stock(binds(ports)[:1]) as first, Stock(binds(ports)[:1]) as second:
        ctl(binder, 'adopt', 'haproxy', first.path)
        said = ctl(binder, 'adopt', 'haproxy', second.path, status=1)
        assert 'cannot adopt tcp 127.0.0.1:{}: the binder holds another socket there'.format(ports[0]) in said
        second.finish()
        assert answers(ports[0]) == {'stock'}


@pytest.mark.parametrize('words, sentence', [
    (['haproxy', '/nowhere/at-all'], 'cannot connect to /nowhere/at-all: No such file or directory'),
    (['pid', '99999999'], 'cannot take listeners from pid 99999999: there is no such process'),
])
def test_wrong_sources_in_words(binder, words, sentence):
    assert sentence in ctl(binder, 'adopt', *words, status=1)


def test_a_word_that_is_no_pid(binder):
    assert "'haproxy' is no PID" in ctl(binder, 'adopt', 'pid', 'haproxy', status=2)


def test_a_stats_socket_that_does_not_expose(binder, ports):
    with Stock(binds(ports), expose='') as stock:
        said = ctl(binder, 'adopt', 'haproxy', stock.path, status=1)
        assert 'expose-fd listeners' in said
        assert held(binder) == {}


def test_a_socket_of_something_else(binder, files):
    path = os.path.join(files.folder, 'other')
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        other.listen(1)
        process = subprocess.Popen(
            [sys.executable, command_of('multibinderctl'), '--socket', binder.path, 'adopt', 'haproxy', path],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True)
        connection, _ = other.accept()
        with connection:
            connection.recv(100)
            connection.sendall(b'Unknown command. Please enter one of the following commands only:\n')
            said, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 1
    assert 'does not know _getsocks' in said and 'Unknown command' in said


def test_a_process_without_listeners(binder):
    with subprocess.Popen(['sleep', '60']) as sleeping:
        try:
            said = ctl(binder, 'adopt', 'pid', str(sleeping.pid), status=1)
        finally:
            sleeping.kill()
    assert 'nothing of pid {} can be held'.format(sleeping.pid) in said


def test_an_offer_that_nobody_wants(binder, ports, files):
    path = os.path.join(files.folder, 'offer')
    assert 'the binder holds no listener' in ctl(binder, 'offer', path, status=1)
    with Stock(binds(ports)[:1]) as stock:
        ctl(binder, 'adopt', 'haproxy', stock.path)
        said = ctl(binder, 'offer', '--for', '0.1', path, status=1)
        assert 'no haproxy has asked for 0.1 s' in said
        assert not os.path.exists(path)
        assert 'does not hold it' in ctl(binder, 'offer', path, '127.0.0.1:1', status=1)


def children(pid):
    with open('/proc/{}/task/{}/children'.format(pid, pid)) as file:
        return [int(word) for word in file.read().split()]
