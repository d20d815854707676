// The loss of the outsiders in C++17, against the headers alone: mean over all logits of squared difference to the
// one-hot label, written with the same operations in the same order as its siblings in Rust and C.
#include "easytransfer_plugin.hpp"

using easytransfer::Map;
using easytransfer::Tensor;

class Brier : public easytransfer::LossPlugin<Brier> {
public:
  static constexpr const char *name = "outsider-cpp";
  explicit Brier(const easytransfer::Config &) {}

  Tensor forward(const easytransfer::Call &, const Map &outputs, const Map &batch) {
    const Tensor logits = outputs["logits"];
    const auto shape = logits.shape();
    const Tensor labels = batch["labels"].reshape({shape[0], 1});
    const Tensor target = Tensor::arange(shape[1]).equals(labels).cast(ET_DTYPE_F32);
    return (logits - target).sqr().mean();
  }
};

ET_EXPORT_PLUGIN("outsider-cpp", "0.1.0", Brier)
