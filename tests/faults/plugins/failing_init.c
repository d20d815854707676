/* init returns an error. */
#define CUSTOM_INIT
#include "easytransfer_plugin.h"
static et_error *refuse(const et_host *host);
#define PLUGIN_INIT refuse
#include "plugin.h"

static et_error *refuse(const et_host *host) {
  static const char message[] = "the licence server says no";
  the_host = host;
  return fail(ET_ERR_FAILED_PRECONDITION, message, sizeof message - 1);
}
