/* exim_id_update. */
#pragma once

#include <stdbool.h>

/* Gives all messages of the spool ids of today's form (`up`), or of that before Exim 4.97. Exit status. */
int id_update_run(const char *spool, bool up);
