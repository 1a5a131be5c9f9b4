"""multibinder: listening sockets that outlive the services which accept on them.

The public Python API is `bind`, `bind_unix` and `Client`; the other modules serve the programs of the
package. Importing the package loads nothing else, since the programs import it at every start.
"""

__version__ = '1.0.0'


def bind(address, port, **options):
    """Return a listening TCP socket that the binder holds; see `multibinder.client.bind`."""
    from multibinder.client import bind as client_bind
    return client_bind(address, port, **options)


def bind_unix(path, **options):
    """Return a listening UNIX socket that the binder holds; see `multibinder.client.bind_unix`."""
    from multibinder.client import bind_unix as client_bind_unix
    return client_bind_unix(path, **options)


def Client(*args, **kwargs):
    """Open a connection to the binder for many binds; see `multibinder.client.Client`."""
    from multibinder.client import Client as client_class
    return client_class(*args, **kwargs)
