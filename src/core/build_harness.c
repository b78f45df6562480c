#include "core/build.h"

#include "core/build_config.h"
#include <stddef.h>

const struct build_hooks build = {
  .variant = "harness",
  .version = MARTLET_VERSION,
  .user = "exim",
  .group = "exim",
  .config_path = "/dev/null",
  .spool_directory = MARTLET_SPOOL_DIRECTORY,
  .log_file_path = "",
  .pid_file_path = "",
  .program_path = MARTLET_PROGRAM_PATH,
  .trust_config_from_any_caller = true,
  .keep_root = true,
  .allow_test_options = true,
  .tainted_acl_texts = true,
  .unknown_login_overrides = true,
  .dns_server_env = "MARTLET_HARNESS_DNS",
  .hosts_from_dns_only = true,
  .syslog_to_stderr = true,
  .smtputf8_advertise_hosts = NULL,
  .tls_advertise_requiretls = NULL,
  .headers_charset = "ISO-8859-1", /* as Exim itself is built; Debian's has UTF-8 */
  /* The suite's runner knows a version only when a blank or a line's end follows it. */
  .received_header_text =
    "Received: ${if def:sender_rcvhost {from $sender_rcvhost\\n\\t}"
    "{${if def:sender_ident {from ${quote_local_part:$sender_ident} }}"
    "${if def:sender_helo_name {(helo=$sender_helo_name)\\n\\t}}}}"
    "by $primary_hostname ${if def:received_protocol {with $received_protocol }}"
    "${if def:tls_in_ver        { ($tls_in_ver)}}${if def:tls_in_cipher_std { tls $tls_in_cipher_std\\n\\t}}"
    "(Exim 4.99)\\n\\t${if def:sender_address {(envelope-from <$sender_address>)\\n\\t}}"
    "id $message_exim_id${if def:received_for {\\n\\tfor $received_for}}",
  .exim_version = "x.yz",
  .fixed_random = true,
  .random_seed = 42,
  .fake_load_average = true,
  .serial_queue_run = true,
  .cram_md5_challenge = "<1896.697170952@postoffice.reston.mci.net>",
  .deliver_without_daemon = true,
  .no_version_in_debug = true,
  .tls_ticket_period = 4,
  .tls_ticket_life = 9,
  .quiet_about_proofs = true,
  .remote_by_turns = true,
  .no_connection_pool = true,
  .no_dsn_extra_info = true,
  .refused_is_timeout_at = 999999,
  .mailer_name = "Exim",
};
