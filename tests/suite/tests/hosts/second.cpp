// A library beside the program that uses its objects. Without a runtime of its own, and with symbols of its own
// (-fvisibility=hidden), it has not met the engine.
#include "easytransfer.hpp"

using namespace easytransfer;

extern "C" {

ET_EXPORT int second_sum(const et_host *host, et_tensor *lent, double *out, char *text, std::size_t size);

/// Adds the elements of a tensor; what fails is a code and a text. With a host it meets the engine first.
int second_sum(const et_host *host, et_tensor *lent, double *out, char *text, std::size_t size) {
  if (host != nullptr) attach(host);
  Tensor tensor(lent);
  try {
    *out = tensor.sum().item();
    tensor.take();
    return 0;
  } catch (const Error &error) {
    std::snprintf(text, size, "%s", error.what());
    // It goes here, where nobody can give it back, if the program is not told to take it.
    if (host == nullptr && size == 1) return error.code();
    tensor.take();
    return error.code();
  }
}
}
