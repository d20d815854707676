/* A required slot of the loss is NULL. */
#define LOSS_FORWARD NULL
#include "plugin.h"
