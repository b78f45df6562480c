/* -bP in all its forms (Exim manual, chapter "The Exim command line"). */
#pragma once

#include <stdio.h>
#include "config/config.h"

struct config_print {
  FILE *out;
  bool admin;      /* hidden values, macros and the text of the configuration are for admin users only */
  bool no_names;   /* -n */
};

/* Prints what the arguments behind -bP name; none: all main options. Returns the exit status of the command; refusals
that end it are written to stderr. */
int config_print(const struct config_print *p, const struct config *c, const struct str *args, size_t n);
