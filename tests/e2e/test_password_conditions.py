"""The conditions pam (with modules of the system, services of the test's own) and radius (with FreeRADIUS)."""
import base64
import glob
import os
import re
import shutil
import socket
import struct
import subprocess
import threading

import pytest

from support.databases import FreeRadius
from support.smtp import Client
from support.util import write

pytestmark = pytest.mark.plain
needs_pam = pytest.mark.skipif(not glob.glob('/usr/lib/*/security/pam_userdb.so') + glob.glob('/lib/*/security/pam_userdb.so')
                               or shutil.which('db_load') is None, reason='no PAM modules or Berkeley DB tools are installed')

# pam_userdb looks users up in a Berkeley DB file. The password holds what lists take apart.
PASSWORD = 'se:cret x'
SERVICE = 'auth required pam_userdb.so db={d}/passwords crypt=none\naccount required pam_permit.so\n'
DENY = 'auth required pam_deny.so\naccount required pam_deny.so\n'


def services(directory):
    path = f'{directory}/passwords.db'
    subprocess.run(['db_load', '-T', '-t', 'hash', path], input=f'fred\n{PASSWORD}\n'.encode(), check=True)
    os.chmod(path, 0o644)
    return {'pam.d/exim': SERVICE.format(d=directory), 'pam.d/other': DENY}


def ask(m, *words):
    return m.run('-be', *(f'${{if pam{{{w}}}{{yes}}{{no}}}}' for w in words), err=False)[:-1].split('\n')


@needs_pam
@pytest.mark.root
def test_pam(martlet, scratch):
    m = martlet(inside=True, daemon=False, etc=services(scratch))
    assert ask(m, 'fred:se::cret x', 'fred : ${listquote{:}{se:cret x}}', 'fred:se', 'mary:se::cret x', '', ':x', 'fred') == [
        'yes', 'yes', 'no', 'no', 'no', 'no', 'no']


@needs_pam
@pytest.mark.root
@pytest.mark.parametrize('service, want', [
    ('auth required pam_permit.so\naccount required pam_permit.so\n', 'yes'),
    ('auth required pam_permit.so\naccount required pam_deny.so\n', 'no'),
    (DENY, 'no'),
    # No file for the service: `other` decides.
    (None, 'no'),
    ('auth required pam_nothing.so\naccount required pam_permit.so\n', 'Failed: pam: Module is unknown'),
    # What no module decided is neither yes nor no.
    ('auth required pam_exec.so quiet /bin/false\naccount required pam_permit.so\n', 'Failed: pam: System error'),
], ids=['permit', 'account', 'deny', 'other', 'module', 'error'])
def test_pam_modules(martlet, scratch, service, want):
    etc = services(scratch)
    etc['pam.d/exim'] = service or ''
    if service is None:
        del etc['pam.d/exim']
    got = ask(martlet(inside=True, daemon=False, etc=etc), 'fred:x')
    assert got[0].startswith(want) and len(got) == 1


@needs_pam
@pytest.mark.root
def test_pam_in_the_daemon(martlet, scratch):
    """A worker has no rights of its own, and a filter of system calls; modules and their programs still run."""
    m = martlet(privileged=True, etc=services(scratch), authenticators='''
plain:
  driver = plaintext
  public_name = PLAIN
  server_advertise_condition = true
  server_condition = ${if pam{$auth2:${listquote{:}{$auth3}}}}
  server_set_id = $auth2
''')
    with Client(m.port) as c:
        c.ehlo()

        def login(user, password):
            return c.cmd('AUTH PLAIN ' + base64.b64encode(f'\0{user}\0{password}'.encode()).decode())[0]
        assert login('fred', 'wrong') == 535
        assert login('mary', PASSWORD) == 535
        assert login('fred', PASSWORD) == 235


def radius_conf(directory, *servers, secret='testing123', more='', timeout=1):
    names = ','.join(servers)
    secrets = write(f'{directory}/servers', f'# secrets\n127.0.0.1\t{secret}\n')
    return write(f'{directory}/radius.conf', f'authserver {names}\nservers {secrets}\ndictionary /none\nradius_timeout {timeout}\n'
                                             f'radius_retries 2\nbindaddr *\n{more}')


def radius(m, *words):
    return m.run('-be', *(f'${{if radius{{{w}}}{{yes}}{{no}}}}' for w in words), err=False)[:-1].split('\n')


@pytest.mark.skipif(FreeRadius.program is None, reason='no RADIUS server is installed')
def test_radius(martlet, make, scratch):
    long = 'x' * 100
    server = make(FreeRadius, {'fred': 'se:cret x', 'mary': long})
    where = f'127.0.0.1:{server.port}'
    m = martlet(daemon=False, main=f'radius_config_file = {radius_conf(scratch, where, timeout=20)}')
    assert radius(m, 'fred:se::cret x', 'fred:wrong', 'mary:' + long, 'mary:' + long + 'x', 'none:x', 'fred', 'fred:', '',
                  'fred:' + 'y' * 129) == ['yes', 'no', 'yes', 'no', 'no', 'no', 'no', 'no', 'no']
    # The first server of two is not there.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('127.0.0.1', 0))
        silent = f'127.0.0.1:{s.getsockname()[1]}'
        radius_conf(scratch, silent, where)
        assert radius(m, 'fred:se::cret x') == ['yes']
        radius_conf(scratch, silent)
        assert radius(m, 'fred:se::cret x') == [f'Failed: radius: server {silent}: Connection timed out']
    # A server that does not believe us says nothing.
    radius_conf(scratch, where, secret='other-secret')
    assert radius(m, 'fred:se::cret x') == [f'Failed: radius: server {where}: Connection timed out']


def test_radius_forged(martlet, scratch):
    """Who does not know the secret is not believed, whatever he says."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(('127.0.0.1', 0))
        s.settimeout(60)
        where = f'127.0.0.1:{s.getsockname()[1]}'

        def answer():
            for tail in (b'\0' * 16, b'\0' * 15):
                query, peer = s.recvfrom(4096)
                s.sendto(b'\2' + query[1:2] + struct.pack('>H', 20) + tail, peer)
        thread = threading.Thread(target=answer)
        thread.start()
        m = martlet(daemon=False, main=f'radius_config_file = {radius_conf(scratch, where)}')
        assert radius(m, 'fred:x') == [f'Failed: radius: server {where}: its answer is not authentic (is the secret right?)']
        thread.join()


def test_radius_configuration(martlet, scratch):
    conf = f'{scratch}/radius.conf'
    m = martlet(daemon=False, main=f'radius_config_file = {conf}')

    def ask():
        got, = radius(m, 'fred:x')
        return re.sub(r'^Failed: radius: ', '', got)
    assert ask() == f'cannot read {conf}: No such file or directory'
    write(conf, 'servers /none\n')
    assert ask() == f'no authserver in {conf}'
    write(conf, 'authserver localhost\n')
    assert ask() == f'no servers in {conf}'
    radius_conf(scratch, '127.0.0.2')
    assert ask() == 'no secret for server 127.0.0.2'
    radius_conf(scratch, '127.0.0.1', more='serv-type tls\n')
    assert ask() == 'serv-type "tls" is not supported, only udp'
    radius_conf(scratch, '127.0.0.1', more='radius_timeout x\n')
    assert ask() == 'radius_timeout "x" is not a number above 0'
