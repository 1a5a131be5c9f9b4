"""What can be bound, as a value.

Responsible for parsing an endpoint out of every spelling and for its one printed form. It knows nothing
of who wants it, nor of how it travels, and opens nothing: that is `listening`. Sources: ip(7), ipv6(7),
tcp(7), unix(7); for `haproxy_address` HAProxy's configuration manual, section 5.1.
"""

import functools
import os
import socket
import sys

from multibinder.errors import EndpointError

UNIX_PATH_MAX = 107             # unix(7): sun_path has 108 bytes, the last of them for the NUL
INTERFACE_NAME_MAX = 15         # netdevice(7): IFNAMSIZ with its NUL is 16

TCP_OPTIONS = ('backlog', 'v6only', 'freebind', 'transparent', 'interface')
UNIX_OPTIONS = ('backlog', 'mode', 'user', 'group')
MAPPED_PREFIX = b'\0' * 10 + b'\xff\xff'
_NO_OPTIONS = {}        # shared by the thousands that have none; an endpoint's options never change


class Endpoint(object):
    """An address with the options that were asked for. Equal and hashed by its identity, which is what
    the kernel lets only one listener have: kind, address, port and interface.

    `kind` is 'tcp' or 'unix'; `address` the canonical text (a path, or '@name' for an abstract name, of
    a UNIX endpoint); `port` 1 to 65535, None for unix; `options` a dict of those that were asked for.
    `name`, also `str()`, is the printed form: the key in logs, errors and `list`.
    """

    __slots__ = ('kind', 'address', 'port', 'options', 'name')

    def __init__(self, kind, address, port, options):
        self.kind = kind
        self.address = address
        self.port = port
        self.options = options
        if kind == 'tcp':
            shown = '[{}]:{}' if ':' in address else '{}:{}'
            self.name = 'tcp ' + shown.format(address, port)
            if 'interface' in options:
                self.name += ' interface=' + options['interface']
        else:
            self.name = 'unix ' + address

    @classmethod
    def tcp(cls, address, port, **options):
        """Return the endpoint of a TCP listener.

        `address` is numeric, or '*' or '' (any IPv4 address) or 'localhost' (127.0.0.1): the binder
        resolves no names, since that would make everyone wait. `port` is 1 to 65535, also as text.
        Options, None for each means not asked for: `backlog` (1 or more), `v6only`, `freebind`,
        `transparent` (bool), `interface` (name of a device). Raises EndpointError.
        """
        return cls('tcp', sys.intern(_canonical_address(address)), _port(port), _options('tcp', TCP_OPTIONS, options))

    @classmethod
    def unix(cls, path, **options):
        """Return the endpoint of a UNIX stream listener.

        `path` is absolute and at most 107 bytes, or '@name' for the abstract namespace (the bytes of the
        name and nothing behind them). Options: `backlog` (1 or more), `mode` (int or octal text),
        `user`, `group` (names). Raises EndpointError.
        """
        if not isinstance(path, str) or not path:
            raise EndpointError('a UNIX endpoint needs a path, not {!r}'.format(path))
        if not _plain(path):
            raise EndpointError('path {!a} has a sign that cannot be printed'.format(path))
        if path.startswith('@'):
            if path == '@':
                raise EndpointError("'@' names nothing: an abstract name needs at least one character")
        elif not path.startswith('/'):
            raise EndpointError('path {!r} is not absolute'.format(path))
        else:
            path = os.path.normpath(path).replace('//', '/')
        size = len(os.fsencode(path))
        if size > UNIX_PATH_MAX:
            raise EndpointError('path {!r} has {} bytes, at most {} fit into a socket address'.format(
                path, size, UNIX_PATH_MAX))
        return cls('unix', path, None, _options('unix', UNIX_OPTIONS, options))

    @classmethod
    def from_params(cls, params):
        """Return the endpoint that one object of a request's `params` names: {"address", "port", …} or
        {"path", …}. Raises EndpointError."""
        if not isinstance(params, dict):
            raise EndpointError('an endpoint is an object with address and port, or with path, not {!r}'.format(params))
        if len(params) == 2 and 'address' in params and 'port' in params:
            return cls.tcp(params['address'], params['port'])      # nearly always
        rest = dict(params)
        if 'path' in rest:
            return cls.unix(rest.pop('path'), **rest)
        if 'port' not in rest:
            raise EndpointError('an endpoint needs address and port, or path; this one has {}'.format(
                ', '.join(sorted(rest)) or 'nothing'))
        return cls.tcp(rest.pop('address', ''), rest.pop('port'), **rest)

    @classmethod
    def parse(cls, text):
        """Return the endpoint that a person's text names: the printed form, or address:port, or a path.
        Raises EndpointError."""
        words = text.split()
        if len(words) > 1 and words[0] in ('tcp', 'unix'):
            kind, words = words[0], words[1:]
        else:
            kind = 'unix' if words and words[0][0] in '/@' else 'tcp'
        if kind == 'unix':
            return cls.unix(text.strip()[len('unix'):].strip() if text.startswith('unix ') else text.strip())
        address, colon, port = words[0].rpartition(':') if words else ('', '', '')
        if not colon:
            raise EndpointError('{!r} is no endpoint: write ADDRESS:PORT, [ADDRESS]:PORT or /PATH'.format(text))
        options = {}
        for word in words[1:]:
            key, _, value = word.partition('=')
            options[key] = value
        return cls.tcp(address.strip('[]'), port, **options)

    def to_params(self):
        """Return the wire form (a new dict), which `from_params` reads."""
        params = dict(self.options)
        if self.kind == 'unix':
            params['path'] = self.address
        else:
            params['address'] = self.address
            params['port'] = self.port
        return params

    def haproxy_address(self):
        """Return what stands for this endpoint on a `bind` line when haproxy is to bind it itself: the
        address, and the options as keywords of that line."""
        if self.kind == 'unix':
            words = ['abns@' + self.address[1:] if self.address[0] == '@' else 'unix@' + self.address]
        else:
            words = [self.name.split()[1]]
        options = self.options
        for keyword in ('backlog', 'interface', 'user', 'group'):
            if keyword in options:
                words.append('{} {}'.format(keyword, options[keyword]))
        if 'mode' in options:
            words.append('mode {:o}'.format(options['mode']))
        if 'v6only' in options:
            words.append('v6only' if options['v6only'] else 'v4v6')
        # haproxy's `transparent` sets IP_FREEBIND as well where the kernel has both.
        if options.get('transparent') or options.get('freebind'):
            words.append('transparent')
        return ' '.join(words)

    def differences(self, asked):
        """Say in which options that `asked` (an Endpoint of the same identity) names this one differs:
        a list of str, empty when both can share a listener. The backlog never stands between them."""
        found = []
        for option, value in sorted(asked.options.items()):
            if option == 'backlog' or (option == 'v6only' and self.address != '::'):
                continue    # for any other IPv6 address the kernel itself sets IPV6_V6ONLY
            held = self.options.get(option, None if option in ('mode', 'user', 'group') else False)
            if held != value:
                found.append('{} is {}, asked for {}'.format(option, _shown(option, held), _shown(option, value)))
        return found

    def with_options(self, **options):
        """Return the same endpoint with some options changed."""
        return Endpoint(self.kind, self.address, self.port, dict(self.options, **options))

    def sockaddr(self):
        """Return the address as socket.bind and socket.connect take it."""
        if self.kind == 'unix':
            return '\0' + self.address[1:] if self.address[0] == '@' else self.address
        if ':' in self.address:
            host, percent, scope = self.address.partition('%')
            return (host, self.port, 0, socket.if_nametoindex(scope) if percent else 0)
        return (self.address, self.port)

    def family(self):
        """Return the address family: AF_INET, AF_INET6 or AF_UNIX."""
        if self.kind == 'unix':
            return socket.AF_UNIX
        return socket.AF_INET6 if ':' in self.address else socket.AF_INET

    def __eq__(self, other):
        return isinstance(other, Endpoint) and self.name == other.name      # the identity, printed

    def __ne__(self, other):
        return not self == other

    def __hash__(self):
        return hash(self.name)

    def __str__(self):
        return self.name

    def __repr__(self):
        return 'Endpoint({!r}, {!r})'.format(self.name, self.options)

    def __reduce__(self):
        return (Endpoint, (self.kind, self.address, self.port, self.options))


def _canonical_address(address):
    if not isinstance(address, str):
        raise EndpointError('address {!r} is no text'.format(address))
    return _canonical_text(address)


@functools.lru_cache(maxsize=32)        # of a thousand endpoints most share a few addresses
def _canonical_text(address):
    if address in ('', '*'):
        return '0.0.0.0'
    if address == 'localhost':
        return '127.0.0.1'
    if address[0] == '[' and address[-1] == ']':
        address = address[1:-1]
    host, percent, scope = address.partition('%')
    try:
        if ':' in host:
            packed = socket.inet_pton(socket.AF_INET6, host)
            if packed.startswith(MAPPED_PREFIX):    # the same listener as the IPv4 address
                return socket.inet_ntop(socket.AF_INET, packed[12:])
            return socket.inet_ntop(socket.AF_INET6, packed) + (percent + _interface(scope) if percent else '')
        if not percent:
            return socket.inet_ntop(socket.AF_INET, socket.inet_pton(socket.AF_INET, host))
    except (OSError, ValueError):
        pass
    raise EndpointError('address {!r} is no IPv4 or IPv6 address (host names are not resolved here)'.format(address))


def _port(port):
    if isinstance(port, str) and port.isdigit() and len(port) <= 5:
        port = int(port)
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= 65535:
        raise EndpointError('port {!r} is no number from 1 to 65535'.format(port))
    if port == 0:
        raise EndpointError('port 0 means any free one, under which a later bind could not find the listener again')
    return port


def _options(kind, known, asked):
    options = {}
    if not asked:
        return _NO_OPTIONS
    for option, value in asked.items():
        if option not in known:
            raise EndpointError('unknown option {!r}: a {} endpoint takes {}'.format(option, kind, ', '.join(known)))
        if value is not None:
            options[option] = _CHECKS[option](option, value)
    return options


def _check_bool(option, value):
    if not isinstance(value, bool):
        raise EndpointError('option {} is true or false, not {!r}'.format(option, value))
    return value


def _check_backlog(option, value):
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 0x7fffffff:
        raise EndpointError('option {} is a number of connections from 1 on, not {!r}'.format(option, value))
    return value


def _check_mode(option, value):
    try:
        mode = int(value, 8) if isinstance(value, str) else value
    except ValueError:
        mode = None
    if not isinstance(mode, int) or isinstance(mode, bool) or not 0 <= mode <= 0o777:
        raise EndpointError("option {} is a file mode such as '0660', not {!r}".format(option, value))
    return mode


def _check_name(option, value):
    if not isinstance(value, str) or not value or not _plain(value) or any(sign in value for sign in ' /:'):
        raise EndpointError('option {} is a name, not {!r}'.format(option, value))
    return value


def _plain(text):
    """Tell whether a text can stand in a log line and in a socket address: no control characters, and
    no half of a surrogate pair but those by which Python shows bytes that are no UTF-8."""
    return all(sign.isprintable() or '\udc80' <= sign <= '\udcff' for sign in text)


def _interface(value, option='interface'):
    if _check_name(option, value) and len(os.fsencode(value)) > INTERFACE_NAME_MAX:
        raise EndpointError('interface {!r} is longer than {} bytes'.format(value, INTERFACE_NAME_MAX))
    return value


def _shown(option, value):
    return '{:04o}'.format(value) if option == 'mode' and value is not None else str(value).lower()


_CHECKS = {
    'backlog': _check_backlog,
    'v6only': _check_bool,
    'freebind': _check_bool,
    'transparent': _check_bool,
    'interface': lambda option, value: _interface(value),
    'mode': _check_mode,
    'user': _check_name,
    'group': _check_name,
}
