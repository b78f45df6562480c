/* Variables whose values other rooms bring: here with what they hold without that (manual, "Expansion variables"). A module
behind this one in the registry that has the same name replaces the entry. */
#include "expand/variables.h"

/* `flags` tells the text; 0: empty. */
static int get_fixed(struct ctx *c, const struct variable_def *def, struct str *ret) {
  switch (def->flags) {
  case '0': *ret = STR("0"); break;
  case 'n': *ret = STR("no"); break;
  case '-': *ret = STR("-1"); break;
  case 'm': *ret = STR("9999999999999"); break;
  default: *ret = STR("*");
  }
  return 0;
}

#define EMPTY(name) {name, variable_get_empty}
#define FIXED(name, flag) {name, get_fixed, 0, flag}

const struct variable_def later_variables[] = {
  FIXED("compile_number", '0'), EMPTY("compile_date"),
  EMPTY("local_scan_data"),
  EMPTY("queue_size"),
  FIXED("rcpt_defer_count", '0'), FIXED("rcpt_fail_count", '0'),
  EMPTY("recipient_data"),
  EMPTY("sender_helo_verified"),
  EMPTY("sending_ip_address"), FIXED("sending_port", '-'),
  EMPTY("smtp_command_history"), FIXED("smtp_count_at_connection_start", '0'),
  FIXED("tls_bits", '0'), FIXED("tls_certificate_verified", '0'), EMPTY("tls_cipher"), EMPTY("tls_peerdn"), EMPTY("tls_sni"),
  FIXED("tls_in_bits", '0'), FIXED("tls_in_certificate_verified", '0'), EMPTY("tls_in_cipher"), EMPTY("tls_in_cipher_std"),
  FIXED("tls_in_ocsp", '0'), EMPTY("tls_in_ourcert"), EMPTY("tls_in_peercert"), EMPTY("tls_in_peerdn"),
  FIXED("tls_in_resumption", '0'), EMPTY("tls_in_sni"), EMPTY("tls_in_ver"),
  FIXED("tls_out_bits", '0'), FIXED("tls_out_certificate_verified", '0'), EMPTY("tls_out_cipher"),
  EMPTY("tls_out_cipher_std"), FIXED("tls_out_dane", 'n'), FIXED("tls_out_ocsp", '0'), EMPTY("tls_out_ourcert"),
  EMPTY("tls_out_peercert"), EMPTY("tls_out_peerdn"), FIXED("tls_out_resumption", '0'), EMPTY("tls_out_sni"),
  FIXED("tls_out_tlsa_usage", '0'), EMPTY("tls_out_ver"),
  {0},
};
