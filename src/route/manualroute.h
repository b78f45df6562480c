/* Routing rules of the manualroute router (Exim manual, sections "Routing
rules in route_list" and "… in route_data"). */
#pragma once

#include "base/arena.h"
#include "base/buf.h"
#include "base/str.h"

struct manualroute_rule {
  struct str pattern; /* of route_list only */
  struct str hosts;
  struct str options;
};

/* Takes "pattern hosts options" or "hosts options" apart; parts may be quoted. False: an empty rule. Texts are views or in `a`. */
bool manualroute_parse_rule(struct arena *a, struct str item, struct manualroute_rule *ret);
void manualroute_parse_data(struct arena *a, struct str data, struct manualroute_rule *ret);
/* The first word of *rest: quoted with the usual escapes, or up to white space. */
struct str manualroute_word(struct arena *a, struct str *rest);
