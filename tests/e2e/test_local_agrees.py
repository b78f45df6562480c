"""What Debian's Exim 4.96 was seen to do with messages of local callers (-bs, -bS, -bm) and with addresses of percent_hack_domains, where it
is easy to differ."""
import re

import pytest

from support.smtp import Client

pytestmark = pytest.mark.plain

LOOP = ''.join(f'Received: x{i}\n' for i in range(4)) + 'Subject: x\nFrom: a@b.test\n\nx\n'


def session(*rcpt, sender='a@b.test', text='Subject: x\n\nx\n', hello='EHLO x\n'):
    return hello + f'MAIL FROM:<{sender}>\n' + ''.join(f'RCPT TO:<{r}>\n' for r in rcpt) + f'DATA\n{text}.\nQUIT\n'


@pytest.mark.parametrize('how', ['-bs', '-bS', '-bm', '-t', '-oMa'])
def test_too_many_received_lines_of_a_local_caller_are_a_bounce(martlet, how):
    m = martlet(daemon=False, main='received_headers_max = 3')
    if how in ('-bs', '-oMa'):
        out = m.run('-odi', '-bs', *(['-oMa', '192.0.2.1'] if how == '-oMa' else []),
                    input=session('u1@local.test', sender='u0@local.test', text=LOOP))
        assert '250 OK id=' in out
    elif how == '-bS':
        m.run('-odi', '-bS', input=session('u1@local.test', sender='u0@local.test', text=LOOP, hello='').replace('QUIT\n', ''))
    else:
        m.run('-odi', '-f', 'u0@local.test', *(['u1@local.test'] if how == '-bm' else ['-t']), input='To: u1@local.test\n' + LOOP)
    assert re.search(r'\*\* u1@local\.test : Too many "Received" headers - suspected mail loop', m.log()), m.logs()
    bounce, = m.mail('u0')
    # The text is for the log.
    assert 'u1@local.test\n\n--' in str(bounce).replace('\\n', '\n') and 'suspected' not in str(bounce)


def test_too_many_received_lines_of_a_peer_are_refused(martlet):
    m = martlet(main='received_headers_max = 3', arguments=[])
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u0@local.test', data=LOOP.replace('\n', '\r\n')) == (550, 'Too many "Received" headers - suspected mail loop')


@pytest.mark.parametrize('daemon', [True, False])
def test_percent_hack_is_for_the_acl_and_routing_only(martlet, daemon):
    m = martlet(daemon=daemon, arguments=[], main='percent_hack_domains = hack.test\nlog_selector = +received_recipients',
                acl_rcpt='  warn logwrite = ACL <$local_part> <$domain>\n  accept domains = hack.test\n         message = not reached\n')
    to = ['u0%local.test@hack.test', '"u1%local.test"@hack.test', 'u2%local.test%hack.test@hack.test']
    if daemon:
        with Client(m.port) as c:
            assert c.mail('a@b.test', *to)[0] == 250
    else:
        assert '250 OK id=' in m.run('-odi', '-bs', input=session(*to))
    m.wait_log('Completed')
    assert re.findall('ACL (.*)', m.log()) == ['<u0> <local.test>', '<u1> <local.test>', '<u2> <local.test>']
    assert f' for {" ".join(to)}\n' in m.log()
    for user, address in zip(('u0', 'u1', 'u2'), to):
        assert f'=> {user} <{address}> R=local_users' in m.log(), m.logs()
    assert 'Envelope-to: u0%local.test@hack.test' in str(m.mail('u0')[0])
    # Somebody whom the last part of the address does not take to is no recipient.
    done = m.run('-bs', input='EHLO x\nMAIL FROM:<a@b.test>\nRCPT TO:<nobody%local.test@hack.test>\nQUIT\n')
    assert '550 unknown user' in done


def test_percent_hack_that_cannot_be_told(martlet):
    """Taken as a local address it would be relayed later."""
    m = martlet(arguments=[], main='percent_hack_domains = lsearch;@DIR@/missing', allow_panic='for linear search')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('RCPT TO:<u0%elsewhere.test@local.test>') == (451, 'Temporary local problem - please try later')
        assert c.cmd('RCPT TO:<u0@local.test>')[0] == 250
    assert re.search(r'temporarily rejected RCPT <u0%elsewhere\.test@local\.test>: percent_hack_domains lookup deferred', m.log()), m.logs()


def test_percent_hack_ends(martlet):
    """So many domains behind each other are taken; what has more is refused, however it comes."""
    m = martlet(arguments=[], main='percent_hack_domains = *')
    good, bad = ('u0' + '%local.test' * n + '@local.test' for n in (16, 17))
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd(f'RCPT TO:<{good}>')[0] == 250
        assert c.cmd(f'RCPT TO:<{bad}>') == (550, 'too many domains after percent signs in the local part')
    assert f'rejected RCPT <{bad}>: too many domains after percent signs in the local part\n' in m.log(), m.logs()
    assert f'u0@local.test\n    <-- {good}\n' in m.run('-bt', good)
    assert 'too many domains' in m.run('-bt', bad, check=False).stdout
    m.run('-odi', '-f', 'u1@local.test', bad, input='Subject: x\n\nx\n')
    m.wait_log(re.escape(f'** {bad} : too many domains after percent signs in the local part\n'))
    assert 'too many domains after percent signs' in str(m.mail('u1')[0])


def test_submission_of_a_trusted_caller(martlet):
    """The sender is made from the id, quoted where it must be; the log tells what was given."""
    m = martlet(daemon=False, main='log_selector = +received_sender', acl_rcpt='  warn control = submission/domain=own.test\n')
    for ident, sender in (('me', 'me@own.test'), ('me@x.test', '"me@x.test"@own.test')):
        m.run('-odi', '-bs', '-oMai', ident, input=session('u0@local.test'))
        assert f'<= {sender} U=' in m.log() and m.log().count('from <a@b.test>') == (1 if ident == 'me' else 2), m.logs()
    found = ' '.join(str(x) for x in m.mail('u0'))
    assert 'Sender: me@own.test' in found and 'Sender: "me@x.test"@own.test' in found, found


def test_what_is_said_of_a_host_is_not_heard_without_one(martlet):
    """-oMaa of a session of the caller himself; -oMr of any session but -bS."""
    m = martlet(daemon=False)  # whose commands run as exim_user, who is trusted
    m.run('-odi', '-bs', '-oMaa', 'plain', '-oMai', 'me', '-oMr', 'own', input=session('u0@local.test'))
    assert re.search(r'<= a@b\.test U=\S+ P=local-esmtp S=', m.log()), m.logs()
    m.run('-odi', '-bs', '-oMa', '192.0.2.1', '-oMaa', 'plain', '-oMai', 'me', '-oMr', 'own', input=session('u0@local.test'))
    assert re.search(r'<= a@b\.test H=\(x\) \[192\.0\.2\.1\] U=\S+ P=esmtpa A=plain:me S=', m.log()), m.logs()
    m.run('-odi', '-bS', '-oMr', 'own', input=session('u0@local.test', hello='').replace('QUIT\n', ''))
    assert re.search(r'<= a@b\.test U=\S+ P=own S=', m.log()), m.logs()


def test_batch_is_told_what_the_acl_says(martlet):
    m = martlet(daemon=False, main='acl_not_smtp = no', acl='no:\n  deny message = not that\n')
    done = m.run('-bS', input=session('u0@local.test', hello='').replace('QUIT\n', ''), check=False, err=False)
    assert done.stdout.startswith('550 not that\n'), done.stdout
