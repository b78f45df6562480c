/* Signing in the smtp transport: the options of all mechanisms, and one pass over the body for all of them. */
#include <errno.h>

#include "expand/expand.h"
#include "log/log.h"
#include "mailauth/arc_sign.h"
#include "mailauth/module.h"
#include "mailauth/sign.h"

struct sign_options {
  struct dk_sign_options dk;
  struct dkim_sign_options dkim;
  struct option_expr arc;
};

static const struct sign_options *options_of(const struct instance *t) {
  return t && t->extra ? t->extra[module_number(&sign_module)] : NULL;
}

size_t sign_key_options(const struct instance *t, struct sign_key_option ret[SIGN_KEY_OPTIONS]) {
  const struct sign_options *o = options_of(t);
  if (!o)
    return 0;
  ret[0] = (struct sign_key_option){"dkim_private_key", &o->dkim.private_key};
  ret[1] = (struct sign_key_option){"dk_private_key", &o->dk.private_key};
  ret[2] = (struct sign_key_option){"arc_sign", &o->arc};
  return 3;
}

struct pass {
  struct body_hashes *hashes;
  struct line_watch lines;
  struct dk_sign *dk; /* NULL: none is made */
};

static void take_piece(void *arg, struct str data) {
  struct pass *p = arg;
  line_watch_add(&p->lines, data);
  body_hashes_add(p->hashes, data);
  if (p->dk)
    dk_sign_body(p->dk, data);
}

/* All hashes of the body. 0, or negative with c->error. */
static int hash_body(struct sign_job *j, struct dk_sign *dk, bool *ret_too_long) {
  struct pass p = {.hashes = &j->hashes, .dk = dk};
  int e = j->s->body(j->c, j->s, take_piece, &p);
  if (e != 0)
    return ctx_fail(j->c, OUTCOME_DEFER, "cannot read the message's body: %s", strerror(-e));
  body_hashes_end(&j->hashes);
  *ret_too_long = p.lines.too_long;
  return 0;
}

/* Without dkim_strict a message that cannot be signed goes as it is. */
static int give_up(struct ctx *c, const struct sign_options *o) {
  if (!dkim_sign_is_strict(c, &o->dkim))
    return OUTCOME_OK;
  log_write(LOG_MAIN, c->message, "DKIM: message could not be signed, and dkim_strict is set. Deferring message delivery.");
  return OUTCOME_DEFER;
}

static bool wants_dk(const struct sign_options *o) { return str_is_set(o->dk.selector.text) || str_is_set(o->dk.private_key.text); }

/* The first, which the others cover. */
static int add_dk(struct sign_job *j, const struct sign_options *o, struct dk_sign *dk) {
  struct str field = dk ? dk_sign_field(j, dk) : STR_UNSET;
  if (str_is_set(field))
    j->s->added = str_cat(j->c->arena, field, j->s->added);
  else if (dk_sign_is_strict(j->c, &o->dk))
    return OUTCOME_DEFER;
  return OUTCOME_OK;
}

static int add_signatures(struct sign_job *j, const struct sign_options *o, const struct dkim_sign *dkim, const struct arc_sign *arc) {
  struct ctx *c = j->c;
  bool too_long = false, dk_failed = false;
  struct dk_sign *dk = NULL;
  int rc = j->s->open(c, j->s);
  if (rc == 0 && wants_dk(o) && dk_sign_prepare(j, &o->dk, &dk) != 0)
    dk_failed = true;
  if (rc != 0 || (dk_failed && dk_sign_is_strict(c, &o->dk)))
    return OUTCOME_DEFER;
  if ((dk || dkim || arc) && hash_body(j, dk, &too_long) != 0)
    return OUTCOME_DEFER;
  if (dk && add_dk(j, o, dk) != OUTCOME_OK)
    return OUTCOME_DEFER;
  if (dkim != NULL) {
    struct sign_fields f = sign_fields(c->arena, str_cat(c->arena, j->s->added, j->s->head));
    struct str fields = STR_UNSET;
    if (too_long) {
      c->error = STR("DKIM: signing failed: LONG_LINE");
      log_write(LOG_MAIN | LOG_PANIC, c->message, "%.*s", STRF(c->error));
    } else {
      fields = dkim_sign_fields(j, dkim, &f);
    }
    if (!str_is_set(fields))
      rc = give_up(c, o);
    else
      j->s->added = str_cat(c->arena, fields, j->s->added);
    if (log_selected(LOGSEL_dkim_verbose))
      j->s->log = str_printf(c->arena, "DKIM=%.*s", STRF(j->label));
  }
  if (arc != NULL && rc == OUTCOME_OK) { /* the last: it covers the others */
    struct str head = str_cat(c->arena, j->s->added, j->s->head);
    struct sign_fields f = sign_fields(c->arena, head);
    struct str set = arc_sign_fields(j, arc, &f);
    if (!str_is_set(set))
      return OUTCOME_DEFER;
    j->s->added = str_cat(c->arena, set, j->s->added);
  }
  return rc;
}

static int sign(struct ctx *c, struct message_signing *s) {
  const struct sign_options *o = options_of(s->transport);
  struct sign_job j = {.c = c, .s = s, .hashes.arena = c->arena, .label = STR_EMPTY};
  struct dkim_sign *dkim = NULL;
  if (o == NULL)
    return OUTCOME_OK;
  if (dkim_sign_prepare(&j, &o->dkim, &dkim) != 0) {
    dkim = NULL;
    int rc = give_up(c, o);
    if (rc != OUTCOME_OK)
      return rc;
  }
  struct arc_sign *arc;
  if (arc_sign_prepare(&j, &o->arc, &arc) != OUTCOME_OK)
    return OUTCOME_DEFER;
  return dkim || arc || wants_dk(o) ? add_signatures(&j, o, dkim, arc) : OUTCOME_OK;
}

static bool signs(const struct instance *t) {
  const struct sign_options *o = options_of(t);
  return o && (str_is_set(o->dkim.domain.text) || str_is_set(o->arc.text) || wants_dk(o));
}

#define AT(field) offsetof(struct sign_options, field)
static const struct option_def options[] = {
  {"arc_sign", OPTION_EXPR, AT(arc)},
  {"dk_canon", OPTION_EXPR, AT(dk.canon), .flags = OPTION_HIDDEN},
  {"dk_domain", OPTION_EXPR, AT(dk.domain), .flags = OPTION_HIDDEN},
  {"dk_private_key", OPTION_EXPR, AT(dk.private_key), .flags = OPTION_HIDDEN},
  {"dk_selector", OPTION_EXPR, AT(dk.selector), .flags = OPTION_HIDDEN},
  {"dk_strict", OPTION_EXPR, AT(dk.strict), .flags = OPTION_HIDDEN},
  {"dkim_canon", OPTION_EXPR, AT(dkim.canon)},
  {"dkim_domain", OPTION_EXPR, AT(dkim.domain)},
  {"dkim_hash", OPTION_EXPR, AT(dkim.hash), "sha256"},
  {"dkim_identity", OPTION_EXPR, AT(dkim.identity)},
  {"dkim_private_key", OPTION_EXPR, AT(dkim.private_key)},
  {"dkim_selector", OPTION_EXPR, AT(dkim.selector)},
  {"dkim_sign_headers", OPTION_EXPR, AT(dkim.sign_headers), SIGN_DEFAULT_HEADERS},
  {"dkim_strict", OPTION_EXPR, AT(dkim.strict)},
  {"dkim_timestamps", OPTION_EXPR, AT(dkim.timestamps)},
  OPTIONS_END,
};

static const struct module_driver_options driver_options[] = {
  {DRIVER_TRANSPORT, "smtp", options, sizeof(struct sign_options)}, {0},
};

static const char *const macros[] = {"_DKIM_OVERSIGN_HEADERS=" SIGN_OVERSIGN_HEADERS, "_DKIM_SIGN_HEADERS=" SIGN_DEFAULT_HEADERS,
  "_CRYPTO_SIGN_ED25519", NULL};

static int check_main(struct config_reader *r, void *block) {
  const struct sign_options *o;
  for (const struct instance *t = config_reader_config(r)->drivers[DRIVER_TRANSPORT]; t; t = t->next)
    if ((o = options_of(t)) != NULL && str_is_set(o->dk.selector.text))
      config_warning(r, "DomainKeys signing is historic; use dkim_* (transport %.*s)", STRF(t->name));
  return 0;
}

const struct module sign_module = {
  .name = "signing",
  .summary = "signatures of messages that are sent",
  .driver_options = driver_options,
  .main_check = check_main,
  .macros = macros,
  .hooks = {.message_sign = sign, .signs = signs},
};
