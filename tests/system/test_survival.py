"""Every row of "What survives what" under load, beside Debian's own haproxy.service.

The load is open-loop on an IPv4 and on one IPv6 address, with slow answers in flight. What an aim is for
multibinder is asserted; haproxy.service is only looked at, by `make bench`, which runs the same rows and prints
the table.
"""

import pytest

import survival


@pytest.mark.parametrize('row', survival.ROWS, ids=lambda row: row.name.replace(' ', '-'))
def test_survives(arena, row):
    outcome = arena.run(row)
    assert outcome.problems() == [], '%s\n%s' % (outcome.problems(), outcome.describe())


@pytest.fixture(scope='module')
def arena(machine, deb, tmp_path_factory):
    with survival.Arena(machine, deb, str(tmp_path_factory.mktemp('upgrade'))) as arena:
        yield arena
