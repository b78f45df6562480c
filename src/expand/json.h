/* Walking the elements of a JSON array or object without decoding them. */
#pragma once

#include "base/str.h"

/* The inside of `[…]` or `{…}`; white space around is dropped. 0, or the bracket that is missing. */
char json_unwrap(struct str text, char open, struct str *ret_inside);
/* The next element of a comma-separated inside; commas in strings, arrays and objects are seen through. White space in
front is dropped. False at the end. */
bool json_next(struct str *inside, struct str *ret_element);
/* Takes the quotes off a JSON string (escapes stay as they are). False: it is none. */
bool json_unquote(struct str element, struct str *ret);
/* Splits `"name" : value`. NULL, or what is wrong with it. */
const char *json_member(struct str element, struct str *ret_name, struct str *ret_value);
