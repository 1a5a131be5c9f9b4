"""The files of an instance: which template, whose config, what is left after what."""

import os
import stat

import pytest

from multibinder.errors import ConfigFileError, TemplateError, UsageError
from multibinder.haproxy.config import Pidfile, RenderedConfig, last_line, without_mark
from multibinder.haproxy.instance import RuntimeDirectory, Source, instance_name, source_named, source_of


@pytest.fixture
def folder(tmp_path):
    return str(tmp_path)


def write(path, text='', mode=0o644):
    with open(path, 'w') as file:
        file.write(text)
    os.chmod(path, mode)
    return path


def read(path):
    with open(path) as file:
        return file.read()


# Which template

@pytest.mark.parametrize('ending', ['.tmpl', '.erb', '.mb'])
def test_template_is_found_beside_the_config(folder, ending):
    config = os.path.join(folder, 'foo.cfg')
    write(config + ending)
    assert source_of(config) == source_of(config + ending) == Source(config, config + ending)


def test_no_template(folder):
    assert source_of(os.path.join(folder, 'foo.cfg')) is None


def test_two_candidates_are_both_named(folder):
    config = os.path.join(folder, 'foo.cfg')
    write(config + '.tmpl')
    write(config + '.mb')
    with pytest.raises(TemplateError) as caught:
        source_of(config)
    assert config + '.tmpl' in str(caught.value) and config + '.mb' in str(caught.value)
    assert source_of(config + '.mb').template == config + '.mb'


def test_names(folder, monkeypatch):
    config = write(os.path.join(folder, 'foo.cfg.tmpl'))[:-len('.tmpl')]
    monkeypatch.setenv('MULTIBINDER_CONFIG_DIR', folder)
    monkeypatch.chdir(folder)
    for name in ('foo', 'foo.cfg', './foo.cfg.tmpl', config):
        assert source_named(name).config == config
    with pytest.raises(TemplateError, match='there is no template for .*bar.cfg: none of bar.cfg.tmpl'):
        source_named('bar')
    assert instance_name(source_named('foo')) == 'foo'
    monkeypatch.setenv('MULTIBINDER_INSTANCE', 'other')
    assert instance_name(source_named('foo')) == 'other'


def test_runtime_directory(folder, monkeypatch):
    monkeypatch.delenv('RUNTIME_DIRECTORY', raising=False)
    assert RuntimeDirectory('foo').path == '/run/haproxy-multi-foo'
    monkeypatch.setenv('RUNTIME_DIRECTORY', folder + '/a:' + folder + '/b')
    runtime = RuntimeDirectory('foo')
    runtime.make()
    runtime.make()
    assert runtime.file('x') == folder + '/a/x'
    assert stat.S_IMODE(os.stat(folder + '/a').st_mode) == 0o700
    for name in ('cli', 'cli.7', 'worker.7.cfg', 'worker.3', 'state', 'control', 'clients'):
        write(runtime.file(name))
    runtime.clean()
    assert sorted(os.listdir(folder + '/a')) == ['clients', 'control', 'state']
    for name in ('a/b', '', '..'):
        with pytest.raises(UsageError):
            RuntimeDirectory(name)


# The rendered config

@pytest.fixture
def config(folder):
    path = os.path.join(folder, 'foo.cfg')
    write(path + '.tmpl', mode=0o640)
    return RenderedConfig(path, path + '.tmpl')


def files(config):
    return sorted(os.listdir(os.path.dirname(config.path)))


def test_first_install_and_back(config):
    config.write('a')
    config.install()
    assert read(config.path).startswith('a\n# Rendered by multibinder from ' + config.template)
    assert stat.S_IMODE(os.stat(config.path).st_mode) == 0o640
    config.restore()
    assert files(config) == ['foo.cfg.tmpl']


def test_install_keep_restore(config):
    for text in ('a\n', 'b\n'):
        config.write(text)
        config.install()
        config.keep()
        assert files(config) == ['foo.cfg', 'foo.cfg.tmpl']
    config.write('c\n')
    config.install()
    assert without_mark(read(config.path)) == 'c\n'
    config.restore()
    assert without_mark(read(config.path)) == 'b\n'
    assert files(config) == ['foo.cfg', 'foo.cfg.tmpl']


def test_discard(config):
    config.write('a\n')
    config.discard()
    config.discard()
    assert files(config) == ['foo.cfg.tmpl']


def test_recover(config):
    config.write('good\n')
    config.install()
    config.keep()
    config.write('bad\n')
    config.install()
    config.write('half\n')
    config.recover()        # a new process, after a kill -9
    assert without_mark(read(config.path)) == 'good\n'
    assert files(config) == ['foo.cfg', 'foo.cfg.tmpl']
    config.recover()
    assert without_mark(read(config.path)) == 'good\n'


def test_recover_leaves_somebody_elses_file(config):
    write(config.path, 'mine\n')
    write(os.path.join(os.path.dirname(config.path), '.foo.cfg.old'), 'old\n')
    config.recover()
    assert read(config.path) == 'mine\n'


@pytest.mark.parametrize('text', ['global\n', '# Rendered by multibinder from x\nglobal\n', '\n'])
def test_a_file_without_the_mark_is_not_overwritten(config, text):
    write(config.path, text)
    for step in (lambda: config.write('a'), config.install):
        with pytest.raises(ConfigFileError, match='was not rendered by multibinder'):
            step()
    assert read(config.path) == text


def test_a_link_is_not_overwritten(config):
    os.symlink('/nonexistent', config.path)
    with pytest.raises(ConfigFileError):
        config.write('a')


def test_an_empty_file_is_what_a_power_cut_leaves(config):
    write(config.path)
    config.write('a')
    config.install()
    assert read(config.path).startswith('a\n')


def test_a_planted_temporary_is_not_followed(config):
    victim = write(os.path.join(os.path.dirname(config.path), 'victim'), 'safe')
    os.symlink(victim, os.path.join(os.path.dirname(config.path), '.foo.cfg.new'))
    config.write('a')
    assert read(victim) == 'safe'


def test_bytes_that_are_no_text_are_kept(config):
    config.write(b'# \xe9\xff\r\nend'.decode('utf-8', 'surrogateescape'))
    config.install()
    with open(config.path, 'rb') as file:
        assert file.read().startswith(b'# \xe9\xff\r\nend\n# Rendered')


def test_mark_is_found_in_a_long_file(config):
    config.write('# filler\n' * 100000)
    config.install()
    config.keep()
    assert last_line(config.path).startswith('# Rendered by multibinder')
    config.write('b')


def test_directory_that_cannot_be_written(tmp_path):
    config = RenderedConfig('/proc/foo.cfg', write(str(tmp_path / 't')))
    with pytest.raises(ConfigFileError, match='cannot write /proc/.foo.cfg.new: '):
        config.write('a')


# The pidfile

def test_pidfile(folder):
    path = os.path.join(folder, 'foo.pid')
    none = Pidfile(path)
    write(path, '12\n')
    twelve = Pidfile(path)
    write(path, '13\n')
    twelve.restore()
    twelve.restore()
    assert read(path) == '12\n'
    none.restore()
    none.restore()
    none.remove()
    assert os.listdir(folder) == []
    Pidfile(None).restore()
