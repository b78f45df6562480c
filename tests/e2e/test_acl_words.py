"""Words of ACLs: the controls debug and dscp, verify = csa, quota verification, and the whole list of them."""
import glob
import os

import pytest

from support.smtp import Client
from support.util import wait_for


def debug_log(m, tag=''):
    path = m.outside(f'{m.log_dir}/debuglog{tag}')
    if not os.path.exists(path):
        return None
    with open(path) as f:
        return f.read()


def test_debug_log_of_one_connection(martlet):
    m = martlet(acl_rcpt='  warn local_parts = u1\n       control = debug/tag=.$sender_host_address/opts=+all\n'
                         '  warn hosts = 127.0.0.1\n       set acl_m_x = seen\n')
    with Client(m.port) as c, Client(m.port) as other:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
        assert other.mail('other@b.test', 'u2@local.test')[0] == 250
    m.wait_log('Completed', count=2)
    # The delivery is in it, too: it is the last to write.
    text = wait_for(lambda: (debug_log(m, '.127.0.0.1') or '') if 'u1 <u1@local.test>' in (debug_log(m, '.127.0.0.1') or '') else None,
                    lambda: f'a debug log with the delivery: {debug_log(m, ".127.0.0.1")} {m.logs()}')
    assert 'check hosts = 127.0.0.1' in text and 'LOG: MAIN\n' in text and 'a@b.test' in text
    # The other session was in the same process, perhaps; it is in no debug log.
    assert 'u2@' not in text and 'other@' not in text
    assert debug_log(m) is None


def test_debug_kill_and_stop(martlet):
    m = martlet(acl_rcpt='  warn control = debug/tag=_a\n'
                         '  warn local_parts = u1\n       control = debug/kill\n'
                         '  warn local_parts = u2\n       control = debug/stop\n'
                         '  warn condition = ${if eq{$local_part}{u2}}\n       set acl_m0 = unseen\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    assert debug_log(m, '_a') is None
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u2@local.test')[0] == 250
    text = debug_log(m, '_a')
    assert 'check local_parts = u2' in text and 'unseen' not in text and 'LOG:' not in text


def test_debug_pretrigger(martlet):
    m = martlet(acl_rcpt='  warn control = debug/tag=_p/pretrigger=2000/trigger=paniclog/opts=+all\n'
                         '  warn local_parts = u1\n       logwrite = :panic: something is wrong\n'
                         '  warn local_parts = u2\n       control = debug/trigger=now\n',
                allow_panic='something is wrong')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u3@local.test')[0] == 250
    m.wait_log('Completed')
    assert debug_log(m, '_p') is None
    for user in ('u1', 'u2'):
        with Client(m.port) as c:
            assert c.mail('a@b.test', user + '@local.test')[0] == 250
        text = debug_log(m, '_p')
        assert f'check local_parts = {user}' in text
        os.unlink(m.outside(f'{m.log_dir}/debuglog_p'))


def test_debug_goes_on_after_the_queue(martlet):
    m = martlet(acl_rcpt='  warn control = debug/tag=_q/opts=+route\n       control = queue\n', arguments=[])
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 250
    m.wait_log('queued by ACL')
    before = debug_log(m, '_q')
    m.run('-q')
    m.wait_mail('u1')
    wait_for(lambda: 'Completed' in debug_log(m, '_q'), lambda: debug_log(m, '_q') + m.logs())
    assert 'Completed' not in before
    assert [os.path.basename(p) for p in glob.glob(m.outside(f'{m.log_dir}/debuglog*'))] == ['debuglog_q']


@pytest.mark.parametrize('bad, why', [
    ('tag=../x', 'syntax error in "control=debug/tag=../x"'), ('opts=+nothing', 'unknown debug_selector setting: +nothing'),
    ('tag=$sender_helo_name', 'attempt to use tainted tag'), ('pretrigger=99999999', 'syntax error'), ('trigger=never', 'syntax error'),
])
def test_debug_mistakes(martlet, bad, why):
    m = martlet(acl_rcpt=f'  warn control = debug/{bad}\n       logwrite = not reached\n'
                         f'  require control = debug/{bad}\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test')[0] == 451
    assert why in m.log() and 'not reached' not in m.log()
    assert not glob.glob(m.outside(f'{m.log_dir}/debuglog*'))


# --- verify = recipient/quota ---

QUOTA_TRANSPORT = '''boxes:
  driver = appendfile
  file = @DIR@/mail/$local_part_data.mbox
  quota = 2K
'''
QUOTA_ROUTER = '''boxes:
  driver = accept
  domains = local.test
  local_parts = u1 : u2
  address_data = ${acl{counted}}
  transport = boxes
'''


def fill(m, user, size):
    path = m.outside(f'mail/{user}.mbox')
    with open(path, 'w') as f:
        f.write('x' * size)
    os.chown(path, m.uid, m.gid) if os.geteuid() == 0 else None


def quota(c, sender, user, size=None):
    c.expect(250, 'RSET')
    c.expect(250, f'MAIL FROM:<{sender}>' + (f' SIZE={size}' if size else ''))
    return c.cmd(f'RCPT TO:<{user}@local.test>')


def test_verify_quota(martlet):
    m = martlet(acl_rcpt='  deny message = no: $recipient_verify_failure, $acl_verify_message\n'
                         '       !verify = recipient/quota=cachepos=0s,cacheneg=0s\n',
                acl='counted:\n  accept logwrite = counted $local_part\n         message = x\n',
                routers=QUOTA_ROUTER, transports=QUOTA_TRANSPORT)
    fill(m, 'u1', 1500)
    with Client(m.port) as c:
        c.ehlo()
        assert quota(c, 'a@b.test', 'u1')[0] == 250
        assert quota(c, 'a@b.test', 'u1', 400)[0] == 250
        assert quota(c, 'a@b.test', 'u1', 4000) == (550, 'no: quota, Over quota')
        fill(m, 'u1', 3000)
        assert quota(c, 'a@b.test', 'u1')[0] == 550
        # No file yet: nothing is used up. A Maildir without a quota has room.
        assert quota(c, 'a@b.test', 'u2', 100)[0] == 250
        assert quota(c, 'a@b.test', 'u5', 100000)[0] == 250
        assert quota(c, 'a@b.test', 'nobody-here') == (550, 'no: route, Unrouteable address')
    assert not os.path.exists(m.outside('mail/u2.mbox'))


def test_verify_quota_is_cached(martlet):
    m = martlet(acl_rcpt='  deny message = $acl_verify_message\n       !verify = recipient/quota=cachepos=1h,cacheneg=1h\n',
                acl='counted:\n  accept logwrite = counted $local_part\n         message = x\n',
                routers=QUOTA_ROUTER, transports=QUOTA_TRANSPORT)
    fill(m, 'u1', 3000)
    with Client(m.port) as c:
        c.ehlo()
        assert quota(c, 'a@b.test', 'u1') == (550, 'Over quota')
        fill(m, 'u1', 10)
        assert quota(c, 'a@b.test', 'u1') == (550, 'Previous (cached) quota verification failure')
        assert quota(c, 'a@b.test', 'u2')[0] == 250
        fill(m, 'u2', 3000)
        assert quota(c, 'a@b.test', 'u2')[0] == 250
    assert m.log().count('counted u1') == 1 and m.log().count('counted u2') == 1


# --- verify = csa ---

def test_verify_csa(martlet, nameserver):
    nameserver.host('yes.test', '127.0.0.1')
    nameserver.host('other.test', '192.0.2.1')
    for name, weight, target in (('yes.test', 2, 'yes.test'), ('no.test', 1, 'no.test'), ('wrong.test', 2, 'other.test'),
                                 ('gone.test', 2, 'gone.test')):
        nameserver.add('_client._smtp.' + name, 'SRV', (1, weight, 0, target))
    nameserver.add('_client._smtp.strict.test', 'SRV', (1, 1, 1, 'strict.test'))
    m = martlet(resolver=nameserver.address,
                acl_rcpt='  deny   message = $csa_status: $acl_verify_message\n         !verify = csa\n'
                         '  warn   logwrite = csa $sender_helo_name: $csa_status\n')
    want = {'yes.test': (250, None), 'nothing.example': (250, None), 'no.test': (550, 'host name not authorized'),
            'wrong.test': (550, 'client address mismatch'), 'gone.test': (550, 'no authorized addresses'),
            'a.strict.test': (550, 'explicit authorization required')}
    for name, (code, why) in want.items():
        with Client(m.port) as c:
            c.ehlo(name)
            got = c.mail('a@b.test', 'u1@local.test', hello=False)
            assert got[0] == code, (name, got)
            if why:
                assert got[1] == 'fail: client SMTP authorization ' + why, (name, got)
    assert 'csa yes.test: ok' in m.log() and 'csa nothing.example: unknown' in m.log()


# --- all words ---

SERVED = {
    'conditions': '''acl atrn_domains authenticated condition dcc decode dkim_signers dkim_status dnslists domains encrypted hosts local_parts malware mime_regex
        ratelimit recipients regex seen sender_domains senders spam spf spf_guess verify'''.split(),
    'modifiers': '''add_header continue control delay endpass log_message log_reject_target logwrite message queue remove_header set
        udpsend'''.split(),
    'controls': '''allow_auth_unadvertised caseful_local_part caselower_local_part cutthrough_delivery debug dkim_disable_verify
        dscp/ef enforce_sync fakedefer fakereject freeze no_callout_flush no_delay_flush no_enforce_sync no_mbox_unspool
        no_multiline_responses no_pipelining queue queue_only submission suppress_local_fixups wellknown/x'''.split(),
    'verify': '''certificate csa header_names_ascii header_sender header_syntax helo not_blind recipient reverse_host_lookup sender
        sender=a@b recipient/quota recipient/callout=10s,random,hold sender/callout/no_details not_blind/case_insensitive'''.split(),
}


def line(kind, word):
    if kind == 'conditions':
        value = {'condition': 'true', 'acl': 'accept', 'verify': 'sender', 'ratelimit': '5/1h', 'seen': '-1h'}.get(word, '*')
        return f'  accept {word} = {value}\n'
    if kind == 'modifiers':
        if word == 'set':
            return '  accept set acl_m_x = 1\n'
        if word == 'control':
            return '  accept control = freeze\n'
        return '  accept endpass\n' if word == 'endpass' else f'  accept {word} = x\n'
    return f'  accept {"control" if kind == "controls" else "verify"} = {word}\n'


def test_every_word_is_known(martlet):
    """Each word of the manual's ACL chapter is taken; others are refused."""
    m = martlet(daemon=False)
    text = open(m.conf).read()
    assert 'begin acl\n' in text

    def check(added):
        with open(m.conf, 'w') as f:
            f.write(text.replace('begin acl\n', 'begin acl\nwords:\n' + added, 1))
        return m.run('-bV', check=False)
    everything = ''.join(line(kind, word) for kind in SERVED for word in SERVED[kind])
    for verb in ('defer', 'deny', 'discard', 'drop', 'require', 'warn'):
        everything += f'  {verb} condition = true\n'
    done = check(everything)
    assert done.returncode == 0, done.stdout
    for strange in ('  accept control = freezing\n', '  accept verify = nothing\n', '  accept condtion = x\n', '  accpt\n',
                    '  accept set x = y\n', '  accept verify = sender/quota\n'):
        done = check(strange)
        assert done.returncode != 0 and 'error' in done.stdout, (strange, done.stdout)


@pytest.mark.parametrize('arg, error', [
    ('x/1h', '"x" is not a positive number'), ('5/x', '"x" is not a time value'), ('5', '"NULL" is not a time value'), ('', 'sender rate limit not set'),
    ('5/1h/strict/leaky', 'conflicting update modes'), ('5/1h/per_conn/per_mail', 'conflicting per_* options'), ('5/1h/readonly/noupdate', None)])
def test_ratelimit_that_is_wrong(martlet, arg, error):
    """The words of Debian's Exim."""
    m = martlet(acl_rcpt=f'  warn ratelimit = {arg}\n')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<a@b.test>')
        assert c.cmd('RCPT TO:<u1@local.test>')[0] == (451 if error else 250)
    if error:
        assert f'temporarily rejected RCPT <u1@local.test>: error in arguments to "ratelimit" condition: {error}\n' in m.log()


def test_places_of_added_lines(martlet):
    m = martlet(acl_rcpt='  warn add_header = :at_start:X-S: s\n       add_header = :at_start_rfc:X-F: f\n       add_header = :after_received:X-R: r\n')
    with Client(m.port) as c:
        assert c.mail('a@b.test', 'u1@local.test', data='Received: z\r\nSubject: q\r\n\r\nx\r\n')[0] == 250
    names = [line.split(b':')[0].decode() for line in m.wait_mail('u1')[0].split(b'\n\n')[0].split(b'\n') if line[:1].isalpha()]
    names = names[names.index('X-S'):]
    assert names[:6] == ['X-S', 'Received', 'Received', 'X-R', 'X-F', 'Subject'], names
