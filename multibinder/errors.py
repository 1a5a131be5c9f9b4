"""The errors of multibinder, each with the exit status and the wire code that it means.

The text of each is one sentence for an operator: what was attempted, on what, and the reason. Nothing
here formats for a particular command; `multibinder.commands` prints, `multibinder.server` sends.
"""

# JSON-RPC 2.0, section 5.1, and the code that the Ruby gem uses for a bind that failed.
WIRE_PARSE_ERROR = -32700
WIRE_INVALID_REQUEST = -32600
WIRE_METHOD_NOT_FOUND = -32601
WIRE_INVALID_PARAMS = -32602
WIRE_BIND_FAILED = 10000


class Error(Exception):
    """What multibinder says when it cannot do what was asked. `exit_status` is the command's."""

    exit_status = 1
    wire_code = WIRE_BIND_FAILED


class UsageError(Error):
    """The words of the command line are wrong."""

    exit_status = 2


class EndpointError(Error):
    """An address, port or option that names nothing that can be bound."""

    wire_code = WIRE_INVALID_PARAMS


class BindError(Error):
    """An endpoint that cannot be bound, or not as asked; also a right, a limit or a conflict."""


class ProtocolError(Error):
    """Bytes on the control socket that are no request, or no reply."""

    def __init__(self, sentence, wire_code=WIRE_INVALID_REQUEST):
        Error.__init__(self, sentence)
        self.wire_code = wire_code


class ReplyError(Error):
    """The binder answered with an error. `code` is the wire's, the text is the binder's sentence."""

    def __init__(self, code, sentence):
        Error.__init__(self, sentence)
        self.code = code


class BinderAway(Error):
    """No binder answers on the control socket, or it went away in the middle of a request."""


class TemplateError(Error):
    """A template that cannot be rendered.

    `path` (str), `line` (int from 1, or None) and `text` (the template's line, or None) say where;
    `reason` says why, without them.
    """

    def __init__(self, reason, path=None, line=None, text=None):
        self.reason = reason
        self.path = path
        self.line = line
        self.text = text
        where = ''
        if path is not None:
            where = path + (':{}'.format(line) if line else '') + ': '
        shown = '\n    ' + text.strip() if text and text.strip() else ''
        Error.__init__(self, where + reason + shown)

    def __reduce__(self):
        return (TemplateError, (self.reason, self.path, self.line, self.text))


class ConfigFileError(Error):
    """A rendered config that cannot be written, or must not be overwritten."""


class HaproxyError(Error):
    """haproxy refused or failed. `exit_status` is its own where it spoke last."""

    def __init__(self, sentence, exit_status=1):
        Error.__init__(self, sentence)
        self.exit_status = exit_status or 1


def reason_of(error):
    """Return the operating system's words for an OSError (str), without number and file name."""
    return error.strerror or str(error) or error.__class__.__name__
