"""Early pipelining over a line on which every byte can be held, with Debian's Exim at the other end (F13), queuefile that is
killed between its two files (F11), a bounce of a host at port 25 (F08)."""
import os
import re
import selectors
import shutil
import signal
import socket
import threading

import pytest

from support import procs
from support.smtp import Client
from support.util import free_loopback, read, wait_for

TEXT = 'Subject: x\r\n\r\ntext\r\n'


class Line:
    """A line to a server. `talk` has, for each connection, the directions in which bytes went, in order ('c' from the client,
    's' from the server), and what they were. held: so many connections from now on reach the server only with what the client
    says first, a client that waits for the banner waits in vain; `spoken` is called when the server has it."""

    def __init__(self, port):
        self.port, self.talk, self.held, self.spoken = port, [], 0, lambda: None
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.address = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.carry, args=(client,), daemon=True).start()

    def carry(self, client):
        talk = []
        self.talk.append(talk)
        first = b''
        if self.held:
            self.held -= 1
            first = client.recv(65536)
            talk.append(('c', first))
        with client, socket.create_connection(('127.0.0.1', self.port)) as server, selectors.DefaultSelector() as s:
            if first:
                server.sendall(first)
                self.spoken()
            s.register(client, selectors.EVENT_READ, ('c', server))
            s.register(server, selectors.EVENT_READ, ('s', client))
            while True:
                for key, _ in s.select():
                    who, to = key.data
                    try:
                        data = key.fileobj.recv(65536)
                        if data:
                            to.sendall(data)
                    except OSError:
                        return
                    if not data:
                        return
                    talk.append((who, data))

    def turns(self, n):
        """How often the client had to wait for the server before it went on."""
        order = [who for who, _ in self.talk[n]]
        return sum(1 for a, b in zip(order, order[1:]) if (a, b) == ('s', 'c'))

    def stop(self):
        self.listener.close()


@pytest.fixture
def line():
    running = []

    def start(port):
        running.append(Line(port))
        return running[-1]
    yield start
    for x in running:
        x.stop()


def relay(martlet, port, client='hosts_pipe_connect = *', **kw):
    return martlet(daemon=False, relay_to='*', smarthost=f'127.0.0.1::{port}', main='log_selector = +pipelining', client=client, **kw)


def send(m, user):
    m.run('-odi', '-f', 's@b.test', f'{user}@exim.test', input=TEXT.replace('\r\n', '\n'))
    return wait_for(lambda: [x for x in m.log().split('\n') if f' => {user}@exim.test' in x], m.logs)[0]


@pytest.mark.peers
def test_exim_is_spoken_to_before_it_speaks(martlet, exim, line):
    e = exim(log='+pipelining', main='pipelining_connect_advertise_hosts = *')
    way = line(e.port)
    m = relay(martlet, way.address)
    assert ' L K ' in send(m, 'u1') or ' L ' in m.log(), m.log()
    way.held = 1
    assert ' L* ' in send(m, 'u2'), m.log()
    # EHLO and what follows it are there before the first byte of the server; fewer turns of the line.
    assert way.talk[0][0][0] == 's' and way.talk[1][0][0] == 'c'
    first = way.talk[1][0][1]
    assert re.match(rb'EHLO \S+\r\nMAIL FROM:<s@b\.test>.*\r\nRCPT TO:<u2@exim\.test>', first), first
    assert way.turns(1) < way.turns(0), (way.talk, m.log())
    # Exim notes it as used if the commands are there when it looks, which is not in our hands.
    assert len(re.findall(r'<= s@b\.test .* L[.*] ', e.log())) == 2, e.log()


@pytest.mark.peers
def test_exim_has_withdrawn_its_offer(martlet, exim, line):
    """It calls early input a synchronization error: the message goes over a second connection of the same attempt."""
    willing = exim(log='+pipelining', main='pipelining_connect_advertise_hosts = *')
    other = exim(log='+pipelining', main='pipelining_connect_advertise_hosts =')
    way = line(willing.port)
    m = relay(martlet, way.address)
    send(m, 'u1')
    way.port, way.held = other.port, 1
    # It finds the early commands when it looks: its daemon takes the connection only when they are there.
    daemon = next(p for p in other.place.processes() if '\0-bd\0' in read(f'/proc/{p}/cmdline'))
    way.spoken = lambda: os.kill(daemon, signal.SIGCONT)
    os.kill(daemon, signal.SIGSTOP)
    for user in ('u2', 'u3'):
        assert ' L* ' not in send(m, user), m.log()
    assert not re.search(r' (==|\*\*) ', m.log()) and m.queue() == [], m.log()
    # The second time it is not tried again.
    assert [t[0][0] for t in way.talk] == ['s', 'c', 's', 's'], way.talk
    wait_for(lambda: 'synchronization error' in other.log() + other.log('reject'), other.log)


def scanner(martlet):
    m = martlet(daemon=False, relay_to='*', allow_panic='.', routers='scan:\n  driver = accept\n  transport = scan\n',
                transports='scan:\n  driver = queuefile\n  directory = @DIR@/mail/scan\n')
    m._own('mail/scan')
    return m


def kill_tree(p):
    for pid in [*procs.tree(p.pid)]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    p.wait()


def queued(m):
    m.run('-odq', '-f', 's@b.test', 'u1@local.test', 'u2@local.test', input='Subject: x\n\n' + 'z' * 3000 + '\nthe end\n')
    return m.queue()[0]


def complete_pair(m, ident):
    directory = m.outside('mail/scan')
    assert sorted(os.listdir(directory)) == [ident + '-D', ident + '-H'], m.logs()
    assert read(os.path.join(directory, ident + '-D')).endswith('the end\n')
    assert read(os.path.join(directory, ident + '-H')).startswith(ident + '-H\n') and m.queue() == [], m.logs()


def test_queuefile_killed_between_its_files(martlet):
    """A FIFO where the second file is to be written stops it there."""
    m = scanner(martlet)
    ident, directory = queued(m), m.outside('mail/scan')
    fifo = os.path.join(directory, 'hdr.' + ident)
    os.mkfifo(fifo)
    shutil.chown(fifo, m.user)
    p = m.popen('-M', ident)
    wait_for(lambda: os.path.exists(os.path.join(directory, 'dat.' + ident)), m.logs)
    kill_tree(p)
    assert not [n for n in os.listdir(directory) if n.endswith('-H')] and m.queue() == [ident]
    os.unlink(fifo)
    m.run('-qff')
    complete_pair(m, ident)


@pytest.mark.parametrize('left', ['-D', '-H'])
def test_queuefile_killed_before_it_was_noted(martlet, left):
    """Killed with the body in place, or with both files in place and nothing noted in the spool."""
    m = scanner(martlet)
    ident, kept, directory = queued(m), m.outside('kept'), m.outside('mail/scan')
    shutil.copytree(m.outside('spool/input'), kept)
    m.run('-M', ident)
    complete_pair(m, ident)
    if left == '-D':
        os.unlink(os.path.join(directory, ident + '-H'))
    for name in ('-D', '-H'):
        path = os.path.join(m.outside('spool/input'), ident + name)
        shutil.copy(os.path.join(kept, ident + name), path)
        shutil.chown(path, m.user)
    assert m.queue() == [ident]
    m.run('-qff')
    complete_pair(m, ident)


def test_queuefile_keeps_all_that_the_spool_has(martlet):
    """ACL variables, DSN parameters, headers, who sent it; only the recipients that were routed there are named."""
    m = martlet(relay_to='*', acl_rcpt='  warn set acl_m_note = kept\n  warn set acl_c_other = too\n  accept', arguments=['-odq'],
                main='dsn_advertise_hosts = *\nqueue_only', routers='scan:\n  driver = accept\n  domains = local.test\n  transport = scan\n',
                transports='scan:\n  driver = queuefile\n  directory = @DIR@/mail/scan\n')
    directory = m._own('mail/scan')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> RET=HDRS ENVID=a+2Bb')
        c.expect(250, 'RCPT TO:<u1@local.test> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;y+2Bz@local.test')
        c.expect(250, 'RCPT TO:<x@relay.test>')
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\nX-Own: kept\r\n\r\nx\r\n')[0] == 250
    ident = re.search(r'(\S+) <= a@b', m.log())[1]
    before = wait_for(lambda: (shown := m.run('-Mvh', ident, check=False)).returncode == 0 and shown.stdout, m.logs) # its files come a little later
    m.run('-M', ident, check=False)
    after = wait_for(lambda: read(os.path.join(directory, ident + '-H')), m.logs)
    for line in ('-dsn_envid a+2Bb', '-dsn_ret 2', '-aclm _note 4\nkept', '-aclc _other 3\ntoo', 'X-Own: kept', 'rfc822;y+2Bz@local.test'):
        assert line in before and line in after, after
    lines, own = after.split('\n'), before.split('\n')
    number = own.index('2')
    assert set(lines) - set(own) <= {'1'} and 'x@relay.test' in before and 'x@relay.test' not in after, (number, before, after)


def test_queuefile_does_not_touch_another_s_pair(martlet):
    m = scanner(martlet)
    ident, directory = queued(m), m.outside('mail/scan')
    for name in ('-D', '-H'):
        with open(os.path.join(directory, ident + name), 'w') as f:
            f.write(f'{ident}{name}\nnot ours\n')
    m.run('-M', ident)
    assert m.queue() == [ident] and re.search(r'== u1@local\.test .*File exists', m.log()), m.logs()
    assert read(os.path.join(directory, ident + '-H')) == f'{ident}-H\nnot ours\n'


@pytest.mark.root
@pytest.mark.parametrize('port', [25, 0])
def test_the_port_in_a_bounce(martlet, smtp_server, port):
    """Remote-MTA: X-ip; names the port unless it is 25."""
    hop = smtp_server({'RCPT': '550 5.1.1 not here'}, address=free_loopback(), port=port)
    m = martlet(daemon=False, relay_to='*', smarthost=hop.address, client=f'port = {hop.port}')
    m.run('-odi', '-f', 'u1@local.test', 'x@relay.test', input='Subject: x\n\nx\n')
    (bounce,) = m.mail('u1')
    expected = f'X-ip; [{hop.address}]' + ('' if port else f':{hop.port}')
    assert f'\nRemote-MTA: {expected}\n' in bounce.decode(), bounce


# --- F21: events ---

EVENTS = '''
ev:
  accept logwrite = event $event_name $local_part <$event_data>
'''


def events_of(log):
    """Without what differs from run to run: ports, ids."""
    return [re.sub(r'id=\S+|\d\d\d\d\d?\b', '', x.split(' event ')[1]) for x in log.split('\n') if ' event ' in x]


@pytest.mark.peers
def test_the_same_events_as_exim(martlet, exim, smtp_server):
    """One message for recipients that are taken, refused and put off; those of the main configuration and of the transport."""
    def answer(line, session):
        return '550 never' if 'bad@' in line else '451 later' if 'later@' in line else None
    found = []
    for kind in (exim, martlet):
        hop = smtp_server({'RCPT': answer}, keywords=('PIPELINING',))
        # Exim does not always offer the bounce's connection to the message that waits for the same host.
        main, client = 'event_action = ${acl{ev}}\n', 'event_action = ${acl{ev}}\n  hosts_try_fastopen =\n  connection_max_messages = 1'
        if kind is exim:
            e = exim(main=main, acl='  accept\n' + EVENTS + 'unused:\n', client=f'port = {hop.port}\n  {client}', smarthost='127.0.0.1')
            e.exim('-odi', '-f', 's@b.test', 'good@relay.test', 'bad@relay.test', 'later@relay.test', input='Subject: x\n\nx\n')
            wait_for(lambda: e.log().count('event tcp:close') == 2 and 'event msg:complete' in e.log(), e.log)
            found.append(events_of(e.log()))
        else:
            m = martlet(daemon=False, main=main, acl=EVENTS, relay_to='*', client=f'port = {hop.port}\n  {client}', smarthost='127.0.0.1')
            m.run('-odi', '-f', 's@b.test', 'good@relay.test', 'bad@relay.test', 'later@relay.test', input='Subject: x\n\nx\n')
            found.append(events_of(m.log()))
    theirs, ours = found
    names = [x.split()[0] for x in theirs]
    assert {'tcp:connect', 'smtp:connect', 'msg:rcpt:host:defer', 'msg:fail:delivery', 'msg:delivery'} <= set(names), theirs
    # Exim still has the bounce's recipient at hand when all is over.
    def rest(events):
        return sorted(re.sub(r'(msg:complete|tcp:close) s?', r'\1 ', x) for x in events[8:])
    assert ours[:8] == theirs[:8] and rest(ours) == rest(theirs), '\n'.join(['ours:', *ours, 'theirs:', *theirs])


def test_each_certificate_of_a_chain_is_shown(martlet, smtp_server, scratch):
    """A root, an authority between, a server: three events, the root first."""
    from support.certs import Authority, _openssl
    root = Authority(os.path.join(scratch, 'root'))
    path = os.path.join(scratch, 'mid')
    with open(path + '.ext', 'w') as f:
        f.write('basicConstraints=critical,CA:TRUE\n')
    key = ('-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes')
    _openssl('req', '-new', *key, '-subj', '/CN=between', '-keyout', path + '.key', '-out', path + '.csr')
    _openssl('x509', '-req', '-in', path + '.csr', '-CA', root.certificate, '-CAkey', root.key, '-CAcreateserial', '-days', '9',
             '-extfile', path + '.ext', '-out', path + '.pem')
    middle = Authority(os.path.join(scratch, 'middle'))
    shutil.copy(path + '.key', middle.key)
    shutil.copy(path + '.pem', middle.certificate)
    certificate, key = middle.issue('sink.test')
    chain = os.path.join(scratch, 'chain.pem')
    with open(chain, 'w') as f:
        f.write(read(certificate) + read(path + '.pem') + read(root.certificate))
    hop = smtp_server(tls=(chain, key))
    m = martlet(daemon=False, acl=EVENTS, relay_to='*', smarthost='127.0.0.1', client='\n  '.join([
        f'port = {hop.port}', 'event_action = ${if eq{$event_name}{tls:cert}{${acl{ev}}}}', f'tls_verify_certificates = {root.certificate}',
        'tls_verify_cert_hostnames =', 'hosts_require_tls = *', 'tls_verify_hosts = *']))
    m.run('-odi', '-f', 's@b.test', 'a@relay.test', input='Subject: x\n\nx\n')
    assert [re.search(r'<(\d)>', x)[1] for x in events_of(m.log())] == ['2', '1', '0'] and len(hop.messages) == 1, m.logs()


def test_a_backup_takes_what_a_stale_host_refuses(martlet, smtp_server):
    """The remembered host refuses from now on, early and late: the next host of the address gets the message, no bounce."""
    first = smtp_server({'CONNECT': ['220 first', '554 go away']}, keywords=('PIPELINING', 'PIPECONNECT'), address=free_loopback())
    backup = smtp_server(address=free_loopback(), port=first.port)
    m = martlet(daemon=False, relay_to='*', smarthost=f'"{first.address} : {backup.address}"',
                client=f'port = {first.port}\n  hosts_pipe_connect = *\n  hosts_randomize = false')
    for user in ('a', 'c'):
        m.run('-odi', '-f', 's@b.test', f'{user}@relay.test', input='Subject: x\n\nx\n')
    assert [x['rcpt'] for x in first.messages] == [['<a@relay.test>']] and [x['rcpt'] for x in backup.messages] == [['<c@relay.test>']], m.logs()
    assert ' ** ' not in m.log() and m.queue() == []
