"""The binder as a process: what it answers, what it survives, what it leaves."""

import array
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

import pytest

from multibinder import wire
from multibinder.client import Client
from multibinder.endpoint import Endpoint
from multibinder.errors import BinderAway, EndpointError, ReplyError
from multibinder.listening import is_listening, open_listener
from running import DEADLINE, Binder, Running, command_of, environment, free_port


def inode(sock):
    return os.fstat(sock.fileno()).st_ino


def raw(binder):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(DEADLINE)
    sock.connect(binder.path)
    return sock


def refused(port, family=socket.AF_INET):
    with socket.socket(family) as probe:
        probe.settimeout(DEADLINE)
        try:
            probe.connect(('127.0.0.1' if family == socket.AF_INET else '::1', port))
        except ConnectionRefusedError:
            return True
        return False


def until(condition, seconds=DEADLINE):
    """Wait for another process to have done what it was told to; the deadline is what fails."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, 'not in {} s'.format(seconds)
        time.sleep(0.01)        # the other process needs the processor more than we do


def test_a_bind_hands_out_the_same_socket_each_time_and_it_accepts():
    port = free_port()
    with Binder() as binder, Client(binder.path) as client:
        with client.bind('127.0.0.1', port) as first, client.bind('127.0.0.1', port) as second:
            assert inode(first) == inode(second) and first.getsockname() == ('127.0.0.1', port)
            assert not first.get_inheritable()
            with socket.create_connection(('127.0.0.1', port), DEADLINE):
                second.accept()[0].close()


def test_what_the_ruby_gem_sends_is_answered_in_one_message_with_one_descriptor():
    port = free_port()
    with Binder() as binder, raw(binder) as sock:
        request = {'jsonrpc': '2.0', 'method': 'bind', 'id': '6fc1f2f5-67f4-4a0c-a2f2-4d2a0a7d0a41',
                   'params': [{'address': '127.0.0.1', 'port': port, 'backlog': 10240}]}
        sock.sendall(json.dumps(request).encode())
        data, ancillary, flags, _ = sock.recvmsg(256, 256)
        assert json.loads(data.decode()) == {'jsonrpc': '2.0', 'id': request['id'], 'result': True}
        assert not flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC)
        [(level, kind, payload)] = ancillary
        assert (level, kind, len(payload)) == (socket.SOL_SOCKET, socket.SCM_RIGHTS, 4)
        with socket.socket(fileno=array.array('i', payload)[0]) as listener:
            assert listener.getsockname() == ('127.0.0.1', port)
    with Binder() as binder, raw(binder) as sock:
        # Its errors fit into the one read of 256 bytes, too, and a request without an id is answered.
        sock.sendall(b'{"method":"bind","params":[{"address":"192.0.2.1","port":80}]}')
        answer = json.loads(sock.recv(256).decode())
        assert answer['id'] is None and answer['error']['code'] == 10000
        assert answer['error']['message'] == (
            'cannot bind tcp 192.0.2.1:80: Cannot assign requested address (no interface of this host has it now; '
            'the option freebind binds it all the same)')


def test_252_endpoints_in_one_request_and_not_one_more():
    with Binder() as binder, Client(binder.path) as client:
        ports = range(20000, 20000 + 252)       # outside the range of the kernel's own choices
        endpoints = [Endpoint.tcp('127.0.9.9', port) for port in ports]
        sockets = client.bind_all(endpoints)
        try:
            assert [sock.getsockname()[1] for sock in sockets] == list(ports)
        finally:
            for sock in sockets:
                sock.close()
        with pytest.raises(ReplyError) as raised:
            client.call('bind', [one.to_params() for one in endpoints] + [{'address': '127.0.9.9', 'port': 19999}])
        assert raised.value.code == -32602
        more = client.bind_all(endpoints + [Endpoint.tcp('127.0.9.9', 19999)])     # in two requests
        assert len(more) == 253
        for sock in more:
            sock.close()


def test_all_or_none_of_a_request_is_bound():
    port = free_port()
    with Binder() as binder, Client(binder.path) as client:
        with pytest.raises(ReplyError) as raised:
            client.bind_all([Endpoint.tcp('127.0.0.1', port), Endpoint.tcp('192.0.2.1', 80)])
        assert 'cannot bind tcp 192.0.2.1:80' in str(raised.value)
        assert client.call('list') == [] and refused(port)


@pytest.mark.parametrize('request_, code, words', [
    ({'method': 'nope'}, -32601, 'Method not found'), ({'method': 5}, -32600, 'needs a method'), ({}, -32600, 'needs a method'),
    ({'method': 'bind'}, -32602, '1 to 252 endpoints'), ({'method': 'bind', 'params': []}, -32602, '1 to 252'),
    ({'method': 'bind', 'params': {}}, -32602, 'params is a list'), ({'method': 'bind', 'params': 7}, -32602, 'params is a list'),
    ({'method': 'bind', 'params': [7]}, -32602, 'endpoint is an object'),
    ({'method': 'bind', 'params': [{'address': '127.0.0.1'}]}, -32602, 'needs address and port'),
    ({'method': 'bind', 'params': [{'address': 'example.org', 'port': 80}]}, -32602, 'host names are not resolved'),
    ({'method': 'bind', 'params': [{'address': '::1', 'port': 80, 'lease': 1}]}, -32602, 'lease is true, false or'),
    ({'method': 'bind', 'params': [{'address': '::1', 'port': [1]}]}, -32602, 'no number from 1 to 65535'),
    ({'method': 'adopt', 'params': [{'address': '::1', 'port': 80}]}, -32602, 'came with 0 descriptors'),
    ([{'method': 'bind'}], -32600, 'batches are not supported'),
])
def test_each_refusal_has_its_code_and_its_sentence(request_, code, words):
    with Binder() as binder, raw(binder) as sock:
        if isinstance(request_, dict):
            request_ = dict(request_, jsonrpc='2.0', id=1)
        sock.sendall(json.dumps(request_).encode())
        error = json.loads(sock.recv(4096).decode())['error']
        assert error['code'] == code and words in error['message'], error
        # The connection goes on, and what was refused has changed nothing.
        sock.sendall(b'{"jsonrpc":"2.0","id":2,"method":"list"}')
        assert json.loads(sock.recv(4096).decode()) == {'jsonrpc': '2.0', 'id': 2, 'result': []}


def test_pipelined_requests_and_requests_in_pieces():
    port = free_port()
    bind = json.dumps({'jsonrpc': '2.0', 'id': 1, 'method': 'bind', 'params': [{'address': '127.0.0.1', 'port': port}]}).encode()
    with Binder() as binder, raw(binder) as sock:
        for byte in range(len(bind)):
            sock.sendall(bind[byte:byte + 1])
        data, fds = wire.receive(sock)
        wire.close_all(fds)
        assert len(fds) == 1 and b'true' in data
        sock.sendall(bind * 20)
        splitter = wire.Splitter()
        answers, received = [], []
        while len(answers) < 20:
            data, fds = wire.receive(sock)
            received += fds
            answers += splitter.feed(data)
        wire.close_all(received)
        assert len(received) == 20


def test_conflicting_options_are_an_error_that_names_the_difference():
    port = free_port(socket.AF_INET6)
    with Binder() as binder, Client(binder.path) as client:
        client.bind('::', port, v6only=True).close()
        with pytest.raises(ReplyError) as raised:
            client.bind('::', port, v6only=False)
        assert str(raised.value) == 'cannot bind tcp [::]:{} as asked: it is held, and there v6only is true, ' \
            'asked for false'.format(port)
        client.bind('::', port).close()     # who does not care shares it


def test_the_backlog_is_applied_grows_and_is_reported():
    port = free_port()
    with Binder() as binder, Client(binder.path) as client:
        client.bind('127.0.0.1', port, backlog=10).close()
        assert client.call('list')[0]['backlog'] == 10
        client.bind('127.0.0.1', port, backlog=20).close()
        client.bind('127.0.0.1', port, backlog=5).close()
        [one] = client.call('list')
        assert one['backlog'] == 20 and one['options'] == {'backlog': 20}
        clients = [socket.create_connection(('127.0.0.1', port), DEADLINE) for _ in range(3)]
        # connect() may return a moment before the kernel has queued the connection at the other end.
        until(lambda: client.call('list')[0]['queue'] == 3)
        for one in clients:
            one.close()


def test_unix_listeners_with_mode_and_stale_file():
    with Binder() as binder, Client(binder.path) as client:
        path = os.path.join(binder.folder, 'listener')
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(path)
        with client.bind_unix(path, mode='0660', lease=True) as listener:
            assert listener.family == socket.AF_UNIX and os.stat(path).st_mode & 0o777 == 0o660
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(path)
        assert client.release([Endpoint.unix(path)]) == ['closed']
        assert not os.path.exists(path)
        with open(path, 'w'):
            pass
        with pytest.raises(ReplyError) as raised:
            client.bind_unix(path)
        assert 'a file that is no socket is in the way' in str(raised.value)
        os.unlink(path)
        with client.bind_unix('@multibinder-test-{}'.format(os.getpid()), lease=True) as listener:
            assert listener.getsockname() in (b'\0multibinder-test-%d' % os.getpid(), '\0multibinder-test-%d' % os.getpid())


def test_an_address_in_use_by_somebody_else_is_an_error_with_the_reason():
    with socket.socket() as foreign, Binder() as binder, Client(binder.path) as client:
        foreign.bind(('127.0.0.1', 0))
        foreign.listen(1)
        port = foreign.getsockname()[1]
        with pytest.raises(ReplyError) as raised:
            client.bind('127.0.0.1', port)
        assert str(raised.value) == (
            'cannot bind tcp 127.0.0.1:{}: Address already in use ("ss -ltnp" shows by whom; "multibinderctl adopt" '
            'takes it over from a process that serves)').format(port)


def test_a_foreign_bind_to_a_held_address_fails():
    port = free_port()
    with Binder() as binder, Client(binder.path) as client:
        client.bind('127.0.0.1', port).close()
        with socket.socket() as foreign, pytest.raises(OSError):
            foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            foreign.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            foreign.bind(('127.0.0.1', port))


def test_a_lease_ends_with_its_connection_and_lingers():
    port = free_port()
    with Binder('--linger', '60') as binder:    # as long as we may take to come back, on whatever machine
        with Client(binder.path) as client:
            client.bind('127.0.0.1', port, lease=True).close()
        with Client(binder.path) as client:     # in time: the listener was kept
            [one] = client.call('list')
            assert one['state'] == 'lingering' and one['claims'] == []
            client.bind('127.0.0.1', port, lease=True).close()
            assert client.call('list')[0]['claims'][0]['kind'] == 'lease'
    with Binder('--linger', '0.3') as binder:
        for _ in range(2):      # the time counts anew from the end of each lease
            with Client(binder.path) as client:
                client.bind('127.0.0.1', port, lease=True).close()
                assert client.call('list')[0]['claims'][0]['kind'] == 'lease'
            binder.wait_for('tcp 127.0.0.1:{} closed: nobody claimed it for 0.3 s'.format(port))
            assert refused(port)


def test_linger_zero_closes_at_once_and_a_plain_bind_is_kept_for_good():
    leased, plain = free_port(), free_port()
    with Binder('--linger', '0') as binder:
        with Client(binder.path) as client:
            client.bind('127.0.0.1', leased, lease=True).close()
            client.bind('127.0.0.1', plain).close()
        binder.wait_for('closed: nobody claimed it')
        assert refused(leased) and not refused(plain)
        with Client(binder.path) as client:
            assert client.release([Endpoint.tcp('127.0.0.1', plain)], lease=False) == ['closed']
            assert client.release([Endpoint.tcp('127.0.0.1', plain)], lease=False) == ['unknown']
        assert refused(plain)


def test_a_release_closes_at_once_even_for_who_still_has_a_copy_unless_another_claims_it():
    port = free_port()
    with Binder() as binder, Client(binder.path) as one, Client(binder.path) as two:
        endpoint = Endpoint.tcp('127.0.0.1', port)
        with one.bind('127.0.0.1', port, lease=True) as copy:
            two.bind('127.0.0.1', port, lease=True).close()
            assert one.release([endpoint]) == ['claimed'] and is_listening(copy)
            assert two.release([endpoint]) == ['closed'] and not is_listening(copy)
            assert refused(port)


def test_sigusr1_keeps_pid_sockets_leases_and_connections_and_refuses_no_client():
    port, plain = free_port(), free_port()
    with Binder() as binder, Client(binder.path) as client:
        with client.bind('127.0.0.1', port, lease=True) as held:
            client.bind('127.0.0.1', plain, backlog=7).close()
            for _ in range(3):
                binder.kill(signal.SIGUSR1)
                binder.wait_for('Respawning')
                with raw(binder) as late:       # connects while nobody accepts, and waits
                    late.sendall(b'{"jsonrpc":"2.0","id":1,"method":"status"}')
                    assert json.loads(late.recv(4096).decode())['result']['pid'] == binder.pid
                binder.wait_for('Listening for binds on control socket: ' + binder.path)
                listed = {one['endpoint']: one for one in client.call('list')}
                assert listed['tcp 127.0.0.1:{}'.format(port)]['claims'][0]['kind'] == 'lease'
                assert listed['tcp 127.0.0.1:{}'.format(port)]['inode'] == inode(held)
                assert listed['tcp 127.0.0.1:{}'.format(plain)]['claims'][0]['kind'] == 'plain'
                assert listed['tcp 127.0.0.1:{}'.format(plain)]['options'] == {'backlog': 7}
            assert client.call('status')['counters']['reexecs'] == 3
        # The lease is the connection's still: it ends with it.
        assert client.release([Endpoint.tcp('127.0.0.1', port)]) == ['closed']


def test_half_a_request_survives_a_reexec():
    with Binder() as binder, raw(binder) as sock, Client(binder.path, timeout=DEADLINE) as client:
        sock.sendall(b'{"jsonrpc":"2.0","id":1,')
        client.call('status')
        client.call('reexec')
        sock.sendall(b'"method":"list"}')
        assert json.loads(sock.recv(4096).decode())['result'] == []


def test_a_reexec_leaves_no_descriptor_behind():
    with Binder() as binder, Client(binder.path, timeout=DEADLINE) as client:
        client.call('reexec')
        client.call('status')
        before = binder.descriptors()
        for _ in range(3):
            client.call('reexec')
        assert len(binder.descriptors()) == len(before)


def test_a_reexec_into_broken_code_is_refused_and_the_old_code_serves_on(tmp_path):
    script = tmp_path / 'multibinder'
    with open(command_of('multibinder')) as file:
        script.write_text(file.read())
    script.chmod(0o755)
    port = free_port()
    path = str(tmp_path / 'control')
    binder = Running([str(script), path])
    try:
        binder.wait_for('Listening for binds')
        with Client(path, timeout=DEADLINE) as client:
            client.bind('127.0.0.1', port).close()
            script.write_text('#!/usr/bin/python3\nraise SystemExit("half an upgrade")\n')
            with pytest.raises(ReplyError) as raised:
                client.call('reexec')
            assert 'half an upgrade' in str(raised.value)
            script.unlink()
            with pytest.raises(ReplyError) as raised:
                client.call('reexec')
            assert 'No such file or directory' in str(raised.value)
            assert [one['endpoint'] for one in client.call('list')] == ['tcp 127.0.0.1:{}'.format(port)]
    finally:
        assert binder.stop() == 0
    assert 'not re-executed' in binder.output


def test_one_binder_per_control_socket_and_a_stale_file_is_replaced():
    with Binder() as binder:
        second = Running([command_of('multibinder'), binder.path])
        assert second.wait() == 1
        assert 'cannot open the control socket {}: another binder answers there (pid {}'.format(
            binder.path, binder.pid) in second.output
        binder.stop(signal.SIGKILL)
        assert os.path.exists(binder.path)
        third = Running([command_of('multibinder'), binder.path])
        third.wait_for('Listening for binds')
        assert third.stop() == 0
        assert os.listdir(binder.folder) == []


def test_of_many_that_start_at_once_on_a_stale_file_one_serves(tmp_path):
    path = str(tmp_path / 'control')
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    binders = [Running([command_of('multibinder'), path]) for _ in range(6)]
    serving = []
    try:
        for binder in binders:
            try:
                binder.wait_for('Listening for binds')
                serving.append(binder)
            except AssertionError:
                assert 'another binder answers there' in binder.output
        assert len(serving) == 1
        with Client(path) as client:
            assert client.call('status')['pid'] == serving[0].pid
    finally:
        for binder in binders:
            binder.stop()
    assert os.listdir(str(tmp_path)) == []


@pytest.mark.parametrize('options, status, words', [
    (['--mode', '9', '/tmp/x'], 2, '--mode 9 is no octal file mode'), (['--group', 'no-such-group', '/tmp/x'], 2, 'no such group'),
    (['--linger', '-1', '/tmp/x'], 2, 'is not between 0 and a year'), (['--pidfile', '/tmp/p', '/tmp/x'], 2, 'goes with --daemon'),
    ([], 2, 'SOCKET'), (['/no/such/folder/x'], 1, 'cannot open the control socket /no/such/folder/x: No such file'),
    (['/etc/hostname'], 1, 'a file that is no socket is in the way'), (['/tmp/' + 'x' * 120], 1, 'longer than the 107 bytes'),
    (['--version'], 0, 'multibinder 1.'), (['--help'], 0, 'SIGUSR1'),
])
def test_wrong_usage_and_refusals_in_words(options, status, words):
    binder = Running([command_of('multibinder')] + options)
    assert binder.wait() == status
    assert words in binder.output and 'Traceback' not in binder.output


def test_mode_and_group_of_the_control_socket():
    with Binder() as binder:
        assert os.stat(binder.path).st_mode & 0o777 == 0o600
    with Binder('--mode', '0622') as binder:
        assert os.stat(binder.path).st_mode & 0o777 == 0o622
    with Binder('--group', 'daemon') as binder:
        assert os.stat(binder.path).st_mode & 0o777 == 0o660
        assert os.stat(binder.path).st_gid == __import__('grp').getgrnam('daemon').gr_gid


def test_readiness_and_the_fd_store_are_told_to_a_service_manager():
    from manager import NotifySocket
    port = free_port()
    manager = NotifySocket()
    told = []

    def heard(key, value):
        told.extend(assignments for _, assignments in manager.receive())    # closes what came along
        return any(one.get(key) == value for one in told)
    try:
        with Binder(env=environment(NOTIFY_SOCKET=manager.address)) as binder:
            until(lambda: heard('READY', '1'))
            assert any(one.get('FDNAME') == 'control' and one.get('FDSTORE') == '1' for one in told)
            with Client(binder.path) as client:
                client.bind('127.0.0.1', port, lease=True).close()
                until(lambda: heard('FDNAME', 'lease tcp 127.0.0.1%3A{}'.format(port)))
                client.bind('127.0.0.1', port).close()      # now claimed for good: stored under that name
                until(lambda: heard('FDNAME', 'plain tcp 127.0.0.1%3A{}'.format(port)))
                client.release([Endpoint.tcp('127.0.0.1', port)])
                client.release([Endpoint.tcp('127.0.0.1', port)], lease=False)
                until(lambda: {'FDSTOREREMOVE': '1', 'FDNAME': 'plain tcp 127.0.0.1%3A{}'.format(port)} in told or heard('', ''))
            binder.kill(signal.SIGTERM)
            until(lambda: heard('STOPPING', '1') and heard('BARRIER', '1'))
            assert binder.wait() == 0
            os.unlink(binder.path)      # kept for the process after it, which a service manager would start
    finally:
        manager.close()


def passed(binder_arguments, sockets, names):
    """Start a binder to which descriptors are passed as systemd does: from 3 on, with names."""
    script = 'import os, sys\nos.environ["LISTEN_PID"] = str(os.getpid())\nos.execv(sys.argv[1], sys.argv[1:])'
    fds = [fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD, 100) for sock in sockets]
    shuffle = ' '.join('{}<&{}'.format(3 + index, fd) for index, fd in enumerate(fds))
    env = environment(LISTEN_FDS=str(len(sockets)), LISTEN_FDNAMES=':'.join(names))
    command = ['bash', '-c', 'exec "$@" ' + shuffle, 'bash', sys.executable, '-c', script, command_of('multibinder')]
    try:
        return Running(command + binder_arguments, env=env, pass_fds=fds)
    finally:
        for fd in fds:
            os.close(fd)


def test_stored_sockets_come_back_by_what_is_behind_them(tmp_path):
    path = str(tmp_path / 'control')
    ports = [free_port() for _ in range(3)]
    leased, plain, shut = [open_listener(Endpoint.tcp('127.0.0.1', port)) for port in ports]
    control = socket.socket(socket.AF_UNIX)
    control.bind(path)
    control.listen(5)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.settimeout(DEADLINE)
    waiting.connect(path)       # came while there was no binder
    waiting.sendall(b'{"jsonrpc":"2.0","id":1,"method":"list"}')
    shut.shutdown(socket.SHUT_RDWR)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        binder = passed([path], [leased, plain, shut, stranger, control], ['lease wrong%3A1', 'plain x', 'lease y', 'z', 'control'])
    try:
        binder.wait_for('Listening for binds')
        listed = {one['endpoint']: one for one in json.loads(waiting.recv(65536).decode())['result']}
        assert {name: one['inode'] for name, one in listed.items()} == {
            'tcp 127.0.0.1:{}'.format(port): inode(sock) for port, sock in zip(ports, (leased, plain, shut))}
        assert listed['tcp 127.0.0.1:{}'.format(ports[0])]['state'] == 'lingering'
        assert listed['tcp 127.0.0.1:{}'.format(ports[1])]['claims'][0]['kind'] == 'plain'
        assert is_listening(shut)       # healed
        assert 'is of no use' in binder.output and 'no TCP or UNIX stream socket' in binder.output
    finally:
        waiting.close()
        assert binder.stop() == 0
        for sock in (leased, plain, shut, control):
            sock.close()
    assert os.listdir(str(tmp_path)) == []


def test_a_former_control_socket_is_served_beside_the_new_one(tmp_path):
    former, path = str(tmp_path / 'former'), str(tmp_path / 'new')
    control = socket.socket(socket.AF_UNIX)
    control.bind(former)
    control.listen(5)
    binder = passed([path], [control], ['control'])
    control.close()
    try:
        binder.wait_for('Listening for binds on control socket: ' + path)
        assert 'the former control socket {} is served for'.format(former) in binder.output
        for one in (former, path):
            with Client(one) as client:
                assert client.call('status')['pid'] == binder.pid
    finally:
        assert binder.stop() == 0
    assert os.listdir(str(tmp_path)) == []


def test_a_binder_that_comes_up_without_it_is_given_the_listener_back():
    port = free_port()
    endpoint = Endpoint.tcp('127.0.0.1', port)
    with Binder() as first, Client(first.path) as client:
        copy = client.bind('127.0.0.1', port, lease=True)
        assert client.adopt([(endpoint, copy.fileno())]) == ['held']
        first.stop(signal.SIGKILL)
        os.unlink(first.path)
    with copy, Binder() as second, Client(second.path) as client:
        with pytest.raises(ReplyError) as raised:
            client.bind('127.0.0.1', port)
        assert 'Address already in use' in str(raised.value)
        assert client.adopt([(endpoint, copy.fileno())]) == ['adopted']
        with client.bind('127.0.0.1', port) as again:
            assert inode(again) == inode(copy)
        other = Endpoint.tcp('127.0.0.1', free_port())
        with pytest.raises(ReplyError) as raised:
            client.adopt([(other, copy.fileno())])
        assert 'is bound to {}, not to {}'.format(endpoint, other) in str(raised.value)
        with open_listener(other) as foreign:
            with Client(second.path) as third:
                assert third.adopt([(other, foreign.fileno())]) == ['adopted']
            with socket.socket() as twin:
                # The same address by SO_REUSEPORT of another kind would be a twin; here a copy of another socket.
                twin.bind(('127.0.0.1', 0))
                with pytest.raises(ReplyError):
                    client.adopt([(other, twin.fileno())])


def test_a_listener_that_somebody_shut_down_listens_again_at_once():
    port = free_port()
    with Binder() as binder, Client(binder.path) as client:
        with client.bind('127.0.0.1', port, backlog=33) as shared:
            shared.shutdown(socket.SHUT_RDWR)
            binder.wait_for('tcp 127.0.0.1:{} was out of LISTEN'.format(port))
            assert is_listening(shared) and not refused(port)
            [one] = client.call('list')
            assert one['heals'] == 1 and one['backlog'] == 33
            shared.shutdown(socket.SHUT_RDWR)
            # The line's beginning: the rest of the first one has not been waited for yet.
            binder.wait_for('tcp 127.0.0.1:{} was out of LISTEN'.format(port))
            assert is_listening(shared)


def test_no_client_keeps_the_others_waiting_and_none_leaks_a_descriptor():
    port = free_port()
    request = json.dumps({'id': 1, 'method': 'bind', 'params': [{'address': '127.0.0.1', 'port': port}]}).encode()
    with Binder() as binder, Client(binder.path) as good:
        good.call('status')
        before = len(binder.descriptors())
        bad = [raw(binder) for _ in range(7)]
        silent, half, deaf, garbage, large, givers, gone = bad
        half.sendall(b'{"method":')
        deaf.setblocking(False)
        many = request * 50
        try:
            while True:
                deaf.sendall(many)      # asks and asks, and never reads
        except (BlockingIOError, ConnectionError):
            pass
        garbage.sendall(b'GET / HTTP/1.1\r\n\r\n')
        assert b'-32700' in garbage.recv(4096) and garbage.recv(1) == b''
        try:
            large.sendall(b'{"x":"' + b'y' * (wire.MAX_REQUEST + 70000))
        except ConnectionError:
            pass
        null = os.open(os.devnull, os.O_RDONLY)
        for _ in range(10):
            givers.sendmsg([b'{"id":1,"method":"status"}'],
                           [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [null] * 100))])
            assert b'result' in givers.recv(4096)
        os.close(null)
        gone.sendall(request)
        gone.close()
        for _ in range(100):
            with good.bind('127.0.0.1', port) as sock:
                assert sock.getsockname()[1] == port
        assert silent.send(b' ') == 1
        for sock in bad:
            sock.close()
        until(lambda: good.call('status')['connections'] == 1)
        assert len(binder.descriptors()) == before + 1       # the listener
        assert 'descriptors that nobody asked for' in binder.output + binder.process.stdout.read().decode()


def test_thousands_of_connections_and_a_full_descriptor_table():
    env = environment()
    script = 'import os, resource, sys\nresource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))\nos.execv(sys.argv[1], sys.argv[1:])'
    import tempfile
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, 'control')
        binder = Running([sys.executable, '-c', script, command_of('multibinder'), path], env=env)
        clients = []
        try:
            binder.wait_for('Listening for binds')
            # More listeners than the table has room for are refused with a sentence, before it is full.
            with Client(path) as client:
                with pytest.raises(ReplyError) as raised:
                    client.bind_all([Endpoint.tcp('127.0.8.8', port) for port in range(20000, 20252)])
                assert 'LimitNOFILE' in str(raised.value)
                assert client.call('list') == []
                client.bind('127.0.8.8', 20000, lease=True).close()
                # Silent clients make room for those who speak.
                for _ in range(600):
                    sock = socket.socket(socket.AF_UNIX)
                    sock.connect(path)
                    clients.append(sock)
                with Client(path, timeout=DEADLINE) as late:
                    assert late.call('status')['listeners'] == 1
                assert len(client.call('list')[0]['claims']) == 1      # who holds a lease is not sent away
        finally:
            for sock in clients:
                sock.close()
            assert binder.stop() == 0
        assert os.listdir(folder) == []


def test_five_thousand_sockets_in_one_binder():
    with Binder() as binder, Client(binder.path, timeout=DEADLINE) as client:
        for index in range(20):
            for sock in client.bind_all([Endpoint.tcp('127.0.7.{}'.format(index + 1), port) for port in range(20000, 20250)]):
                sock.close()
        assert client.call('status')['listeners'] == 5000
        client.call('reexec')
        assert len(client.call('list')) == 5000


def test_the_daemon_detaches_keeps_its_sockets_and_locks_its_pid_file(tmp_path):
    path, pidfile = str(tmp_path / 'control'), str(tmp_path / 'pid')
    port = free_port()
    command = [command_of('multibinder'), '--daemon', '--pidfile', pidfile, path]
    assert subprocess.call(command, env=environment(), timeout=DEADLINE) == 0
    until(lambda: os.path.exists(pidfile) and open(pidfile).read().strip())
    with Client(path, timeout=DEADLINE) as client:
        pid = client.call('status')['pid']
        assert pid == int(open(pidfile).read()) and os.getsid(pid) != os.getsid(0)
        umask = [line for line in open('/proc/{}/status'.format(pid)) if line.startswith('Umask')]
        assert not umask or umask[0].split()[1] == '0022'
        client.bind('127.0.0.1', port, lease=True).close()
        second = Running(command)
        assert second.wait() == 1 and 'another binder answers there' in second.output
        other = Running(command[:-1] + [str(tmp_path / 'other')])
        assert other.wait() == 1 and 'process {} in it is alive'.format(pid) in other.output
        client.call('reexec')
        assert client.call('status')['pid'] == pid == int(open(pidfile).read())
        assert not refused(port)
        os.kill(pid, signal.SIGTERM)
        assert client._sock.recv(1) == b''
    until(lambda: os.listdir(str(tmp_path)) == [])


def test_a_stale_pid_file_is_no_obstacle(tmp_path):
    path, pidfile = str(tmp_path / 'control'), tmp_path / 'pid'
    ended = subprocess.Popen(['true'])
    ended.wait()
    pidfile.write_text('{}\n'.format(ended.pid))
    assert subprocess.call([command_of('multibinder'), '--daemon', '--pidfile', str(pidfile), path],
                           env=environment(), timeout=DEADLINE) == 0
    with Client(path, timeout=DEADLINE) as client:
        pid = client.call('status')['pid']
        os.kill(pid, signal.SIGTERM)
        assert client._sock.recv(1) == b''
    until(lambda: os.listdir(str(tmp_path)) == [])


def test_the_client_says_what_is_wrong(tmp_path):
    with pytest.raises(BinderAway) as raised:
        Client(str(tmp_path / 'nothing'))
    assert 'cannot reach the binder on {}: No such file or directory'.format(tmp_path / 'nothing') in str(raised.value)
    with pytest.raises(BinderAway):
        Client('')
    with Binder() as binder, Client(binder.path) as client:
        with pytest.raises(EndpointError):
            client.bind('no such host', 80)
        with client.bind('localhost', free_port()) as sock:
            assert sock.getsockname()[0] == '127.0.0.1'
        binder.stop(signal.SIGKILL)
        with pytest.raises(BinderAway):
            client.call('status')
        os.unlink(binder.path)


def test_a_silent_binder_is_a_deadline(tmp_path):
    path = str(tmp_path / 'control')
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(path)
        mute.listen(1)
        with Client(path, timeout=0.2) as client, pytest.raises(BinderAway) as raised:
            client.call('status')
        assert 'no answer in 0.2 s' in str(raised.value)


def test_a_claim_of_a_process_lasts_as_long_as_it_lives_and_over_a_reexec():
    port = free_port()
    code = ('import sys\nfrom multibinder.client import Client\nClient(sys.argv[1]).bind_all(['
            '__import__("multibinder.endpoint").endpoint.Endpoint.tcp("127.0.0.1", int(sys.argv[2]))], lease="process")\n'
            'print("claimed")\nsys.stdout.flush()\nsys.stdin.read()')
    with Binder('--linger', '0') as binder, Client(binder.path, timeout=DEADLINE) as client:
        child = subprocess.Popen([sys.executable, '-c', code, binder.path, str(port)], env=environment(),
                                 stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            assert child.stdout.readline() == b'claimed\n'     # and its connection may be closed by now
            client.call('reexec')
            [one] = client.call('list')
            assert [(claim['kind'], claim['pid']) for claim in one['claims']] == [('process', child.pid)]
        finally:
            child.communicate(timeout=DEADLINE)
        binder.wait_for('closed: nobody claimed it')
        assert refused(port) and client.call('list') == []


def test_the_claim_of_a_process_comes_back_from_the_store_while_it_lives(tmp_path):
    from multibinder.processes import start_time
    path = str(tmp_path / 'control')
    ports = [free_port() for _ in range(2)]
    living, dead = [open_listener(Endpoint.tcp('127.0.0.1', port)) for port in ports]
    pid = os.getpid()
    binder = passed(['--linger', '0', path], [living, dead], [
        'process {} {} tcp x'.format(pid, start_time(pid)), 'process {} {} tcp y'.format(pid, start_time(pid) - 1)])
    try:
        binder.wait_for('tcp 127.0.0.1:{} closed'.format(ports[1]))
        with Client(path) as client:
            [one] = client.call('list')
            assert one['endpoint'] == 'tcp 127.0.0.1:{}'.format(ports[0])
            assert [(claim['kind'], claim['pid']) for claim in one['claims']] == [('process', pid)]
            assert client.release([Endpoint.tcp('127.0.0.1', ports[0])], lease='process') == ['closed']
    finally:
        assert binder.stop() == 0
        living.close()
        dead.close()


def test_peer_credentials_stand_in_the_log():
    port = free_port()
    with Binder() as binder, Client(binder.path) as client:
        client.bind('127.0.0.1', port).close()
        binder.wait_for('tcp 127.0.0.1:{} claimed by pid {}'.format(port, os.getpid()))


def test_a_child_of_a_client_gets_no_listener(tmp_path):
    """Descriptors are close-on-exec: a program that the client starts does not keep the port busy."""
    with Binder() as binder, Client(binder.path) as client:
        with client.bind('127.0.0.1', free_port()) as sock:
            code = 'import os; print(sorted(int(fd) for fd in os.listdir("/proc/self/fd")))'
            output = subprocess.check_output([sys.executable, '-c', code], close_fds=False)
            assert sock.fileno() not in json.loads(output.decode())


def test_struct_of_credentials_is_what_the_kernel_gives():
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        assert struct.unpack('3i', left.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)) == (
            os.getpid(), os.getuid(), os.getgid())


def test_the_end_of_a_process_is_noticed_without_a_pidfd_too(monkeypatch):
    """Linux before 5.3 and Python before 3.9 have none; a zombie counts as ended."""
    from multibinder.loop import Loop
    from multibinder.processes import Processes
    monkeypatch.delattr(os, 'pidfd_open', raising=False)
    child = subprocess.Popen(['cat'], stdin=subprocess.PIPE)
    gone = []
    processes = Processes(Loop(), gone.append)
    found = processes.find(child.pid)
    assert found.pidfd is None and processes.find(child.pid) is found
    assert processes.tick(time.monotonic()) < float('inf') and gone == []
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)     # a zombie now, and not yet reaped
    assert processes.find(child.pid) is None
    assert processes.tick(time.monotonic()) == float('inf') and gone == [found]
    child.wait()
    assert processes.find(child.pid) is None
