"""A Debian with systemd as PID 1, as a context manager.

    with Container('bookworm') as machine:
        machine.run('systemctl is-system-running')

Responsible for: the root file system of a release (made once by mmdebstrap from the mirror that apt
itself is configured for, and cached), a throw-away copy of it, booting that copy by systemd-nspawn,
commands and files in and out, the journal, and for leaving nothing behind. Not responsible for what is
installed or tested in it.

No container engine is needed and the host's own PID 1 need not be systemd. It needs root and the right
to make namespaces; `why_not()` says in one sentence what is missing.

How one is put together, all of it in a private mount and PID namespace so that the end of the first
process is the end of all of them, and the end of the last one the clean-up:

  * the cached root is the lower half of an overlay whose upper half is a tmpfs (a copy where overlays
    cannot be mounted);
  * a cgroup2 tree is mounted on /sys/fs/cgroup and the container goes into a cgroup of its own there.
    On a host with cgroup v1 the tree beside it stays as it was, and systemd 258 and later, which refuse
    v1, boot as well as the older ones. Two containers never share a cgroup;
  * with --notify-ready nspawn passes on that the container's init has finished booting: nothing is polled.
"""

import ctypes
import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

RELEASES = ('bullseye', 'bookworm', 'trixie', 'sid')

# What the walk-through and the package need. The dependencies of python3-multibinder are part of the
# root, because a container has no network: the package is installed by dpkg, offline.
PACKAGES = (
    'systemd-sysv', 'dbus', 'haproxy', 'python3', 'curl', 'iproute2', 'procps', 'debconf',
    'python3-mako', 'python3-daemon', 'python3-lockfile', 'python3-pytest', 'man-db',
    # As on nearly every machine. haproxy from 2.5 on reads them all at each start, which is half of its time.
    'ca-certificates',
)
# A root that was made by an older recipe than this number is not used again.
RECIPE = 4
# The archive of haproxy, kept in the root for the tests of an upgrade of it.
HAPROXY_DEB = '/var/cache/multibinder-tests/haproxy.deb'

PREFIX = 'multibinder-container.'
BOOT_SECONDS = 120
LIMIT_SECONDS = 1500
TOOLS = ('mmdebstrap', 'systemd-nspawn', 'unshare', 'nsenter', 'mount', 'timeout')
ENVIRONMENT = {
    'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'HOME': '/root', 'LANG': 'C.UTF-8', 'TERM': 'dumb', 'DEBIAN_FRONTEND': 'noninteractive',
}

# Arguments: lower directory, work directory (private, becomes a tmpfs), name of the cgroup, nspawn's
# arguments. A tmpfs hides /run/systemd/nspawn, where nspawn otherwise leaves a directory per container.
BOOT = r'''
set -e
lower=$1 work=$2 group=$3
shift 3
if [ -e /sys/fs/cgroup/cgroup.subtree_control ]; then :
else mount -t cgroup2 cgroup2 /sys/fs/cgroup; fi
mkdir "/sys/fs/cgroup/$group"
echo $$ >"/sys/fs/cgroup/$group/cgroup.procs"
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
mount -t tmpfs -o mode=0755 tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay overlay -o "lowerdir=$lower,upperdir=$work/upper,workdir=$work/work" "$work/root" ||
    cp -a "$lower/." "$work/root"
systemd-nspawn "$@" --directory="$work/root"
exit $?
'''


class ContainerError(Exception):
    """A container could not be made, or a command in it failed; the sentence says which."""


class CommandFailed(ContainerError):
    """A command in a container ended with another status than 0. `.result` is its Result."""

    def __init__(self, command, result):
        self.result = result
        super().__init__('%s\n  exit status %d\n%s%s' % (
            command if isinstance(command, str) else ' '.join(command), result.status, result.out, result.err))


class Result:
    """What a command did: status (int, 124 when its time was up), out and err (str)."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err

    def __repr__(self):
        return 'Result(%r, %r, %r)' % (self.status, self.out, self.err)


def host_release():
    """The code name of the host's own Debian release, or None."""
    try:
        with open('/etc/os-release') as stream:
            fields = dict(line.strip().split('=', 1) for line in stream if '=' in line)
    except OSError:
        return None
    name = fields.get('VERSION_CODENAME', '').strip('"')
    return name if name in RELEASES else None


def why_not():
    """None where containers can be made, else the reason why not (str)."""
    if os.geteuid() != 0:
        return 'system containers need root'
    for tool in TOOLS:
        if shutil.which(tool) is None:
            return 'system containers need the program %s' % tool
    probe = subprocess.Popen(
        ['unshare', '--mount', '--pid', '--net', '--fork', 'sh', '-c', 'mount -t tmpfs tmpfs /mnt'],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out, _ = probe.communicate()
    if probe.returncode != 0:
        return 'namespaces cannot be made here: %s' % out.decode(errors='replace').strip()
    return None


def cache_directory():
    """Where root file systems are kept: below $XDG_CACHE_HOME, else /var/cache."""
    return os.path.join(os.environ.get('XDG_CACHE_HOME') or '/var/cache', 'multibinder-tests')


def root_of(release, say=None):
    """The path of the cached root file system of a release; made first where there is none.

    Safe when two runs want the same one: the first makes it under a lock, into a name of its own, and
    renames it into place. The root is shared and must not be written to.
    """
    packages = sorted(PACKAGES)
    key = hashlib.sha256(('%d %s' % (RECIPE, ' '.join(packages))).encode()).hexdigest()[:12]
    cache = cache_directory()
    path = os.path.join(cache, '%s-%s' % (release, key))
    if os.path.isdir(path):
        return path
    os.makedirs(cache, exist_ok=True)
    with open(path + '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(path):
            return path
        making = path + '.new'
        # Left by a run that was killed; the lock says that nobody is at work on it.
        shutil.rmtree(making, ignore_errors=True)
        (say or progress)('making the root file system of %s (half a minute, once)' % release)
        _mmdebstrap(release, packages, making)
        os.rename(making, path)
    return path


def progress(text):
    sys.stderr.write(text + '\n')
    sys.stderr.flush()


def _mmdebstrap(release, packages, target):
    command = [
        'mmdebstrap', '--quiet', '--mode=root', '--variant=minbase', '--format=directory',
        '--include=' + ','.join(packages),
        # The Release file of a mirror that stood still for a while is expired. It is still signed.
        '--aptopt=Acquire::Check-Valid-Until "false"',
        # Not asked of the network but of dpkg: man pages are part of what is tested.
        '--dpkgopt=path-include=/usr/share/man/*',
        # The container must not carry the host's name servers, and gets an own machine id at each boot.
        '--customize-hook=: >"$1/etc/machine-id"; : >"$1/etc/resolv.conf"; echo container >"$1/etc/hostname"',
        # The host's apt, with mmdebstrap's configuration of the target: the archive of that release.
        '--customize-hook=mkdir -p "$1%s" && cd "$1%s" && '
        'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq download haproxy && mv haproxy_*.deb "$1%s"'
        % (os.path.dirname(HAPROXY_DEB), os.path.dirname(HAPROXY_DEB), HAPROXY_DEB),
    ]
    command += ['--aptopt=' + line for line in _apt_proxies()]
    command += [release, target, mirror()]
    log = target + '.log'
    with open(log, 'w') as stream:
        status = subprocess.call(command, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT)
    with open(log, errors='replace') as stream:
        words = stream.read()
    os.unlink(log)
    if status != 0:
        shutil.rmtree(target, ignore_errors=True)
        raise ContainerError('cannot make the root file system of %s: mmdebstrap ended with %d\n%s' % (
            release, status, words))


def mirror():
    """The address of the Debian archive that apt is configured to take packages from."""
    out = subprocess.check_output(
        ['apt-get', 'indextargets', '--format', '$(CODENAME) $(RELEASE) $(ORIGIN) $(REPO_URI)', 'Identifier: Packages'])
    own = host_release()
    entries = [line.split(' ') for line in out.decode().splitlines()]
    # The archive that the host's own release comes from; a security or third-party archive has other
    # names for its suites.
    for entry in entries:
        if own is not None and own in entry[:2]:
            return entry[-1]
    for entry in entries:
        if entry[2] == 'Debian' and '-' not in entry[0]:
            return entry[-1]
    raise ContainerError('apt is configured for no Debian archive (apt-get indextargets names none)')


def _apt_proxies():
    """The proxies of the host's apt, in apt's own syntax: mmdebstrap starts from an empty configuration."""
    out = subprocess.check_output(
        ['apt-config', 'dump', '--no-empty', '--format', '%f "%v";%n', 'Acquire::http', 'Acquire::https'])
    return [line.rstrip(';') for line in out.decode().splitlines() if 'proxy' in line.lower()]


def _die_with_parent():
    # PR_SET_PDEATHSIG: a test run that is killed takes its containers with it. Killing nspawn alone
    # leaves the container's init running (seen with 252); it is in a PID namespace that ends with unshare.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def _init_below(unshare):
    """The PID, as the host counts, of the init of the container below the given unshare."""
    parents = {}
    for name in os.listdir('/proc'):
        if name.isdigit():
            try:
                with open('/proc/%s/status' % name) as stream:
                    fields = dict(line.split(':', 1) for line in stream if ':' in line)
            except (OSError, ValueError):
                continue
            # unshare's PID namespace, and the container's in it: three numbers, the last is 1.
            numbers = fields.get('NSpid', '').split()
            parents[int(name)] = (int(fields['PPid']), len(numbers) >= 3 and numbers[-1] == '1')
    for pid, (parent, is_init) in parents.items():
        while is_init and parent in parents:
            if parent == unshare:
                return pid
            parent = parents[parent][0]
    return None


def sweep():
    """Removes what containers left behind whose run was killed: an empty directory, empty cgroups."""
    for name in os.listdir(tempfile.gettempdir()):
        path = os.path.join(tempfile.gettempdir(), name)
        if not (name.startswith(PREFIX) and name.endswith('.console')):
            continue
        try:
            with open(path) as stream:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove_cgroups(_group_name(path[:-len('.console')]))
                if os.path.isdir(path[:-len('.console')]):
                    os.rmdir(path[:-len('.console')])
                os.unlink(path)
        except OSError:
            # Someone's container is alive, or the last of its processes is just going.
            continue


def _group_name(work):
    # Also the machine name of nspawn: letters, digits and hyphens.
    return os.path.basename(work).replace('.', '-').replace('_', '-').strip('-').lower()


def _remove_cgroups(group):
    # On a pure v1 host the v2 tree is mounted nowhere: in a mount namespace of its own, for a moment.
    subprocess.call(
        ['unshare', '--mount', '--propagation', 'private', 'sh', '-c',
         '[ -e /sys/fs/cgroup/cgroup.subtree_control ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup\n'
         '[ ! -d "/sys/fs/cgroup/$1" ] || find "/sys/fs/cgroup/$1" -depth -type d -exec rmdir {} +',
         'tidy', group])


class Container:
    """A booted container; `with` ends it.

    release     code name
    limit       seconds after which everything in it is killed, whatever happens
    say         called with a line of progress (str)
    """

    def __init__(self, release, limit=LIMIT_SECONDS, say=None):
        self.release = release
        self.leader = None
        self._say = say or progress
        self._limit = limit
        self._expired = False
        self._nspawn = None
        self._timer = None
        self._work = None
        self._console_stream = None

    def __enter__(self):
        try:
            self._boot()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, kind, value, trace):
        self.close()
        if self._expired and kind is None:
            raise ContainerError('the container outlived its limit of %d s and was killed' % self._limit)

    # -- life ------------------------------------------------------------

    def _boot(self):
        lower = root_of(self.release, self._say)
        sweep()
        self._work = tempfile.mkdtemp(prefix=PREFIX)
        name = _group_name(self._work)
        # Locked as long as this run lives, and by nobody else: sweep() tells from it what is left over. Locked
        # before it has the name that the sweep() of another run looks for.
        self._console_stream = open(self._work + '.new', 'ab')
        fcntl.flock(self._console_stream, fcntl.LOCK_EX)
        os.rename(self._work + '.new', self._console_path())
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            notify.bind('')
            environment = dict(os.environ)
            environment['NOTIFY_SOCKET'] = '@' + os.fsdecode(notify.getsockname())[1:]
            environment['SYSTEMD_NSPAWN_UNIFIED_HIERARCHY'] = '1'
            with open(self._console_path(), 'wb') as console:
                self._nspawn = subprocess.Popen(
                    ['unshare', '--mount', '--propagation', 'private', '--pid', '--fork', '--mount-proc',
                     '--kill-child', 'sh', '-c', BOOT, 'boot', lower, self._work, name,
                     '--quiet', '--boot', '--register=no', '--keep-unit', '--private-network',
                     '--notify-ready=yes', '--machine=' + name],
                    env=environment, stdin=subprocess.DEVNULL, stdout=console, stderr=console,
                    preexec_fn=_die_with_parent)
            self._timer = threading.Timer(self._limit, self._expire)
            self._timer.daemon = True
            self._timer.start()
            self._await_ready(notify)
        finally:
            notify.close()
        # READY=1 is sent once the boot's jobs are done; a unit that failed leaves 'degraded'.
        state = self.run('systemctl is-system-running', check=False).out.strip()
        if state not in ('running', 'degraded'):
            raise ContainerError('the container booted into the state %r' % state)

    def _await_ready(self, notify):
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            # A second at a time, to see an nspawn that died at once; the message itself is the event.
            notify.settimeout(min(1, max(0.01, deadline - time.monotonic())))
            try:
                words = notify.recv(4096).decode(errors='replace').splitlines()
            except socket.timeout:
                if self._nspawn.poll() is not None:
                    raise ContainerError('nspawn ended with %d before the container was up\n%s' % (
                        self._nspawn.returncode, self._console()))
                if time.monotonic() >= deadline:
                    raise ContainerError('the container did not come up in %d s\n%s' % (
                        BOOT_SECONDS, self._console()))
                continue
            if 'READY=1' in words:
                self.leader = _init_below(self._nspawn.pid)
                return

    def _console_path(self):
        return self._work + '.console'

    def _console(self):
        try:
            with open(self._console_path(), errors='replace') as stream:
                return stream.read()[-4000:]
        except OSError:
            return ''

    def _expire(self):
        self._expired = True
        self._kill_all()

    def _kill_all(self):
        if self._nspawn is not None and self._nspawn.poll() is None:
            # unshare's --kill-child takes the PID namespace along with it.
            self._nspawn.kill()

    def close(self):
        """Powers off as an administrator would (SIGRTMIN+4 to init), and kills what takes too long."""
        if self._nspawn is not None and self._nspawn.poll() is None and self.leader is not None:
            os.kill(self.leader, signal.SIGRTMIN + 4)
            try:
                self._nspawn.wait(30)
            except subprocess.TimeoutExpired:
                self._say('the container did not power off in 30 s and is killed')
        self.kill()

    def kill(self):
        """Ends everything at once and removes what was made for this container."""
        self._kill_all()
        if self._timer is not None:
            self._timer.cancel()
        if self._nspawn is not None:
            self._nspawn.wait()
        if self._work is not None:
            _remove_cgroups(_group_name(self._work))
            # The file system itself was a tmpfs in nspawn's mount namespace; here it is an empty directory.
            os.rmdir(self._work)
            os.unlink(self._console_path())
            self._console_stream.close()
            self._work = None

    # -- commands and files ------------------------------------------------

    def command(self, argv, timeout=None):
        """The host's command line (list) that runs argv (list) in the container."""
        if self.leader is None:
            raise ContainerError('the container is not up')
        line = ['nsenter', '-t', str(self.leader), '-a', '--', 'env', '-i']
        line += ['%s=%s' % item for item in sorted(ENVIRONMENT.items())]
        if timeout is not None:
            # nsenter forks into the PID namespace, so killing it would leave the command alone there.
            line += ['timeout', '--kill-after=2', str(timeout)]
        return line + list(argv)

    def run(self, command, check=True, timeout=60, stdin=None, env=None):
        """Runs a command (list; or str, by sh) as root and gives a Result.

        check: another status than 0 raises CommandFailed. timeout in seconds, then status 124.
        stdin: str or bytes. env: dict of more variables.
        """
        argv = ['sh', '-c', command] if isinstance(command, str) else list(command)
        if env:
            argv = ['env'] + ['%s=%s' % item for item in sorted(env.items())] + argv
        if isinstance(stdin, str):
            stdin = stdin.encode('utf-8', 'surrogateescape')
        process = subprocess.Popen(
            self.command(argv, timeout), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        try:
            # Longer than the limit inside: this one is for a container that does not answer at all.
            out, err = process.communicate(stdin, timeout + 15)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            raise ContainerError('%r did not end in %d s' % (command, timeout + 15))
        result = Result(process.returncode, out.decode('utf-8', 'replace'), err.decode('utf-8', 'replace'))
        if check and result.status != 0:
            raise CommandFailed(command, result)
        return result

    def out(self, command, **options):
        """The standard output of a command that succeeds, without white space around it."""
        return self.run(command, **options).out.strip()

    def popen(self, argv, **options):
        """A subprocess.Popen of argv (list) in the container; the caller ends it."""
        return subprocess.Popen(self.command(argv), **options)

    def put(self, path, content, mode=0o644):
        """Writes a file (str or bytes), replaced by rename as an editor does it."""
        self.run(['sh', '-c', 'mkdir -p "$(dirname "$1")" && cat >"$1.put" && chmod "$2" "$1.put" && mv "$1.put" "$1"',
                  'put', path, '%o' % mode], stdin=content)

    def put_file(self, source, path, mode=0o644):
        """Copies a file of the host into the container."""
        with open(source, 'rb') as stream:
            self.put(path, stream.read(), mode)

    def get(self, path):
        """The content of a file of the container (str)."""
        return self.run(['cat', path]).out

    def exists(self, path):
        return self.run(['test', '-e', path], check=False).status == 0

    def until(self, command, seconds=30, why=''):
        """Repeats a command until it succeeds; an AssertionError after the deadline.

        For what no event tells the outside: the end of a linger, a socket file that goes. Never used to
        give something time.
        """
        loop = 'until { %s; } >/dev/null 2>&1; do sleep 0.05; done' % command
        if self.run(['bash', '-c', loop], check=False, timeout=seconds).status != 0:
            last = self.run(command, check=False)
            raise AssertionError('not within %d s: %s%s\n%s%s' % (
                seconds, why and why + ': ', command, last.out, last.err))

    def journal(self, *arguments):
        """Lines of the journal (str), the newest 300; arguments are journalctl's. Everything that was said so far
        is in it."""
        self.sync_journal()
        return self.run(['journalctl', '--no-pager', '--quiet', '-o', 'short-precise', '-n', '300'] + list(arguments),
                        check=False).out

    def sync_journal(self):
        """Waits until the journal has what was said so far: journald reads it some time after it was written,
        which may be after systemctl came back."""
        self.run(['journalctl', '--sync'], check=False)

    # -- what must not be left over ----------------------------------------

    def leftovers(self, seconds=10):
        """What multibinder and its instances left in this container: a list of sentences, empty when clean.

        To be asked after everything was stopped, or after a purge. systemd says that a unit has stopped before it
        has let go of all that was the unit's, its descriptor store for one: that has until `seconds` are over.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self._leftovers()
            if not found or time.monotonic() >= deadline:
                return found
            time.sleep(0.05)

    def _leftovers(self):
        found = []
        for line in self.run('ps -eo pid=,args= ww').out.splitlines():
            if ('multibinder' in line or 'haproxy' in line) and 'ps -eo' not in line:
                found.append('process ' + line.strip())
        for line in self.run('ss -Hltnp', check=False).out.splitlines():
            found.append('listening ' + ' '.join(line.split()))
        for line in self.run(
                'ls -d /run/multibinder* /run/haproxy-* /run/systemd/*/haproxy-multi* 2>/dev/null', check=False).out.split():
            if line == '/run/haproxy-master.sock':
                # haproxy.service's own; it leaves it behind when it is stopped.
                continue
            found.append('file ' + line)
        return found

    def unit_links(self):
        """Links to our units below /etc/systemd: what a purge must take away (list of paths)."""
        return self.run(
            "find /etc/systemd/system -name 'haproxy-multi@*' -o -name 'multibinder.service*'").out.split()


def main():
    """`python3 container.py RELEASE [COMMAND]`: a container to look around in."""
    release = sys.argv[1] if len(sys.argv) > 1 else host_release()
    if not release.isalpha():
        sys.exit('usage: container.py [RELEASE [COMMAND...]], such as: container.py trixie bash')
    reason = why_not()
    if reason:
        sys.exit('container: ' + reason)
    with Container(release) as machine:
        status = subprocess.call(machine.command(sys.argv[2:] or ['bash', '-l']))
    sys.exit(status)


if __name__ == '__main__':
    main()
