#!/usr/bin/python3
"""Makes a signed flat apt repository of the packages in a directory: `repository.py DIRECTORY [TARGET]`.

Responsible for TARGET (DIRECTORY/repo if not given): the .deb files of DIRECTORY, Packages, Release, InRelease
and Release.gpg, the public key that signs them, and a sources file that points there. It is made beside and
renamed into place, so that a repository in use is never half of two.

MULTIBINDER_REPO_KEY names the key in the caller's keyring. Without it a key is made for this one repository and
thrown away: good for a test and for a machine that takes the key from here.

Needs apt-ftparchive (apt-utils) and gpg.
"""

import glob
import os
import shutil
import subprocess
import sys
import tempfile

NAME = 'multibinder'
KEY = NAME + '-archive-keyring.gpg'
RELEASE = (
    ('Origin', NAME), ('Label', NAME), ('Suite', 'stable'), ('Codename', NAME), ('Architectures', 'all'),
    ('Description', 'packages of multibinder'),
)


def output(command, **options):
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **options)
    out, _ = process.communicate()
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return out


def write(path, content):
    with open(path, 'wb') as stream:
        stream.write(content)


def index(directory):
    """Writes Packages and Release of the packages in a directory."""
    packages = output(['apt-ftparchive', 'packages', '.'], cwd=directory)
    write(os.path.join(directory, 'Packages'), packages)
    options = []
    for field, value in RELEASE:
        options += ['-o', 'APT::FTPArchive::Release::%s=%s' % (field, value)]
    release = output(['apt-ftparchive'] + options + ['release', '.'], cwd=directory)
    write(os.path.join(directory, 'Release'), release)


def sign(directory):
    """Signs Release, and puts the public key beside it."""
    key = os.environ.get('MULTIBINDER_REPO_KEY')
    with tempfile.TemporaryDirectory(prefix='multibinder-repo.') as scratch:
        environment = dict(os.environ)
        if not key:
            # Short: gpg-agent's socket is in it, and a socket's path has at most 107 bytes.
            environment['GNUPGHOME'] = scratch
            key = NAME + ' repository'
            subprocess.check_call(
                ['gpg', '--batch', '--quiet', '--pinentry-mode', 'loopback', '--passphrase', '',
                 '--quick-gen-key', key, 'rsa3072', 'sign', 'never'], env=environment, stderr=subprocess.DEVNULL)
        try:
            gpg = ['gpg', '--batch', '--yes', '--quiet', '--digest-algo', 'SHA512', '--local-user', key]
            release = os.path.join(directory, 'Release')
            subprocess.check_call(gpg + ['--clearsign', '--output', os.path.join(directory, 'InRelease'), release],
                                  env=environment)
            subprocess.check_call(gpg + ['--armor', '--detach-sign', '--output', release + '.gpg', release],
                                  env=environment)
            write(os.path.join(directory, KEY), output(['gpg', '--batch', '--export', key], env=environment))
        finally:
            if 'MULTIBINDER_REPO_KEY' not in os.environ:
                subprocess.call(['gpgconf', '--kill', 'all'], env=environment)


def make(source, target):
    """Makes the repository; returns the names of the packages in it."""
    debs = sorted(glob.glob(os.path.join(source, '*.deb')))
    if not debs:
        raise ValueError('there is no .deb in %s' % source)
    making = tempfile.mkdtemp(prefix='.repo.', dir=os.path.dirname(target))
    try:
        # apt reads it as the user _apt.
        os.chmod(making, 0o755)
        for deb in debs:
            shutil.copy(deb, making)
        index(making)
        sign(making)
        sources = 'deb [signed-by=%s] file:%s ./\n' % (os.path.join(target, KEY), target)
        write(os.path.join(making, NAME + '.list'), sources.encode())
        if os.path.isdir(target):
            shutil.rmtree(target)
        os.rename(making, target)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    return [os.path.basename(deb) for deb in debs]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit('usage: repository.py DIRECTORY [TARGET]')
    source = os.path.abspath(sys.argv[1])
    target = os.path.abspath(sys.argv[2]) if len(sys.argv) == 3 else os.path.join(source, 'repo')
    for tool, package in (('apt-ftparchive', 'apt-utils'), ('gpg', 'gpg')):
        if not shutil.which(tool):
            sys.exit('repository: cannot make a repository: %s is not installed (package %s)' % (tool, package))
    try:
        names = make(source, target)
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit('repository: cannot make %s: %s' % (target, error))
    print('%s: %s' % (target, ' '.join(names)))
    print('to use it: cp %s/%s.list /etc/apt/sources.list.d/ && apt-get update && apt-get install python3-multibinder'
          % (target, NAME))


if __name__ == '__main__':
    main()
