// init throws; the function that crosses the boundary catches.
#define CUSTOM_INIT
#include "easytransfer_plugin.h"
static et_error *init(const et_host *host) noexcept;
#include "plugin.h"

#include <cstring>
#include <stdexcept>

static et_error *init(const et_host *host) noexcept {
  the_host = host;
  try {
    throw std::out_of_range("index 7 of 3");
  } catch (const std::exception &error) {
    return fail(ET_ERR_PANIC, error.what(), std::strlen(error.what()));
  }
}
