"""Many: a thousand addresses in one instance, many instances that reload at once; and the end of a lingering."""

import time

import pytest

from instances import Instance, get, refused, template

PORTS = 1000


def answers(machine, ports):
    """{port: body} of each port, asked from inside by one process."""
    script = (
        'import sys, socket\n'
        'for port in range(int(sys.argv[1]), int(sys.argv[2])):\n'
        '    s = socket.create_connection(("127.0.0.1", port), 20)\n'
        '    s.sendall(b"GET / HTTP/1.0\\r\\n\\r\\n")\n'
        '    data = b""\n'
        '    while True:\n'
        '        more = s.recv(4096)\n'
        '        if not more: break\n'
        '        data += more\n'
        '    print(port, data.split(b"\\r\\n\\r\\n")[1].decode())\n')
    out = machine.out(['python3', '-c', script, str(ports[0]), str(ports[-1] + 1)], timeout=120)
    return dict(line.split(' ', 1) for line in out.splitlines())


def test_an_instance_with_a_thousand_binds(machine):
    # On 2.6 a haproxy with 250 inherited descriptors and no hint about it dies.
    one = Instance(machine, 'wide')
    ports = range(20000, 20000 + PORTS)
    one.write(template([('127.0.0.1', port) for port in ports]))
    try:
        one.start()
        first = answers(machine, ports)
        assert len(first) == PORTS and len(set(first.values())) == 1
        one.reload()
        second = answers(machine, ports)
        assert len(second) == PORTS and len(set(second.values())) == 1
        assert set(first.values()) != set(second.values())
        # All but one are given up: refused right after the reload.
        one.write(template([('127.0.0.1', ports[0])]))
        one.reload()
        assert machine.out('ss -Hltn "sport >= :20000 and sport < :21000" | wc -l') == '1'
        one.systemctl('restart')
        assert len(answers(machine, ports[:1])) == 1
    finally:
        one.remove()


def test_instances_that_all_reload_at_once(machine):
    count = 20
    some = [Instance(machine, 'many%d' % number) for number in range(count)]
    units = [one.unit for one in some]
    for number, one in enumerate(some):
        one.write(template([('127.0.0.1', 21000 + number)]))
    try:
        machine.run(['systemctl', 'start'] + units, timeout=120)
        before = answers(machine, range(21000, 21000 + count))
        machine.run(['systemctl', 'reload'] + units, timeout=120)
        after = answers(machine, range(21000, 21000 + count))
        assert all(before[port] != after[port] for port in before) and len(after) == count
    finally:
        machine.run(['systemctl', 'stop'] + units, timeout=120)
        for one in some:
            one.remove()


@pytest.fixture
def short_linger(machine):
    """The linger time in seconds: long enough for a look at the list, however busy the machine is."""
    original = machine.get('/etc/default/multibinder')
    machine.put('/etc/default/multibinder', original + '\nMULTIBINDER_LINGER=5\n')
    machine.run('systemctl restart multibinder')
    yield 5
    machine.put('/etc/default/multibinder', original)
    machine.run('systemctl restart multibinder')


def test_a_stopped_instance_is_refused_once_its_linger_time_is_over(machine, short_linger):
    one = Instance(machine, 'gone')
    one.write(template([('127.0.0.1', 8050), ('::1', 8050)]))
    try:
        one.start()
        assert get(machine, 'http://127.0.0.1:8050/')
        # Before the stop: lingering begins in the middle of it.
        stopped = time.monotonic()
        one.systemctl('stop')
        # Held: somebody who comes now waits for a restart that may come.
        assert 'tcp 127.0.0.1:8050' in machine.out('multibinderctl list')
        machine.until('[ "$(multibinderctl list | grep -c :8050)" = 0 ]', why='the linger time ends')
        assert time.monotonic() - stopped >= short_linger
        assert refused(machine, 'http://127.0.0.1:8050/')
        assert refused(machine, 'http://[::1]:8050/')
        one.start()
        assert get(machine, 'http://127.0.0.1:8050/')
    finally:
        one.remove()


def test_who_connects_between_stop_and_start_is_served(machine):
    one = Instance(machine, 'pause')
    one.write(template([('127.0.0.1', 8051)]))
    try:
        one.start()
        one.systemctl('stop')
        # Else it is the one that was stopped who answers.
        one.wait_end()
        waiting = machine.popen(['curl', '-sS', '--fail', '--max-time', '60', 'http://127.0.0.1:8051/'])
        machine.until('[ "$(ss -Htn state established dport = :8051 | wc -l)" = 1 ]', why='the connection is in the queue')
        one.start()
        assert waiting.wait(60) == 0
    finally:
        one.remove()


def test_an_address_dropped_by_one_instance_stays_with_the_other(machine):
    one, other = Instance(machine, 'drops'), Instance(machine, 'keeps')
    one.write(template([('127.0.0.1', 8052), ('127.0.0.1', 8053)], answer='one'))
    other.write(template([('127.0.0.1', 8053)], answer='other'))
    try:
        one.start()
        other.start()
        one.write(template([('127.0.0.1', 8052)], answer='one'))
        one.reload()
        assert get(machine, 'http://127.0.0.1:8053/').startswith('other')
        other.write(template([('127.0.0.1', 8054)], answer='other'))
        other.reload()
        assert refused(machine, 'http://127.0.0.1:8053/')
    finally:
        one.remove()
        other.remove()
