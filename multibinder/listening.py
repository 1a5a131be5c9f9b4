"""The listening socket behind an endpoint.

Responsible for opening it, for reading an endpoint back off a socket, for asking the kernel about it and
for closing it. Who wants it is not known here. Sources: ip(7), ipv6(7), tcp(7), unix(7), socket(7),
listen(2).
"""

import errno
import grp
import os
import pwd
import socket
import stat
import struct

from multibinder.endpoint import INTERFACE_NAME_MAX, Endpoint
from multibinder.errors import BindError, EndpointError, reason_of

# Numbers that the oldest Python lacks, from the kernel's uapi headers; the same on every architecture.
IP_FREEBIND = 15
IP_TRANSPARENT = 19
IPV6_TRANSPARENT = 75
SO_BINDTODEVICE = getattr(socket, 'SO_BINDTODEVICE', 25)
SO_MEMINFO = 55
_BACKLOG_MAX = 0x7fffffff
SO_DOMAIN = getattr(socket, 'SO_DOMAIN', 39)


def open_listener(endpoint):
    """Bind and listen. Returns a socket.socket, close-on-exec, that the caller owns; raises BindError.

    SO_REUSEADDR and never SO_REUSEPORT: a second socket on the address would take a share of the
    connections and let them hang, so a foreign bind has to fail.
    """
    sock = None
    try:
        sock = socket.socket(endpoint.family(), socket.SOCK_STREAM)
        if endpoint.kind == 'unix':
            _bind_unix(sock, endpoint)
        else:
            _bind_tcp(sock, endpoint)
        listen(endpoint, sock)
        return sock
    except (OSError, BindError, KeyError) as error:
        if sock is not None:
            sock.close()
        if isinstance(error, BindError):
            raise
        reason = reason_of(error) if isinstance(error, OSError) else 'no such user or group: {}'.format(error)
        raise BindError('cannot bind {}: {}{}'.format(endpoint, reason, _way_out(endpoint, error))) from None


def _way_out(endpoint, error):
    """Return what helps where a TCP address is refused (str), in brackets, or ''."""
    if endpoint.kind != 'tcp' or not isinstance(error, OSError):
        return ''
    if error.errno == errno.EADDRNOTAVAIL:
        return ' (no interface of this host has it now; the option freebind binds it all the same)'
    if error.errno != errno.EADDRINUSE:
        return ''
    if endpoint.address == '::' and not endpoint.options.get('v6only'):
        return ' (without the option v6only it is the IPv4 port, too; "ss -ltnp" shows who has either)'
    return ' ("ss -ltnp" shows by whom; "multibinderctl adopt" takes it over from a process that serves)'


def listen(endpoint, sock):
    """Bring a bound socket into LISTEN with the endpoint's backlog, or the largest that net.core.somaxconn
    allows, to which the kernel cuts what is more. Raises OSError."""
    sock.listen(endpoint.options.get('backlog', _BACKLOG_MAX))


def close_listener(endpoint, sock):
    """Take a listening socket out of LISTEN for everybody, close it and remove its socket file.

    It is shut down first: a process that still has a copy, such as a haproxy that finishes its
    connections, would otherwise keep clients waiting in a queue that nobody serves.
    """
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass    # somebody else has shut it down already
    sock.close()
    if endpoint.kind == 'unix' and endpoint.address[0] != '@':
        try:
            remove_stale_socket(endpoint.address, '')
        except (OSError, BindError):
            pass    # another one stands at that path by now, and it is not ours


def read_back(fileno):
    """Return the Endpoint of the listening stream socket behind a descriptor (int, borrowed), with the
    options that the kernel tells. Raises EndpointError when it is none."""
    probe = None
    try:
        probe = socket.socket(fileno=os.dup(fileno))
        domain = probe.getsockopt(socket.SOL_SOCKET, SO_DOMAIN)
        kind = probe.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE)
        if kind != socket.SOCK_STREAM or domain not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
            raise EndpointError('descriptor {} is no TCP or UNIX stream socket'.format(fileno))
        if probe.family != domain:      # Python 3.5 takes every descriptor for AF_INET
            probe = socket.socket(domain, kind, 0, probe.detach())
        name = probe.getsockname()
        if domain == socket.AF_UNIX:
            name = os.fsdecode(name) if isinstance(name, bytes) else name
            return Endpoint.unix('@' + name[1:] if name.startswith('\0') else name)
        options = {}
        level = socket.IPPROTO_IP
        transparent = (level, IP_TRANSPARENT)
        if domain == socket.AF_INET6:
            transparent = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
            if name[0] == '::':
                options['v6only'] = bool(probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))
        options['freebind'] = bool(probe.getsockopt(level, IP_FREEBIND)) or None
        options['transparent'] = bool(probe.getsockopt(*transparent)) or None
        device = probe.getsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, INTERFACE_NAME_MAX + 1)
        options['interface'] = device.split(b'\0')[0].decode('ascii', 'replace') or None
        address = name[0]
        if domain == socket.AF_INET6 and len(name) > 3 and name[3] and '%' not in address:
            address += '%' + socket.if_indextoname(name[3])
        return Endpoint.tcp(address, name[1], **options)
    except OSError as error:
        raise EndpointError('cannot read the address of descriptor {}: {}'.format(fileno, reason_of(error))) from None
    finally:
        if probe is not None:
            probe.close()


def is_listening(sock):
    """Tell whether a socket is in LISTEN (SO_ACCEPTCONN): somebody who shares it may have shut it down."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def queue_of(sock):
    """Return (waiting, limit) of a TCP listener's accept queue, in connections, or (None, None).

    For a socket in LISTEN the kernel puts them into tcpi_unacked and tcpi_sacked of TCP_INFO.
    """
    if sock.family == socket.AF_UNIX:
        return None, None
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)
        return struct.unpack_from('II', info, 24)
    except (OSError, struct.error):
        return None, None


def drops_of(sock):
    """Return how many connections the kernel has dropped at a TCP listener since it was opened (int), most
    of them because its queue was full; None where the kernel (before 4.12) does not tell. Source: the
    kernel's uapi, SO_MEMINFO and SK_MEMINFO_DROPS."""
    if sock.family == socket.AF_UNIX:
        return None
    try:
        return struct.unpack_from('9I', sock.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, 36))[8]
    except (OSError, struct.error):
        return None


def _bind_tcp(sock, endpoint):
    options = endpoint.options
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options:
        _set_options(sock, options)
    sock.bind(endpoint.sockaddr())


def _set_options(sock, options):
    ipv6 = sock.family == socket.AF_INET6
    if ipv6 and options.get('v6only') is not None:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(options['v6only']))
    if options.get('freebind'):
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    if options.get('transparent'):
        level, option = (socket.IPPROTO_IP, IP_TRANSPARENT)
        if ipv6:
            level, option = (socket.IPPROTO_IPV6, IPV6_TRANSPARENT)
        sock.setsockopt(level, option, 1)
    if 'interface' in options:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, os.fsencode(options['interface']) + b'\0')


def _bind_unix(sock, endpoint):
    if endpoint.address[0] != '@':
        remove_stale_socket(endpoint.address, 'cannot bind {}'.format(endpoint))
    options = endpoint.options
    # Nobody can connect before listen(), so mode and owner are in force before the first client is.
    umask = os.umask(0o177)
    try:
        sock.bind(endpoint.sockaddr())
    finally:
        os.umask(umask)
    if endpoint.address[0] == '@':
        return
    try:
        if 'user' in options or 'group' in options:
            os.chown(endpoint.address,
                     pwd.getpwnam(options['user']).pw_uid if 'user' in options else -1,
                     grp.getgrnam(options['group']).gr_gid if 'group' in options else -1)
        os.chmod(endpoint.address, options.get('mode', 0o600))
    except (OSError, KeyError):
        os.unlink(endpoint.address)
        raise


def remove_stale_socket(path, attempt):
    """Remove the socket file that a dead process left at `path`. Raises BindError (its sentence begins
    with `attempt`) when somebody listens there, or when what is there is no socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise BindError('{}: a file that is no socket is in the way'.format(attempt))
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except BlockingIOError:
            pass    # its queue is full, so there is one
    raise BindError('{}: Address already in use'.format(attempt))
