#include <stddef.h>
#include "route/redirect.h"

#define AT(field) offsetof(struct redirect_options, field)

const struct option_def redirect_option_table[] = {
    {"allow_defer", OPTION_BOOL, AT(allow_defer)},
    {"allow_fail", OPTION_BOOL, AT(allow_fail)},
    {"allow_filter", OPTION_BOOL, AT(allow_filter)},
    {"allow_freeze", OPTION_BOOL, AT(allow_freeze)},
    {"check_ancestor", OPTION_BOOL, AT(check_ancestor)},
    {"check_group", OPTION_BOOL, AT(check_group), .flags = OPTION_TRISTATE},
    {"check_owner", OPTION_BOOL, AT(check_owner), .flags = OPTION_TRISTATE},
    {"data", OPTION_EXPR, AT(data)},
    {"directory_transport", OPTION_EXPR, AT(directory_transport)},
    {"file", OPTION_EXPR, AT(file)},
    {"file_transport", OPTION_EXPR, AT(file_transport)},
    {"filter_prepend_home", OPTION_BOOL, AT(filter_prepend_home), "true"},
    {"forbid_blackhole", OPTION_BOOL, AT(forbid_blackhole)},
    {"forbid_exim_filter", OPTION_BOOL, AT(forbid_exim_filter)},
    {"forbid_file", OPTION_BOOL, AT(forbid_file)},
    {"forbid_filter_dlfunc", OPTION_BOOL, AT(forbid_filter_dlfunc)},
    {"forbid_filter_existstest", OPTION_BOOL, AT(forbid_filter_existstest)},
    {"forbid_filter_logwrite", OPTION_BOOL, AT(forbid_filter_logwrite)},
    {"forbid_filter_lookup", OPTION_BOOL, AT(forbid_filter_lookup)},
    {"forbid_filter_perl", OPTION_BOOL, AT(forbid_filter_perl)},
    {"forbid_filter_readfile", OPTION_BOOL, AT(forbid_filter_readfile)},
    {"forbid_filter_readsocket", OPTION_BOOL, AT(forbid_filter_readsocket)},
    {"forbid_filter_reply", OPTION_BOOL, AT(forbid_filter_reply)},
    {"forbid_filter_run", OPTION_BOOL, AT(forbid_filter_run)},
    {"forbid_include", OPTION_BOOL, AT(forbid_include)},
    {"forbid_pipe", OPTION_BOOL, AT(forbid_pipe)},
    {"forbid_sieve_filter", OPTION_BOOL, AT(forbid_sieve_filter)},
    {"forbid_smtp_code", OPTION_BOOL, AT(forbid_smtp_code)},
    {"hide_child_in_errmsg", OPTION_BOOL, AT(hide_child_in_errmsg)},
    {"ignore_eacces", OPTION_BOOL, AT(ignore_eacces)},
    {"ignore_enotdir", OPTION_BOOL, AT(ignore_enotdir)},
    {"include_directory", OPTION_STRING, AT(include_directory)},
    {"modemask", OPTION_OCTAL, AT(modemask), "022"},
    {"one_time", OPTION_BOOL, AT(one_time)},
    {"owners", OPTION_USER_LIST, AT(owners)},
    {"owngroups", OPTION_GROUP_LIST, AT(owngroups)},
    {"pipe_transport", OPTION_EXPR, AT(pipe_transport)},
    {"qualify_domain", OPTION_EXPR, AT(qualify_domain)},
    {"qualify_preserve_domain", OPTION_BOOL, AT(qualify_preserve_domain)},
    {"repeat_use", OPTION_BOOL, AT(repeat_use), "true"},
    {"reply_transport", OPTION_EXPR, AT(reply_transport)},
    {"rewrite", OPTION_BOOL, AT(rewrite), "true"},
    {"sieve_enotify_mailto_owner", OPTION_EXPR, AT(sieve_enotify_mailto_owner)},
    {"sieve_inbox", OPTION_EXPR, AT(sieve_inbox), "inbox"},
    {"sieve_subaddress", OPTION_EXPR, AT(sieve_subaddress)},
    {"sieve_useraddress", OPTION_EXPR, AT(sieve_useraddress)},
    {"sieve_vacation_directory", OPTION_EXPR, AT(sieve_vacation_directory)},
    {"skip_syntax_errors", OPTION_BOOL, AT(skip_syntax_errors)},
    {"srs", OPTION_EXPR, AT(srs)},
    {"srs_alias", OPTION_EXPR, AT(srs_alias)},
    {"srs_condition", OPTION_EXPR, AT(srs_condition)},
    {"srs_db_insert", OPTION_EXPR, AT(srs_dbinsert), .flags = OPTION_ALIAS, .alias_of = "srs_dbinsert"},
    {"srs_db_select", OPTION_EXPR, AT(srs_dbselect), .flags = OPTION_ALIAS, .alias_of = "srs_dbselect"},
    {"srs_dbinsert", OPTION_EXPR, AT(srs_dbinsert)},
    {"srs_dbselect", OPTION_EXPR, AT(srs_dbselect)},
    {"syntax_errors_text", OPTION_EXPR, AT(syntax_errors_text)},
    {"syntax_errors_to", OPTION_STRING, AT(syntax_errors_to)},
    OPTIONS_END};

static int bad(struct config_reader *cr, const struct instance *i, const char *text) {
  return config_error(cr, "%s", text); /* names the router by itself */
}

int redirect_init(struct config_reader *cr, struct instance *i) {
  struct redirect_options *o = i->options;
  const struct router_options *g = router_options(i);
  bool data = str_is_set(o->data.text), file = str_is_set(o->file.text);
  if (!data && !file)
    return bad(cr, i, "one of \"file\" or \"data\" must be specified");
  if (data && file)
    return bad(cr, i, "only one of \"file\" or \"data\" must be specified");
  if (o->one_time) {
    o->forbid_pipe = o->forbid_file = o->forbid_filter_reply = true;
    if (str_is_set(g->headers_add) || str_is_set(g->headers_remove))
      return bad(cr, i, "\"headers_add\" and \"headers_remove\" are not permitted with \"one_time\"");
    if (str_is_set(g->unseen.text) && !str_ieq_c(g->unseen.text, "false") && !str_ieq_c(g->unseen.text, "no"))
      return bad(cr, i, "\"unseen\" may not be used with \"one_time\"");
  }
  if (o->check_owner < 0)
    o->check_owner = g->check_local_user || o->owners.n;
  if (o->check_group < 0)
    o->check_group = (g->check_local_user && !(o->modemask & 020)) || o->owngroups.n;
  if (o->qualify_preserve_domain && str_is_set(o->qualify_domain.text))
    return bad(cr, i, "only one of \"qualify_domain\" or \"qualify_preserve_domain\" must be set");
  if (o->allow_filter && !g->check_local_user && !g->user.set)
    return bad(cr, i, "\"user\" or \"check_local_user\" must be set with \"allow_filter\"");
  return 0;
}
