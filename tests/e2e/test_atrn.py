"""On-Demand Mail Relay (RFC 2645): a client that logs in, turns the connection round with ATRN, and takes its domains' mail."""
import base64
import os
import re
import threading

import pytest

from support.smtp import Client, Closed, Server, Session
from support.util import wait_for

LOGIN = '''
plain_server:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if eq{$auth3}{secret}}
  server_set_id = $auth2
'''
# Who may fetch what; what is asked for must be among it.
ACL = '''
check_atrn:
  warn   set acl_m_own = ${lookup{$authenticated_id}lsearch{@DIR@/odmr}}
  deny   condition = ${if forany{<, $smtp_command_argument}{!inlisti{$item}{$acl_m_own}}}
         message = not your domain
  defer  ! atrn_domains = ${if eq{$smtp_command_argument}{}{$acl_m_own}{${filter{$acl_m_own}{inlisti{$item}{<, $smtp_command_argument}}}}}
         message = 453 You have no mail
  accept logwrite = MODE $atrn_mode HOST $atrn_host
'''
ROUTERS = '''
fetched:
  driver = manualroute
  domains = +odmr
  route_data = <;$atrn_host
  self = send
  transport = remote_smtp

kept:
  driver = redirect
  domains = +odmr
  allow_defer
  data = :defer: waits to be fetched
'''


@pytest.fixture
def provider(martlet):
    def start(users='office: one.test : two.test\nother: three.test\n', **kw):
        kw['main'] = kw.pop('main', '') + '\nacl_smtp_atrn = check_atrn\ndomainlist odmr = one.test : two.test : three.test\n'
        if 'worker_processes' not in kw['main']:
            kw['main'] += 'worker_processes = 1\n'
        kw['acl'] = kw.get('acl', ACL)
        m = martlet(relay_to='one.test : two.test : three.test', routers=kw.pop('routers', ROUTERS), authenticators=LOGIN, arguments=[], **kw)
        with open(os.path.join(m.directory, 'odmr'), 'w') as f:
            f.write(users)
        return m
    return start


def put(m, *recipients, sender='a@b.test', text='x'):
    """A message that waits."""
    before = m.queue()
    with Client(m.port) as c:
        assert c.mail(sender, *recipients, data=f'Subject: {text}\r\n\r\n{text}\r\n')[0] == 250
    wait_for(lambda: len(m.queue()) > len(before), m.logs)
    m.wait_rest()


def login(m, tls=False, user='office'):
    m.wait_rest()  # what is being delivered cannot be fetched
    c = Client(m.port)
    words = c.ehlo()
    assert 'ATRN' in words
    if tls:
        c.starttls()
        c.ehlo()
    c.expect(235, 'AUTH PLAIN ' + base64.b64encode(f'\0{user}\0secret'.encode()).decode())
    return c


def fetch(m, argument='', script=None, tls=False, user='office'):
    """Logs in, turns round, and serves the connection to its end. Gives the Server with what has come."""
    server = Server(script)
    try:
        with login(m, tls, user) as c:
            c.expect(250, f'ATRN {argument}'.strip())
            session = Session(server, c.sock)
            session.encrypted = tls
            try:
                session.run()
            except (Closed, OSError):
                pass
    finally:
        server.stop()
    return server


def fetch_all(m):
    """For clients that have little patience: what a busy machine does not do in one connection goes in another."""
    got = []
    wait_for(lambda: got.extend(recipients(fetch(m))) or not m.queue(), m.logs)
    return got


def recipients(server):
    return sorted(re.search('<(.*)>', r)[1] for x in server.messages for r in x['rcpt'])


@pytest.mark.parametrize('tls', [False, True])
def test_mail_is_fetched(provider, authority, tls):
    m = provider(tls=authority.issue('mx.martlet.test') if tls else None)
    put(m, 'x@one.test')
    put(m, 'x@two.test', 'y@two.test')
    put(m, 'x@three.test')
    m.wait_log(r'== x@one\.test R=kept defer \(-1\): waits to be fetched')
    s = fetch(m, tls=tls)
    assert recipients(s) == ['x@one.test', 'x@two.test', 'y@two.test']
    assert s.commands[0].startswith('EHLO mx.martlet.test') and s.commands[-1] == 'QUIT' and 'STARTTLS' not in s.commands
    wait_for(lambda: len(m.queue()) == 1, m.logs)
    m.wait_log(r'MODE P HOST \[127\.0\.0\.1\]:\d+$')
    m.wait_log(r'=> x@one\.test R=fetched T=remote_smtp H=127\.0\.0\.1 \[127\.0\.0\.1\]' + (r' X=TLS1\.3' if tls else r' C='))
    # What is left is another's, and comes once.
    assert recipients(fetch(m, user='other')) == ['x@three.test']
    m.wait_empty()
    with login(m, user='other') as c:
        assert c.cmd('ATRN') == (453, 'You have no mail')


def test_only_what_was_asked_for(provider):
    """A recipient elsewhere, whom the router would send along, waits; so does the other domain."""
    m = provider(routers=ROUTERS.replace('  domains = +odmr\n  route_data', '  route_data'))
    put(m, 'x@one.test', 'y@three.test')
    put(m, 'x@two.test')
    assert recipients(fetch(m, 'one.test')) == ['x@one.test']
    assert len(m.queue()) == 2
    assert recipients(fetch(m, 'TWO.test,one.test')) == ['x@two.test']
    assert recipients(fetch(m, user='other')) == ['y@three.test']
    m.wait_empty()


def test_who_may_not(provider):
    m = provider()
    put(m, 'x@one.test')
    with Client(m.port) as c:
        assert 'ATRN' in c.ehlo()
        assert c.cmd('ATRN one.test')[0] == 530
    m.wait_log(r'rejected ATRN: not authenticated')
    with login(m) as c:
        assert c.cmd('ATRN three.test') == (550, 'not your domain')
        assert c.cmd('ATRN one.test,three.test')[0] == 550
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('ATRN one.test')[0] == 503
        c.expect(250, 'RSET')
        assert c.cmd('ATRN two.test') == (453, 'You have no mail')
        assert c.cmd('NOOP')[0] == 250
    assert len(m.queue()) == 1


def test_without_acl(martlet):
    for main in ('', 'acl_smtp_atrn = ${if eq{$received_port}{366}{check_atrn}{}}'):
        m = martlet(main=main, acl='check_atrn:\n  accept\n', authenticators=LOGIN)
        with Client(m.port) as c:
            assert 'ATRN' not in c.ehlo()
            assert c.cmd('ATRN')[0] == 500
            assert 'ATRN' not in c.cmd('HELP')[1]


def test_acls_that_do_not_do(provider):
    """A list that is the client's own words; and no list at all."""
    for acl, answer in (('check_atrn:\n  accept atrn_domains = $smtp_command_argument\n', 451), ('check_atrn:\n  accept\n', 453)):
        m = provider(acl=acl)
        put(m, 'x@one.test')
        with login(m) as c:
            assert c.cmd('ATRN one.test')[0] == answer
        if answer == 451:
            m.wait_log(r"temporarily rejected ATRN one\.test: attempt to use tainted list 'one\.test' in atrn_domains")
        assert len(m.queue()) == 1


def test_in_another_acl(martlet):
    m = martlet(daemon=False, acl_rcpt='  accept atrn_domains = one.test\n', allow_panic='atrn_domains')
    done = m.run('-bh', '192.0.2.1', input='EHLO a\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nQUIT\r\n', check=False)
    assert 'cannot test atrn_domains condition in RCPT ACL' in done.stdout


def test_host_test_and_batch(martlet):
    """-bh runs the ACL and goes on; -bS takes no notice."""
    m = martlet(daemon=False, main='acl_smtp_atrn = check_atrn\n', acl='check_atrn:\n  deny message = $smtp_command_argument\n')
    done = m.run('-oMaa', 'x', '-bh', '192.0.2.1', input='EHLO a\r\nATRN one.test\r\nQUIT\r\n')
    assert '250-ATRN' in done and '550 one.test' in done
    m.run('-odq', '-bS', input='ATRN one.test\nMAIL FROM:<a@b.test>\nRCPT TO:<u0@local.test>\nDATA\nSubject: x\n\nx\n.\n')
    assert len(m.queue()) == 1


def test_messages_of_all_workers(provider):
    m = provider(main='worker_processes = 2\n')
    for n in range(12):
        put(m, f'x{n}@one.test')
    s = fetch(m)
    assert recipients(s) == sorted(f'x{n}@one.test' for n in range(12)) and s.sessions == 1
    m.wait_empty()
    # A queue run by all of them finds nothing more to do.
    m.run('-q')
    assert len(re.findall(' Completed$', m.log(), re.M)) == 12


def test_named_queue(provider):
    m = provider(acl_rcpt='  warn  domains = +odmr\n        queue = odmr\n', acl=ACL.replace('  defer', '  warn   queue = odmr\n  defer'))
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'x@one.test')[0] == 250
    def there():
        return [n for n in os.listdir(m.outside('spool/odmr/input')) if n.endswith('-H')]
    wait_for(lambda: os.path.isdir(m.outside('spool/odmr/input')) and there(), m.logs)
    assert recipients(fetch(m)) == ['x@one.test']
    wait_for(lambda: not there(), m.logs)
    with login(m) as c:
        assert c.cmd('ATRN')[0] == 453


def test_the_connection_breaks(provider):
    """In the middle of a message, and behind one: each comes once, the rest the next time."""
    m = provider()
    for n in range(3):
        put(m, f'x{n}@one.test')
    first = fetch(m, script={'DOT': ['250 kept', 'DROP']})
    m.wait_log(r'H=127\.0\.0\.1 \[127\.0\.0\.1\].*closed connection')
    m.wait_rest()
    assert len(first.messages) == 1 and len(m.queue()) == 2
    second = fetch(m, script={'RSET': 'DROP', 'MAIL': [None, 'DROP']})
    assert len(second.messages) == 1
    third = fetch(m)
    assert recipients(third) == [r for r in ('x0@one.test', 'x1@one.test', 'x2@one.test')
                                 if r not in recipients(first) + recipients(second)]
    m.wait_empty()
    assert '**' not in m.log()


@pytest.mark.parametrize('script', [{'CONNECT': 'DROP'}, {'EHLO': 'DROP', 'HELO': 'DROP'}, {'MAIL': 'DROP'}, {'DATA': 'DROP'}, {'DOT': 'DROP'},
                                    {'CONNECT': '421 not now'}, {'MAIL': '421 not now'}, {'DOT': '421 not now'}],
                         ids=lambda s: '-'.join(k if v == 'DROP' else k + v[:3] for k, v in s.items()))
def test_broken_connection_leaves_no_retry_record(provider, script):
    """While the ordinary delivery to a host that is not there leaves one."""
    m = provider(acl_rcpt='  accept domains = relay.test\n')
    put(m, 'x@one.test')
    ident, = m.queue()
    put(m, 'a@relay.test')

    def keys():
        return re.findall(r'\bT:\S+', m.run('--dumpdb', os.path.join(m.directory, 'spool'), 'retry', check=False).stdout)
    wait_for(keys, lambda: 'the record of the host that is not there' + m.logs())
    before = keys()
    assert not any(x['data'] for x in fetch(m, script=script).messages)
    # It can be locked again: the attempt is over.
    wait_for(lambda: 'is now frozen' in m.run('-Mf', ident, check=False).stdout, m.logs)
    m.wait_log(r'H=127\.0\.0\.1 \[127\.0\.0\.1\]')
    assert keys() == before, m.logs()
    m.run('-Mt', ident)
    assert recipients(fetch(m)) == ['x@one.test']


def test_refusals(provider):
    """5xx bounces that recipient, 4xx leaves it, and the others of the message and of the queue are none the worse."""
    m = provider()
    put(m, 'bad@one.test', 'good@one.test', 'later@one.test', sender='u0@local.test')
    put(m, 'good@two.test')

    def rcpt(line, session):
        return '550 nobody' if 'bad@' in line else '450 later' if 'later@' in line else None
    assert recipients(fetch(m, script={'RCPT': rcpt})) == ['good@one.test', 'good@two.test']
    assert b'550 nobody' in m.wait_mail('u0')[0]
    m.wait_log(r'\*\* bad@one\.test .*550 nobody')
    m.wait_log(r'== later@one\.test .*450 later')
    wait_for(lambda: len(m.queue()) == 1, m.logs)
    assert recipients(fetch(m)) == ['later@one.test']
    m.wait_empty()


@pytest.mark.parametrize('greeting', ['554 go away', '421 busy', '220-' + 'x' * 5000, 'nonsense', 'DROP', '\0\1\2'])
def test_customers_that_do_not_greet(provider, greeting):
    m = provider(client='command_timeout = 2s')
    put(m, 'x@one.test')
    with login(m) as c:
        c.expect(250, 'ATRN')
        if greeting != 'DROP':
            c.send(greeting + '\r\n')
            try:
                while c.line() != 'QUIT':
                    pass
            except Closed:
                pass
    m.wait_log(r'H=127\.0\.0\.1 \[127\.0\.0\.1\]')
    assert '**' not in m.log() and len(m.queue()) == 1
    assert fetch_all(m) == ['x@one.test']


def test_a_customer_that_floods_and_one_that_is_silent(provider):
    m = provider(client='command_timeout = 2s')
    put(m, 'x@one.test')
    with login(m) as c:
        c.expect(250, 'ATRN')
        try:
            for _ in range(200):
                c.send(b'220-' + b'y' * 60 + b'\r\n' + b'220-z\r\n' * 1000)
        except OSError:
            pass
    with login(m) as c:
        c.expect(250, 'ATRN')
        with pytest.raises(Closed):
            c.line()
    m.wait_log(r'timeout')
    assert fetch_all(m) == ['x@one.test']


def test_tls_that_the_transport_demands(provider, authority):
    m = provider(tls=authority.issue('mx.martlet.test'), client='hosts_require_tls = *')
    put(m, 'x@one.test')
    assert not fetch(m).messages
    m.wait_log(r'a TLS session is required, but the client has not started one before ATRN')
    assert recipients(fetch(m, tls=True)) == ['x@one.test']


def test_two_at_once(provider):
    """Two customers fetch the same domain's mail: each message comes once."""
    m = provider(main='worker_processes = 2\n')
    for n in range(8):
        put(m, f'x{n}@one.test')
    with login(m) as a, login(m) as b:
        a.send('ATRN\r\n')
        b.send('ATRN\r\n')
        got = []

        def serve(c):
            if c.reply()[0] != 250:
                return
            server = Server()
            try:
                Session(server, c.sock).run()
            except (Closed, OSError):
                pass
            server.stop()
            got.extend(recipients(server))
        threads = [threading.Thread(target=serve, args=(c,)) for c in (a, b)]
        for t in threads:
            t.start()
        for t in threads:
            t.join(120)
    while m.queue() and recipients_left(m, got):
        pass
    assert sorted(got) == sorted(f'x{n}@one.test' for n in range(8))
    m.wait_empty()


def recipients_left(m, got):
    with login(m) as c:
        code, _ = c.cmd('ATRN')
        if code == 453:
            return False
        server = Server()
        try:
            Session(server, c.sock).run()
        except (Closed, OSError):
            pass
        server.stop()
        got.extend(recipients(server))
    return True


# --- the customer's side ---

CUSTOMER_ROUTER = '''
provider:
  driver = manualroute
  condition = ${if eq{$atrn_mode}{C}}
  route_data = <;$domain
  self = send
  transport = odmr
'''
CUSTOMER_TRANSPORT = '''
odmr:
  driver = smtp
  port = @PROVIDER@
  allow_localhost
  hosts_try_dane =
  hosts_require_auth = *
  command_timeout = 1m
  %s
'''
CUSTOMER_LOGIN = '''
plain_client:
  driver = plaintext
  public_name = PLAIN
  client_send = ^office^secret
'''


@pytest.fixture
def customer(martlet):
    def start(port, extra='', **kw):
        kw.setdefault('main', 'domainlist fetched = one.test : two.test\n')
        return martlet(routers=CUSTOMER_ROUTER + '\nlocal_ones:\n  driver = accept\n  domains = one.test : two.test\n'
                       '  local_parts = lsearch;@DIR@/users\n  transport = maildir\n'
                       'nobody:\n  driver = redirect\n  domains = one.test : two.test\n  allow_fail\n  data = :fail: no such user\n',
                       transports=(CUSTOMER_TRANSPORT % extra).replace('@PROVIDER@', str(port)), authenticators=CUSTOMER_LOGIN,
                       relay_to='one.test : two.test', acl_rcpt='  require domains = one.test : two.test\n          verify = recipient\n', **kw)
    return start


@pytest.mark.parametrize('tls,daemon', [(False, True), (True, True), (False, False)])
def test_two_martlets(provider, customer, authority, tls, daemon):
    p = provider(tls=authority.issue('mx.martlet.test') if tls else None)
    extra = 'hosts_require_tls = *\n  tls_verify_certificates =' if tls else 'hosts_avoid_tls = *'
    c = customer(p.port, extra, daemon=daemon)
    put(p, 'u0@one.test', 'u1@two.test', text='first')
    put(p, 'u0@one.test', text='second')
    put(p, 'nobody@one.test', sender='u5@local.test')
    put(p, 'u0@three.test')
    c.run('-atrn', '127.0.0.1', 'one.test,two.test')
    assert len(c.wait_mail('u0', 2)) == 2 and len(c.wait_mail('u1')) == 1
    assert b'first' in c.mail('u1')[0]
    c.wait_empty()
    c.wait_log(r'<= a@b\.test H=.*\[127\.0\.0\.1\]' + ('.* P=esmtps X=TLS1.3' if tls else '.* P=esmtp (K )?S='))
    p.wait_mail('u5')
    wait_for(lambda: len(p.queue()) == 1, p.logs)
    assert c.run('-atrn', '127.0.0.1', '') == '453 You have no mail\n'


def test_refusals_for_the_customer(provider, customer):
    p = provider()
    c = customer(p.port)
    put(p, 'u0@three.test')
    done = c.run('-atrn', '127.0.0.1', 'three.test', check=False)
    assert done.returncode == 1 and '550 not your domain' in done.stdout
    for args in (('-atrn', '127.0.0.1'), ('-atrn',), ('-atrn', '127.0.0.1', 'a', 'b'), ('-atrn', '', 'a'), ('-atrn', 'x', 'a\nQUIT'), ('-atrn', 'a@b', '')):
        done = c.run(*args, check=False)
        assert done.returncode == 1 and 'martlet: -atrn: ' in done.stdout
    assert len(p.queue()) == 1


def test_customer_without_router_or_provider(martlet, customer):
    m = martlet(daemon=False, routers='none:\n  driver = redirect\n  domains = gone.test\n  data = :fail: no such\n')
    assert 'no router says how to reach the host' in m.run('-atrn', 'gone.test', '', check=False).stdout
    done = customer(1, daemon=False).run('-atrn', '127.0.0.1', '', check=False)
    assert done.returncode == 1 and 'cannot connect: 127.0.0.1 [127.0.0.1]: Connection refused' in done.stdout


def test_provider_that_goes_away(customer, smtp_server):
    """In the middle of a message: it is not there, and the command says so."""
    s = smtp_server(script={'AUTH': '235 welcome', 'ATRN': lambda line, session: half(session)}, keywords=('AUTH PLAIN', 'ATRN'))
    c = customer(s.port)
    done = c.run('-atrn', '127.0.0.1', 'one.test', check=False)
    assert done.returncode == 1 and 'the connection has ended without QUIT' in done.stdout
    assert 'ATRN one.test' in s.commands
    assert not c.queue() and not c.mail('u0')


def half(session):
    session.say('250 now turn')
    for line in (None, 'EHLO p.test', 'MAIL FROM:<a@b.test>', 'RCPT TO:<u0@one.test>', 'DATA'):
        if line:
            session.sock.sendall(line.encode() + b'\r\n')
        while True:
            got = session.file.readline()
            if not got:
                raise Closed('early')
            if got[3:4] != b'-':
                break
    session.sock.sendall(b'Subject: half\r\n\r\n')
    raise Closed('as planned')
