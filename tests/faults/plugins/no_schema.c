/* The loss has no schema. */
#define LOSS_SCHEMA NULL
#include "plugin.h"
