"""What a template sees: bind_tcp, bind_unix, env, hostname, instance, cpu_count and its own values.

Responsible for the names and for the list of endpoints that the calls add up to. The languages are the
engines'; what an endpoint may be is `multibinder.endpoint`'s.
"""

import os

from multibinder.endpoint import Endpoint
from multibinder.errors import EndpointError, TemplateError
from multibinder.template.source import FIRST_FD, bare_name

NAMES = ('bind_tcp', 'bind_unix', 'env', 'ENV', 'hostname', 'instance', 'cpu_count')


class BindRefused(Exception):
    """A bind_* call whose arguments name no endpoint. Its text is the reason."""


class Environment(dict):
    """The environment; a variable that is not there is named in words."""

    def __missing__(self, name):
        raise KeyError('the environment has no variable {!r}'.format(name))


class Scope(object):
    """The names of one rendering. `names` is a dict of them, `endpoints` the endpoints in the order of
    the bind_* calls."""

    def __init__(self, instance, env, clear):
        self.clear = clear
        self.endpoints = []
        self.env = Environment(env)
        self.values = {}
        try:
            cpu_count = len(os.sched_getaffinity(0))
        except (AttributeError, OSError):
            cpu_count = os.cpu_count() or 1
        self.names = {
            'bind_tcp': self.bind_tcp,
            'bind_unix': self.bind_unix,
            'env': self.env,
            'ENV': self.env,
            'hostname': os.uname()[1],
            'instance': instance,
            'cpu_count': cpu_count,
        }

    def bind_tcp(self, address, port, **options):
        """Return what stands on a bind line for a TCP endpoint. Raises BindRefused."""
        try:
            return self._add(Endpoint.tcp(address, port, **options))
        except (EndpointError, TypeError) as error:
            raise BindRefused('bind_tcp: {}'.format(error)) from None

    def bind_unix(self, path, **options):
        """Return what stands on a bind line for a UNIX endpoint. Raises BindRefused."""
        try:
            return self._add(Endpoint.unix(path, **options))
        except (EndpointError, TypeError) as error:
            raise BindRefused('bind_unix: {}'.format(error)) from None

    def _add(self, endpoint):
        self.endpoints.append(endpoint)
        if self.clear:
            return endpoint.haproxy_address()
        return 'fd@%d' % (FIRST_FD + len(self.endpoints) - 1)

    def load_values(self, path, reader):
        """Add what NAME.vars.json or NAME.vars.yaml beside the template holds to the names. Raises
        TemplateError: unreadable, no mapping, or a name that is taken."""
        stem = os.path.join(os.path.dirname(path), bare_name(path) + '.vars.')
        found = [stem + ending for ending in ('json', 'yaml') if os.path.exists(stem + ending)]
        if not found:
            return
        if len(found) > 1:
            raise TemplateError('two files of values for one template: {} and {}'.format(*found), path)
        from multibinder.template.values import load
        self.values = load(found[0], reader)
        for name in sorted(self.values):
            if name in NAMES:
                raise TemplateError('{!r} is taken: it always names what multibinder gives'.format(name), found[0])
        self.names.update(self.values)

    def unused(self, text, lines):
        """Return [(index of the endpoint, why, 'path:line')] of endpoints that the text does not use:
        clients of a listener that nobody accepts on would hang."""
        return []
