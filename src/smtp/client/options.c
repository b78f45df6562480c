#include "smtp/client/options.h"

#include "smtp/client/https.h"

#define OFF(f) offsetof(struct smtp_client_options, f)
#define HOSTS(name, deflt, flags) {#name, OPTION_LIST, OFF(name), deflt, flags, LIST_HOST}

const struct option_def smtp_client_option_table[] = {
    {"address_retry_include_sender", OPTION_BOOL, OFF(address_retry_include_sender), "true"},
    {"allow_localhost", OPTION_BOOL, OFF(allow_localhost)},
    {"authenticated_sender", OPTION_EXPR, OFF(authenticated_sender)},
    {"authenticated_sender_force", OPTION_BOOL, OFF(authenticated_sender_force)},
    {"command_timeout", OPTION_TIME, OFF(command_timeout), "5m"},
    {"connect_timeout", OPTION_TIME, OFF(connect_timeout), "5m"},
    {"connection_max_messages", OPTION_INT, OFF(connection_max_messages), "500"},
    {"dane_require_tls_ciphers", OPTION_EXPR, OFF(dane_require_tls_ciphers)},
    {"data_timeout", OPTION_TIME, OFF(data_timeout), "5m"},
    {"delay_after_cutoff", OPTION_BOOL, OFF(delay_after_cutoff), "true"},
    {"dns_qualify_single", OPTION_BOOL, OFF(dns_qualify_single), "true"},
    {"dns_search_parents", OPTION_BOOL, OFF(dns_search_parents)},
    {"dnssec_request_domains", OPTION_LIST, OFF(dnssec_request_domains), "*", 0, LIST_DOMAIN},
    {"dnssec_require_domains", OPTION_LIST, OFF(dnssec_require_domains), NULL, 0, LIST_DOMAIN},
    {"dscp", OPTION_EXPR, OFF(dscp)},
    {"fallback_hosts", OPTION_EXPR, OFF(fallback_hosts)},
    {"final_timeout", OPTION_TIME, OFF(final_timeout), "10m"},
    {"gethostbyname", OPTION_BOOL, OFF(gethostbyname)},
    {"helo_data", OPTION_EXPR, OFF(helo_data), "$primary_hostname"},
    {"host_name_extract", OPTION_EXPR, OFF(host_name_extract),
        "${if and { {match {$host} {.outlook.com\\$}} {match {$item} {\\N^250-([\\w.]+)\\s\\N}} } {$1}}"},
    {"hosts", OPTION_EXPR, OFF(hosts)},
    HOSTS(hosts_avoid_esmtp, NULL, 0),
    HOSTS(hosts_avoid_pipelining, NULL, 0),
    HOSTS(hosts_avoid_tls, NULL, 0),
    {"hosts_max_try", OPTION_INT, OFF(hosts_max_try), "5"},
    {"hosts_max_try_hardlimit", OPTION_INT, OFF(hosts_max_try_hardlimit), "50"},
    HOSTS(hosts_nopass_tls, NULL, 0),
    HOSTS(hosts_noproxy_tls, NULL, OPTION_MOOT), /* no process stands between a session and those that use it later */
    {"hosts_override", OPTION_BOOL, OFF(hosts_override)},
    HOSTS(hosts_pipe_connect, NULL, 0),
    {"hosts_randomize", OPTION_EXPR_BOOL, OFF(hosts_randomize)},
    HOSTS(hosts_request_ocsp, "*", 0),
    HOSTS(hosts_require_alpn, NULL, 0),
    HOSTS(hosts_require_auth, NULL, 0),
    HOSTS(hosts_require_dane, NULL, 0),
    HOSTS(hosts_require_ocsp, NULL, 0),
    HOSTS(hosts_require_tls, NULL, 0),
    HOSTS(hosts_try_auth, NULL, 0),
    HOSTS(hosts_try_chunking, "*", 0),
    HOSTS(hosts_try_dane, "*", 0),
    HOSTS(hosts_try_fastopen, NULL, 0),
    HOSTS(hosts_try_mta_sts, NULL, 0),
    HOSTS(hosts_try_prdr, "*", 0),
    HOSTS(hosts_verify_avoid_tls, NULL, 0),
    {"interface", OPTION_EXPR, OFF(interface)},
    {"keepalive", OPTION_BOOL, OFF(keepalive), "true"},
    {"lmtp_ignore_quota", OPTION_BOOL, OFF(lmtp_ignore_quota)},
    {"max_rcpt", OPTION_EXPR, OFF(max_rcpt), "100"},
    {"message_linelength_limit", OPTION_INT, OFF(message_linelength_limit), "998"},
    {"mta_sts_verify_certificates", OPTION_EXPR, OFF(mta_sts_verify_certificates), "system"},
    {"multi_domain", OPTION_EXPR_BOOL, OFF(multi_domain), "true"},
    {"port", OPTION_EXPR, OFF(port)},
    {"protocol", OPTION_STRING, OFF(protocol)},
    {"retry_include_ip_address", OPTION_EXPR_BOOL, OFF(retry_include_ip_address), "true"},
    HOSTS(serialize_hosts, NULL, 0),
    {"size_addition", OPTION_INT, OFF(size_addition), "1024"},
    {"socks_proxy", OPTION_EXPR, OFF(socks_proxy)},
    {"tls_alpn", OPTION_EXPR, OFF(tls_alpn)},
    {"tls_certificate", OPTION_EXPR, OFF(tls_certificate)},
    {"tls_crl", OPTION_EXPR, OFF(tls_crl)},
    {"tls_dh_min_bits", OPTION_INT, OFF(tls_dh_min_bits), "1024", OPTION_OBSOLETE /* of GnuTLS only */},
    {"tls_privatekey", OPTION_EXPR, OFF(tls_privatekey)},
    {"tls_require_ciphers", OPTION_EXPR, OFF(tls_require_ciphers)},
    HOSTS(tls_resumption_hosts, NULL, 0),
    {"tls_sni", OPTION_EXPR, OFF(tls_sni)},
    {"tls_tempfail_tryclear", OPTION_BOOL, OFF(tls_tempfail_tryclear), "true"},
    HOSTS(tls_try_verify_hosts, "*", 0),
    HOSTS(tls_verify_cert_hostnames, "*", 0),
    {"tls_verify_certificates", OPTION_EXPR, OFF(tls_verify_certificates), "system"},
    HOSTS(tls_verify_hosts, NULL, 0),
    {"utf8_downconvert", OPTION_EXPR, OFF(utf8_downconvert), "-1"},
    OPTIONS_END,
};

int smtp_client_init(struct config_reader *r, struct instance *i) {
  struct smtp_client_options *o = i->options;
  struct str p = str_is_set(o->protocol) ? o->protocol : STR("smtp");
  o->lmtp = str_ieq_c(p, "lmtp");
  o->tls_on_connect = str_ieq_c(p, "smtps") || str_ieq_c(p, "submissions");
  if (!o->lmtp && !o->tls_on_connect && !str_ieq_c(p, "smtp"))
    return config_error_at(r, i->where, "unknown protocol \"%.*s\" in the %.*s transport: smtp, smtps, submissions and lmtp are known",
        STRF(p), STRF(i->name));
  if (o->command_timeout <= 0 || o->data_timeout <= 0 || o->final_timeout <= 0)
    return config_error_at(r, i->where, "command, data, or final timeout value is zero for %.*s transport", STRF(i->name));
  if (o->hosts_override && !str_is_set(o->hosts.text))
    return config_error_at(r, i->where, "hosts_override set for the %.*s transport, but hosts is not", STRF(i->name));
  if (str_trim(o->hosts_try_mta_sts.text).len && !https_available())
    return config_error_at(r, i->where, "hosts_try_mta_sts in the %.*s transport: this program was built without libcurl", STRF(i->name));
  return 0;
}
