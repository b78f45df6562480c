"""-bI:features and the "Library version:" lines of -d: what is built in, as the parser's tables have it."""
import json
import re
import subprocess

import pytest

from support.martlet import binary


def run(*args):
    return subprocess.run([binary(), *args], capture_output=True, text=True, timeout=60)


def features():
    """kind -> names, of all modules"""
    ran = run('-bI:features')
    assert (ran.returncode, ran.stderr) == (0, '')
    kinds = {}
    for module in json.loads(ran.stdout).values():
        for kind, names in module.items():
            kinds.setdefault(kind, set()).update(names)
    return kinds


def test_all_that_is_built_in_has_its_macro(tmp_path):
    """What -bI:features lists is what a configuration can ask for with .ifdef."""
    kinds = features()
    empty = tmp_path / 'conf'
    empty.write_text('')
    macros = {line.split('=')[0] for line in run('-C', str(empty), '-bP', 'macros').stdout.splitlines()}
    assert len(macros) > 500
    prefixes = {'main options': '_OPT_MAIN_', 'ACL conditions': '_ACL_COND_', 'ACL modifiers': '_ACL_MOD_', 'variables': '_EXP_VAR_',
                'expansion items': '_EXP_ITEM_', 'lookups': '_HAVE_LOOKUP_', 'log selectors': '_LOG_'}
    wanted = {prefix + name.upper().replace('-', '_') for kind, prefix in prefixes.items() for name in kinds[kind]}
    for kind, names in kinds.items():
        generic = re.fullmatch('(router|transport|authenticator) options( of the class)?', kind)
        driver = not generic and re.fullmatch('(router|transport|authenticator) (\\w+)( options)?', kind)
        prefix = f'_OPT_{generic[1]}S_' if generic else f'_OPT_{driver[1]}_{driver[2]}_' if driver else None
        if prefix:
            wanted |= {(prefix + name).upper() for name in names if name != 'driver'}
    assert len(wanted) > 500
    assert wanted <= macros, wanted - macros


# The words of the features that Exim called experimental at some time, by kind. A kind ends with the drivers it may be in.
NAMES = {
    'main options': '''acl_data_smtp_prdr acl_smtp_data_prdr bmi_config_file dcc_direct_add_header dccifd_address dmarc_forensic_sender
        dmarc_history_file dmarc_tld_file dsn_advertise_hosts dsn_from event_action hosts_proxy pipelining_connect_advertise_hosts prdr_enable
        proxy_required_hosts redis_servers spf_guess srs_config srs_hashlength srs_hashmin srs_maxage srs_secrets srs_usehash
        srs_usetimestamp tls_advertise_requiretls tls_ocsp_file tls_resumption_hosts''',
    'variables': '''arc_domains arc_oldest_pass arc_state arc_state_reason bmi_alt_location bmi_base64_tracker_verdict bmi_base64_verdict
        bmi_deliver dcc_header dcc_result dk_domain dk_is_signed dk_result dk_selector dk_sender dk_sender_domain dk_sender_local_part
        dk_sender_source dk_signsall dk_status dk_testing dmarc_domain_policy dmarc_status dmarc_status_text dmarc_used_domain event_data
        event_defer_errno event_name lookup_dnssec_authenticated proxy_external_address proxy_external_port proxy_host_address
        proxy_host_port proxy_local_address proxy_local_port proxy_session proxy_target_address proxy_target_port requiretls smtp_command
        spf_header_comment spf_received spf_result spf_smtp_comment srs_db_address srs_db_key srs_orig_recipient srs_orig_sender
        srs_recipient srs_status tls_in_ocsp tls_in_resumption tls_out_dane tls_out_ocsp tls_out_resumption tls_out_tlsa_usage
        verify_mode''',
    'ACL conditions': '''dcc dk_domain_source dk_policy dk_sender_domains dk_sender_local_parts dk_senders dk_status dmarc_status spf
        spf_guess''',
    'ACL controls': 'bmi_run dk_verify dmarc_disable_verify dmarc_enable_forensic dmarc_forensic_enable requiretls',
    'ACL modifiers': 'bmi_optin',
    'lookups': 'lmdb redis spf',
    'log selectors': 'dmarc_verbose pipelining protocol_detail proxy tls_resumption',
    'router options': 'bmi_deliver_alternate bmi_deliver_default bmi_dont_deliver bmi_rule dnssec_request_domains dnssec_require_domains',
    'router redirect': 'srs srs_alias srs_condition srs_dbinsert srs_dbselect',
    'transport smtp': '''arc_sign dk_canon dk_domain dk_private_key dk_selector dk_strict dnssec_request_domains dnssec_require_domains
        hosts_pipe_connect hosts_request_ocsp hosts_require_dane hosts_require_ocsp hosts_try_dane hosts_try_prdr socks_proxy
        tls_resumption_hosts tls_verify_cert_hostnames''',
    'transport queuefile': 'directory',
    'authenticator dovecot': 'server_socket server_tls',
}


@pytest.mark.parametrize('kind', NAMES)
def test_features_that_were_experimental(kind):
    kinds = features()
    there = set().union(*(names for k, names in kinds.items() if k.startswith(kind)))
    assert set(NAMES[kind].split()) - there == set()


def test_libraries(tmp_path):
    empty = tmp_path / 'conf'
    empty.write_text('')
    ran = run('-C', str(empty), '-d', '-be', '')
    found = dict(re.findall(r'^Library version: (.*?): Compile: .+\n +Runtime: (.+)$', ran.stderr, re.M))
    assert {'libevent', 'PCRE2', 'c-ares', 'LMDB', 'SQLite', 'OpenSSL'} <= set(found)
    assert 'not found' not in found.values()
    support = [line for line in run('-C', str(empty), '-bV').stdout.splitlines() if line.startswith('Support for:')]
    assert support and support[0] in ran.stderr.splitlines()


def test_an_unknown_subject():
    ran = run('-bI:nothing')
    assert ran.returncode == 1 and 'no such subject' in ran.stderr
