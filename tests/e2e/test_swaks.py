"""swaks as the client: AUTH, STARTTLS, XCLIENT, the PROXY protocol of both versions (F20); its transcript is explained."""
import re
import shutil
import subprocess

import pytest

SWAKS = shutil.which('swaks') or '/usr/bin/swaks'
AUTH = '''plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{u}}{eq{$auth3}{secret}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = User Name : Password
  server_condition = ${if and{{eq{$auth1}{u}}{eq{$auth2}{secret}}}}
  server_set_id = $auth1
'''


def swaks(m, *options, status=0):
    done = subprocess.run([SWAKS, '--server', '127.0.0.1', '--port', str(m.port), '--helo', 'client.test', '--from', 'a@b.test', '--to',
                           'u0@local.test', '--timeout', '60', *options], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, text=True)
    assert done.returncode == status, done.stdout + m.logs()
    return done.stdout


def arrival(m):
    return m.wait_log(r'<= a@b\.test.*')[-1]


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN'])
def test_auth(martlet, mechanism):
    m = martlet(authenticators=AUTH, acl_rcpt='  deny !authenticated = *\n')
    swaks(m, '--auth', mechanism, '--auth-user', 'u', '--auth-password', 'secret')
    assert f'P=esmtpa A={mechanism.lower()}:u ' in arrival(m)
    swaks(m, '--auth', mechanism, '--auth-user', 'u', '--auth-password', 'wrong', status=28)
    m.wait_log(rf'{mechanism.lower()} authenticator failed for H=\(client\.test\) \[127\.0\.0\.1\]: 535 Incorrect authentication data \(set_id=u\)$')
    # Without AUTH the ACL refuses.
    swaks(m, status=24)


def test_starttls_and_auth(martlet, authority):
    m = martlet(tls=authority.issue('mx.martlet.test'), authenticators=AUTH, main='auth_advertise_hosts = ${if def:tls_in_cipher{*}}\n')
    out = swaks(m, '--tls', '--auth', 'PLAIN', '--auth-user', 'u', '--auth-password', 'secret')
    assert '=== TLS started' in out
    assert re.search(r'P=esmtpsa X=TLS1\.3:\S+ .*A=plain:u ', arrival(m)), m.logs()
    swaks(m, '--auth', 'PLAIN', '--auth-user', 'u', '--auth-password', 'secret', status=28)


def test_xclient(martlet):
    m = martlet(main='hosts_xclient = 127.0.0.1\n', acl_rcpt='  warn logwrite = from $sender_host_address $sender_helo_name\n')
    swaks(m, '--xclient-addr', '192.0.2.9', '--xclient-name', 'far.example', '--xclient-port', '4321')
    m.wait_log(r'from 192\.0\.2\.9 client\.test$')
    assert '[192.0.2.9]' in arrival(m)
    other = martlet()
    assert 'XCLIENT' not in swaks(other)
    swaks(other, '--xclient-addr', '192.0.2.9', status=33)


@pytest.mark.parametrize('version, family, source, target', [
    ('1', 'TCP4', '192.0.2.7', '192.0.2.8'), ('1', 'TCP6', '2001:db8::7', '2001:db8::8'),
    ('2', 'AF_INET', '192.0.2.7', '192.0.2.8'), ('2', 'AF_INET6', '2001:db8::7', '2001:db8::8')])
def test_proxy(martlet, version, family, source, target):
    m = martlet(main='hosts_proxy = 127.0.0.1\nlog_selector = +proxy +incoming_port\n')
    swaks(m, '--proxy-version', version, '--proxy-family', family, '--proxy-source', source, '--proxy-source-port', '4321', '--proxy-dest',
          target, '--proxy-dest-port', '25', *(['--proxy-protocol', 'STREAM'] if version == '2' else []))
    assert f'H=(client.test) [{source}]:4321 P=esmtp PRX=127.0.0.1 ' in arrival(m)


def test_transcript_is_explained(martlet):
    m = martlet(acl_rcpt='  deny local_parts = u0\n       message = not u0\n')
    transcript = swaks(m, status=24)
    done = m.run('explain', '--session', '-', '--host', '127.0.0.1', input=transcript, err=False)
    assert 'the recording has' not in done and 'S: 550 not u0\n   decided by: deny, line ' in done
    done = m.run('explain', '--session', '-', input=transcript.replace('<** 550', '<-  250'), check=False, err=False)
    assert done.returncode == 2 and 'the recording has 250 here' in done.stdout
