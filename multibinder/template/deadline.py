"""A bound for the time that a template's code may take."""

import signal

from multibinder.errors import TemplateError

AGAIN = 0.05    # seconds: code that swallows the interruption is interrupted again


class _Late(BaseException):
    """Not an Exception: a template's own `except Exception` must not stop it."""


def limited(seconds, path, work):
    """Return work(), or raise TemplateError when it is not done after `seconds` (float).

    Main thread only; a SIGALRM handler and timer of the caller are put back afterwards.
    """
    def interrupt(number, frame):
        raise _Late()

    try:
        try:
            handler = signal.signal(signal.SIGALRM, interrupt)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.000001), AGAIN)
            return work()
        finally:
            # An interruption may arrive until the timer is off, in this block too.
            while True:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0)
                    signal.signal(signal.SIGALRM, handler)
                    break
                except _Late:
                    pass
    except _Late:
        raise TemplateError('rendering took longer than {:g} seconds'.format(seconds), path) from None
