"""How requests, replies and descriptors travel on the control socket.

Responsible for framing (a request is one JSON object, however the kernel cuts it into reads), for the
limits, and for descriptors as SCM_RIGHTS, whose loss it detects. It knows no method and no endpoint.
Sources: JSON-RPC 2.0, unix(7), cmsg(3); RFC 8259.
"""

import array
import json
import os
import re
import socket

from multibinder.errors import WIRE_PARSE_ERROR, ProtocolError

MAX_REQUEST = 256 * 1024        # bytes; 252 endpoints with every option stay below a quarter of it
MAX_REPLY = 64 * 1024 * 1024    # bytes; `list` of 5,000 listeners is about two of them
MAX_FDS = 252                   # in a message; the kernel's SCM_MAX_FD is 253
MAX_DEPTH = 16                  # of brackets; no request needs more than four
GEM_READ = 256                  # bytes that the Go client reads of a reply, in one read
_READ_SIZE = 16384
_MAX_DIGITS = 20                # int() takes time that grows with the square of the digits

# Python 3.5's recvmsg leaves the new descriptors inheritable without it.
_RECEIVE_FLAGS = getattr(socket, 'MSG_CMSG_CLOEXEC', 0x40000000)
_ANCILLARY_SIZE = socket.CMSG_SPACE((MAX_FDS + 1) * 4)
_RIGHTS = (socket.SOL_SOCKET, socket.SCM_RIGHTS)

_BRACKETS = re.compile(rb'["{}\[\]]')
_STRING_END = re.compile(rb'["\\]')


def _bounded_int(text):
    if len(text) > _MAX_DIGITS:
        raise ValueError('a number of {} digits'.format(len(text)))
    return int(text)


def _no_constant(text):
    raise ValueError('{} is no JSON'.format(text))


_decode = json.JSONDecoder(parse_int=_bounded_int, parse_constant=_no_constant).decode
_encode = json.JSONEncoder(separators=(',', ':')).encode


class Splitter(object):
    """Cuts a byte stream into the JSON objects that it is made of. Holds at most `limit` bytes."""

    __slots__ = ('broken', '_limit', '_buffer', '_scanned', '_closers', '_in_string')

    def __init__(self, limit=MAX_REQUEST):
        self.broken = None          # the ProtocolError behind which the stream cannot be followed any further
        self._limit = limit
        self._buffer = bytearray()
        self._scanned = 0           # bytes of the buffer that are known to hold no end of an object
        self._closers = bytearray()    # the brackets that are open at that place
        self._in_string = False

    @property
    def half(self):
        """Whether a message has begun and not ended."""
        return bool(self._buffer)

    @property
    def pending(self):
        """The bytes of a message that has begun and not ended (bytes)."""
        return bytes(self._buffer)

    def feed(self, data):
        """Take bytes, return the messages that they complete: a list of decoded values (dict, or list
        for a JSON-RPC batch). What is no message sets `broken`; the messages before it are returned."""
        if self.broken is not None:
            return []
        if not self._buffer:
            # Nearly always a read is one request, and one look by the C decoder is enough.
            try:
                value = _decode(data.decode('utf-8'))
                if type(value) is dict:
                    return [value]
            except (ValueError, RecursionError):
                pass
        self._buffer += data
        messages = []
        try:
            while True:
                end = self._find_end()
                if end is None:
                    break
                messages.append(self._take(end))
            if len(self._buffer) > self._limit:
                raise ProtocolError('a request is longer than {} bytes'.format(self._limit))
        except ProtocolError as error:
            self.broken = error
            del self._buffer[:]
        return messages

    def _find_end(self):
        """Return the index behind the first whole message in the buffer, or None."""
        buffer = self._buffer
        if not self._closers:
            stripped = buffer.lstrip(b' \t\r\n')
            del buffer[:len(buffer) - len(stripped)]
            self._scanned = 0
            if buffer and buffer[0] not in b'{[':
                raise ProtocolError('a request is a JSON object; this begins with {!r}'.format(
                    bytes(buffer[:20])), WIRE_PARSE_ERROR)
        position = self._scanned
        while position < len(buffer):
            if self._in_string:
                found = _STRING_END.search(buffer, position)
                if found is None:
                    position = len(buffer)
                elif buffer[found.start()] == 0x5c:
                    if found.end() == len(buffer):
                        position = found.start()    # what is escaped has not come yet
                        break
                    position = found.end() + 1
                else:
                    self._in_string = False
                    position = found.end()
                continue
            found = _BRACKETS.search(buffer, position)
            if found is None:
                position = len(buffer)
                continue
            position = found.end()
            sign = found.group()
            if sign == b'"':
                self._in_string = True
            elif sign in b'{[':
                if len(self._closers) >= MAX_DEPTH:
                    raise ProtocolError('a request has more than {} brackets in each other'.format(MAX_DEPTH))
                self._closers += b'}' if sign == b'{' else b']'
            elif self._closers.pop() != sign[0]:
                raise ProtocolError('the brackets of a request do not match', WIRE_PARSE_ERROR)
            elif not self._closers:
                self._scanned = 0
                return position
        self._scanned = position
        return None

    def _take(self, end):
        text = bytes(self._buffer[:end])
        del self._buffer[:end]
        try:
            return _decode(text.decode('utf-8'))
        except (ValueError, RecursionError) as error:
            raise ProtocolError('a request is no JSON: {}'.format(error), WIRE_PARSE_ERROR) from None


def receive(sock):
    """Read once. Returns (bytes, list of int): the descriptors are close-on-exec and the caller's.

    Empty bytes are the end of the stream. Raises ProtocolError, after it closed all that came, when
    descriptors were lost (MSG_CTRUNC: this process's table is full), and OSError as recvmsg(2) does.
    """
    data, ancillary, flags, _ = sock.recvmsg(_READ_SIZE, _ANCILLARY_SIZE, _RECEIVE_FLAGS)
    if not ancillary and not flags & socket.MSG_CTRUNC:
        return data, ()
    fds = array.array('i')
    items = 0
    whole = True
    for level, kind, payload in ancillary:
        if (level, kind) == _RIGHTS:
            items += 1
            whole = whole and not len(payload) % fds.itemsize
            fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
    if not data and fds:
        close_all(fds)
        return data, ()
    if items > 1 or not whole or flags & socket.MSG_CTRUNC:
        close_all(fds)
        raise ProtocolError('descriptors of a message were lost: the table of this process is full')
    return data, list(fds)


def send(sock, data, fds=()):
    """Write once, descriptors (int, they stay the caller's) with the first byte. Returns the number of
    bytes that went; raises OSError as sendmsg(2) does, with nothing sent."""
    if not fds:
        return sock.send(data)
    return sock.sendmsg((data,), ((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds)),))


def close_all(fds):
    """Close descriptors (an iterable of int)."""
    for fd in fds:
        os.close(fd)


def request(method, params, number):
    """Return a request's bytes. `params` is a list, `number` its id."""
    return _encode({'jsonrpc': '2.0', 'method': method, 'id': number, 'params': params}).encode('ascii')


def result(number, value):
    """Return the bytes of a reply with a result, to the request with the id `number` (any JSON)."""
    if value is True and type(number) is int:
        return b'{"jsonrpc":"2.0","id":%d,"result":true}' % number
    return _encode({'jsonrpc': '2.0', 'id': number, 'result': value}).encode('ascii')


def error(number, code, sentence, limit=None):
    """Return the bytes of an error reply, at most `limit` bytes long as far as the id leaves room: the
    middle of the sentence gives way, since it begins with what was attempted and ends with the reason."""
    def encoded(text):
        return _encode({'jsonrpc': '2.0', 'id': number, 'error': {'code': code, 'message': text}}).encode('ascii')
    data = encoded(sentence)
    kept = len(sentence)
    while limit and len(data) > limit and kept > 40:
        kept = max(40, kept - (len(data) - limit + 5) // 6 - 1)     # a sign takes up to six bytes
        data = encoded(sentence[:kept // 2] + '...' + sentence[-(kept - kept // 2):])
    return data
