// create throws; the function that crosses the boundary catches.
#define CUSTOM_CREATE
#include "easytransfer_plugin.h"
static et_error *create(et_str options, void **out) noexcept;
#include "plugin.h"

#include <cstring>
#include <stdexcept>

static void parse(et_str options) {
  if (options.len == 0) {
    throw std::runtime_error("no options were given");
  }
}

static et_error *create(et_str options, void **out) noexcept {
  try {
    parse(options);
    *out = &plugin_running;
    return nullptr;
  } catch (const std::exception &error) {
    return fail(ET_ERR_PANIC, error.what(), std::strlen(error.what()));
  } catch (...) {
    return fail(ET_ERR_PANIC, "unknown exception", 17);
  }
}
