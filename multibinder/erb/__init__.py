"""ERB, as Ruby means it, without Ruby: templates written for the Ruby gem.

Responsible for rendering NAME.cfg.erb and NAME.cfg.mb into a sink, byte for byte what Ruby's ERB writes,
for the subset of Ruby that `parser` and the methods know; what is beyond is refused with its line. A
template passes through `segments` (text and tags), `lexer`, `parser` and `compiler`.
"""

import sys

from multibinder.erb import segments
from multibinder.erb.compiler import Break, Next, Program
from multibinder.erb.lexer import Lexer
from multibinder.erb.parser import Parser
from multibinder.erb.refusal import Refusal
from multibinder.erb.runtime import Host
from multibinder.erb.values import RubyError
from multibinder.template.deadline import Late
from multibinder.template.scope import BindRefused


def render_erb(path, reader, scope, sink, strict):
    """Render the template at `path` into `sink`. Returns the warnings (list of str, none so far);
    raises TemplateError. `strict` has no meaning here: in ERB no name is left to haproxy."""
    text = reader.read(path)
    sink.locate = lambda origin, piece: (path, origin[0], origin[1])
    program = None
    try:
        parser = Parser(Lexer(segments.split(text)).tokens())
        tree = parser.program()
        program = Program(parser.slots, Host(scope, sink))
        program.run(program.compile(tree))
    except Refusal as error:
        raise reader.error(str(error), path, error.line or program and program.line) from None
    except (RubyError, BindRefused) as error:
        raise reader.error(str(error), path, program.line) from None
    except (Next, Break):
        raise reader.error('break or next out of a block that has ended', path, program.line) from None
    except Late as late:
        late.place = program and reader.place(path, program.line)
        raise
    except RecursionError:
        raise reader.error('nested too deep for this Python ({} frames)'.format(sys.getrecursionlimit()), path,
                           program and program.line) from None
    except MemoryError:
        raise reader.error('out of memory', path, program and program.line) from None
    return []
