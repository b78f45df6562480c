/* Private options of the smtp transport (Exim manual, chapter "The smtp
transport"). */
#pragma once

#include "config/config.h"

struct smtp_client_options {
  bool address_retry_include_sender, allow_localhost, authenticated_sender_force, delay_after_cutoff, dns_qualify_single,
      dns_search_parents, gethostbyname, hosts_override, keepalive, lmtp_ignore_quota, tls_tempfail_tryclear;
  struct option_expr authenticated_sender, dane_require_tls_ciphers, dscp, fallback_hosts, helo_data, host_name_extract, hosts,
      hosts_randomize, interface, max_rcpt, mta_sts_verify_certificates, multi_domain, port, retry_include_ip_address, socks_proxy, tls_alpn, tls_certificate,
      tls_crl, tls_privatekey, tls_require_ciphers, tls_sni, tls_verify_certificates, utf8_downconvert;
  struct option_expr dnssec_request_domains, dnssec_require_domains;
  struct option_expr hosts_avoid_esmtp, hosts_avoid_pipelining, hosts_avoid_tls, hosts_nopass_tls, hosts_noproxy_tls,
      hosts_pipe_connect, hosts_request_ocsp, hosts_require_alpn, hosts_require_auth, hosts_require_dane, hosts_require_ocsp,
      hosts_require_tls, hosts_try_auth, hosts_try_chunking, hosts_try_dane, hosts_try_fastopen, hosts_try_mta_sts, hosts_try_prdr,
      hosts_verify_avoid_tls, serialize_hosts, tls_resumption_hosts, tls_try_verify_hosts, tls_verify_cert_hostnames, tls_verify_hosts;
  struct str protocol;
  int64_t command_timeout, connect_timeout, data_timeout, final_timeout;
  int64_t connection_max_messages, hosts_max_try, hosts_max_try_hardlimit, message_linelength_limit, size_addition, tls_dh_min_bits;
  bool lmtp, tls_on_connect; /* from protocol */
  bool callout;              /* a copy of the options, with its own time limits, for a callout */
};

extern const struct option_def smtp_client_option_table[];
/* Checks and derived values of an instance. */
int smtp_client_init(struct config_reader *r, struct instance *i);
static inline const struct smtp_client_options *smtp_client_options(const struct instance *t) { return t->options; }
