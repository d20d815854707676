/* The list of components never ends, and every component has another name. */
#define CUSTOM_COMPONENT
#include "easytransfer_plugin.h"
static const void *component(const char *kind, size_t index);
#include "plugin.h"

static const void *component(const char *kind, size_t index) {
  static et_plugin_loss tables[2048];
  static char names[2048][8];
  size_t digit;
  if (!is_loss(kind)) {
    return NULL;
  }
  index %= 2048;
  for (digit = 0; digit < 4; digit += 1) {
    names[index][digit] = (char)('a' + (index >> (4 * digit)) % 16);
  }
  tables[index] = LOSS;
  tables[index].name = names[index];
  return &tables[index];
}
