#include "cli/options.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/time.h"
#include "log/log.h"

/* What an option wants to see of its argument. */
enum arg_kind {
  ARG_NONE,     /* the word is the whole option */
  ARG_NEXT,     /* -X value */
  ARG_JOINED,   /* -Xvalue, possibly empty */
  ARG_EITHER,   /* -Xvalue or -X value */
};

struct option_word {
  const char *word; /* without the first hyphen */
  enum arg_kind kind;
  bool (*apply)(struct cli *c, const struct option_word *w, struct str value, const char *as_given);
  int value;        /* mode, flag offset … for the handler */
};

static const char *program_name = "martlet"; /* as it was called */

static bool usage(const char *fmt, const char *what) {
  if (fmt[0] == 'u')
    fprintf(stderr, "%s abandoned: unknown, malformed, or incomplete option %s\n", program_name, what);
  else
    fprintf(stderr, "%s: %s\n", program_name, what);
  return false;
}

static bool bad(const char *as_given) { return usage("u", as_given); }

/* Of two different modes the last one would win; where one of them is of these, that is an error. */
static bool stands_alone(enum cli_mode m, enum cli_mode other) {
  switch (m) {
  case MODE_DAEMON:
  case MODE_INETD_WAIT: return other != MODE_QUEUE_DAEMON;
  case MODE_PRINT:
  case MODE_ALIASES: return other != MODE_QUEUE_LIST;
  case MODE_SMTP:
  case MODE_BATCH_SMTP:
    return other == MODE_ADDRESS_TEST || other == MODE_VERIFY || other == MODE_RETRY_TEST || other == MODE_REWRITE_TEST ||
           other == MODE_FILTER_TEST || other == MODE_MESSAGE;
  default: return false;
  }
}

static void note_mode(struct cli *c, enum cli_mode m) {
  bool said = c->mode_given && c->mode != m && c->mode != MODE_VERSION && m != MODE_VERSION && c->mode != MODE_INFO && m != MODE_INFO;
  if (said && (stands_alone(m, c->mode) || stands_alone(c->mode, m)))
    c->incompatible = true;
}

/* What does not go with a mode: recipients, -t, queue runs. */
static bool is_incompatible(const struct cli *c) {
  bool once = false;
  for (size_t i = 0; i < c->queue_runs.n; i++)
    once |= c->queue_runs.v[i].interval <= 0;
  switch (c->mode) {
  case MODE_DAEMON: return c->args.n || c->from_header_recipients || once;
  case MODE_SMTP:
  case MODE_BATCH_SMTP: return c->from_header_recipients || once;
  case MODE_QUEUE_RUN: return c->from_header_recipients || (c->selects && c->args.n);
  case MODE_ADDRESS_TEST:
  case MODE_VERIFY: return c->from_header_recipients || once;
  default: return false;
  }
}

static bool set_mode(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  note_mode(c, (enum cli_mode)w->value);
  c->mode = (enum cli_mode)w->value;
  c->mode_given = true;
  c->mode_arg = value;
  return true;
}

static bool set_flag(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  *(bool *)((char *)c + w->value) = true;
  return true;
}

static bool set_string(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  *(struct str *)((char *)c + w->value) = value;
  return true;
}

static bool set_filter(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  note_mode(c, MODE_FILTER_TEST);
  c->mode = MODE_FILTER_TEST;
  c->mode_given = true;
  return set_string(c, w, value, as_given);
}

static bool perl_start(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->perl_now = w->word[1] == 's';
  c->perl_delayed = !c->perl_now;
  return true;
}

static bool ignore(struct cli *c, const struct option_word *w, struct str value, const char *as_given) { return true; }

static bool set_time(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  int64_t t = time_parse_interval(value);
  if (t < 0)
    return usage("%", "a time such as 5m or 1h30m is expected after -or and -os");
  *(int64_t *)((char *)c + w->value) = t;
  return true;
}

static bool set_int(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  uint64_t n;
  if (str_is_empty(value))
    n = 1;
  else if (!str_to_u64(value, &n) || n > 1000000)
    return bad(as_given);
  *(int *)((char *)c + w->value) = (int)n;
  return true;
}

static bool set_sender(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->sender = value;
  c->sender_given = true;
  return true;
}

static bool set_delivery(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->delivery = (enum cli_delivery)w->value;
  c->delivery_given = true;
  return true;
}

static bool set_errors(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->errors = (enum cli_errors)w->value;
  c->errors_given = true;
  return true;
}

static bool set_dot(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->dot_is_data = c->dot_given = true;
  return true;
}

static bool set_config(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->config_files = value;
  c->config_given = true;
  return true;
}

static bool set_macro(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  value = str_ltrim(value);
  if (str_is_empty(value) || value.p[0] < 'A' || (value.p[0] > 'Z' && value.p[0] != '_'))
    return usage("%", "macro name set by -D must start with an upper case letter");
  if (c->macros.n >= 10)
    return usage("%", "too many -D options");
  vec_push(c->arena, &c->macros, value);
  return true;
}

static bool set_daemon(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  note_mode(c, MODE_DAEMON);
  c->mode = MODE_DAEMON;
  c->mode_given = true;
  c->foreground |= w->value != 0;
  return true;
}

static bool set_verify(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  note_mode(c, MODE_VERIFY);
  c->mode = MODE_VERIFY;
  c->mode_given = true;
  c->verify_sender = w->value != 0;
  return true;
}

static bool set_host_test(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  note_mode(c, MODE_HOST_TEST);
  c->mode = MODE_HOST_TEST;
  c->mode_given = true;
  c->caching_test = w->value != 0;
  c->mode_arg = value;
  return true;
}

/* -bI:subject */
static bool set_info(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->mode = MODE_INFO;
  c->mode_given = true;
  c->mode_arg = value;
  return true;
}

/* -M and its letters; -Mm… are -oM…'s cousins of Exim's own processes and unknown here. */
static bool set_message(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  static const char *const known[] = {"", "ar", "c", "es", "f", "g", "G", "mad", "md", "rm", "t", "vb", "vc", "vh", "vl"};
  if (str_eq_c(value, "set")) {
    c->load_message = true;
    return true;
  }
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (str_eq_c(value, known[i])) {
      note_mode(c, MODE_MESSAGE);
      c->mode = MODE_MESSAGE;
      c->mode_given = true;
      c->mode_arg = value;
      return true;
    }
  return bad(as_given);
}

static bool set_queue_list(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  static const char *const known[] = {"", "a", "c", "i", "r", "ra", "ri", "ru", "u"};
  for (size_t i = 0; i < sizeof known / sizeof *known; i++)
    if (str_eq_c(value, known[i]))
      return set_mode(c, w, value, as_given);
  return bad(as_given);
}

static bool set_debug(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  c->no_daemon_debug |= w->value == 1;
  if (str_starts(value, STR("S"))) {
    c->debug_config = true;
    value = str_from(value, 1);
  }
  if (debug_set(value) < 0)
    return usage("%", "-d: unknown debugging selection; the areas are those of the manual, such as -d+expand or -d-all+acl");
  c->debug = c->verbose = true;
  return true;
}

/* -N shows what it does. */
static bool set_no_delivery(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  return c->no_delivery = c->verbose = true;
}

/* -q[q][i][f[f]][l][G<name>[/<time>]][<time>]; -qR and -qS are -R and -S, in two stages -qqR and -qqS. */
static bool set_queue_run(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  struct cli_queue_run q = {.queue_name = STR_EMPTY};
  size_t i = 0;
#define TAKE(ch) (i < value.len && value.p[i] == (ch) ? (i++, true) : false)
  q.two_stage = TAKE('q');
  q.first_only = TAKE('i');
  q.force = TAKE('f');
  q.force_frozen = q.force && TAKE('f');
  q.local_only = TAKE('l');
#undef TAKE
  value = str_from(value, i);
  if (str_starts(value, STR("G"))) {
    struct str rest = str_from(value, 1);
    q.queue_name = str_cut(&rest, '/');
    value = str_is_set(rest) ? rest : STR_EMPTY;
  }
  if (!str_is_empty(value)) {
    q.interval = time_parse_interval(value);
    if (q.interval <= 0) {
      fprintf(stderr, "%s: bad time value %s: abandoned\n", program_name, as_given);
      return false;
    }
  }
  vec_push(c->arena, &c->queue_runs, q);
  if (!c->mode_given)
    c->mode = q.interval > 0 ? MODE_QUEUE_DAEMON : MODE_QUEUE_RUN;
  return true;
}

/* -R<rsflags> and -S<rsflags>: f, ff, r, rf, rff, optionally after -q. */
static bool set_select(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  static const struct {
    const char *flags;
    bool force, frozen, regex;
  } forms[] = {{"", 0, 0, 0}, {"f", 1, 0, 0}, {"ff", 1, 1, 0}, {"r", 0, 0, 1}, {"rf", 1, 0, 1}, {"rff", 1, 1, 1}};
  struct str flags = value, text = STR_UNSET;
  c->selects = true;
  ptrdiff_t sep = str_find_byte(value, '\n'); /* cli_parse joins flags and argument with a newline */
  if (sep >= 0) {
    flags = str_slice(value, 0, (size_t)sep);
    text = str_from(value, (size_t)sep + 1);
  }
  for (size_t i = 0; i < sizeof forms / sizeof *forms; i++)
    if (str_eq_c(flags, forms[i].flags)) {
      if (!c->queue_runs.n) {
        struct cli_queue_run q = {.queue_name = STR_EMPTY};
        vec_push(c->arena, &c->queue_runs, q);
      }
      c->queue_runs.v[c->queue_runs.n - 1].force |= forms[i].force;
      c->queue_runs.v[c->queue_runs.n - 1].force_frozen |= forms[i].frozen;
      c->queue_runs.v[c->queue_runs.n - 1].two_stage |= (w->value & 2) != 0;
      *(w->value & 1 ? &c->select_sender : &c->select_recipient) = text;
      *(w->value & 1 ? &c->select_sender_regex : &c->select_recipient_regex) = forms[i].regex;
      if (!c->mode_given && c->mode != MODE_QUEUE_DAEMON)
        c->mode = MODE_QUEUE_RUN;
      return true;
    }
  return bad(as_given);
}

/* -p<rval>:<sval> is -oMr and -oMs in one. */
static bool set_protocol(struct cli *c, const struct option_word *w, struct str value, const char *as_given) {
  if (str_is_empty(value))
    return bad(as_given);
  c->oMr = str_cut(&value, ':');
  if (str_is_set(value))
    c->oMs = value;
  return true;
}

#define FIELD(f) (int)offsetof(struct cli, f)

/* Longer words come before those they begin with. */
static const struct option_word words[] = {
    {"atrn", ARG_NONE, set_mode, MODE_ATRN},
    {"bdf", ARG_NONE, set_daemon, 1},
    {"bd", ARG_NONE, set_daemon, 0},
    {"bem", ARG_NEXT, set_mode, MODE_EXPAND_TEST},
    {"be", ARG_NONE, set_mode, MODE_EXPAND_TEST},
    {"bF", ARG_NEXT, set_filter, offsetof(struct cli, system_filter)},
    {"bfd", ARG_NEXT, set_string, offsetof(struct cli, test_domain)},
    {"bfl", ARG_NEXT, set_string, offsetof(struct cli, test_local_part)},
    {"bfp", ARG_NEXT, set_string, offsetof(struct cli, test_prefix)},
    {"bfs", ARG_NEXT, set_string, offsetof(struct cli, test_suffix)},
    {"bf", ARG_NEXT, set_filter, offsetof(struct cli, user_filter)},
    {"bhc", ARG_NEXT, set_host_test, 1},
    {"bh", ARG_NEXT, set_host_test, 0},
    {"bI:", ARG_JOINED, set_info, 0},
    {"bi", ARG_NONE, set_mode, MODE_ALIASES},
    {"bmalware", ARG_NEXT, set_mode, MODE_MALWARE_TEST},
    {"bm", ARG_NONE, set_mode, MODE_RECEIVE},
    {"bnq", ARG_NONE, set_flag, FIELD(no_qualify)},
    {"bP", ARG_NONE, set_mode, MODE_PRINT},
    {"bp", ARG_JOINED, set_queue_list, MODE_QUEUE_LIST},
    {"brt", ARG_NONE, set_mode, MODE_RETRY_TEST},
    {"brw", ARG_NONE, set_mode, MODE_REWRITE_TEST},
    {"bs", ARG_NONE, set_mode, MODE_SMTP},
    {"bS", ARG_NONE, set_mode, MODE_BATCH_SMTP},
    {"bt", ARG_NONE, set_mode, MODE_ADDRESS_TEST},
    {"bV", ARG_NONE, set_mode, MODE_VERSION},
    {"bvs", ARG_NONE, set_verify, 1},
    {"bv", ARG_NONE, set_verify, 0},
    {"bw", ARG_JOINED, set_mode, MODE_INETD_WAIT},
    {"B", ARG_JOINED, ignore, 0},
    {"C", ARG_EITHER, set_config, 0},
    {"D", ARG_EITHER, set_macro, 0},
    {"dd", ARG_JOINED, set_debug, 1},
    {"d", ARG_JOINED, set_debug, 0},
    {"E", ARG_JOINED, set_string, FIELD(bounce_id)},
    {"ex", ARG_NONE, ignore, 0},
    {"F", ARG_EITHER, set_string, FIELD(full_name)},
    {"f", ARG_EITHER, set_sender, 0},
    {"G", ARG_NONE, set_flag, FIELD(mua_submission)},
    {"h", ARG_EITHER, ignore, 0},
    {"i", ARG_NONE, set_dot, 0},
    {"L", ARG_EITHER, set_string, FIELD(syslog_tag)},
    {"M", ARG_JOINED, set_message, 0},
    {"m", ARG_NONE, ignore, 0},
    {"N", ARG_NONE, set_no_delivery, 0},
    {"n", ARG_NONE, set_flag, FIELD(suppress_names)},
    {"oA", ARG_EITHER, ignore, 0},
    {"oB", ARG_JOINED, set_int, FIELD(max_batch)},
    {"odb", ARG_NONE, set_delivery, DELIVER_BACKGROUND},
    {"odd", ARG_NONE, set_delivery, DELIVER_BACKGROUND},
    {"odf", ARG_NONE, set_delivery, DELIVER_FOREGROUND},
    {"odi", ARG_NONE, set_delivery, DELIVER_FOREGROUND},
    {"odqs", ARG_NONE, set_delivery, DELIVER_QUEUE_SMTP},
    {"odq", ARG_NONE, set_delivery, DELIVER_QUEUE},
    {"oep", ARG_NONE, set_errors, ERRORS_STDERR},
    {"oem", ARG_NONE, set_errors, ERRORS_MAIL},
    {"oee", ARG_NONE, set_errors, ERRORS_MAIL_OK},
    {"oeq", ARG_NONE, set_errors, ERRORS_STDERR},
    {"oew", ARG_NONE, set_errors, ERRORS_WRITE},
    {"oitrue", ARG_NONE, set_dot, 0},
    {"oi", ARG_NONE, set_dot, 0},
    {"oMaa", ARG_NEXT, set_string, FIELD(oMaa)},
    {"oMai", ARG_NEXT, set_string, FIELD(oMai)},
    {"oMas", ARG_NEXT, set_string, FIELD(oMas)},
    {"oMa", ARG_NEXT, set_string, FIELD(oMa)},
    {"oMi", ARG_NEXT, set_string, FIELD(oMi)},
    {"oMm", ARG_NEXT, set_string, FIELD(oMm)},
    {"oMr", ARG_NEXT, set_string, FIELD(oMr)},
    {"oMs", ARG_NEXT, set_string, FIELD(oMs)},
    {"oMt", ARG_NEXT, set_string, FIELD(oMt)},
    {"om", ARG_NONE, ignore, 0},
    {"oo", ARG_NONE, ignore, 0},
    {"oPX", ARG_NONE, set_flag, FIELD(remove_pid_file)},
    {"oP", ARG_NEXT, set_string, FIELD(pid_file)},
    {"or", ARG_EITHER, set_time, FIELD(receive_timeout)},
    {"os", ARG_EITHER, set_time, FIELD(smtp_timeout)},
    {"ov", ARG_NONE, set_flag, FIELD(verbose)},
    {"oX", ARG_EITHER, set_string, FIELD(listen)},
    {"oY", ARG_NONE, set_flag, FIELD(no_notifier)},
    {"O", ARG_EITHER, ignore, 0},
    {"pd", ARG_NONE, perl_start, 0},
    {"ps", ARG_NONE, perl_start, 0},
    {"p", ARG_JOINED, set_protocol, 0},
    {"qqR", ARG_JOINED, set_select, 2},
    {"qqS", ARG_JOINED, set_select, 3},
    {"qR", ARG_JOINED, set_select, 0},
    {"qS", ARG_JOINED, set_select, 1},
    {"q", ARG_JOINED, set_queue_run, 0},
    {"R", ARG_JOINED, set_select, 0},
    {"r", ARG_EITHER, set_sender, 0},
    {"S", ARG_JOINED, set_select, 1},
    {"Tqt", ARG_NEXT, set_string, FIELD(queue_times)},
    {"tls-on-connect", ARG_NONE, set_flag, FIELD(tls_on_connect)},
    {"ti", ARG_NONE, NULL, 0},
    {"t", ARG_NONE, set_flag, FIELD(from_header_recipients)},
    {"U", ARG_NONE, ignore, 0},
    {"v", ARG_NONE, set_flag, FIELD(verbose)},
    {"X", ARG_NEXT, ignore, 0},
    {"x", ARG_NONE, ignore, 0},
    {"z", ARG_NEXT, set_string, FIELD(log_line)},
    {"-demo", ARG_NEXT, set_mode, MODE_DEMO},
    {"-help", ARG_NONE, set_mode, MODE_HELP},
    {"-version", ARG_NONE, set_mode, MODE_VERSION},
    {"-dumpdb", ARG_NONE, set_mode, MODE_UTILITY},
    {"-fixdb", ARG_NONE, set_mode, MODE_UTILITY},
    {"-id-update", ARG_NONE, set_mode, MODE_UTILITY},
    {"-tidydb", ARG_NONE, set_mode, MODE_UTILITY},
    {"-dbmbuild", ARG_NONE, set_mode, MODE_UTILITY},
    {"-lock", ARG_NONE, set_mode, MODE_UTILITY},
    {"-exinext", ARG_NONE, set_mode, MODE_UTILITY},
};

/* Modes in which every word behind the option belongs to it, hyphen or not. */
static bool takes_rest(const struct cli *c) {
  return c->mode_given && (c->mode == MODE_EXPAND_TEST || (c->mode == MODE_UTILITY && str_eq_c(c->mode_arg, "-dbmbuild")));
}

/* exim_dumpdb and its kin. */
static bool is_utility(struct cli *c, const char *name) {
  static const char *const utilities[] = {"-dumpdb", "-fixdb", "-tidydb", "-dbmbuild", "-id_update"};
  for (size_t i = 0; i < sizeof utilities / sizeof *utilities; i++)
    if (!strncmp(name, "exim_", 5) && !strcmp(name + 5, utilities[i] + 1)) {
      c->mode = MODE_UTILITY;
      c->mode_given = true;
      c->mode_arg = str_c(utilities[i]);
      return true;
    }
  return false;
}

static void mode_of_name(struct cli *c) {
  static const struct {
    const char *name;
    enum cli_mode mode;
  } names[] = {{"mailq", MODE_QUEUE_LIST}, {"newaliases", MODE_ALIASES}, {"rsmtp", MODE_BATCH_SMTP}, {"runq", MODE_QUEUE_RUN}};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (!strcmp(c->program, names[i].name)) {
      c->mode = names[i].mode;
      c->mode_given = true;
      c->mode_arg = STR_EMPTY;
      if (c->mode == MODE_QUEUE_RUN)
        vec_push(c->arena, &c->queue_runs, ((struct cli_queue_run){.queue_name = STR_EMPTY}));
    }
  (void)is_utility(c, c->program);
  if (!strcmp(c->program, "rmail")) {
    c->dot_is_data = c->mode_given = c->errors_given = true;
    c->errors = ERRORS_MAIL_OK;
  }
}

static const struct option_word *find_word(const char *arg) {
  for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
    size_t n = strlen(words[i].word);
    if (strncmp(arg, words[i].word, n))
      continue;
    if (arg[n] && (words[i].kind == ARG_NONE || words[i].kind == ARG_NEXT))
      continue;
    return &words[i];
  }
  return NULL;
}

/* A word of Martlet's own, which no other name of the program has. */
static bool starts_word(const struct cli *c, const char *arg, const char *word) {
  return !c->mode_given && c->args.n == 0 && strcmp(arg, word) == 0 && strncmp(c->program, "martlet", 7) == 0;
}

bool cli_parse(struct cli *c, struct arena *a, int argc, char **argv, int *ret_status) {
  const char *slash = argv[0] ? strrchr(argv[0], '/') : NULL;
  *c = (struct cli){.arena = a, .program = slash ? slash + 1 : argv[0] ? argv[0] : "martlet",
      .receive_timeout = -1, .smtp_timeout = -1};
  *ret_status = 1;
  program_name = c->program;
  mode_of_name(c);
  int i = 1;
  if (argc > 1 && !strncmp(c->program, "martlet", 7) && is_utility(c, argv[1]))
    c->program = argv[i++];
  for (; i < argc; i++) {
    const char *arg = argv[i];
    bool reports = starts_word(c, arg, "dmarc-report"), tls_reports = starts_word(c, arg, "tls-report");
    if (reports || tls_reports || starts_word(c, arg, "authcheck")) { /* all that follows is its own */
      c->mode_given = true;
      c->mode = reports ? MODE_DMARC_REPORT : tls_reports ? MODE_TLS_REPORT : MODE_AUTHCHECK;
      while (++i < argc) {
        vec_push(a, &c->args, str_tainted(str_c(argv[i])));
        if (!strcmp(argv[i], "--help"))
          c->mode = MODE_HELP;
      }
      break;
    }
    if (starts_word(c, arg, "explain")) {
      c->explain = c->mode_given = true;
      c->mode = MODE_EXPAND_TEST;
      continue;
    }
    if (c->explain && (!strcmp(arg, "--session") || !strcmp(arg, "--host"))) {
      if (i + 1 >= argc)
        return bad(arg);
      if (!strcmp(arg, "--host"))
        c->session_host = str_c(argv[++i]);
      else
        c->session_file = argv[++i];
      continue;
    }
    if (arg[0] != '-' || !arg[1] || (takes_rest(c) && find_word(arg + 1) == NULL)) {
      vec_push(a, &c->args, str_tainted(str_c(arg)));
      continue;
    }
    if (!strcmp(arg, "--")) {
      i++;
      break;
    }
    if (c->mode_given && c->mode == MODE_UTILITY) {
      vec_push(a, &c->args, str_tainted(str_c(arg)));
      continue;
    }
    const struct option_word *w = find_word(arg + 1);
    if (!w)
      return bad(arg);
    struct str value = str_c(arg + 1 + strlen(w->word));
    if (w->apply == NULL) { /* -ti */
      c->from_header_recipients = c->dot_is_data = c->dot_given = true;
      continue;
    }
    if (w->apply == set_select) {
      /* The text to look for is the next word, if there is one that is no option. */
      if (i + 1 < argc)
        value = str_printf(a, "%.*s\n%s", STRF(value), argv[++i]);
      else
        return usage("%", str_dup_c(a, str_printf(a, "string expected after %s", arg)));
    } else if (w->kind == ARG_NEXT || (w->kind == ARG_EITHER && str_is_empty(value))) {
      if (++i >= argc)
        return bad(arg);
      value = str_c(argv[i]);
    }
    if (w->kind == ARG_NONE && w->apply == set_mode)
      value = w->value == MODE_UTILITY ? str_c(w->word + 1) : STR_EMPTY;
    if (!w->apply(c, w, value, arg))
      return false;
  }
  for (; i < argc; i++)
    vec_push(a, &c->args, str_tainted(str_c(argv[i])));
  if (argc == 1 && !c->mode_given && !strcmp(c->program, "martlet"))
    c->mode = MODE_HELP;
  *ret_status = 1;
  if (c->incompatible || is_incompatible(c))
    return usage("%", "incompatible command-line options or arguments");
  *ret_status = 0;
  return true;
}

void cli_help(const char *program) {
  printf("Martlet is a mail transfer agent that runs Exim configurations.\n\n"
         "Usage: %s [options] [recipient …] < message\n\n"
         "  Run\n"
         "    -bd [-q30m]          be the daemon: receive by SMTP, deliver, run the queue\n"
         "    -bdf                 the same in the foreground\n"
         "    -C FILE              configuration to use          -DNAME=value  set a macro\n"
         "    --demo DIR           a demonstration server without root, as `make run` starts it\n\n"
         "  Send\n"
         "    ADDRESS …            read a message from standard input and send it\n"
         "    -t                   recipients from To:, Cc: and Bcc:\n"
         "    -f SENDER            envelope sender               -odi  deliver before returning\n"
         "    -bs                  SMTP on standard input and output\n\n"
         "  Look and test\n"
         "    -bV                  version, features, and a check of the configuration\n"
         "    -bP [NAME …]         print options                 -bP config  the whole configuration\n"
         "    -bt ADDRESS          how would it be routed?       -bv ADDRESS  would it be accepted?\n"
         "    -be ['EXPRESSION']   expand a string\n"
         "    explain 'EXPRESSION' expand a string and show how its value comes about\n"
         "    explain --session FILE [--host ADDRESS]\n"
         "                         replay a recorded SMTP session: which ACL statement decided each reply, and why\n"
         "    authcheck MESSAGE    SPF, DKIM, DMARC and ARC of a message; --ip, --helo, --sender, --resolver, --json\n"
         "    dmarc-report         mails DMARC aggregate reports; --domain, --until, --store, --dry-run\n"
         "    tls-report           mails reports on TLS; --domain, --until, --dry-run\n"
         "    -bh ADDRESS          play an SMTP session as from that IP address; nothing is delivered\n"
         "    -d[+AREA]            debugging output\n\n"
         "  Queue\n"
         "    -bp                  list                          -bpc  count\n"
         "    -q                   run now                       -qff  run, frozen ones too\n"
         "    -M ID                deliver one                   -Mrm ID  remove one\n"
         "    -atrn HOST DOMAINS   fetch the mail that waits there (On-Demand Mail Relay)\n"
         "    -Mvh, -Mvb, -Mvl ID  show header, body, log        -Mf, -Mt ID  freeze, thaw\n\n"
         "All options are those of Exim's manual, chapter \"The Exim command line\".\n",
      program);
}
