"""What ends an ACL and what a `warn` statement passes over: a test that cannot be completed is none, a wrong configuration is an error."""
import pytest

SESSION = 'EHLO x\r\nMAIL FROM:<a@b.test>\r\nRCPT TO:<u0@local.test>\r\nQUIT\r\n'
BAD = '${if eq{a}'
WHY = 'missing 2nd string in {} after "eq"'


def session(martlet, statements, acl=''):
    m = martlet(daemon=False, acl_rcpt=statements, acl=acl, allow_panic='.')
    return m, m.run('-bs', '-oMa', '192.0.2.1', input=SESSION)


@pytest.mark.parametrize('clause', [f'condition = {BAD}', f'set acl_m0 = {BAD}', f'logwrite = {BAD}', f'control = {BAD}', f'add_header = {BAD}',
                                    f'remove_header = {BAD}', f'verify = {BAD}', f'dnslists = {BAD}'])
def test_errors_end_the_acl(martlet, clause):
    m, done = session(martlet, f'  warn {clause}\n  accept\n')
    assert '451 Temporary local problem - please try later' in done
    assert f'temporarily rejected RCPT <u0@local.test>: failed to expand ACL string "{BAD}": {WHY}' in m.log('reject')
    assert 'skipped' not in m.log()


def test_errors_in_a_nested_acl(martlet):
    m, done = session(martlet, f'  warn acl = inner\n    logwrite = not me\n  accept\n', f'inner:\n  warn set acl_m0 = {BAD}\n  accept\n')
    assert '451 ' in done and 'not me' not in m.log()


def test_wrong_place_or_argument_is_an_error(martlet):
    for clause, why in (('malware = *', 'cannot test malware condition in RCPT ACL'), ('delay = foo', 'is not a time value')):
        m, done = session(martlet, f'  warn {clause}\n  accept\n')
        assert '451 ' in done and why in m.log('reject')


@pytest.mark.parametrize('condition', ['hosts', 'domains', 'local_parts', 'senders', 'sender_domains', 'recipients'])
def test_lists_are_passed_over(martlet, condition):
    """The list's error has a line of its own, in the panic log too; the refusal does not tell it again."""
    m, done = session(martlet, f'  warn {condition} = {BAD}\n    logwrite = not me\n  deny {condition} = {BAD}\n  accept\n')
    assert '451 ' in done
    line = f'failed to expand "{BAD}" while checking a list: {WHY}\n'
    assert m.log().count(line) == 2 and m.log('panic').count(line) == 2
    assert m.log().count('statement skipped') == 1 and 'condition test deferred\n' in m.log() and 'not me' not in m.log()
    assert m.log('reject').endswith('temporarily rejected RCPT <u0@local.test>\n')


def test_lists_about_what_is_not_there(martlet):
    """Neither encrypted nor authenticated: nobody needs to know the list."""
    m, done = session(martlet, f'  warn !encrypted = {BAD}\n    logwrite = no TLS\n  warn !authenticated = {BAD}\n    logwrite = no AUTH\n  accept\n')
    assert '250 Accepted' in done and 'no TLS' in m.log() and 'no AUTH' in m.log() and 'failed' not in m.log()


def test_lookups_that_defer(martlet):
    """They say what is wrong in their own words, and a `warn` is passed over."""
    lookup = '${lookup mysql,servers=127.0.0.1::1/a/b/c{select 1}}'
    m, done = session(martlet, f'  warn set acl_m0 = {lookup}\n    logwrite = not me\n  deny condition = {lookup}\n')
    if 'unknown lookup type' in m.log() or 'MYSQL' not in m.log():
        pytest.skip('built without MySQL')
    assert '451 ' in done and 'not me' not in m.log()
    said = [line.split('deferred: ')[-1].split('<u0@local.test>: ')[-1] for line in m.log().split('\n') if 'MYSQL' in line]
    assert len(said) == 2 and said[0] == said[1] and said[0].startswith('MYSQL connection failed'), m.log()


def test_quit_acl(martlet):
    m = martlet(daemon=False, main='acl_smtp_quit = q', acl=f'q:\n  warn set acl_m0 = {BAD}\n  accept\n', allow_panic='.')
    assert '221 ' in m.run('-bs', '-oMa', '192.0.2.1', input='QUIT\r\n')
    assert f'ACL for QUIT returned ERROR: failed to expand ACL string "{BAD}": {WHY}' in m.log('panic')
