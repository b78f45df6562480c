/* The smtp transport's module. */
#pragma once

extern const struct module smtp_client_module;
