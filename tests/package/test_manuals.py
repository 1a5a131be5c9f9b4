"""The manual pages: one for each executable, with the options that --help shows, and no warning of man."""

import os
import re
import shutil

import pytest

import package

PAGES = package.text(package.PREFIX + 'manpages').split()


def page_text(page):
    """A page as it is read, without bold and underlining."""
    source = package.text(page)
    return source.replace('\\-', '-')


def options_of(out):
    return set(re.findall(r'(?<![\w-])--[a-z][a-z-]+', out))


@pytest.mark.parametrize('name', package.executables())
def test_page_has_the_options_of_help_and_no_others(name):
    page = 'debian/man/{}.8'.format(name)
    assert page in PAGES
    wanted = options_of(package.help_of(name))
    for words in package.verbs_of(name):
        wanted |= options_of(package.help_of(name, words))
        assert re.search(r'^\.BI? "?%s\b' % ' '.join(words), page_text(page), re.MULTILINE) or len(
            [one for one in package.verbs_of(name) if one[:len(words)] == words]) > 1, words
    found = options_of(page_text(page))
    # Other programs' options in examples and references.
    foreign = {'--bind', '--fd', '--kill-who', '--now'}
    assert wanted - found == set(), 'not in the page'
    assert found - wanted - foreign == set(), 'not in --help'


@pytest.mark.parametrize('name', package.executables())
def test_page_has_the_sections(name):
    source = package.text('debian/man/{}.8'.format(name))
    for section in ('NAME', 'SYNOPSIS', 'DESCRIPTION', 'OPTIONS', 'EXIT STATUS', 'ENVIRONMENT', 'SEE ALSO'):
        if name == 'multibinderctl' and section == 'DESCRIPTION':
            section = 'COMMANDS'
        assert re.search(r'^\.SH %s$' % section, source, re.MULTILINE), section


@pytest.mark.parametrize('name', package.executables())
def test_page_has_the_environment_of_help(name):
    wanted = set(re.findall(r'MULTIBINDER_[A-Z_]+', package.help_of(name)))
    assert wanted <= set(re.findall(r'MULTIBINDER_[A-Z_]+', page_text('debian/man/{}.8'.format(name))))


def test_every_page_is_shipped():
    have = sorted('debian/man/' + name for name in os.listdir(package.path('debian/man')))
    assert have == sorted(PAGES)


@pytest.mark.parametrize('page', PAGES)
def test_man_has_no_warning(page):
    if not shutil.which('man'):
        pytest.skip('man-db is not installed')
    environment = {'PATH': os.environ['PATH'], 'LC_ALL': 'C.UTF-8', 'MANROFFSEQ': '', 'MANWIDTH': '80'}
    status, out = package.run(['sh', '-c', 'man --warnings -E UTF-8 -l -Tutf8 -Z "$1" 2>&1 >/dev/null', 'sh',
                               package.path(page)], env=environment)
    assert (status, out) == (0, '')


@pytest.mark.parametrize('page', PAGES)
def test_references_lead_to_a_page(page):
    shipped = set(os.path.basename(name) for name in PAGES)
    foreign = {'haproxy.1', 'systemd.1', 'unix.7', 'shutdown.2', 'journalctl.1', 'systemctl.1', 'sd_listen_fds.3'}
    for name, section in re.findall(r'^\.BR ([\w@\\.-]+) \((\d)\)', package.text(page), re.MULTILINE):
        reference = '{}.{}'.format(name.replace('\\-', '-'), section)
        assert reference in shipped | foreign, reference
