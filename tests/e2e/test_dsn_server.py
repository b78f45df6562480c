"""DSN (RFC 3461), the server's side: what is offered, checked and kept in the spool."""
import glob

from support.smtp import Client
from support.util import read, wait_for

MAIN = 'queue_only\ndsn_advertise_hosts = 127.0.0.1\ndomainlist nothing =\n'


def header_file(m, known=()):
    """The only -H file besides those that are known."""
    pattern = m.outside('spool/input/**/*-H')
    return wait_for(lambda: set(glob.glob(pattern, recursive=True)) - set(known), m.logs).pop()


def test_offered_to_those_named(martlet):
    m = martlet(main=MAIN, interfaces='127.0.0.1 : 127.0.0.2', acl_rcpt='  accept')
    with Client(m.port) as c:
        assert 'DSN' in c.ehlo()
    with Client(m.port, address='127.0.0.2', source='127.0.0.2') as c:
        assert 'DSN' not in c.ehlo()
        assert c.cmd('MAIL FROM:<a@b.test> RET=FULL')[0] == 501
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('RCPT TO:<a@local.test> NOTIFY=NEVER')[0] == 501
    with Client(m.port) as c:
        c.expect(250, 'HELO x')
        assert c.cmd('MAIL FROM:<a@b.test> RET=FULL')[0] == 501


def test_kept_in_the_spool(martlet):
    m = martlet(main=MAIN, acl_rcpt='  accept')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test> ret=hdrs ENVID=a+20b+2Bc SIZE=100')
        c.expect(250, 'RCPT TO:<never@local.test> NOTIFY=never ORCPT=rfc822;x+2By@elsewhere.test')
        c.expect(250, 'RCPT TO:<all@local.test> ORCPT=rfc822;q@e.test NOTIFY=SUCCESS,failure,Delay')
        c.expect(250, 'RCPT TO:<empty@local.test> NOTIFY=')
        c.expect(250, 'RCPT TO:<orcpt@local.test> ORCPT=x-type;q')
        c.expect(250, 'RCPT TO:<plain@local.test>')
        c.expect(354, 'DATA')
        assert c.body('Subject: x\r\n\r\nx\r\n')[0] == 250
        first = header_file(m)
        text = read(first)
        for line in ['-dsn_envid a+20b+2Bc', '-dsn_ret 2', 'never@local.test rfc822;x+2By@elsewhere.test 27,2  0,-1#3',
                     'all@local.test rfc822;q@e.test 15,28  0,-1#3', 'empty@local.test  0,32  0,-1#3',
                     'orcpt@local.test x-type;q 8,0  0,-1#3', 'plain@local.test']:
            assert '\n' + line + '\n' in text, (line, text)
        # Nothing is left of it for the next message.
        assert c.mail('a@b.test', 'other@local.test', hello=False)[0] == 250
        text = read(header_file(m, [first]))
        assert 'dsn_' not in text and '\nother@local.test\n' in text


def test_bad_values(martlet):
    m = martlet(main=MAIN + 'smtp_max_synprot_errors = 100\n', acl_rcpt='  accept')
    with Client(m.port) as c:
        c.ehlo()
        for bad in ['RET=x', 'RET', 'RET=', 'RET=FULL RET=FULL', 'ENVID=a ENVID=b', 'ENVID=a+zz', 'ENVID=a+0A', 'ENVID=',
                    'ENVID=a=b', 'ENVID=' + 'x' * 101, 'ENVID=a\xe4']:
            assert c.cmd('MAIL FROM:<a@b.test> ' + bad)[0] == 501, bad
        c.expect(250, 'MAIL FROM:<a@b.test> RET=FULL ENVID=' + 'x' * 100)
        for bad in ['NOTIFY', 'NOTIFY=NEVER,SUCCESS', 'NOTIFY=SUCCESS,NEVER', 'NOTIFY=,', 'NOTIFY=SUCCESS,', 'NOTIFY=sometimes',
                    'NOTIFY=NEVER NOTIFY=NEVER', 'ORCPT=foo', 'ORCPT=rfc822;', 'ORCPT=;x', 'ORCPT=rfc822;a+0D+0Ab', 'ORCPT=rfc822;a+',
                    'ORCPT=rfc 822;a', 'ORCPT=rfc822;a ORCPT=rfc822;a', 'ORCPT=rfc822;' + 'x' * 500]:
            assert c.cmd('RCPT TO:<a@local.test> ' + bad)[0] == 501, bad
        # A long line of valid parameters is taken.
        c.expect(250, 'RCPT TO:<a@local.test> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;' + 'x' * 493)


def test_too_many_bad_values_end_the_session(martlet):
    m = martlet(main=MAIN + 'smtp_max_synprot_errors = 1\n', acl_rcpt='  accept')
    with Client(m.port) as c:
        c.ehlo()
        assert c.cmd('MAIL FROM:<a@b.test> RET=x')[0] == 501
        assert 'Too many syntax or protocol errors' in c.cmd('MAIL FROM:<a@b.test> RET=x')[1]
        assert c.at_end()
