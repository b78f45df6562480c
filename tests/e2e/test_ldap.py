"""ldap, ldapdn, ldapm and ldapauth against a real server. What is expected was said by Debian's Exim, too."""
import os
import re
import signal
import socket

import pytest

from support.databases import Slapd
from support.smtp import Client

pytestmark = [pytest.mark.plain, pytest.mark.skipif(
    Slapd.program is None or not os.path.exists('/etc/ldap/schema/core.schema'), reason='no LDAP server is installed')]


@pytest.fixture
def slapd(make):
    return lambda **kw: make(Slapd, **kw)


def expand(m, *lines):
    out = m.run('-be', *lines, err=False)
    return out[:-1].split('\n')


def test_results(martlet, slapd):
    m = martlet(daemon=False)
    url = f'ldap://127.0.0.1:{slapd().port}'

    def q(rest, kind='ldap', base='o=base'):
        return f'${{lookup {kind}{{{url}/{base}?{rest}}}{{<$value>}}{{none}}}}'
    more = 'gave DEFER: "LDAP search: more than one entry (3) was returned (filter not specific enough?)"'
    got = expand(
        m, q('sn?sub?(cn=fred)'), q('mail,sn?sub?(cn=fred)'), q('?sub?(cn=fred)'), q('description?sub?(cn=fred)'),
        q('description,cn?sub?(cn=fred)'), q('sn?sub?(objectClass=inetOrgPerson)'), q('nonex?sub?(cn=fred)'),
        q('sn?sub?(cn=none)'), q('sn?base?'), q('o?base'), q('sn?sub?(bad'), q('nonex,mail?sub?(cn=fred)'),
        q('sn?one?(uid=odd${quote_ldap:*(})'), q('sn?sub?(cn=fred)', base='o=none'),
        q('sn?sub?(cn=fred)', 'ldapdn'), q('?sub?(uid=odd*)', 'ldapdn'), q('?sub?(cn=none)', 'ldapdn'))
    assert got == [
        '<value one,, with comma,second>', '<sn="value one,, with comma,second" mail="fred@a.test">',
        '<objectClass="inetOrgPerson" cn="fred" sn="value one,, with comma,second" uid="fred" mail="fred@a.test" '
        'description="say \\"hi\\" \\\\ there" userPassword="pass word">',
        '<say "hi" \\ there>', '<cn="fred" description="say \\"hi\\" \\\\ there">',
        f'Failed: lookup of "{url}/o=base?sn?sub?(objectClass=inetOrgPerson)" {more}', 'none', 'none', 'none', '<base>',
        f'Failed: lookup of "{url}/o=base?sn?sub?(bad" gave DEFER: "ldap_search failed: -7, Bad search filter"',
        '<mail="fred@a.test">', '<b,, c>', 'none', '<cn=fred,o=base>', '<cn=a+sn=b\\2C c,o=base>', 'none']
    assert expand(m, q('sn?sub?(objectClass=inetOrgPerson)', 'ldapm')) == ['<value one,, with comma,second', 'Smith', 'b,, c>']
    assert expand(m, q('sn,mail?sub?(objectClass=inetOrgPerson)', 'ldapm')) == [
        '<sn="value one,, with comma,second" mail="fred@a.test"', 'sn="Smith" mail="mary@a.test"', 'sn="b,, c">']
    assert expand(m, q('nonex?sub?(cn=*)', 'ldapm')) == ['none']
    assert m.expand(q('sn?sub?(cn=mary)') + ' $ldap_dn') == '<Smith> cn=mary,o=base'


def test_settings(martlet, slapd):
    m = martlet(daemon=False)
    server = f'127.0.0.1:{slapd().port}'
    rest = f'ldap://{server}/o=base?sn?sub?(cn=mary)'
    bind = 'failed to bind the LDAP connection to server'

    def ask(settings):
        got = m.expand(f'${{lookup ldap{{{settings} {rest}}}}}')
        return got.split('gave DEFER: ')[1] if 'gave DEFER: ' in got else got
    for good in ('user="cn=root,o=base" pass=secret', 'user="cn=fred,o=base" pass="pass word"', 'USER=cn%3Droot,o=base PASS=secret',
                 'size=1', 'time=60', 'nettime=60', 'connect=60', 'dereference=always', 'referrals=nofollow'):
        assert ask(good) == 'Smith', good
    for wrong in ('user="cn=root,o=base" pass=bad', 'user="cn=nobody,o=base" pass=x'):
        assert ask(wrong) == f'"{bind} {server} - LDAP error 49: Invalid credentials"'
    assert ask('user=cn=root,o=base') == f'"{bind} {server} - LDAP error 53: Server is unwilling to perform"'
    assert ask('nettimeout=3') == '"unknown parameter \\"nettimeout=\\" precedes LDAP URL"'


def test_servers(martlet, slapd):
    one, two = slapd(), slapd()
    gone = 'failed to bind the LDAP connection to server'
    m = martlet(main=f'ldap_default_servers = 127.0.0.1::{one.port} : {two.socket}', daemon=False)
    tail = 'o=base?sn?sub?(cn=mary)'
    sock = two.socket.replace('/', '%2F')
    lines = [f'${{lookup ldap{{ldap:///{tail}}}}}', f'${{lookup ldap{{servers={two.socket} ldap:///{tail}}}}}',
             f'${{lookup ldap{{servers=127.0.0.1::1:127.0.0.1::{two.port} ldap:///{tail}}}}}', f'${{lookup ldap{{ldapi://{sock}/{tail}}}}}',
             f'${{lookup ldap{{ldapi:///{tail}}}}}']
    assert expand(m, *lines) == ['Smith'] * 5
    one.stop()
    assert expand(m, *lines) == ['Smith'] * 5
    assert m.expand(f'${{lookup ldap{{ldap://127.0.0.1:{one.port}/{tail}}}}}').endswith(
        f'gave DEFER: "{gone} 127.0.0.1:{one.port} - ldap_bind() returned -1"')
    assert m.expand(f'${{lookup ldap{{ldapi://127.0.0.1/{tail}}}}}').endswith(
        'gave DEFER: "ldapi requires an absolute path (\\"127.0.0.1\\" given)"')
    two.stop(signal.SIGKILL)
    assert re.search(f'gave DEFER: "{gone} .*sock - ldap_bind\\(\\) returned -1"', m.expand(lines[0]))


def test_ldapauth(martlet, slapd):
    m = martlet(daemon=False)
    url = f'ldap://127.0.0.1:{slapd().port}/'

    def check(settings, where=url):
        return m.expand(f'${{if ldapauth{{{settings} {where}}}{{yes}}{{no}}}}')
    assert check('user="cn=fred,o=base" pass="pass word"') == 'yes'
    assert check('user="cn=${quote_ldap_dn:fred},o=base" pass=${quote:pass word}') == 'yes'
    assert check('user="cn=fred,o=base" pass=bad') == 'no'
    assert check('user="cn=none,o=base" pass=bad') == 'no'
    assert check('user="cn=fred,o=base" pass=""') == 'no'
    assert check('user="cn=fred,o=base"') == 'Failed: ldapauth lookups must specify the username and password'
    assert check('') == 'Failed: ldapauth lookups must specify the username and password'
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        nobody = s.getsockname()[1]
        assert check('user="cn=fred,o=base" pass=x', f'ldap://127.0.0.1:{nobody}/') == \
            f'Failed: failed to bind the LDAP connection to server 127.0.0.1:{nobody} - ldap_bind() returned -1'


def test_tls(martlet, slapd, authority):
    # The library takes the machine's own name for localhost.
    cert, key = authority.issue(socket.gethostname(), socket.getfqdn(), 'localhost')
    s = slapd(extra=f'TLSCACertificateFile {authority.certificate}\nTLSCertificateFile {cert}\nTLSCertificateKeyFile {key}\n'
                    'security tls=1\n')
    query = f'${{lookup ldap{{ldap://localhost:{s.port}/o=base?sn?sub?(cn=mary)}}}}'
    without = martlet(daemon=False)
    assert 'LDAP error 13' in without.expand(query)
    good = martlet(main=f'ldap_start_tls\nldap_ca_cert_file = {authority.certificate}\nldap_require_cert = demand', daemon=False)
    assert good.expand(query) == 'Smith'
    unknown = martlet(main='ldap_start_tls\nldap_ca_cert_file = /etc/hostname\nldap_require_cert = demand', daemon=False)
    assert 'failed to initiate TLS processing' in unknown.expand(query)


def test_in_the_daemon(martlet, slapd):
    s, stuck = slapd(), slapd()
    m = martlet(acl_rcpt=f'''
  defer local_parts = u5
        condition = ${{lookup ldap{{nettime=3 ldap://127.0.0.1:{stuck.port}/o=base?sn?sub?(cn=mary)}}}}
  accept condition = ${{lookup ldap{{ldap://127.0.0.1:{s.port}/o=base?mail?sub?(uid=${{quote_ldap:$local_part}})}}{{yes}}{{no}}}}
  deny  message = not in the directory
''')
    stuck.freeze()
    with Client(m.port) as slow, Client(m.port) as c:
        slow.ehlo()
        slow.expect(250, 'MAIL FROM:<a@b.test>')
        slow.send(b'RCPT TO:<u5@local.test>\r\n')
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        c.expect(250, 'RCPT TO:<fred@local.test>')
        assert c.cmd('RCPT TO:<*@local.test>') == (550, 'not in the directory')
        s.stop(signal.SIGKILL)
        assert c.cmd('RCPT TO:<mary@local.test>')[0] == 451
        s.start()
        c.expect(250, 'RCPT TO:<mary@local.test>')
        assert slow.reply()[0] == 451
        stuck.thaw()
