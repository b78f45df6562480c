/* Numbers below zero for errors of a delivery that no errno describes. They
show in "defer (-44)" of log lines and in retry records, so the values are
part of the format (Exim manual, chapters "Retry configuration" and "Log
files"; exinext prints them). They stand in address->basic_errno. */
#pragma once

enum delivery_error {
  ERROR_UNKNOWN = -1,
  ERROR_BAD_PIPE_NAME = -2,
  ERROR_EXIST_RACE = -3,
  ERROR_NOT_REGULAR = -4,
  ERROR_NOT_DIRECTORY = -5,
  ERROR_BAD_UGID = -6,
  ERROR_BAD_MODE = -7,
  ERROR_INODE_CHANGED = -8,
  ERROR_LOCK_FAILED = -9,
  ERROR_BAD_ADDRESS = -10,
  ERROR_FORBID_PIPE = -11,
  ERROR_FORBID_FILE = -12,
  ERROR_FORBID_REPLY = -13,
  ERROR_MISSING_PIPE = -14,
  ERROR_MISSING_FILE = -15,
  ERROR_MISSING_REPLY = -16,
  ERROR_BAD_REDIRECT = -17,
  ERROR_SMTP_CLOSED = -18,
  ERROR_SMTP_FORMAT = -19,
  ERROR_SPOOL_FORMAT = -20,
  ERROR_NOT_ABSOLUTE = -21,
  ERROR_QUOTA = -22,
  ERROR_HELD = -23,
  ERROR_FILTER_FAIL = -24,
  ERROR_CHANGE_HEADER_FAIL = -25,
  ERROR_WRITE_INCOMPLETE = -26,
  ERROR_EXPAND_FAIL = -27,
  ERROR_GID_FAIL = -28,
  ERROR_UID_FAIL = -29,
  ERROR_BAD_TRANSPORT = -30,
  ERROR_MBX_LENGTH = -31,
  ERROR_UNKNOWN_HOST = -32,
  ERROR_FORMAT_UNKNOWN = -33,
  ERROR_BAD_CREATE = -34,
  ERROR_LIST_DEFER = -35,
  ERROR_DNS_DEFER = -36,
  ERROR_TLS_FAILURE = -37,
  ERROR_TLS_REQUIRED = -38,
  ERROR_CHOWN_FAIL = -39,
  ERROR_PIPE_FAIL = -40,
  ERROR_CALLOUT = -41,
  ERROR_AUTH_FAIL = -42,
  ERROR_CONNECT_TIMEOUT = -43,
  ERROR_RCPT_4XX = -44,
  ERROR_MAIL_4XX = -45,
  ERROR_DATA_4XX = -46,
  ERROR_PROXY_FAIL = -47,
  ERROR_AUTH_PROBLEM = -48,
  ERROR_UTF8 = -49,
  ERROR_HOST_IS_LOCAL = -50,
  /* From here on: nothing was tried. These never make or change retry records. */
  ERROR_RETRY_BASE = -51,
  ERROR_ROUTING_RETRY = -52,
  ERROR_LOCAL_RETRY = -53,
  ERROR_HOST_RETRY = -54,
  ERROR_LOCAL_ONLY = -55,
  ERROR_QUEUE_DOMAIN = -56,
  ERROR_CONCURRENCY = -57,
  ERROR_EVENT = -58,
  ERROR_REQUIRETLS = -59,        /* the server does not promise REQUIRETLS */
  ERROR_ENCRYPTION_NEEDED = -60, /* and here there is no TLS that would do for it */
  ERROR_STS_POLICY = -62,        /* the mail domain's MTA-STS policy does not take the host as it is; others' may */
  ERROR_HOST_BUSY = -63,         /* the host keeps many deliveries waiting: another will try it in a moment */
  ERROR_DANE_REQUIRED = -61,     /* hosts_require_dane names a host that has no secure TLSA records */
};
