"""A child that becomes another program: its descriptors, its state, and what is left of one that cannot."""

import json
import os
import signal
import sys

import pytest

from multibinder.errors import HaproxyError
from multibinder.haproxy.child import Child, capture

# Tells what it was given, on stdout: each descriptor with its target, the environment, and signals.
TELL = '''
import json, os, signal
fds = {}
for name in os.listdir('/proc/self/fd'):
    try:
        fds[int(name)] = os.readlink('/proc/self/fd/' + name)
    except OSError:
        pass    # the one that lists
status = dict(line.split(':', 1) for line in open('/proc/self/status'))
print(json.dumps({'fds': fds, 'environ': dict(os.environ), 'group': os.getpgid(0) == os.getpid(),
                  'ignored': status['SigIgn'].strip(), 'blocked': status['SigBlk'].strip()}))
'''


def told(child, words, fds, **options):
    """Let `child` become TELL with the descriptors `fds`; return what it tells."""
    reader, writer = os.pipe()
    with os.fdopen(reader) as output:
        child.become(words, fds, stdout=writer, **options)
        os.close(writer)
        said = output.read()
    assert os.waitpid(child.pid, 0)[1] == 0
    said = json.loads(said)
    said['fds'] = {int(number): target for number, target in said['fds'].items()}
    return said


@pytest.fixture
def files(tmp_path):
    """Return a function that opens so many files: descriptors, closed at the end."""
    opened = []

    def open_them(count):
        for number in range(count):
            opened.append(os.open(str(tmp_path / str(number)), os.O_RDWR | os.O_CREAT))
        return opened
    yield open_them
    for fd in opened:
        os.close(fd)


@pytest.mark.parametrize('numbers', [
    [], [3], [3, 4, 5], [5, 4, 3], [3, 23, 24], [40, 41], list(range(3, 40)) + list(range(60, 63)),
    list(range(23, 23 + 600))], ids=lambda numbers: '{}..{}'.format(min(numbers or [0]), max(numbers or [0])))
def test_each_descriptor_has_its_number_and_there_is_no_other(files, numbers):
    child = Child()         # before anything is opened: it inherits nothing of it
    fds = dict(zip(numbers, files(len(numbers))))
    said = told(child, [sys.executable, '-c', TELL], fds)
    assert {number: target for number, target in said['fds'].items() if number > 2 and '/proc/' not in target} == {
        number: os.readlink('/proc/self/fd/{}'.format(fd)) for number, fd in fds.items()}


def test_one_descriptor_under_two_numbers(files):
    [fd] = files(1)
    said = told(Child(), [sys.executable, '-c', TELL], {3: fd, 4: fd})
    assert said['fds'][3] == said['fds'][4] == os.readlink('/proc/self/fd/{}'.format(fd))


def test_its_state_is_a_new_programs():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        odd = os.fsdecode(b'\xff\xfe and "quotes"\n')
        said = told(Child(group=True), [sys.executable, '-c', TELL], {}, environ={'PATH': os.environ['PATH'], 'ODD': odd})
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
        signal.signal(signal.SIGUSR1, before)
    assert said['environ']['ODD'] == odd
    assert said['group']
    # Python itself ignores SIGPIPE and, in some versions, SIGXFSZ.
    assert not int(said['ignored'], 16) & 1 << signal.SIGUSR1 - 1
    assert int(said['blocked'], 16) == 0


def test_a_program_that_is_not_there_leaves_no_process():
    child = Child()
    with pytest.raises(HaproxyError) as raised:
        child.become(['/nowhere/at/all'])
    assert str(raised.value) == 'cannot run /nowhere/at/all: No such file or directory'
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_a_child_that_becomes_nothing_ends_and_is_reaped():
    child = Child(death_signal=signal.SIGUSR1, group=True)
    child.close()
    child.close()
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_a_child_that_was_killed_is_an_error_in_words():
    child = Child()
    os.kill(child.pid, signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(HaproxyError) as raised:
        child.become(['true'])
    assert 'cannot run true: the process that was to become it has ended' in str(raised.value)


def test_a_short_program():
    assert capture(['sh', '-c', 'echo out; echo err >&2; exit 3'], 20) == (3, b'out\nerr\n')
    with pytest.raises(HaproxyError) as raised:
        capture(['sleep', '60'], 0.2)
    assert 'sleep 60 did not end in 0.2 s' in str(raised.value)
