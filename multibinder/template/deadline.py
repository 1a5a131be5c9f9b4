"""A bound for the time that a template's code may take."""

from multibinder.errors import TemplateError

AGAIN = 0.05    # seconds: code that swallows the interruption is interrupted again


class Late(BaseException):
    """The time is up. Not an Exception: a template's own `except Exception` must not stop it. An engine on
    its way sets `place` to (path, line, the line's text) of where the template was."""

    place = None


def limited(seconds, path, work):
    """Return work(), or raise TemplateError when it is not done after `seconds` (float).

    Main thread only; a SIGALRM handler and timer of the caller are put back afterwards.
    """
    import signal

    def interrupt(number, frame):
        raise Late()

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
                except Late:
                    pass
    except Late as late:
        raise TemplateError('rendering took longer than {:g} seconds'.format(seconds),
                            *(late.place or (path,))) from None
