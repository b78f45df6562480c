"""key_isolation: private keys are in a process of their own, which only signs."""
import base64
import hashlib
import os
import re
import signal
import socket
import struct
import subprocess

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

from support import procs
from support.martlet import binary
from support.smtp import Client
from support.util import read, wait_for, write

pytestmark = [pytest.mark.plain, pytest.mark.root]

KINDS = {'rsa': ['-newkey', 'rsa:2048'], 'ec': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'], 'ed': ['-newkey', 'ed25519'],
         'p384': ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp384r1']}
MESSAGE = b'From: u@a.ex\r\nTo: v@b.ex\r\nSubject: test\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\nHello world\r\n.\r\n'


def certificate(directory, name, kind, cn='mx.martlet.test'):
    """Files NAME.pem, and NAME.key, which only root may read."""
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o755)
    pem, key = f'{directory}/{name}.pem', f'{directory}/{name}.key'
    subprocess.run(['openssl', 'req', '-x509', '-nodes', '-days', '30', '-subj', f'/CN={cn}', *KINDS[kind], '-keyout', key + '.new', '-out', pem + '.new'],
                   check=True, capture_output=True)
    os.chmod(key + '.new', 0o600)
    os.chmod(pem + '.new', 0o644)
    os.rename(key + '.new', key)
    os.rename(pem + '.new', pem)
    return pem, key


def lists(*pairs):
    return [' : '.join(p[i] for p in pairs) for i in (0, 1)]


def isolated(m):
    """The process that has the keys."""
    return [p for p in m.processes() if '\0--keys\0' in read(f'/proc/{p}/cmdline')]


def workers(m):
    return [p for p in m.processes() if read(f'/proc/{p}/comm').startswith('martlet: worker')]


def has(pid, needles):
    """Does the memory of the process hold one of these?"""
    with open(f'/proc/{pid}/maps') as maps, open(f'/proc/{pid}/mem', 'rb') as memory:
        for line in maps:
            start, end = (int(x, 16) for x in line.split()[0].split('-'))
            if 'r' not in line.split()[1] or line.rstrip().endswith(('[vvar]', '[vsyscall]')) or end - start > 1 << 30:
                continue
            try:
                memory.seek(start)
                data = memory.read(end - start)
            except (OSError, OverflowError, ValueError):
                continue
            if any(n in data for n in needles):
                return True
    return False


def secrets(path):
    """The private part as numbers lie in memory, either end first."""
    with open(path, 'rb') as f:
        key = serialization.load_pem_private_key(f.read(), None)
    numbers = key.private_numbers()
    values = [numbers.d, numbers.p, numbers.q] if hasattr(numbers, 'p') else [numbers.private_value]
    raw = [v.to_bytes((v.bit_length() + 7) // 8, 'big') for v in values]
    with open(path, 'rb') as f:
        lines = f.read().splitlines()
    return raw + [r[::-1] for r in raw] + lines[1:2]


def handshake(m, *options, name='mx.martlet.test', ok=True):
    done = subprocess.run(['openssl', 's_client', '-connect', f'127.0.0.1:{m.port}', '-starttls', 'smtp', '-servername', name, *options],
                          input=b'QUIT\r\n', capture_output=True, timeout=90)
    text = done.stdout.decode('latin-1') + done.stderr.decode('latin-1')
    good = bool(re.search(r'Cipher is (?!\(NONE\))', text))
    assert good == ok, text + m.logs()
    return text


def peer_key(m, *options):
    return re.search(r'Peer signature type: (\S+)|Server Temp Key', handshake(m, *options))[1]


@pytest.mark.parametrize('version', ['-tls1_2', '-tls1_3'])
def test_every_kind_of_key(martlet, scratch, version):
    pairs = [certificate(scratch + '/keys', k, k) for k in ('rsa', 'ec', 'ed')]
    m = martlet(privileged=True, main='key_isolation = true\n', tls=lists(*pairs))
    for signature, wanted in (('rsa_pss_rsae_sha256', 'RSA-PSS'), ('rsa_pss_rsae_sha512', 'RSA-PSS'), ('ecdsa_secp256r1_sha256', 'ECDSA'), ('ed25519', 'ed25519')):
        assert peer_key(m, version, '-sigalgs', signature) == wanted
    if version == '-tls1_2':
        assert peer_key(m, version, '-sigalgs', 'RSA+SHA256') == 'RSA'
        # The key cannot decrypt: such a key exchange is not on offer.
        handshake(m, version, '-cipher', 'kRSA', ok=False)
        handshake(m, version, '-cipher', 'ECDHE-RSA-AES256-GCM-SHA384')


def test_names(martlet, scratch):
    """The files are chosen by SNI; what the configuration does not name is refused."""
    d = scratch + '/keys'
    pairs = {n: certificate(d, n, 'ec', n) for n in ('one.test', 'two.test', 'mx.martlet.test')}
    other = certificate(scratch + '/elsewhere', 'three.test', 'ec', 'three.test')
    names = '${if match_domain{$tls_in_sni}{one.test:two.test}{' + d + '/${if eq{$tls_in_sni}{one.test}{one}{two}}.test.%s}{' + d + '/mx.martlet.test.%s}}'
    table = write(scratch + '/table', f'three.test: {other[1]}\n')
    key = '${lookup{$tls_in_sni}lsearch{' + table + '}{$value}{' + names % ('key', 'key') + '}}'
    cert = '${if eq{$tls_in_sni}{three.test}{' + other[0] + '}{' + names % ('pem', 'pem') + '}}'
    main = 'key_isolation = true\n'
    m = martlet(privileged=True, main=main, tls=(cert, key), allow_panic='not among the files that the configuration names')
    for name in pairs:
        assert f'subject=CN = {name}' in handshake(m, name=name)
    handshake(m, name='three.test', ok=False)
    wait_for(lambda: re.search(re.escape(f'(private key file={other[1]}): not among the files that the configuration names'), m.log()), m.logs)
    m.stop()
    more = martlet(privileged=True, tls=(cert, key), main=main + f'key_isolation_files = /nonexistent/x : {scratch}/elsewhere/\n')
    assert 'subject=CN = three.test' in handshake(more, name='three.test')


@pytest.mark.parametrize('kind', ['rsa', 'ec'])
def test_memory(martlet, scratch, kind):
    """Without it the key is in each worker's memory that has shaken hands; with it in the keys process's only."""
    pair = certificate(scratch + '/keys', 'mx', kind)
    os.chmod(pair[1], 0o644)
    main = 'worker_processes = 1\n'
    needles = secrets(pair[1])
    for on in (False, True):
        m = martlet(privileged=True, tls=pair, main=main + ('key_isolation = true\n' if on else ''))
        for version in ('-tls1_2', '-tls1_3'):
            handshake(m, version)
        worker, = workers(m)
        assert has(worker, needles) == (not on)
        assert not has(m.master, needles)
        if on:
            one, = isolated(m)
            assert has(one, needles)
            assert f'key_isolation: the private key {pair[1]} can be read by workers, too' in m.log()
        m.stop()


def test_the_process_alone(martlet, scratch):
    """Nobody, with the one right to read; nobody of the same user can look into it; nothing but its sockets is open."""
    m = martlet(privileged=True, main='key_isolation = true\nworker_processes = 2\n', tls=certificate(scratch + '/keys', 'mx', 'ec'))
    handshake(m)
    one, = isolated(m)
    status = read(f'/proc/{one}/status')
    assert re.search(r'^Uid:\t65534\t65534\t65534\t65534$', status, re.M), status
    effective = int(re.search(r'^CapEff:\t(\w+)$', status, re.M)[1], 16)
    assert effective in (1 << 2, 1 << 1) and re.search(r'^NoNewPrivs:\t1$', status, re.M), status
    assert re.search(r'^Seccomp:\t2$', status, re.M)
    files = {os.readlink(f'/proc/{one}/fd/{fd}') for fd in os.listdir(f'/proc/{one}/fd') if fd not in '12'}
    assert files and all(f.startswith('socket:') for f in files), files
    assert os.stat(f'/proc/{one}/mem').st_uid == 0, 'the process can be dumped'
    assert [read(f'/proc/{w}/status').split('Uid:\t')[1].split()[0] for w in workers(m)] == [str(m.uid)] * 2


def test_its_death(martlet, scratch):
    """There is soon another one, for all workers; whoever shakes hands meanwhile waits for it."""
    m = martlet(privileged=True, main='key_isolation = true\nworker_processes = 2\n', tls=certificate(scratch + '/keys', 'mx', 'rsa'),
                allow_panic='the keys process ended by signal')
    handshake(m)
    for sig in (signal.SIGKILL, signal.SIGABRT): # a sanitizer would take SIGSEGV for its own
        one, = isolated(m)
        os.kill(one, sig)
        for _ in range(6):
            handshake(m)
        wait_for(lambda: not procs.alive(one) and isolated(m) and isolated(m) != [one], m.logs)
    assert 'the keys process ended by signal 9; starting another' in m.log('panic')
    one, = isolated(m)
    os.kill(one, signal.SIGSTOP)
    os.kill(one, signal.SIGKILL)
    wait_for(lambda: not procs.alive(one), 'it to end')


def test_a_handshake_without_it(martlet, scratch):
    """It hangs: the handshake fails after a time, with the reason in the log; the worker goes on."""
    m = martlet(privileged=True, main='key_isolation = true\nworker_processes = 1\n', tls=certificate(scratch + '/keys', 'mx', 'ec'))
    handshake(m)
    one, = isolated(m)
    os.kill(one, signal.SIGSTOP)
    try:
        other = subprocess.Popen(['openssl', 's_client', '-connect', f'127.0.0.1:{m.port}', '-starttls', 'smtp'], stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with Client(m.port) as c: # nobody else waits for it
            c.ehlo()
            c.expect(250, 'NOOP')
        wait_for(lambda: re.search(r'TLS error on connection from .*\(SSL_accept\): the keys process does not answer', m.log()), m.logs)
        other.wait(60)
    finally:
        os.kill(one, signal.SIGCONT)
    handshake(m)


def test_changed_files_and_reload(martlet, scratch):
    pair = certificate(scratch + '/keys', 'mx', 'ec', 'first.test')
    m = martlet(privileged=True, main='key_isolation = true\n', tls=pair)
    assert 'CN = first.test' in handshake(m)
    assert 'can be read by workers' not in m.log()
    certificate(scratch + '/keys', 'mx', 'rsa', 'second.test')
    wait_for(lambda: 'CN = second.test' in handshake(m), m.logs)
    before = isolated(m)
    m.reload()
    wait_for(lambda: 're-read the configuration' in m.log() and len(isolated(m)) == 1 and isolated(m) != before, m.logs)
    assert 'CN = second.test' in handshake(m)


@pytest.mark.parametrize('kind', ['rsa', 'ec'])
def test_client_certificate(martlet, scratch, authority, kind):
    """What the smtp transport presents is proved by the keys process, too."""
    pair = certificate(scratch + '/keys', 'client', kind, 'client.test')
    server = martlet(privileged=True, relay_to='*', arguments=['-odq'], tls=authority.issue('mx.martlet.test'),
                     main=f'tls_verify_certificates = {pair[0]}\ntls_verify_hosts = *\nlog_selector = +tls_certificate_verified +tls_peerdn\n')
    m = martlet(privileged=True, smarthost=f'127.0.0.1::{server.port}', relay_from='127.0.0.1', relay_to='*', arguments=[], main='key_isolation = true\n',
                client=f'tls_certificate = {pair[0]}\n  tls_privatekey = {pair[1]}\n  hosts_require_tls = *')
    with Client(m.port) as c:
        c.mail('u@a.ex', 'u0@other.test', data=MESSAGE)
    wait_for(lambda: 'CV=yes DN="/CN=client.test"' in server.log(), lambda: m.logs() + server.logs())


@pytest.mark.parametrize('options, error', [
    ('tls_certificate = /a.pem\n', 'key_isolation needs tls_privatekey: the file of tls_certificate is read by workers')])
def test_refused_main(martlet, options, error):
    m = martlet(main='key_isolation = true\n' + options, daemon=False)
    assert error in m.run('-bV', check=False).stdout


def test_refused_transport(martlet, scratch):
    key = read(certificate(scratch + '/keys', 'd', 'rsa')[1]).replace('\n', r'\n')
    m = martlet(main='key_isolation = true\n', client=f'dkim_domain = a.ex\n  dkim_selector = s\n  dkim_private_key = "{key}"\n', daemon=False)
    assert 'dkim_private_key of transport remote_smtp: with key_isolation a private key must be in a file' in m.run('-bV', check=False).stdout


def dkim_keys(directory):
    """name: text of p=; the files are root's."""
    os.makedirs(directory, exist_ok=True)
    os.chmod(directory, 0o755)
    made = {}
    for name, options in {'rsa': ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], 'ed': ['-algorithm', 'ed25519']}.items():
        path = f'{directory}/{name}'
        subprocess.run(['openssl', 'genpkey', '-out', path, *options], check=True, capture_output=True)
        os.chmod(path, 0o600)
        public = subprocess.run(['openssl', 'pkey', '-in', path, '-pubout', '-outform', 'DER'], check=True, capture_output=True).stdout
        made[name] = base64.b64encode(public[-32:] if name == 'ed' else public).decode()
    return made


def verified(keys, data):
    dkim = pytest.importorskip('dkim')
    table = {f'{name}._domainkey.a.ex.': f'v=DKIM1; k={"ed25519" if name == "ed" else "rsa"}; p={p}'.encode() for name, p in keys.items()}
    d, got = dkim.DKIM(data), []
    for n in range(len(re.findall(rb'(?im)^DKIM-Signature:', data))):
        try:
            got.append(d.verify(idx=n, dnsfunc=lambda name, timeout=5: table.get(name.decode() if isinstance(name, bytes) else name)))
        except dkim.ValidationError:
            got.append(False)
    return got


def relay(m):
    with Client(m.port) as c:
        c.ehlo()
        for line, code in [('MAIL FROM:<u@a.ex>', 250), ('RCPT TO:<v@relay.test>', 250), ('DATA', 354)]:
            c.expect(code, line)
        c.send(MESSAGE)
        assert c.reply()[0] == 250


@pytest.mark.parametrize('command', [False, True])
def test_dkim(martlet, smtp_server, scratch, command):
    """Signed by a worker's delivery, and by one of a command of root's, which has a keys process of its own."""
    keys, sink = dkim_keys(scratch + '/dkim'), smtp_server()
    client = f'dkim_domain = a.ex\n  dkim_selector = rsa : ed\n  dkim_private_key = {scratch}/dkim/$dkim_selector\n  dkim_strict = true\n' \
             f'  arc_sign = a.ex : rsa : {scratch}/dkim/rsa'
    m = martlet(privileged=True, smarthost=f'127.0.0.1::{sink.port}', relay_from='127.0.0.1', client=client, arguments=['-odq'] if command else [],
                main='key_isolation = true\nlog_selector = +dkim_verbose\nworker_processes = 1\n')
    relay(m)
    if command:
        m.run('-qff')
    wait_for(lambda: sink.messages, m.logs)
    data = sink.messages[0]['data']
    assert verified(keys, data) == [True, True], data
    worker, = workers(m)
    assert not has(worker, secrets(scratch + '/dkim/rsa'))
    wait_for(lambda: 'DKIM=a.ex:rsa:a.ex:ed C=' in m.log(), m.logs)


@pytest.mark.parametrize('key, line', [
    ('${lookup{rsa}lsearch{@DIR@/table}}', 'with key_isolation a private key must be in a file'),
    ('${lookup{away}lsearch{@DIR@/table}}', r'private key /etc/shadow: not among the files that the configuration names'),
    ('@DIR@/none', r'private key \S+/none: No such file or directory'),
    ('@DIR@/users', r'private key \S+/users: no private key, or one with a passphrase')])
def test_dkim_refused(martlet, smtp_server, scratch, key, line):
    sink = smtp_server()
    m = martlet(privileged=True, smarthost=f'127.0.0.1::{sink.port}', relay_from='127.0.0.1', arguments=[], main='key_isolation = true\n',
                client=f'dkim_domain = a.ex\n  dkim_selector = rsa\n  dkim_private_key = {key}\n', allow_panic='private key')
    write(m.directory + '/table', 'rsa: MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\naway: /etc/shadow\n')
    relay(m)
    wait_for(lambda: sink.messages, m.logs)
    assert b'DKIM-Signature' not in sink.messages[0]['data'] and re.search(line, m.log()), m.logs()


class Asker:
    """What a worker that was taken over could say: the keys process, spoken to by hand."""
    HEAD = struct.Struct('=IHHHHHh32s')
    LOAD, SIGN = 1, 2

    def __init__(self, files=(), prefixes=()):
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen([binary(), '--keys'], stdin=theirs, env={})
        theirs.close()
        for letter, names in (b'F', files), (b'P', prefixes):
            for name in names:
                self.control.send(letter + name.encode())
        self.control.send(b'B')

    def channel(self):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(self.control, [b'C'], [theirs.fileno()])
        theirs.close()
        ours.settimeout(60)
        return ours

    def ask(self, channel, op, file, digest=0, padding=0, salt=-1, ident=b'', data=b''):
        """(it worked, what came)"""
        channel.send(self.HEAD.pack(7, op, digest, padding, len(file), len(data), salt, ident) + file.encode() + data)
        reply = channel.recv(1 << 16)
        number, failed = struct.unpack_from('=II', reply)
        assert number == 7
        return not failed, reply[8:]

    def end(self):
        self.control.close()
        self.process.wait(60)


@pytest.fixture
def asker():
    running = []

    def start(*args, **kw):
        running.append(Asker(*args, **kw))
        return running[-1]
    yield start
    for a in running:
        a.end()


def test_protocol(asker, scratch):
    key = certificate(scratch + '/keys', 'a', 'rsa')[1]
    other = certificate(scratch + '/others', 'b', 'ec')[1]
    a = asker(files=[key], prefixes=['/', '/e', scratch + '/none/../'])
    c = a.channel()
    ok, public = a.ask(c, a.LOAD, key)
    assert ok
    public_key = serialization.load_der_public_key(public)
    ident, digest = hashlib.sha256(public).digest(), hashlib.sha256(b'text').digest()
    ok, signature = a.ask(c, a.SIGN, key, digest=3, padding=1, ident=ident, data=digest)
    assert ok
    public_key.verify(signature, b'text', padding.PKCS1v15(), hashes.SHA256())
    # No other files, no names that came late, no signatures of anything but digests.
    a.control.send(b'F' + other.encode())
    for name in (other, '/etc/shadow', scratch + '/keys/../others/b.key', scratch + '/none/../others/b.key', key + '/', key[1:]):
        assert a.ask(c, a.LOAD, name) == (False, b'not among the files that the configuration names'), name
    for wrong in (dict(digest=0, padding=1), dict(digest=3, padding=0), dict(digest=4, padding=1), dict(digest=3, padding=2, salt=30000)):
        assert a.ask(c, a.SIGN, key, ident=ident, data=digest, **wrong) == (False, b'no such signature can be made with this key'), wrong
    assert a.ask(c, a.SIGN, key, digest=3, padding=1, ident=b'x' * 32, data=digest) == (False, b'the file has another key now')
    # Nonsense ends this channel, and no other.
    d = a.channel()
    for nonsense in (b'x', a.HEAD.pack(1, 9, 0, 0, 1, 0, 0, b'') + b'/', a.HEAD.pack(1, 1, 0, 0, 65535, 65535, 0, b''), b'x' * 60000):
        e = a.channel()
        e.send(nonsense)
        assert e.recv(100) == b''
    assert a.ask(d, a.LOAD, key) == (True, public)


def test_protocol_end(asker, scratch):
    """It goes on for those who have channels, and ends with the last."""
    key = certificate(scratch + '/keys', 'a', 'ed')[1]
    a = asker(prefixes=[scratch + '/keys/'])
    c = a.channel()
    assert a.ask(c, a.LOAD, key)[0]
    a.control.close()
    ok, public = a.ask(c, a.LOAD, key)
    assert ok and a.process.poll() is None
    ok, signature = a.ask(c, a.SIGN, key, ident=hashlib.sha256(public).digest(), data=b'any text')
    serialization.load_der_public_key(public).verify(signature, b'any text')
    c.close()
    assert a.process.wait(60) == 0
