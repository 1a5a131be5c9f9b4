"""`make demo`, with the package that was built already: under systemd, again, and without systemd."""

import os
import re

import pytest

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = ('demo.py', 'build_deb.py', 'system/traffic.py', 'system/load.py')


@pytest.fixture(scope='module')
def demo(machine):
    for name in FILES:
        machine.put_file(os.path.join(TESTS, name), '/root/demo/' + name)
    return ['env', 'MULTIBINDER_DEB=' + machine.deb, 'python3', '/root/demo/demo.py']


def table(words):
    """What happened -> (requests, failed)."""
    return {name: (int(asked), int(failed)) for name, asked, failed in re.findall(
        r'^    (\S.*?) +(\d+) +(\d+) +[\d.]+ ms +\d+$', words, re.MULTILINE)}


def test_the_demo_leaves_an_active_unit_and_can_be_repeated(machine, demo):
    for _ in range(2):
        words = machine.run(demo, timeout=180).out
        shown = table(words)
        assert set(shown) == {'nothing happens', '5 reloads', 'a restart'}, words
        assert all(asked > 50 and failed == 0 for asked, failed in shown.values()), words
        assert machine.out('systemctl is-active haproxy-multi@multibinder-demo') == 'active'
        url = re.search(r'http://127\.0\.0\.1:\d+/', words).group(0)
        assert machine.out(['curl', '-sS', url]).startswith('hello from haproxy')
    # And away as it says.
    stop = re.search(r'^ *(systemctl disable --now .*? && rm \S+)', words, re.MULTILINE).group(1)
    machine.run(stop)
    assert not machine.exists('/etc/haproxy/multibinder-demo.cfg.tmpl')
    assert machine.unit_links() == ['/etc/systemd/system/multi-user.target.wants/multibinder.service']


def test_the_demo_without_systemd_runs_in_the_foreground(machine, demo):
    # An empty /run/systemd, for this command only, is a machine whose PID 1 is something else.
    machine.run('rm -f /root/demo.pid /root/demo.log')
    process = machine.popen(
        ['unshare', '-m', 'sh', '-c',
         'mount -t tmpfs tmpfs /run/systemd; echo $$ >/root/demo.new; mv /root/demo.new /root/demo.pid;'
         # Ctrl-C is heard also where this test run was started in the background of a shell, which ignores it.
         ' exec env --default-signal=INT "$@" >/root/demo.log 2>&1', 'sh'] + demo)
    try:
        # Until it says so or has ended; a demo that has not written its PID yet has not begun, which is not an end.
        machine.until('test -e /root/demo.pid && test -e /root/demo.log &&'
                      ' { grep -q "Ctrl-C ends it" /root/demo.log || ! kill -0 $(cat /root/demo.pid); }', seconds=180)
        words = machine.get('/root/demo.log')
        assert 'in the foreground' in words, words
        shown = table(words)
        assert len(shown) == 3 and all(failed == 0 for _, failed in shown.values()), words
        machine.run('kill -INT $(cat /root/demo.pid)')
        process.wait(60)
        assert machine.run('pgrep -f "[m]ultibinder-haproxy-wrapper.*multibinder-demo"', check=False).out == ''
    finally:
        if process.poll() is None:
            machine.run('kill -9 $(cat /root/demo.pid)', check=False)
            process.wait(10)
