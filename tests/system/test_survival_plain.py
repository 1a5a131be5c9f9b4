"""The rows of "What survives what" for a hand-written config without a template: the same, as far as haproxy's -x
reaches. In a module of its own, since two arenas on one machine would share the ports of their load."""

import pytest

import survival


@pytest.mark.parametrize('row', [row for row in survival.ROWS if row.plain], ids=lambda row: row.name.replace(' ', '-'))
def test_survives_with_a_plain_config(plain_arena, row):
    outcome = plain_arena.run(row)
    assert outcome.problems() == [], '%s\n%s' % (outcome.problems(), outcome.describe())


@pytest.fixture(scope='module')
def plain_arena(machine, deb, tmp_path_factory):
    with survival.Arena(machine, deb, str(tmp_path_factory.mktemp('upgrade')), plain=True) as arena:
        yield arena
