// Losses against the C++ header that throw in each of their callbacks, as `at` says: a std::exception in the
// constructor and in forward, something else in forward, and from the destructor.
#include "easytransfer_plugin.hpp"

#include <stdexcept>

using easytransfer::Map;
using easytransfer::Tensor;

/// What is thrown and where.
enum class At { create, forward, number, engine, release };

template <At at> class Throws : public easytransfer::LossPlugin<Throws<at>> {
public:
  static constexpr const char *name = at == At::create    ? "throws-create"
                                      : at == At::forward ? "throws-forward"
                                      : at == At::number  ? "throws-number"
                                      : at == At::engine  ? "throws-engine"
                                                          : "throws-release";

  explicit Throws(const easytransfer::Config &) : held_(Tensor::arange(3)) {
    if (at == At::create) throw std::runtime_error("thrown in create");
  }
  ~Throws() noexcept(false) {
    if (at == At::release) throw std::runtime_error("thrown in release");
  }

  Tensor forward(const easytransfer::Call &, const Map &outputs, const Map &) {
    const Tensor logits = outputs["logits"];
    if (at == At::forward) throw std::out_of_range("thrown in forward");
    if (at == At::number) throw 42;
    if (at == At::engine) return logits.reshape({1000003});
    return logits.sqr().mean();
  }

private:
  Tensor held_;
};

ET_EXPORT_PLUGIN("throws", "0.1.0", Throws<At::create>, Throws<At::forward>, Throws<At::number>, Throws<At::engine>,
                 Throws<At::release>)
