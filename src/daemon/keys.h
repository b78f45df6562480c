/* The keys process (docs/internals/keys.md): `martlet --keys`, started by the master, or by a one-shot command that needs it. */
#pragma once

#include "config/config.h"

#define KEYS_ARGUMENT "--keys"

/* Over its standard input, one datagram each: a letter, and a name. */
enum keys_control {
  KEYS_ALLOW_FILE = 'F',   /* a file that may be asked for */
  KEYS_ALLOW_PREFIX = 'P', /* all whose names begin so */
  KEYS_BEGIN = 'B',        /* that was all */
  KEYS_CHANNEL = 'C',      /* somebody's channel comes along */
};

/* In the process itself. Its exit status. */
int keys_run(void);

/* Tells the process at the other end what the configuration allows, and to begin. 0 or -errno. */
int keys_tell_names(const struct config *c, int control);
/* A channel for somebody: our end, non-blocking; or -errno. */
int keys_make_channel(int control);

/* For a one-shot command: from now on it starts a keys process when it first needs a key. */
void keys_use_own(const struct config *c);

/* Checks of the configuration. 0 or OUTCOME_ERROR. */
int keys_check_config(struct config_reader *r);
