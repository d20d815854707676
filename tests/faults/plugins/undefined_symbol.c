/* Calls a function that no library has. A lazily bound plugin would load and end the process at the first call. */
#define CUSTOM_CREATE
#include "easytransfer_plugin.h"
static et_error *create(et_str options, void **out);
#include "plugin.h"

et_error *function_that_nobody_wrote(et_str options, void **out);

static et_error *create(et_str options, void **out) {
  return function_that_nobody_wrote(options, out);
}
