/* Nothing is wrong with it: what every other file here is compared with. */
#include "plugin.h"
