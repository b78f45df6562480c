/* The outcome of anything that can fail (DESIGN §4). Temporary and permanent
failure are told apart from the lowest layer up, because SMTP needs it. */
#pragma once

enum outcome {
  OUTCOME_OK = 0,
  OUTCOME_FAIL = -1,   /* no: not found, no match, permanent failure */
  OUTCOME_DEFER = -2,  /* try again later */
  OUTCOME_ERROR = -3,  /* the configuration or a broken peer is at fault */
  OUTCOME_FORCED = -4, /* expansion only: forced failure ({fail}) */
};

#define MUST_CHECK __attribute__((warn_unused_result))
