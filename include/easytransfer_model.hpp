// easytransfer_model.hpp: models and optimizers of plugins in C++17. easytransfer_plugin.hpp includes it.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_MODEL_HPP
#define EASYTRANSFER_MODEL_HPP

#include "easytransfer_plugin.hpp"

namespace easytransfer {
inline namespace v0_2 {

/// An encoder, or any other network below the head, of a plugin. `Self` has
///
///   static constexpr const char *name = "mine";             // the model_type of config.json
///   static constexpr const char *schema = "{..}";           // optional: JSON Schema of the configuration
///   Self(const Config &config, const Scope &scope);         // declares the parameters in the scope and keeps them
///   Json describe() const;                                  // et_plugin_model.describe: hidden_size, layers,
///                                                           // vocab_size, max_positions, base_prefix, pooled, ..
///   void forward(const Call &, const Map &batch, Map &outputs);   // puts "last" [T, h], and "pooled" [B, h],
///                                                           // "hidden_states/k" and "logits" when wanted
///
/// `batch` has "ids", "positions" and "starts", and "segments" where the tokenizer makes them.
template <class Self> class ModelPlugin {
public:
  static constexpr const char *schema = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":true}";
  static constexpr const char *kind = "et.model/1";

  /// The C table.
  ET_HIDDEN static et_plugin_model table() noexcept {
    et_plugin_model table = {};
    table.struct_size = sizeof table;
    table.name = Self::name;
    table.schema = Self::schema;
    table.create = [](et_str config, const et_scope *scope, void **out) noexcept {
      return detail::guard([&] { *out = new Self(Config(detail::view(config)), Scope::lent(scope)); });
    };
    table.release = [](void *self) noexcept { detail::Instances<Self>::drop(self); };
    table.describe = [](void *self, et_buffer **out) noexcept {
      return detail::guard([&] { detail::put(detail::written(static_cast<Self *>(self)->describe()), out); });
    };
    table.forward = [](void *self, const et_call *call, const et_map *batch, et_map *outputs) noexcept {
      return detail::guard([&] {
        detail::Lent given(batch), answers(outputs);
        static_cast<Self *>(self)->forward(Call(call), given.map(), answers.map());
      });
    };
    return table;
  }
};

/// An optimizer of a plugin. `Self` has name and schema (optional; its key "default_lr" is the peak learning rate of
/// runs that set none) as a loss has, and
///
///   Self(const Config &options, Params params);             // for a sealed set, which outlives it
///   void step(Params params, double lr, std::uint64_t step);      // changes the parameters by their gradients; `step`
///                                                           // counts from 1, and gradients are cleared by the host
///   void save(Stream &) const;                              // its state in checkpoints; both optional for one
///   void load(Stream &);                                    // without a state
///   void step_part(Params, double lr, std::uint64_t step, std::size_t begin, std::size_t end);   // optional: the
///                                                           // elements from `begin` to `end` of the arena alone
///
/// The engine's own steps are reached by Params::optimizer_state and Params::optimizer_step.
template <class Self> class OptimizerPlugin {
public:
  static constexpr const char *schema = detail::NO_OPTIONS;
  static constexpr const char *kind = "et.optimizer/1";

  /// The C table.
  ET_HIDDEN static et_plugin_optimizer table() noexcept {
    et_plugin_optimizer table = {};
    table.struct_size = sizeof table;
    table.name = Self::name;
    table.schema = Self::schema;
    table.create = [](et_str options, et_params *params, void **out) noexcept {
      return detail::guard([&] { *out = new Self(Config(detail::view(options)), Params(params)); });
    };
    table.release = [](void *self) noexcept { detail::Instances<Self>::drop(self); };
    table.step = [](void *self, et_params *params, double lr, std::uint64_t step) noexcept {
      return detail::guard([&] { static_cast<Self *>(self)->step(Params(params), lr, step); });
    };
    table.state_save = [](void *self, et_stream *stream) noexcept -> et_error * {
      if constexpr (detail::has_save<Self>) return detail::streamed(&Self::save, static_cast<Self *>(self), stream);
      static_cast<void>(self), static_cast<void>(stream);
      return nullptr;
    };
    table.state_load = [](void *self, et_stream *stream) noexcept -> et_error * {
      if constexpr (detail::has_load<Self>) return detail::streamed(&Self::load, static_cast<Self *>(self), stream);
      static_cast<void>(self), static_cast<void>(stream);
      return nullptr;
    };
    if constexpr (detail::has_step_part<Self>) {
      table.step_part = [](void *self, et_params *params, double lr, std::uint64_t step, std::size_t begin,
                           std::size_t end) noexcept {
        return detail::guard([&] { static_cast<Self *>(self)->step_part(Params(params), lr, step, begin, end); });
      };
    }
    return table;
  }
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_MODEL_HPP
