"""Database servers, and a PAM module, that stand still in the middle of it: what asks them is put off after a bounded time,
other sessions of the same worker go on meanwhile, and all works again when they do."""
import base64
import os

import pytest

from support.databases import MariaDB, Postgres, Redis, Slapd
from support.smtp import Client
from support.util import wait_for, write
from test_password_conditions import needs_pam, services

pytestmark = pytest.mark.plain
LONG = 200  # more than the longest limit, which is a minute, on a machine that has much else to do

KINDS = {
    'pgsql': (Postgres, '${{lookup pgsql,servers=127.0.0.1::{port}/postgres/root/secret,cache=no{{select 1}}}}'),
    'mysql': (MariaDB, '${{lookup mysql,servers=127.0.0.1::{port}/test/user/secret,cache=no{{select 1}}}}'),
    'redis': (Redis, '${{lookup redis,servers=127.0.0.1::{port}//,cache=no{{exists x}}}}'),
    'ldap': (Slapd, '${{if eq{{Smith}}{{${{lookup ldap,cache=no{{ldap://127.0.0.1:{port}/o=base?sn?sub?(cn=mary)}}}}}}}}'),
}


def test_servers(martlet, make):
    there = {name: kind for name, (kind, _) in KINDS.items() if kind.program}
    if not there:
        pytest.skip('no database server is installed')
    servers = {name: make(kind) for name, kind in there.items()}
    if 'redis' in servers:
        servers['redis'].call('SET', 'x', '1')
    m = martlet(main='worker_processes = 1', acl_rcpt=''.join(f'''
  accept local_parts = {name}
         condition = {KINDS[name][1].format(port=server.port)}
''' for name, server in servers.items()))
    fresh = {}
    with Client(m.port) as c:
        asking = {name: Client(m.port, timeout=LONG) for name in servers}
        for x in (c, *asking.values()):
            x.ehlo()
            x.expect(250, 'MAIL FROM:<a@b.test>')
        for name, x in asking.items():
            x.expect(250, f'RCPT TO:<{name}@local.test>')
            servers[name].freeze()
            x.send(f'RCPT TO:<{name}@local.test>\r\n')
        for name in servers:
            # Connecting anew, where the kernel alone answers.
            fresh[name] = Client(m.port, timeout=LONG)
            fresh[name].ehlo()
            fresh[name].expect(250, 'MAIL FROM:<a@b.test>')
            fresh[name].send(f'RCPT TO:<{name}@local.test>\r\n')
        for i in range(8):
            c.expect(250, f'RCPT TO:<u{i}@local.test>')
        for name, x in (*asking.items(), *fresh.items()):
            assert x.reply()[0] == 451, name
        for name, server in servers.items():
            server.thaw()
            asking[name].expect(250, f'RCPT TO:<{name}@local.test>')
            fresh[name].expect(250, f'RCPT TO:<{name}@local.test>')
        for x in (*asking.values(), *fresh.values()):
            x.close()


@needs_pam
@pytest.mark.root
def test_pam(martlet, scratch):
    """The first module of the service runs a program that never ends for one user."""
    script = write(f'{scratch}/stand-still', f'#!/bin/sh\n[ "$PAM_USER" = stuck ] || exit 0\n: >{scratch}/seen/it\nexec sleep 100000\n', 0o755)
    os.mkdir(f'{scratch}/seen')
    os.chmod(f'{scratch}/seen', 0o777)
    etc = services(scratch)
    etc['pam.d/exim'] = f'auth required pam_exec.so quiet {script}\n' + etc['pam.d/exim']
    m = martlet(privileged=True, etc=etc, main='worker_processes = 1', authenticators='''
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = true
  server_condition = ${if pam{$auth2:${listquote{:}{$auth3}}}}
  server_set_id = $auth2
''')

    def login(user, password):
        return 'AUTH PLAIN ' + base64.b64encode(f'\0{user}\0{password}'.encode()).decode()
    with Client(m.port, timeout=LONG) as slow, Client(m.port) as c:
        slow.ehlo()
        slow.send(login('stuck', 'x') + '\r\n')
        wait_for(lambda: os.path.exists(f'{scratch}/seen/it'), 'the module to stand still')
        c.ehlo()
        assert c.cmd(login('fred', 'wrong'))[0] == 535
        assert c.cmd(login('fred', 'se:cret x'))[0] == 235
        assert slow.reply()[0] == 435
        assert slow.cmd(login('fred', 'se:cret x'))[0] == 235
