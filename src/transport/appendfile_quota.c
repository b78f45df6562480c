/* appendfile's quotas and what is told when a mailbox fills up or gets mail
(Exim manual, chapter "The appendfile transport"). */

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/pcre.h"
#include "core/main_options.h"
#include "deliver/errors.h"
#include "deliver/submit.h"
#include "expand/expand.h"
#include "log/log.h"
#include "message/address.h"
#include "message/message.h"
#include "transport/appendfile.h"
#include "transport/header.h"
#include "transport/local.h"

/* "20M", "1.5K", "1000", each perhaps with "/no_check" behind it. */
static bool parse_size(struct str text, int64_t *ret, bool *ret_no_check) {
  struct str rest = text, number = str_trim(str_cut(&rest, '/'));
  int64_t unit = 1;
  uint64_t whole = 0, tenths = 0, scale = 1;
  if (str_is_set(rest) && !str_eq_c(str_trim(rest), "no_check"))
    return false;
  *ret_no_check = str_is_set(rest);
  if (!number.len) {
    *ret = 0;
    return true;
  }
  if (number.len && strchr("kKmMgG", number.p[number.len - 1])) {
    char ch = number.p[--number.len] | 32;
    unit = ch == 'k' ? 1 << 10 : ch == 'm' ? 1 << 20 : 1 << 30;
  }
  struct str fraction = number, integer = str_cut(&fraction, '.');
  if (!str_to_u64(integer, &whole) || whole > (uint64_t)INT64_MAX / (uint64_t)unit)
    return false;
  if (str_is_set(fraction)) {
    if (fraction.len > 6 || !str_to_u64(fraction, &tenths))
      return false;
    for (uint32_t i = 0; i < fraction.len; i++)
      scale *= 10;
  }
  *ret = (int64_t)whole * unit + (int64_t)(tenths * (uint64_t)unit / scale);
  return true;
}

static bool bad_value(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, struct str text) {
  transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
      str_printf(c->arena, "Malformed value \"%.*s\" (expansion of \"%.*s\") in %.*s transport", STRF(text), STRF(o->text), STRF(t->name)));
  return false;
}

static bool expand_number(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, struct str *ret) {
  if (expand_option(c, o, ret) == 0)
    return true;
  transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN,
      str_printf(c->arena, "Expansion of \"%.*s\" in %.*s transport failed: %.*s", STRF(o->text), STRF(t->name), STRF(c->error)));
  return false;
}

static bool size_option(struct ctx *c, const struct instance *t, struct address *chain, const struct option_expr *o, int64_t none, int64_t *ret, bool *ret_no_check) {
  struct str text;
  *ret = none;
  if (!str_is_set(o->text))
    return true;
  if (!expand_number(c, t, chain, o, &text))
    return false;
  return parse_size(str_trim(text), ret, ret_no_check) ? true : bad_value(c, t, chain, o, text);
}

/* A number, or a percentage of the quota. */
static bool threshold(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct appendfile *o = t->options;
  struct str text;
  uint64_t percent;
  bool unused;
  if (!str_is_set(o->quota_warn_threshold.text))
    return true;
  if (!expand_number(c, t, chain, &o->quota_warn_threshold, &text))
    return false;
  text = str_trim(text);
  if (!str_ends(text, STR("%")))
    return parse_size(text, &p->warn_threshold, &unused) ? true : bad_value(c, t, chain, &o->quota_warn_threshold, text);
  if (!str_to_u64(str_trim(str_slice(text, 0, text.len - 1)), &percent))
    return bad_value(c, t, chain, &o->quota_warn_threshold, text);
  if (percent > 100) {
    transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN, str_printf(c->arena,
        "Invalid quota_warn_threshold percentage (%llu) for %.*s transport", (unsigned long long)percent, STRF(t->name)));
    return false;
  }
  p->warn_threshold = p->quota / 100 * (int64_t)percent + p->quota % 100 * (int64_t)percent / 100;
  return true;
}

bool appendfile_quotas(struct ctx *c, const struct instance *t, struct address *chain, struct plan *p) {
  const struct appendfile *o = t->options;
  bool unused;
  p->quota_is_inclusive = o->quota_is_inclusive;
  p->quota_size_regex = o->quota_size_regex;
  if (str_is_set(o->quota_size_regex)) {
    struct str error;
    if (!pcre_compile(c->arena, o->quota_size_regex, 0, &error)) {
      ptrdiff_t reason = str_find(error, STR("\": ")); /* behind the pattern, which is told last */
      if (reason >= 0)
        error = str_from(error, (size_t)reason + 3);
      transport_chain_result(chain, OUTCOME_DEFER, ERROR_UNKNOWN, str_printf(c->arena,
          "appendfile: regular expression error: %.*s while compiling %.*s", STRF(error), STRF(o->quota_size_regex)));
      for (struct address *a = chain; a; a = a->next)
        a->panic = false;
      return false;
    }
  }
  if (!size_option(c, t, chain, &o->quota, 0, &p->quota, &p->quota_no_check) ||
      !size_option(c, t, chain, &o->quota_filecount, 0, &p->quota_filecount, &p->filecount_no_check) ||
      !size_option(c, t, chain, &o->mailbox_size, -1, &p->mailbox_size, &unused) ||
      !size_option(c, t, chain, &o->mailbox_filecount, -1, &p->mailbox_filecount, &unused) ||
      !threshold(c, t, chain, p))
    return false;
  return !str_is_set(o->quota_directory.text) || local_expand(c, t, chain, &o->quota_directory, "quota_directory name", &p->quota_directory);
}

/* --- what others are told --- */

static const char default_warning[] =
    "To: $local_part@$domain\nSubject: Your mailbox\n\n"
    "This message is automatically created by mail delivery software (Exim).\n\n"
    "The size of your mailbox has exceeded a warning threshold that is\n"
    "set by the system administrator.\n";

/* Cuts the header off the text; recipients are those of its To:, Cc: and Bcc: lines. */
static bool take_header(struct ctx *c, struct str text, struct submit *s, bool *ret_from, bool *ret_reply_to) {
  struct str rest = text;
  bool collecting = false;
  while (str_is_set(rest) && rest.len) {
    struct str line = str_cut(&rest, '\n'), value = line;
    if (!line.len)
      break;
    bool folded = line.p[0] == ' ' || line.p[0] == '\t';
    struct str name = folded ? STR_EMPTY : str_trim(str_cut(&value, ':'));
    if (!folded && !str_is_set(value))
      return false;
    if (!folded)
      collecting = str_ieq_c(name, "to") || str_ieq_c(name, "cc") || str_ieq_c(name, "bcc");
    *ret_from |= str_ieq_c(name, "from");
    *ret_reply_to |= str_ieq_c(name, "reply-to");
    if (!str_ieq_c(name, "bcc"))
      buf_printf(&s->header, "%.*s\n", STRF(line));
    while (collecting && str_is_set(value) && value.len) {
      struct mail_address m;
      struct str error;
      size_t end = address_find_end(value, false);
      struct str item = str_trim(str_slice(value, 0, end));
      value = end < value.len ? str_from(value, end + 1) : STR_EMPTY;
      if (item.len && !address_parse(c->arena, item, 0, &m, &error) && m.address.len)
        vec_push(s->arena, &s->recipients, m.domain.len ? m.address
            : str_printf(c->arena, "%.*s@%.*s", STRF(m.address), STRF(main_options(c->config)->qualify_recipient)));
    }
  }
  if (str_is_set(rest))
    buf_add(&s->body, rest);
  return s->recipients.n > 0;
}

void appendfile_warn(struct ctx *c, const struct instance *t, struct address *chain) {
  const struct appendfile *o = t->options;
  const struct main_options *mo = main_options(c->config);
  struct str text;
  struct submit s;
  bool from = false, reply_to = false;
  int e = str_is_set(o->quota_warn_message.text) ? expand_option(c, &o->quota_warn_message, &text)
                                                 : expand_text(c, str_c(default_warning), &text);
  if (e) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "Failed to expand \"%.*s\" (warning message for %.*s transport): %.*s",
        STRF(o->quota_warn_message.text), STRF(t->name), STRF(c->error));
    return;
  }
  submit_init(&s, c->arena, c->message);
  if (!take_header(c, text, &s, &from, &reply_to)) {
    log_write(LOG_MAIN | LOG_PANIC, c->message, "quota_warn_message for %.*s transport names no recipient in a To: line", STRF(t->name));
    return;
  }
  struct str own = str_dup(c->arena, buf_str(&s.header));
  s.header.len = 0;
  if (!reply_to && str_is_set(mo->errors_reply_to.text) && expand_option(c, &mo->errors_reply_to, &text) == 0 && text.len)
    buf_printf(&s.header, "Reply-To: %.*s\n", STRF(text));
  buf_add_c(&s.header, "Auto-Submitted: auto-replied\n");
  if (!from)
    buf_printf(&s.header, "From: %.*s\n", STRF(submit_from(c)));
  buf_add(&s.header, own);
  e = submit_message(c, &s);
  if (e)
    log_write(LOG_MAIN | LOG_PANIC, c->message, "quota warning for %.*s could not be sent: %s", STRF(chain->address), strerror(-e));
}

void appendfile_comsat(const struct address *chain, int64_t offset) {
  struct servent *service = getservbyname("biff", "udp");
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = service ? (in_port_t)service->s_port : htons(512)};
  char text[512];
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  int n = snprintf(text, sizeof text, "%.*s@%lld\n", STRF(chain->local_part), (long long)offset);
  int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0)
    return;
  if (n > 0 && (size_t)n < sizeof text)
    (void)!sendto(fd, text, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&to, sizeof to); /* nobody may be there */
  close(fd);
}
