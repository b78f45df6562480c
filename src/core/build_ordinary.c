#include "core/build.h"

#include "core/build_config.h"
#include <stddef.h>

const struct build_hooks build = {
  .variant = "",
  .version = MARTLET_VERSION,
  .user = MARTLET_USER,
  .group = MARTLET_GROUP,
  .config_path = MARTLET_CONFIG_PATH,
  .spool_directory = MARTLET_SPOOL_DIRECTORY,
  .log_file_path = MARTLET_LOG_FILE_PATH,
  .pid_file_path = MARTLET_PID_FILE_PATH,
  .program_path = MARTLET_PROGRAM_PATH,
  .check_config_owner = true,
  .smtputf8_advertise_hosts = "*",
  .tls_advertise_requiretls = "*",
  .mailer_name = "Martlet",
};
