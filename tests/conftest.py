"""Fixtures for all tests that need servers. Binary: $MARTLET_BINARY (build/martlet); partners: $MARTLET_PEERS."""
import os
import shutil
import subprocess
import sys
import tempfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(HERE)
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

from support import certs, dns, place, procs, scanners, smtp  # noqa: E402
from support.exim import Exim                               # noqa: E402
from support.martlet import Martlet                         # noqa: E402
from support.opensmtpd import OpenSmtpd                     # noqa: E402
from support.postfix import Postfix, Sink                   # noqa: E402
from support.talk import Conversation                       # noqa: E402
from support.util import free_loopback                      # noqa: E402


def pytest_configure(config):
    config.addinivalue_line('markers', 'peers: partners among themselves, without Martlet')
    config.addinivalue_line('markers', 'plain: also run with the ordinary build')
    config.addinivalue_line('markers', 'root: needs root (mount namespaces)')


def known_defects():
    """tests/known-defects.txt: what the product is known to do wrong; expected to fail until it is mended."""
    with open(os.path.join(HERE, 'known-defects.txt')) as f:
        lines = [line.strip().split(None, 1) for line in f if line.strip() and not line.startswith('#')]
    return {test: reason for test, reason in lines}


def pytest_collection_modifyitems(items):
    known = {} if os.environ.get('MARTLET_REFERENCE') else known_defects()
    for item in items:
        if item.name in known:
            item.add_marker(pytest.mark.xfail(reason=known[item.name], strict=False))
    if place.available():
        return
    skip = pytest.mark.skip(reason='needs root')
    for item in items:
        if item.get_closest_marker('root') or {'peers', 'exim', 'postfix', 'postfix_peer', 'opensmtpd'} & set(item.fixturenames):
            item.add_marker(skip)


@pytest.fixture
def scratch(request):
    """A directory that other users may enter, too; kept when the test failed and MARTLET_TEST_KEEP is set."""
    path = tempfile.mkdtemp(prefix='martlet-test-')
    os.chmod(path, 0o755)
    yield path
    if not os.environ.get('MARTLET_TEST_KEEP'):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def stub(scratch):
    """stub(answer, unix): a server of the test's own (support/scanners.py) on a port or a UNIX socket, stopped at the end."""
    running = []

    def start(answer, unix=False):
        running.append(scanners.Stub(answer, os.path.join(scratch, f's{len(running)}') if unix else None))
        return running[-1]
    yield start
    for s in running:
        s.stop()


@pytest.fixture(scope='session')
def peers():
    path = os.path.abspath(os.environ.get('MARTLET_PEERS') or os.path.join(TOP, 'build', 'peers'))
    subprocess.run([os.path.join(TOP, 'scripts', 'peers.sh'), path], check=True)
    return path


@pytest.fixture(scope='session')
def authority():
    with tempfile.TemporaryDirectory(prefix='martlet-ca-') as d:
        yield certs.Authority(d)


@pytest.fixture
def make(scratch):
    """make(kind, ...): starts a server and stops it when the test ends, the last one first."""
    running = []

    def start(kind, *args, **kw):
        server = kind(os.path.join(scratch, f'{kind.__name__.lower()}{len(running)}'), *args, **kw)
        running.append(server)
        server.start()
        return server
    yield start
    for server in reversed(running):
        server.stop()


@pytest.fixture
def exim(make, peers):
    return lambda **kw: make(Exim, peers, **kw)


@pytest.fixture
def postfix(make, peers):
    return lambda **kw: make(Postfix, peers, **kw)


@pytest.fixture
def opensmtpd(make, peers):
    return lambda **kw: make(OpenSmtpd, peers, **kw)


@pytest.fixture
def sink(peers):
    running = []

    def start(*options):
        running.append(Sink(peers, *options))
        return running[-1]
    yield start
    for s in running:
        s.stop()


@pytest.fixture
def smtp_server():
    """smtp_server(script, ...): a scripted partner (support.smtp.Server)."""
    running = []

    def start(*args, **kw):
        running.append(smtp.Server(*args, **kw))
        return running[-1]
    yield start
    for s in running:
        s.stop()


@pytest.fixture
def nameserver():
    """A name server on port 53 of a loopback address of its own (needs root), for a resolv.conf."""
    for attempt in range(5):
        try:
            server = dns.Nameserver(free_loopback(), 53)
            break
        except OSError:
            if attempt == 4:
                raise
    yield server
    server.stop()


@pytest.fixture
def martlet(make):
    """martlet(**keywords): a running Martlet (support.martlet.Martlet)."""
    return lambda **kw: make(Martlet, **kw)


@pytest.fixture
def talk():
    """talk(martlet): a conversation with its -be."""
    running = []

    def start(m):
        running.append(Conversation(m))
        return running[-1]
    yield start
    for c in running:
        c.end()


@pytest.fixture
def steady(martlet):
    """A Martlet whose processes must be the same ones, and which must still take mail, when the test is over."""
    started = []

    def start(**kw):
        m = martlet(**kw)
        started.append((m, m.alive()))
        return m
    yield start
    for m, before in started:
        with smtp.Client(m.port) as c:
            assert c.mail('last@b.test', 'u9@local.test', data='Subject: still there\r\n\r\nx\r\n')[0] == 250
        m.wait_mail('u9')
        gone = [p for p in before if not procs.alive(p)]
        assert not gone, f'{len(gone)} processes ended: {m.logs()}'
