/* Inside the scanning room: who gives the verdicts. By the form of bmi_config_file: unix:/path or inet:host:port, a server that speaks
features.md F01's lines; rspamd:http://host:port, Rspamd; a path, the vendor's client library, whose configuration that is. */
#pragma once

#include "scan/bmi.h"

struct ctx;

struct bmi_optin {
  struct str address;   /* of the recipient */
  struct str words;     /* comma list */
};

/* What the role bmi gets, texts by number; behind them the libraries' names, then a recipient each, "words address". Standard
input is the body. */
enum { BMI_TEXT_FILE, BMI_TEXT_HELO, BMI_TEXT_CLIENT, BMI_TEXT_SENDER, BMI_TEXT_HEAD, BMI_TEXT_LIBRARIES /* how many */, BMI_TEXTS };

/* NULL, or what is wrong with the option. */
const char *bmi_check_provider(struct str file);
/* A bmi_optin value, a list or text with commas, as a comma list without what would not fit on a line. */
struct str bmi_optin_words(struct arena *a, struct str list);
/* Verdicts for the message's recipients; false with *ret_error. [suspends] `library`: a list of
objects to load, the last one with the calls, for when `file` is a path. The set lies in the message's arena. */
bool bmi_ask(struct ctx *c, struct str file, struct str library, const struct bmi_optin *optin, size_t n, struct bmi_set *ret, struct str *ret_error);
