"""Sender rewriting by redirect routers (srs, srs_alias …), both ways, with Debian's Mail::SRS as the other side."""
import base64
import hashlib
import hmac
import re
import subprocess
import time

import pytest

from support.databases import Redis
from support.smtp import Client

pytestmark = [pytest.mark.plain]

SECRET, FORMER = 'a-secret-of-more-than-20-characters', 'the-secret-of-the-years-before'
MAIN = f'hide srs_secrets = {SECRET}:{FORMER}\n'
ROUTERS = """
forward:
  driver = redirect
  local_parts = away
  srs = forward
  srs_alias = fwd.test
  @FORWARD@
  data = u0@local.test

back:
  driver = redirect
  senders = :
  local_parts = ^(?i)"?srs
  srs = reverse
  @BACK@
  data = ${if eq{$srs_recipient}{ann@orig.test}{u1@local.test}{:fail: to <$srs_recipient> $srs_status}}
"""


@pytest.fixture(autouse=True)
def one_day():
    """The day is in the addresses: no test goes over its end (UTC)."""
    left = 86400 - time.time() % 86400
    if left < 60:
        time.sleep(left)


def start(martlet, forward='', back='', main=MAIN, **kw):
    return martlet(main=main, routers=ROUTERS.replace('@FORWARD@', forward).replace('@BACK@', back), acl_rcpt='  accept',
                   maildir='headers_add = X-Was: $sender_address\\nX-Now: $srs_orig_sender $srs_orig_recipient $srs_status', **kw)


def mails(m):
    return [raw.decode() for raw in m.mail('u0')]


def deliver(m, *senders):
    """The return paths with which mail from these arrives."""
    paths = {}
    for n, sender in enumerate(senders):
        with Client(m.port) as c:
            assert c.mail(sender, 'away@local.test')[0] == 250
        m.wait_mail('u0', n + 1)
    for text in mails(m):
        paths[re.search(r'X-Was: (.*)', text)[1]] = re.search(r'^Return-path: <(.*)>', text, re.M | re.I)[1]
    return [paths[s] for s in senders]


def verified(m, local):
    return m.run('-f', '<>', '-bv', f'{local}@local.test', check=False, tool=True).stdout


def srs0(days=0, secret=SECRET, domain='orig.test', local='ann'):
    day, letters = int(time.time() // 86400) - days, 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'
    stamp = letters[day >> 5 & 31] + letters[day & 31]
    digest = hmac.new(secret.encode(), (stamp + domain + local).lower().encode(), hashlib.sha1).digest()
    return f'SRS0={base64.b64encode(digest).decode()[:6].replace("+", ".").replace("/", "_")}={stamp}={domain}={local}'


def mail_srs(call):
    """An expression of Perl with $srs, a Mail::SRS of the secret."""
    done = subprocess.run(['perl', '-e', 'use Mail::SRS; my $srs = new Mail::SRS(Secret => "%s", MaxAge => 31, HashLength => 6, HashMin => 6);'
                           'print %s;' % (SECRET, call)], capture_output=True, text=True)
    if "Can't locate Mail" in done.stderr:
        pytest.skip('Mail::SRS is not installed')
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_and_back(martlet):
    m = start(martlet)
    plain, quoted, same, null, first, second = deliver(
        m, 'ann@orig.test', '"a b"@orig.test', 'x@fwd.test', '', 'SRS0=abcd=AA=far.test=me@first.test',
        'SRS1=hash=first.test==abcd=AA=far.test=me@second.test')
    assert plain == srs0() + '@fwd.test'
    assert re.fullmatch(r'"SRS0=[\w.]{6}=\w\w=orig\.test=a b"@fwd\.test', quoted), quoted
    assert (same, null) == ('x@fwd.test', '')
    assert re.fullmatch(r'SRS1=[\w.]{6}=first\.test==abcd=AA=far\.test=me@fwd\.test', first), first
    assert second == first  # who was second is left out
    m.wait_log(re.escape(f'SRS=<{plain}>'))
    assert any('X-Now: ann@orig.test away@local.test OK' in text for text in mails(m))
    local = plain.split('@')[0]
    for written in (local, local.lower(), local.upper(), local.replace('SRS0=', 'SRS0+'), local.replace('SRS0=', 'srs0-')):
        assert 'verified' in verified(m, written) or 'to <' in verified(m, written), written
    assert 'verified' in verified(m, local)
    assert 'to <"a b"@orig.test> OK' in verified(m, quoted.split('@')[0])
    assert 'to <SRS0=abcd=AA=far.test=me@first.test> OK' in verified(m, first.split('@')[0])


def test_with_mail_srs(martlet):
    m = start(martlet)
    made, = deliver(m, 'ann@orig.test')
    if not re.search(r'=[^=]*[._][^=]*=', made[:13]):  # it knows only its own spelling of a hash's "+" and "/"
        assert mail_srs(f"$srs->reverse('{made}')") == 'ann@orig.test'
    theirs = mail_srs("$srs->forward('ann@orig.test', 'local.test')")
    assert 'verified' in verified(m, theirs.split('@')[0])
    guarded = mail_srs("$srs->forward('SRS0=abcd=AA=far.test=me@first.test', 'local.test')")
    assert guarded.startswith('SRS1=') and 'to <SRS0=abcd=AA=far.test=me@first.test> OK' in verified(m, guarded.split('@')[0])


def test_what_is_refused(martlet):
    m = start(martlet)
    good = srs0()
    assert 'verified' in verified(m, good) and 'verified' in verified(m, srs0(31)) and 'verified' in verified(m, srs0(3, FORMER))
    changed = good[:5] + ('A' if good[5] != 'A' else 'B') + good[6:]
    for bad in (changed, good.replace('ann', 'bob'), srs0(32), srs0(-1), srs0(0, 'another'), 'SRS0=000000=orig.test=ann', 'SRS0=x',
                good[:9] + good[11:], srs0(local='l' * 65), 'SRS1=000000=a.test==x=y=z=q', 'SRS1=x', 'SRS0==='):
        assert 'invalid SRS address' in verified(m, bad), bad
    assert 'Unrouteable' in verified(m, 'srsly')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<>')
        c.expect(250, f'RCPT TO:<{good}@local.test>')


def test_a_verifying_client_hears_it(martlet):
    m = martlet(main=MAIN, routers=ROUTERS.replace('@FORWARD@', '').replace('@BACK@', ''), acl_rcpt='  require verify = recipient\n  accept')
    with Client(m.port) as c:
        c.ehlo()
        c.expect(250, 'MAIL FROM:<>')
        code, text = c.cmd(f'RCPT TO:<SRS0=AAAAAA=AA=orig.test=ann@local.test>')[:2]
        assert code == 550 and 'invalid SRS address' in str(text)
        c.expect(250, f'RCPT TO:<{srs0()}@local.test>')


def test_options_of_the_address(martlet):
    m = start(martlet, main=f'srs_config = {SECRET}:5:8:1:1\n')
    made, = deliver(m, 'ann@orig.test')
    assert re.match(r'SRS0=[\w.]{8}=', made) and 'verified' in verified(m, made.split('@')[0])
    assert 'invalid' in verified(m, srs0(6)) and 'invalid' in verified(m, srs0())  # 6 characters are too few


def test_without_hash_and_timestamp(martlet):
    m = start(martlet, main='srs_usehash = false\nno_srs_usetimestamp\n')
    made, = deliver(m, 'ann@orig.test')
    assert made == 'SRS0=orig.test=ann@fwd.test' and 'verified' in verified(m, 'SRS0=orig.test=ann')
    assert 'anybody can make SRS addresses' in m.run('-bV')


def test_condition_and_errors_to(martlet):
    m = start(martlet, forward='srs_condition = ${if match{$sender_address}{^b}{yes}{no}}\n  errors_to = u9@local.test')
    ann, bob = deliver(m, 'ann@orig.test', 'bob@orig.test')
    assert ann == 'u9@local.test' and bob == srs0(local='bob') + '@fwd.test'
    assert m.log().count('"srs" overrides "errors_to"') == 1


@pytest.mark.parametrize('text, error', [
    ('srs_maxage = 0', 'srs_maxage must be between 1 and 511'), ('srs_maxage = 512', 'srs_maxage must be'),
    ('srs_hashlength = 28', 'srs_hashlength must be'), ('srs_hashmin = 7', 'srs_hashmin must be'), ('srs_hashmin = 0', 'srs_hashmin must be'),
    ('srs_config = x:y', '"y" is not a number'), ('srs_config = x:1:2:1:1:1', 'srs_config is not'), ('srs_config = x:3:6:2:1', 'is not a number')])
def test_main_options_are_checked(martlet, text, error):
    m = martlet(main=text + '\n', daemon=False)
    assert error in m.run('-bV', check=False, tool=True).stdout


@pytest.mark.parametrize('main, option, error', [
    ('', '', 'no srs_secrets'), (MAIN, 'srs_dbinsert = ${lookup{x}lsearch{/nonexistent}}', 'failed to expand'),
    (MAIN, 'srs_condition = ${lookup{x}lsearch{/nonexistent}}', 'failed to expand')])
def test_trouble_defers(martlet, main, option, error):
    m = start(martlet, main=main, forward=option)
    with Client(m.port) as c:
        c.mail('ann@orig.test', 'away@local.test')
    m.wait_log('== away@local.test R=forward defer .*' + error)


def test_a_word_that_is_none(martlet):
    m = martlet(main=MAIN, routers=ROUTERS.replace('srs = forward', 'srs = sideways').replace('@FORWARD@', '').replace('@BACK@', ''),
                daemon=False, allow_panic='is not a value of "srs"')
    assert 'neither forward' in m.run('-bt', 'away@local.test', check=False, tool=True).stdout


@pytest.mark.skipif(Redis.program is None, reason='no redis server is installed')
def test_database(martlet, make):
    r = make(Redis)
    m = start(martlet, main=MAIN + f'redis_servers = 127.0.0.1::{r.port}//\n',
              forward='srs_db_insert = ${lookup redis{set ${quote_redis:$srs_db_key} ${quote_redis:$srs_db_address}}}',
              back='srs_dbselect = ${lookup redis{get ${quote_redis:$srs_db_key}}}')
    made, again = deliver(m, 'ann@orig.test')[0], m.run('-bP', 'router', 'forward')
    key = re.fullmatch(r'SRS0=([0-9a-f]{20})@fwd\.test', made)[1]
    assert r.call('GET', key) == b'ann@orig.test' and 'srs_dbinsert' in again
    assert 'verified' in verified(m, f'SRS0={key}')
    assert 'verified' in verified(m, srs0())  # from before there was a database
    assert 'invalid SRS address' in verified(m, 'SRS0=00000000000000000000')
    r.stop()
    assert 'cannot be resolved at this time' in verified(m, f'SRS0={key}')
