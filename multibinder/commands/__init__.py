"""One module per executable: arguments and exit status, nothing else.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, and haproxy's own where haproxy spoke last.
"""

import functools
import os
import sys

from multibinder import log
from multibinder.errors import Error, reason_of


def fail_in_words(name):
    """Decorate a command's main function: what it raises becomes a sentence on stderr, behind the
    command's `name`, and an exit status. It returns the status (int), or None for 0."""
    def decorate(main):
        @functools.wraps(main)
        def wrapped(argv=None):
            try:
                return main(argv) or 0
            except Error as error:
                log.error('{}: {}'.format(name, error))
                return error.exit_status
            except KeyboardInterrupt:
                return 130      # 128 and the signal, as a shell has it
            except BrokenPipeError:
                # Who read our output has gone; the interpreter must not complain when it flushes.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                return 1
            except OSError as error:
                about = ' {}'.format(error.filename) if error.filename else ''
                log.error('{}: the system refused{}: {}'.format(name, about, reason_of(error)))
                return 1
        return wrapped
    return decorate
