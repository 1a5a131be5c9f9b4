"""What is said in two places is said alike."""

import re

import pytest

import multibinder
import package


def upstream(version):
    return version.split(':', 1)[-1]


def test_one_version():
    changelog = re.match(r'multibinder \((\S+)\) ', package.text('debian/changelog')).group(1)
    assert package.setup_cfg()['metadata']['version'] == multibinder.__version__ == changelog


def test_setup_cfg_and_control_name_the_same_dependencies():
    names = {'Mako': 'python3-mako', 'python-daemon': 'python3-daemon', 'lockfile': 'python3-lockfile'}
    wanted = {}
    for line in package.setup_cfg()['options']['install_requires'].split():
        name, version = line.split('>=')
        wanted[names[name]] = version
    source, binary = package.control()
    depends = package.relations(binary['Depends'])
    assert {name: upstream(depends[name][1]) for name in wanted} == wanted
    assert all(depends[name][0] == '>=' for name in wanted)
    assert set(wanted) <= set(package.relations(source['Build-Depends'])), \
        'dh_python3 writes other dependencies where these are absent'


def test_setup_cfg_and_control_name_the_same_python():
    source, _ = package.control()
    assert package.setup_cfg()['options']['python_requires'].replace('=', '= ') == source['X-Python3-Version']


def test_every_executable_is_installed_and_is_a_plain_file():
    scripts = sorted(package.setup_cfg()['options']['scripts'].split())
    assert scripts == ['bin/' + name for name in package.executables()]
    for name in scripts:
        lines = package.text(name).splitlines()
        assert lines[0] == '#!/usr/bin/python3'
        assert len([line for line in lines if line and not line.startswith('#')]) <= 3


def test_every_package_is_installed():
    # find: looks for __init__.py; a directory without one would be missing in the .deb only.
    import os
    root = package.path('multibinder')
    for directory, directories, files in os.walk(root):
        directories[:] = [name for name in directories if name != '__pycache__']
        if any(name.endswith('.py') for name in files):
            assert '__init__.py' in files, directory


def test_build_depends_have_what_the_unit_tests_import():
    source, _ = package.control()
    assert 'python3-pytest' in package.relations(source['Build-Depends'].replace('<!nocheck>', ''))


def test_maintainer_is_one():
    source, _ = package.control()
    last = re.findall(r'^ -- (.*>)  ', package.text('debian/changelog'), re.MULTILINE)[0]
    assert source['Maintainer'] == last
    assert last in package.text('debian/copyright')


def test_licence_is_one():
    licence = package.text('LICENSE')
    stanza = package.text('debian/copyright').split('License: Expat\n')[-1]
    shipped = ' '.join(stanza.replace('\n .', '\n').split())
    assert shipped == ' '.join(licence.split('\n\n', 2)[2].split())
    assert package.setup_cfg()['metadata']['license'] == 'MIT'


@pytest.mark.parametrize('name', ['multibinder.service', 'haproxy-multi@.service'])
def test_units_point_at_manuals_that_are_shipped(name):
    shipped = [line.rsplit('/', 1)[-1] for line in package.text(package.PREFIX + 'manpages').split()]
    pages = [word for _, key, value, _ in package.unit(name) if key == 'Documentation'
             for word in value.split() if word.startswith('man:')]
    assert pages
    for page, section in re.findall(r'man:(\S+)\((\d)\)', ' '.join(pages)):
        assert page == 'haproxy' or '{}.{}'.format(page, section) in shipped


def test_templates_are_translatable_and_up_to_date(tmp_path):
    import os
    import shutil
    if not shutil.which('debconf-updatepo'):
        pytest.skip('po-debconf is not installed')
    os.mkdir(str(tmp_path / 'debian'))
    shutil.copytree(package.path('debian/po'), str(tmp_path / 'debian/po'))
    shutil.copy(package.path(package.PREFIX + 'templates'), str(tmp_path / 'debian'))
    status, out = package.run(['debconf-updatepo', '--podir=' + str(tmp_path / 'debian/po')])
    assert status == 0, out

    def messages(file):
        with open(file, encoding='utf-8') as stream:
            return [line for line in stream if not line.startswith(('#', '"POT-Creation-Date'))]

    assert messages(str(tmp_path / 'debian/po/templates.pot')) == messages(package.path('debian/po/templates.pot'))
