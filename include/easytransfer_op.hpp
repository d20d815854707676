// easytransfer_op.hpp: operations of plugins in C++17. easytransfer_plugin.hpp includes it.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_OP_HPP
#define EASYTRANSFER_OP_HPP

#include "easytransfer_plugin.hpp"

#include <optional>

namespace easytransfer {
inline namespace v0_2 {

/// Element type, an ET_DTYPE_ constant, and shape of a tensor.
struct Spec {
  std::int32_t dtype;
  std::vector<std::size_t> shape;
};

/// Contiguous memory of an input or output of an operation, borrowed for a call.
class View {
public:
  explicit View(const et_view *raw) noexcept : raw_(raw) {}
  std::int32_t dtype() const noexcept { return raw_->dtype; }
  std::vector<std::size_t> shape() const {
    return std::vector<std::size_t>(raw_->shape, raw_->shape + (raw_->shape == nullptr ? 0 : raw_->rank));
  }
  std::size_t size() const noexcept {
    std::size_t len = 1;
    for (std::int32_t axis = 0; axis < raw_->rank; ++axis) len *= static_cast<std::size_t>(raw_->shape[axis]);
    return len;
  }
  /// The elements, whose type the caller knows from `dtype`.
  template <class Element> Element *data() const noexcept {
    return reinterpret_cast<Element *>(static_cast<char *>(raw_->data) + raw_->byte_offset);
  }

private:
  const et_view *raw_;
};

/// An operation of a plugin with code of its own, on the CPU. `Self` has no state, and
///
///   static constexpr const char *name = "mine";
///   static constexpr std::uint32_t inputs = 1, outputs = 1; // how many
///   static std::vector<Spec> infer(const std::vector<Spec> &inputs);      // type and shape of each output
///   static void forward(const std::vector<View> &inputs, const std::vector<View> &outputs);
///   static std::vector<std::optional<Tensor>> backward(                   // optional: gradient of each input, by
///       const std::vector<Tensor> &inputs, const std::vector<Tensor> &outputs,   // operations of tensors; no value
///       const std::vector<std::optional<Tensor>> &output_grads);          // where none arrives or flows
template <class Self> class OpPlugin {
public:
  static constexpr const char *kind = "et.op/1";

  /// The C table.
  ET_HIDDEN static et_plugin_op table() noexcept {
    et_plugin_op table = {};
    table.struct_size = sizeof table;
    table.name = Self::name;
    table.inputs_len = Self::inputs;
    table.outputs_len = Self::outputs;
    table.infer = [](void *, const et_view *const *inputs, std::int32_t *dtypes, std::int32_t *ranks,
                     std::int64_t *const *shapes) noexcept {
      return detail::guard([&] { infer(inputs, dtypes, ranks, shapes); });
    };
    table.forward = [](const et_op_call *call) noexcept {
      return detail::guard([&] {
        const std::vector<View> inputs(call->inputs, call->inputs + call->inputs_len);
        Self::forward(inputs, std::vector<View>(call->outputs, call->outputs + call->outputs_len));
      });
    };
    if constexpr (detail::has_backward<Self>) {
      table.flags = ET_OP_HAS_BACKWARD;
      table.backward = [](void *, const et_tensor *const *inputs, const et_tensor *const *outputs,
                          const et_tensor *const *output_grads, et_tensor **input_grads) noexcept {
        return detail::guard([&] { backward(inputs, outputs, output_grads, input_grads); });
      };
    }
    return table;
  }

private:
  static void infer(const et_view *const *inputs, std::int32_t *dtypes, std::int32_t *ranks,
                    std::int64_t *const *shapes) {
    std::vector<Spec> given;
    for (std::uint32_t i = 0; i < Self::inputs; ++i) given.push_back(Spec{inputs[i]->dtype, View(inputs[i]).shape()});
    const std::vector<Spec> specs = Self::infer(given);
    for (std::uint32_t i = 0; i < Self::outputs; ++i) {
      if (specs.size() != Self::outputs || specs[i].shape.size() > 8)
        throw Error(ET_ERR_INVALID_ARGUMENT, std::string(Self::name) + ": infer: expected one spec for each output, of at "
                                                                       "most 8 axes");
      dtypes[i] = specs[i].dtype;
      ranks[i] = static_cast<std::int32_t>(specs[i].shape.size());
      for (std::size_t axis = 0; axis < specs[i].shape.size(); ++axis)
        shapes[i][axis] = static_cast<std::int64_t>(specs[i].shape[axis]);
    }
  }
  /// References of our own to lent tensors.
  static std::vector<std::optional<Tensor>> kept(const et_tensor *const *raw, std::uint32_t len) {
    std::vector<std::optional<Tensor>> tensors(len);
    for (std::uint32_t i = 0; i < len; ++i)
      if (raw[i] != nullptr) tensors[i] = Tensor(ET_SLOT_(tensor, retain)(raw[i]));
    return tensors;
  }
  static std::vector<Tensor> all(const et_tensor *const *raw, std::uint32_t len) {
    std::vector<Tensor> tensors;
    for (std::optional<Tensor> &tensor : kept(raw, len)) tensors.push_back(std::move(tensor.value()));
    return tensors;
  }
  static void backward(const et_tensor *const *inputs, const et_tensor *const *outputs,
                       const et_tensor *const *output_grads, et_tensor **input_grads) {
    std::vector<std::optional<Tensor>> grads =
        Self::backward(all(inputs, Self::inputs), all(outputs, Self::outputs), kept(output_grads, Self::outputs));
    if (grads.size() != Self::inputs)
      throw Error(ET_ERR_INVALID_ARGUMENT, std::string(Self::name) + ": backward: expected a gradient for each input");
    for (std::uint32_t i = 0; i < Self::inputs; ++i)
      if (grads[i].has_value()) input_grads[i] = grads[i]->take();
  }
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_OP_HPP
