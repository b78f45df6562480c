"""What the program says it can do: predefined macros and the support lines of -bV (F24)."""
import fnmatch
import os
import re

import pytest

from support.martlet import TOP

pytestmark = pytest.mark.plain


def lines(name):
    with open(os.path.join(TOP, 'tests', 'commands', name)) as f:
        return [line.strip() for line in f if line.strip() and not line.startswith('#')]


@pytest.fixture
def m(martlet):
    return martlet(daemon=False)


def macros(m):
    out = m.run('-bP', 'macros', user=None, err=False)
    return dict(line.split('=', 1) for line in out.split('\n') if '=' in line)


@pytest.mark.root
def test_macros(martlet):
    """Those of Exim 4.96, but for the features listed as missing; the ones that are promised; and no other forms of them."""
    m = martlet(privileged=True, daemon=False)
    have, missing = macros(m), lines('macros-missing.list')
    lack = [n for n in lines('macros-exim.list') if n not in have and not any(fnmatch.fnmatch(n, p) for p in missing)]
    assert not lack, lack
    for name in '''_HAVE_SRS _HAVE_NATIVE_SRS _HAVE_EVENT _HAVE_PRDR _HAVE_PROXY _HAVE_SPF _HAVE_DKIM _HAVE_DNSSEC _HAVE_TLS _HAVE_OPENSSL
            _HAVE_TLS1_3 _HAVE_TLS_ALPN _HAVE_LOOKUP_LMDB _HAVE_LOOKUP_REDIS _HAVE_DSN _HAVE_QUEUEFILE _DRIVER_TRANSPORT_QUEUEFILE
            _DRIVER_ROUTER_ACCEPT _DRIVER_ROUTER_REDIRECT _OPT_MAIN_REDIS_SERVERS _LOG_PROTOCOL_DETAIL _LOG_PROXY _LOG_PIPELINING
            _ACL_COND_SPF_GUESS _ACL_MOD_UDPSEND _EXP_ITEM_SRS_ENCODE _EXP_COND_INBOUND_SRS _EXP_OP_MD5 _EXP_VAR_LOCAL_PART
            _OPT_TRANSPORT_SMTP_HOSTS_PIPE_CONNECT'''.split():
        assert have.get(name) == 'y', name
    for name, value in have.items():
        assert re.fullmatch(r'_[A-Z]\S*', name) and value, name
    assert m.run('-bP', 'macro', '_HAVE_SRS') == '_HAVE_SRS=y\n' and m.run('-bP', '-n', 'macro', '_HAVE_SRS') == 'y\n'
    done = m.run('-bP', 'macro', '_NOPE', check=False)
    assert done.returncode == 1 and done.stdout == 'macro _NOPE not found\n'
    # Macros may hold passwords.
    for words in (['macros'], ['macro', '_HAVE_SRS'], ['macro_list']):
        done = m.run('-bP', *words, user='u1', check=False)
        assert done.returncode != 0 and '_HAVE' not in done.stdout, words


def test_predefined_ones_stay(martlet):
    for text, error in (('_HAVE_SRS = n', 'option setting expected: _HAVE_SRS'),
                        ('_HAVE_SRS == n', 'option setting expected: _HAVE_SRS')):
        done = martlet(configuration=text + '\n', daemon=False).run('-bV', check=False)
        assert done.returncode == 1 and re.search(error, done.stdout), done.stdout
    m = martlet(configuration='.ifdef _HAVE_SRS\nprimary_hostname = with.test\n.else\nprimary_hostname = without.test\n.endif\n'
                              '.ifdef _HAVE_NOTHING\nnonsense\n.endif\n.ifndef _OPT_MAIN_QUALIFY_DOMAIN\nnonsense\n.endif\n', daemon=False)
    assert m.expand('$primary_hostname') == 'with.test'


def test_support_lines(m):
    version = m.run('-bV')
    debug = m.run('-d+all', '-be', '')
    support = next(line for line in version.split('\n') if line.startswith('Support for:'))
    assert support in debug
    tokens = support.split(':', 1)[1].split()
    for token in 'crypteq iconv() IPv6 Perl Expand_dlfunc OpenSSL DKIM DNSSEC DSN Event PRDR PROXY SPF SRS Experimental_LMDB ' \
                 'Experimental_QUEUEFILE Experimental_Redis'.split():
        assert token in tokens, token
    assert len(tokens) == len(set(tokens)), tokens
    found = {}
    for line in version.split('\n'):
        kind, colon, rest = line.partition(':')
        found[kind.replace(' (built-in)', '')] = rest.split()
    assert {'lsearch', 'lmdb', 'redis', 'spf', 'dnsdb', 'ldap', 'pgsql'} <= set(found['Lookups'])
    assert {'cram_md5', 'plaintext'} <= set(found['Authenticators'])
    assert found['Routers'] == 'accept dnslookup ipliteral iplookup manualroute queryprogram redirect'.split()
    assert {'autoreply', 'lmtp', 'pipe', 'queuefile', 'smtp'} <= set(found['Transports'])
    assert any(t.startswith('appendfile/maildir/mailstore/mbx') for t in found['Transports'])
    assert f"Configuration file is {m.conf}" in version
