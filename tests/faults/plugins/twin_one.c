/* Has a function `value` of default visibility, as twin_two.c has. */
#define PLUGIN_ID "twin-one"
#define LOSS_NAME "twin-one"
#define CUSTOM_CREATE
#include "easytransfer_plugin.h"
static et_error *create(et_str options, void **out);
#include "plugin.h"

int value(void);
int value(void) { return 1; }

static et_error *create(et_str options, void **out) {
  static int held;
  (void)options;
  held = value();
  *out = &held;
  return NULL;
}
