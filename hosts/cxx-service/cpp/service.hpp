// The C++ half of the service.
#pragma once

#include <cstdint>

namespace service {

struct Service;

// Answers requests from standard input until it ends. 0, or 2 when a request was refused.
std::int32_t serve(Service &service);

} // namespace service
