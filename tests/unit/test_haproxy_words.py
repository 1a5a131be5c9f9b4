"""Small things: numbers of descriptors, haproxy's complaints, settings, defaults, the loop's waiting."""

import os
import time

import pytest

from multibinder.errors import UsageError
from multibinder.haproxy.check import anchored, complaints, explained
from multibinder.haproxy.layout import FEW, FREE, Layout, renumber, with_addresses
from multibinder.haproxy.loop import wait_for
from multibinder.defaults import read_defaults
from multibinder.haproxy.settings import Settings, SocketPath


def test_few_descriptors_are_dense():
    layout = Layout(3)
    assert layout.place([10, 11, 12], [9, 8]) == {3: 10, 4: 11, 5: 12, 6: 9, 7: 8}
    assert Layout(0).place([], [9]) == {3: 9}


def test_many_descriptors_leave_room_for_the_master():
    layout = Layout(FEW + 1)
    placed = layout.place(list(range(1000, 1000 + FEW + 1)), [9, 8])
    assert placed[3] == 9 and placed[4] == 8
    assert min(number for number in placed if number > 4) == 3 + FREE
    assert len(placed) == FEW + 3


def test_renumbering():
    text = 'bind fd@3\nbind fd@4 # not fd@5, fd@2 or fd@33\n'
    assert renumber(text, 2, 0) == text
    assert renumber(text, 2, 20) == 'bind fd@23\nbind fd@24 # not fd@5, fd@2 or fd@33\n'
    assert with_addresses(text, ['a', 'b']) == 'bind a\nbind b # not fd@N, fd@N or fd@N\n'
    assert with_addresses(text, []) == 'bind fd@N\nbind fd@N # not fd@N, fd@N or fd@N\n'


LINES = {'/etc/foo.cfg': [['/t', 1], None, ['/t', 2], ['/t', 2]]}


def test_complaints_are_explained(tmp_path):
    template = tmp_path / 't'
    template.write_text('first\n   second ${x}\n')
    lines = {'/etc/foo.cfg': [[str(template), 1], None, [str(template), 2], [str(template), 9]]}
    words = ('[ALERT] (1) : config : parsing [/etc/foo.cfg:3] : unknown\n[ALERT] parsing [/etc/foo.cfg:2] : x\n'
             '[ALERT] parsing [/etc/foo.cfg:77] : x\n[ALERT] parsing [/etc/bar.cfg:1] : x\n'
             '[ALERT] parsing [/etc/foo.cfg:4] : y')
    assert explained(words, lines).splitlines() == [
        '[ALERT] (1) : config : parsing [/etc/foo.cfg:3] : unknown', '    {}:2: second ${{x}}'.format(template),
        '[ALERT] parsing [/etc/foo.cfg:2] : x', '[ALERT] parsing [/etc/foo.cfg:77] : x',
        '[ALERT] parsing [/etc/bar.cfg:1] : x',
        '[ALERT] parsing [/etc/foo.cfg:4] : y', '    {}:9: (no such line any more)'.format(template)]


def test_what_says_why():
    assert complaints(['[NOTICE] a', '[ALERT] b', '  more of b', '[WARNING] c', '[ALERT] d']) == [
        '[ALERT] b', '  more of b', '[ALERT] d']
    assert complaints(['[NOTICE] a', 'exec failed']) == ['exec failed']
    assert complaints([]) == []


def test_default_path_of_a_checked_copy():
    text = 'global\n    default-path config # x\r\n\tdefault-path parent\n    default-path origin /x\n'
    assert anchored(text, '/etc/haproxy/foo.cfg') == (
        'global\n    default-path origin /etc/haproxy # x\n\tdefault-path origin /etc\n    default-path origin /x\n')
    assert anchored('global\r\n', '/x') == 'global\r\n'


def test_settings():
    settings = Settings({})
    assert (settings.max_old, settings.old_age, settings.leave_on_stop) == (0, 0.0, False)
    settings = Settings({'MULTIBINDER_MAX_OLD': '2', 'MULTIBINDER_OLD_AGE': '1.5', 'MULTIBINDER_ON_STOP': 'leave'})
    assert (settings.max_old, settings.old_age, settings.leave_on_stop) == (2, 1.5, True)
    for bad in ({'MULTIBINDER_MAX_OLD': 'many'}, {'MULTIBINDER_OLD_AGE': '-1'}, {'MULTIBINDER_ON_STOP': 'run'},
                {'MULTIBINDER_START_TIMEOUT': 'inf'}, {'MULTIBINDER_START_TIMEOUT': 'nan'}):
        with pytest.raises(UsageError):
            Settings(bad)


def test_defaults_are_parsed_not_run(tmp_path):
    path = tmp_path / 'defaults'
    path.write_text('#A=1\n  B="two words"\nexport C=\'3\'\nD=$(touch {0})\nE=a=b # c\nnonsense\nB=last\n'.format(
        tmp_path / 'touched'))
    assert read_defaults(str(path)) == {'B': 'last', 'C': '3', 'D': '$(touch {})'.format(tmp_path / 'touched'),
                                        'E': 'a=b # c'}
    assert os.listdir(str(tmp_path)) == ['defaults']
    assert read_defaults('/nonexistent') == {}


def test_path_of_the_binder_is_followed_where_it_came_from(tmp_path):
    path = tmp_path / 'defaults'
    path.write_text('MULTIBINDER_SOCK=/a\n')
    ours = SocketPath('/a', str(path))
    theirs = SocketPath('/by/hand', str(path))
    path.write_text('MULTIBINDER_SOCK=/b\n')
    assert (ours.now(), theirs.now()) == ('/b', '/by/hand')
    path.write_text('#MULTIBINDER_SOCK=/b\n')
    assert ours.now() == '/a'
    path.write_text('MULTIBINDER_SOCK=\n')
    assert ours.now() == '/a'


def test_path_that_the_file_did_not_have(tmp_path):
    path = tmp_path / 'defaults'
    ours = SocketPath('/run/multibinder.sock', str(path))
    path.write_text('MULTIBINDER_SOCK=/b\n')
    assert ours.now() == '/b'


def test_waiting():
    happened = []
    waiting = wait_for(lambda: happened, 60.0)
    deadline = next(waiting)
    assert deadline > time.monotonic() + 50
    assert next(waiting) == deadline
    happened.append(1)
    with pytest.raises(StopIteration) as end:
        next(waiting)
    assert end.value.value is True
    with pytest.raises(StopIteration) as end:
        next(wait_for(lambda: False, 0.0))
    assert end.value.value is False
