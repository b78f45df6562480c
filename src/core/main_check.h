/* The functions of the core module's main block. */
#pragma once

struct arena;
struct config_reader;

void core_main_defaults(void *block, struct arena *a);
int core_main_check(struct config_reader *r, void *block);
