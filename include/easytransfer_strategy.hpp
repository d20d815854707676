// easytransfer_strategy.hpp: transfer strategies of plugins in C++17. easytransfer_plugin.hpp includes it.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_STRATEGY_HPP
#define EASYTRANSFER_STRATEGY_HPP

#include "easytransfer_plugin.hpp"

namespace easytransfer {

/// A running fit. What is not wrapped here is reached by `get()` and the slots of et_host_session.
class Session {
public:
  explicit Session(et_session *raw) noexcept : raw_(raw) {}
  /// The parameters of "model", the model under training, or of another model or module.
  Params params(std::string_view model = "model") {
    et_params *out = nullptr;
    detail::check(ET_SLOT_(session, params)(raw_, detail::text(model), &out));
    return Params(out);
  }
  /// Outputs of a model with its head; `want` is a set of ET_WANT_ bits.
  Map forward(std::string_view model, const Map &batch, bool training, std::uint32_t want = 0) {
    et_map *out = nullptr;
    detail::check(ET_SLOT_(session, forward)(raw_, detail::text(model), batch.get(), training ? 1 : 0, want, &out));
    return Map(out);
  }
  /// The run's loss.
  Tensor loss(const Map &outputs, const Map &batch) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(session, loss)(raw_, outputs.get(), batch.get(), &out));
    return Tensor(out);
  }
  /// Adds a scalar to the losses of this step; only in `on_outputs`.
  void add_loss(std::string_view name, const Tensor &loss, double weight = 1.0) {
    detail::check(ET_SLOT_(session, add_loss)(raw_, detail::text(name), loss.get(), weight));
  }
  /// The weight of the run's own loss in this step; only in `on_outputs`.
  void set_loss_weight(double weight) { detail::check(ET_SLOT_(session, set_loss_weight)(raw_, weight)); }
  /// The next batch of a source: "train", "valid" or one of the run's own.
  Map next_batch(std::string_view source) {
    et_map *out = nullptr;
    detail::check(ET_SLOT_(session, next_batch)(raw_, detail::text(source), &out));
    return Map(out);
  }
  /// Writes a number to the run's metrics.
  void log_scalar(std::string_view name, double value) {
    detail::check(ET_SLOT_(session, log_scalar)(raw_, detail::text(name), value));
  }
  std::uint64_t step() const { return ET_SLOT_(session, step)(raw_); }
  std::uint64_t total_steps() const { return ET_SLOT_(session, total_steps)(raw_); }
  bool is_cancelled() const { return ET_SLOT_(session, is_cancelled)(raw_) != 0; }
  et_session *get() const noexcept { return raw_; }

private:
  et_session *raw_;
};

/// A transfer strategy of a plugin. `Self` has name, schema (optional) and a constructor as a loss has, and those of
/// the hooks that it uses:
///
///   void on_setup(Session &);                               // weights are loaded and nothing is sealed yet
///   void on_batch(Session &, Map &batch);                   // may put "weights" [B] into the batch
///   void on_outputs(Session &, const Map &batch, const Map &outputs);     // may add losses
///   Tensor combine(Session &, const Map &losses);           // one scalar of all losses of the step
///   void on_gradients(Session &);                           // complete, and not yet clipped
///   void on_epoch(Session &, std::uint64_t epoch, std::string_view metrics);   // from 1; metrics are JSON
///   void fit(Session &);                                    // drives the whole fit
///   std::string columns() const;                            // columns that it needs, JSON as et_plugin_strategy says
///   void save(Stream &) const;                              // its state in checkpoints
///   void load(Stream &);
template <class Self> class StrategyPlugin : detail::Instances<Self> {
public:
  static constexpr const char *schema = detail::NO_OPTIONS;
  static constexpr const char *kind = "et.strategy/1";

  /// The C table.
  ET_HIDDEN static et_plugin_strategy table() noexcept {
    et_plugin_strategy table = {};
    table.struct_size = sizeof table;
    table.name = Self::name;
    table.schema = Self::schema;
    table.create = StrategyPlugin::create;
    table.release = StrategyPlugin::drop;
    table.phases = [](void *) noexcept { return PHASES; };
    hooks(table);
    if constexpr (detail::has_columns<Self>) {
      table.columns = [](void *self, et_buffer **out) noexcept {
        return detail::guard([&] { detail::put(of(self).columns(), out); });
      };
    }
    if constexpr (detail::has_save<Self> && detail::has_load<Self>) {
      table.state_save = [](void *self, et_stream *raw) noexcept {
        return detail::guard([&] {
          Stream stream(raw);
          of(self).save(stream);
        });
      };
      table.state_load = [](void *self, et_stream *raw) noexcept {
        return detail::guard([&] {
          Stream stream(raw);
          of(self).load(stream);
        });
      };
    }
    return table;
  }

private:
  static constexpr std::uint32_t PHASES =
      (detail::has_on_setup<Self> ? ET_PHASE_SETUP : 0u) | (detail::has_on_batch<Self> ? ET_PHASE_BATCH : 0u) |
      (detail::has_on_outputs<Self> ? ET_PHASE_OUTPUTS : 0u) | (detail::has_combine<Self> ? ET_PHASE_COMBINE : 0u) |
      (detail::has_on_gradients<Self> ? ET_PHASE_GRADIENTS : 0u) | (detail::has_on_epoch<Self> ? ET_PHASE_EPOCH : 0u) |
      (detail::has_fit<Self> ? ET_PHASE_FIT : 0u);

  static Self &of(void *self) noexcept { return *static_cast<Self *>(self); }

  /// Runs a hook with its session.
  template <class Body> static et_error *hook(et_session *raw, Body &&body) noexcept {
    return detail::guard([&] {
      Session session(raw);
      body(session);
    });
  }

  static void hooks(et_plugin_strategy &table) noexcept {
    if constexpr (detail::has_on_setup<Self>) {
      table.on_setup = [](void *self, et_session *session) noexcept {
        return hook(session, [&](Session &session) { of(self).on_setup(session); });
      };
    }
    if constexpr (detail::has_on_batch<Self>) {
      table.on_batch = [](void *self, et_session *session, et_map *batch) noexcept {
        return hook(session, [&](Session &session) { of(self).on_batch(session, detail::Lent(batch).map()); });
      };
    }
    if constexpr (detail::has_on_outputs<Self>) {
      table.on_outputs = [](void *self, et_session *session, const et_map *batch, const et_map *outputs) noexcept {
        return hook(session, [&](Session &session) {
          of(self).on_outputs(session, detail::Lent(batch).map(), detail::Lent(outputs).map());
        });
      };
    }
    if constexpr (detail::has_combine<Self>) {
      table.combine = [](void *self, et_session *session, const et_map *losses, et_tensor **out) noexcept {
        return hook(session, [&](Session &session) {
          Tensor loss = of(self).combine(session, detail::Lent(losses).map());
          *out = loss.take();
        });
      };
    }
    if constexpr (detail::has_on_gradients<Self>) {
      table.on_gradients = [](void *self, et_session *session) noexcept {
        return hook(session, [&](Session &session) { of(self).on_gradients(session); });
      };
    }
    if constexpr (detail::has_on_epoch<Self>) {
      table.on_epoch = [](void *self, et_session *session, std::uint64_t epoch, et_str metrics) noexcept {
        return hook(session, [&](Session &session) {
          of(self).on_epoch(session, epoch, std::string_view(metrics.ptr, metrics.len));
        });
      };
    }
    if constexpr (detail::has_fit<Self>) {
      table.fit = [](void *self, et_session *session) noexcept {
        return hook(session, [&](Session &session) { of(self).fit(session); });
      };
    }
  }
};

} // namespace easytransfer

#endif // EASYTRANSFER_STRATEGY_HPP
