"""Everything that knows what haproxy is.

From the files of an instance (`instance`, `config`) over its command line (`command`), its text
(`rendering`, `check`) and one launched haproxy (`process`, `proof`, `generation`) to the life of an
instance: `listeners` is its side of the binder, `attempt` one try to put a new generation in place of
the old one, `control` who waits for the outcome, `loop` what happens meanwhile, `supervisor` decides.
"""
