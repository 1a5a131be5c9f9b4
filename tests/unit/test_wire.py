"""Framing: a request is one JSON object, however the kernel cuts it into reads; descriptors are not lost
unnoticed."""

import array
import gc
import json
import os
import random
import resource
import socket

import pytest

from multibinder import wire
from multibinder.errors import ProtocolError

MESSAGES = [{'a': 'x\\"}{['}, {'b': [1, {'c': '\u00e9\\\\'}]}, {}, {'params': [{'address': '::', 'port': 80}]}]
STREAM = ' \r\n'.join(json.dumps(message, ensure_ascii=False) for message in MESSAGES).encode()


def test_any_cut_gives_the_same_messages():
    chance = random.Random(1)
    for _ in range(500):
        splitter = wire.Splitter()
        messages = []
        position = 0
        while position < len(STREAM):
            size = chance.randint(1, 12)
            messages += splitter.feed(STREAM[position:position + size])
            position += size
        assert messages == MESSAGES
        assert not splitter.half


def test_half_a_message_is_kept_and_can_be_handed_on():
    splitter = wire.Splitter()
    assert splitter.feed(b'{"a":"\\') == []
    assert splitter.half and splitter.pending == b'{"a":"\\'
    other = wire.Splitter()
    assert other.feed(splitter.pending) == []
    assert other.feed(b'""}') == [{'a': '"'}]


@pytest.mark.parametrize('data, code', [
    (b'GET / HTTP/1.0\r\n', -32700), (b'{]', -32700), (b'{"a":1,}', -32700), (b'{' * 17, -32600),
    (b'{"a":' + b'9' * 100 + b'}', -32700), (b'{"a":NaN}', -32700), (b'\xff', -32700), (b'{"\xff":1}', -32700),
    (b'{"a":"' + b'x' * wire.MAX_REQUEST, -32600), (b'"text"', -32700), (b'5', -32700),
])
def test_what_is_no_request_is_refused(data, code):
    splitter = wire.Splitter()
    assert splitter.feed(data) == []
    assert splitter.broken.wire_code == code and str(splitter.broken)
    assert splitter.feed(b'{}') == [] and not splitter.half


def test_the_messages_before_what_is_none_are_not_lost():
    splitter = wire.Splitter()
    assert splitter.feed(b'{"a":1}{"b":2}\0') == [{'a': 1}, {'b': 2}]
    assert splitter.broken is not None


def test_a_batch_is_a_message_for_its_reader_to_refuse():
    assert wire.Splitter().feed(b'[{"method":"bind"}]') == [[{'method': 'bind'}]]


def test_an_error_reply_fits_into_the_one_read_of_the_go_client():
    for sentence in ('cannot bind ' + 'x' * 900 + ': Permission denied', 'cannot bind ' + '\u00e9' * 900 + ': denied'):
        data = wire.error('0123456789abcdef0123456789abcdef', 10000, sentence, wire.GEM_READ)
        assert len(data) <= 256
        message = json.loads(data.decode())['error']['message']
        assert message.startswith('cannot bind') and message.endswith('denied')
    assert json.loads(wire.error(1, 2, 'short', 256).decode())['error'] == {'code': 2, 'message': 'short'}


def test_descriptors_arrive_close_on_exec_and_are_the_same_files():
    left, right = socket.socketpair()
    with left, right:
        reader, writer = os.pipe()
        try:
            assert wire.send(left, b'x', [reader, writer]) == 1
            data, fds = wire.receive(right)
            assert data == b'x' and len(fds) == 2
            try:
                assert [os.get_inheritable(fd) for fd in fds] == [False, False]
                assert [os.fstat(fd).st_ino for fd in fds] == [os.fstat(reader).st_ino] * 2
            finally:
                wire.close_all(fds)
        finally:
            os.close(reader)
            os.close(writer)


def test_lost_descriptors_are_noticed_and_those_that_came_are_closed():
    left, right = socket.socketpair()
    with left, right:
        gc.collect()        # what earlier tests have left is not to be closed while we count
        before = len(os.listdir('/proc/self/fd'))
        wire.send(left, b'x', [0] * 10)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken = {int(name) for name in os.listdir('/proc/self/fd')}
        third_free = [fd for fd in range(len(taken) + 3) if fd not in taken][2]
        resource.setrlimit(resource.RLIMIT_NOFILE, (third_free, hard))
        try:
            with pytest.raises(ProtocolError) as raised:
                wire.receive(right)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert 'were lost' in str(raised.value)
        assert len(os.listdir('/proc/self/fd')) == before


def test_descriptors_at_the_end_of_a_stream_are_closed_with_it():
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with right:
        left.sendmsg([b'y'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 252))])
        left.close()
        data, fds = wire.receive(right)
        assert data == b'y' and len(fds) == 252
        wire.close_all(fds)
        assert wire.receive(right) == (b'', ())
