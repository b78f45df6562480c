#include "scan/spam.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/time.h"

#define REPORT_MAX (256u << 10)
#define SECONDS 120

/* ---- answers ---- */

/* "4.5" at the start of the text. */
static bool read_number(struct str *text, double *ret) {
  char digits[32];
  struct str s = str_ltrim(*text);
  size_t n = 0;
  while (n < s.len && n < sizeof digits - 1 && (strchr("+-.", s.p[n]) ? s.p[n] != '\0' : s.p[n] >= '0' && s.p[n] <= '9'))
    n++;
  memcpy(digits, s.p, n);
  digits[n] = '\0';
  char *end;
  *ret = strtod(digits, &end);
  *text = str_from(s, n);
  return n > 0 && end == digits + n && *ret > -1e9 && *ret < 1e9;
}

/* "15.2 / 5.0" */
static bool read_pair(struct str text, struct spam_answer *ret) {
  if (!read_number(&text, &ret->score))
    return false;
  text = str_ltrim(text);
  if (text.len == 0 || text.p[0] != '/')
    return false;
  text = str_from(text, 1);
  return read_number(&text, &ret->threshold);
}

/* "True ; 15.2 / 5.0" */
static bool read_scores(struct str text, struct spam_answer *ret) {
  str_cut(&text, ';');
  return str_is_set(text) && read_pair(text, ret);
}

static void add_report(struct arena *a, struct str text, struct spam_answer *ret) {
  struct buf b;
  buf_init(&b, a, REPORT_MAX);
  b.taint = STR_TAINTED;
  text = str_rtrim(text);
  for (size_t i = 0; i < text.len; i++) {
    if (text.p[i] == '\n')
      buf_add_c(&b, "\n ");
    else if (text.p[i] != '\r' && text.p[i] != '\0')
      buf_add_byte(&b, text.p[i]);
  }
  ret->report = buf_str(&b);
}

static struct str cut_line(struct str *rest) {
  struct str line = str_cut(rest, '\n');
  if (!str_is_set(*rest))
    *rest = STR_EMPTY;
  return str_rtrim(line);
}

/* The first line: "SPAMD/1.1 0 EX_OK". */
static bool is_fine(struct str line, const char *protocol) {
  struct str rest = line, word = str_cut(&rest, ' ');
  if (!str_starts(word, str_c(protocol)) || !str_is_set(rest))
    return false;
  return str_eq_c(str_cut(&rest, ' '), "0");
}

bool spam_read_answer(struct arena *a, struct str text, bool rspamd, struct spam_answer *ret) {
  bool scored = false, has_field = false;
  *ret = (struct spam_answer){.report = STR_EMPTY};
  struct str rest = text, line = cut_line(&rest);
  if (!is_fine(line, rspamd ? "RSPAMD/" : "SPAMD/"))
    return false;
  while (rest.len > 0) {
    line = cut_line(&rest);
    if (line.len == 0 && rspamd && !scored)
      continue; /* fields of HTTP's kind may come first */
    if (line.len == 0)
      break;
    struct str value = line, name = str_cut(&value, ':');
    if (!str_is_set(value))
      continue;
    if (!rspamd && str_ieq_c(name, "Spam")) {
      has_field = true;
      scored = read_scores(value, ret);
    } else if (rspamd && str_ieq_c(name, "Metric")) {
      str_cut(&value, ';');
      scored = str_is_set(value) && read_scores(value, ret);
      add_report(a, rest, ret); /* Rspamd's report is what follows */
    } else if (rspamd && str_ieq_c(name, "Action")) {
      ret->action = str_trim(value);
    }
  }
  /* Servers of an older make have the scores above the report. */
  if (!rspamd && !scored && !has_field) {
    line = cut_line(&rest);
    scored = read_pair(line, ret);
  }
  if (!rspamd)
    add_report(a, rest, ret);
  return scored;
}

/* ---- servers ---- */

/* "<hour>.<minute>.<second>", the last ones optional. -1: it is none. */
static int64_t time_of_day(struct str text) {
  int64_t seconds = 0, unit = 3600;
  while (str_is_set(text)) {
    uint64_t n;
    if (unit == 0 || !str_to_u64(str_cut(&text, '.'), &n) || n > 59)
      return -1;
    seconds += (int64_t)n * unit;
    unit = unit == 3600 ? 60 : unit == 60 ? 1 : 0;
  }
  return seconds;
}

static bool read_window(struct str value, struct spam_server *ret) {
  struct str from = str_cut(&value, '-');
  if (!str_is_set(value))
    return false;
  int64_t start = time_of_day(from), end = time_of_day(value);
  if (start < 0 || end < 0)
    return false;
  ret->from = start;
  ret->to = end;
  return true;
}

static bool read_count(struct str value, int64_t *ret) {
  uint64_t n;
  if (!str_to_u64(value, &n) || n > 1000000)
    return false;
  *ret = (int64_t)n;
  return true;
}

static bool read_option(struct str option, struct spam_server *ret) {
  struct str value = option, name = str_cut(&value, '=');
  if (!str_is_set(value))
    return false;
  if (str_ieq_c(name, "pri"))
    return read_count(value, &ret->priority);
  if (str_ieq_c(name, "weight"))
    return read_count(value, &ret->weight);
  if (str_ieq_c(name, "time"))
    return read_window(value, ret);
  if (str_ieq_c(name, "retry"))
    return (ret->retry = time_parse_interval(value)) >= 0;
  if (str_ieq_c(name, "tmo"))
    return (ret->seconds = time_parse_interval(value)) > 0;
  if (str_ieq_c(name, "variant"))
    return ret->rspamd = str_ieq_c(value, "rspamd");
  return false;
}

const char *spam_read_server(struct str item, struct spam_server *ret, void (*warn)(void *arg, const char *what, struct str option), void *arg) {
  *ret = (struct spam_server){.address = item, .priority = 1, .weight = 1, .seconds = SECONDS, .from = -1};
  bool path = item.len > 0 && item.p[0] == '/';
  struct str rest = item;
  int words = 0;
  while (str_is_set(rest)) {
    struct spam_server before = *ret;
    struct str word = str_cut(&rest, ' ');
    if (word.len == 0 || words++ < (path ? 1 : 2))
      continue;
    if (!read_option(word, ret)) {
      struct str value = word, name = str_cut(&value, '=');
      const char *what = !str_is_set(value) ? NULL : str_ieq_c(name, "tmo") ? "timeout value" : str_ieq_c(name, "retry") ? "retry value"
                                                 : str_ieq_c(name, "time")  ? "time value" : NULL;
      *ret = before;
      warn(arg, what ? what : "parameter", what ? value : word);
    }
  }
  return words < (path ? 1 : 2) ? "address" : NULL;
}
