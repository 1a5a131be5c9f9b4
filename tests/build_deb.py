"""Builds the package from a copy of the tree: `python3 tests/build_deb.py DIRECTORY` puts the .deb there.

Responsible for a build that neither the caller's environment nor what lies about in the work tree gets into.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class BuildError(Exception):
    """dpkg-buildpackage failed; the message ends with its last words."""


def copy_tree(target):
    """Copies the project, without what git ignores, to a new directory."""
    listing = subprocess.Popen(
        ['git', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'],
        cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    out, _ = listing.communicate()
    if listing.returncode != 0:
        # Not a clone: an unpacked source package. Or a clone of another user, which git refuses to read.
        shutil.copytree(PROJECT, target, symlinks=True, ignore=shutil.ignore_patterns(
            '.git', '.venv', 'dist', '__pycache__', '.pybuild', '.pytest_cache', '.hypothesis'))
        return
    for name in sorted(set(os.fsdecode(name) for name in out.split(b'\0') if name)):
        source = os.path.join(PROJECT, name)
        if not os.path.lexists(source):
            # Removed in the work tree and not yet in the index.
            continue
        os.makedirs(os.path.dirname(os.path.join(target, name)), exist_ok=True)
        shutil.copy2(source, os.path.join(target, name), follow_symlinks=False)


def build(directory):
    """Builds below a directory; gives the path of the .deb in it. Raises BuildError."""
    source = os.path.join(directory, 'source')
    copy_tree(source)
    # Not the caller's PATH: a python3 of pyenv or of a virtual environment must not get into the build.
    # nocheck: the tests run on their own, before or after, and on more than this release.
    environment = {
        'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': directory, 'LANG': 'C.UTF-8',
        'DEB_BUILD_OPTIONS': 'nocheck',
    }
    process = subprocess.Popen(
        ['dpkg-buildpackage', '-us', '-uc', '-b'], cwd=source, env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = process.communicate()
    found = glob.glob(os.path.join(directory, 'python3-multibinder_*_all.deb'))
    if process.returncode != 0 or len(found) != 1:
        raise BuildError('the package cannot be built (dpkg-buildpackage ended with %d)\n%s' % (
            process.returncode, out.decode('utf-8', 'replace')[-6000:]))
    return found[0]


def newer(deb, directory):
    """The same package with a higher version, for tests of an upgrade; gives its path."""
    unpacked = tempfile.mkdtemp(dir=directory)
    # mkdtemp's 0700 would become the mode of / in the package.
    os.chmod(unpacked, 0o755)
    subprocess.check_call(['dpkg-deb', '-R', deb, unpacked])
    control = os.path.join(unpacked, 'DEBIAN', 'control')
    with open(control) as stream:
        lines = stream.read().splitlines()
    lines = [line + '+upgrade1' if line.startswith('Version:') else line for line in lines]
    with open(control, 'w') as stream:
        stream.write('\n'.join(lines) + '\n')
    path = os.path.join(directory, 'upgrade_' + os.path.basename(deb))
    subprocess.check_call(['dpkg-deb', '--root-owner-group', '-b', unpacked, path], stdout=subprocess.DEVNULL)
    shutil.rmtree(unpacked)
    return path


def main():
    if len(sys.argv) != 2:
        sys.exit('usage: build_deb.py DIRECTORY')
    target = sys.argv[1]
    with tempfile.TemporaryDirectory(prefix='multibinder-build.') as directory:
        try:
            deb = build(directory)
        except (BuildError, OSError) as error:
            sys.exit('build_deb: %s' % error)
        os.makedirs(target, exist_ok=True)
        for old in glob.glob(os.path.join(target, 'python3-multibinder_*_all.deb')):
            os.unlink(old)
        print(shutil.copy(deb, target))


if __name__ == '__main__':
    main()
