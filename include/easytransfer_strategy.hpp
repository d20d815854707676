// easytransfer_strategy.hpp: transfer strategies of plugins in C++17. easytransfer_plugin.hpp includes it.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_STRATEGY_HPP
#define EASYTRANSFER_STRATEGY_HPP

#include "easytransfer_plugin.hpp"

#include "easytransfer_app.hpp"

namespace easytransfer {
inline namespace v0_2 {

/// An optimizer that a strategy opened; it lives as long as the session.
class SessionOptimizer {
public:
  SessionOptimizer() = default;
  explicit SessionOptimizer(et_session_optimizer *raw) noexcept : raw_(raw) {}
  et_session_optimizer *get() const noexcept { return raw_; }

private:
  et_session_optimizer *raw_ = nullptr;
};

/// A running fit: all that et_host_session offers. What it hands out belongs to the session where it says "borrowed",
/// and is called only from inside the hooks.
class Session {
public:
  explicit Session(et_session *raw) noexcept : raw_(raw) {}

  // Models and modules. "model" is the model under training.

  /// The parameters of a model or module, borrowed for the session's life.
  Params params(std::string_view model = "model") {
    et_params *out = nullptr;
    detail::check(ET_SLOT_(session, params)(raw_, detail::text(model), &out));
    return Params(out);
  }
  /// What a model and its app say of themselves, as JSON.
  Config describe(std::string_view model = "model") {
    return Config(answer([&](et_buffer **out) { return ET_SLOT_(session, describe)(raw_, detail::text(model), out); }));
  }
  /// Loads a trained bundle as a frozen model under `name`; only in `on_setup`.
  void load_model(std::string_view name, std::string_view path) {
    detail::check(ET_SLOT_(session, load_model)(raw_, detail::text(name), detail::text(path)));
  }
  /// Makes a network of the strategy's own; only in `on_setup`. `model` is a model of the registry that `config`
  /// describes, "model" for that under training, or empty for parameters alone; `flags` are ET_MODULE_ bits. In the
  /// scope more may be declared until `on_setup` ends.
  Scope module(std::string_view name, std::string_view model = "", const Json &config = Json(),
               std::uint32_t flags = 0) {
    const std::string json = config.text();
    const et_str of = detail::text(model), options = detail::text(json);
    et_scope *out = nullptr;
    detail::check(ET_SLOT_(session, module)(raw_, detail::text(name), of, options, flags, &out));
    return Scope(out);
  }
  /// Makes a module with a model and a head the result of the run.
  void keep(std::string_view module) { detail::check(ET_SLOT_(session, keep)(raw_, detail::text(module))); }
  /// Outputs of a model with its head; `want` is a set of ET_WANT_ bits.
  Map forward(std::string_view model, const Map &batch, bool training, std::uint32_t want = 0) {
    et_map *out = nullptr;
    detail::check(ET_SLOT_(session, forward)(raw_, detail::text(model), batch.get(), training ? 1 : 0, want, &out));
    return Map(out);
  }
  /// Asks models for more outputs in every step; only in `on_setup`.
  void want(std::uint32_t wanted) { detail::check(ET_SLOT_(session, want)(raw_, wanted)); }

  // Losses.

  /// The run's loss.
  Tensor loss(const Map &outputs, const Map &batch) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(session, loss)(raw_, outputs.get(), batch.get(), &out));
    return Tensor(out);
  }
  /// The loss of each row by itself, [B].
  Tensor loss_rows(const Map &outputs, const Map &batch) {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(session, loss_rows)(raw_, outputs.get(), batch.get(), &out));
    return Tensor(out);
  }
  /// Adds a scalar to the losses of this step; only in `on_outputs`.
  void add_loss(std::string_view name, const Tensor &loss, double weight = 1.0) {
    detail::check(ET_SLOT_(session, add_loss)(raw_, detail::text(name), loss.get(), weight));
  }
  /// The weight of the run's own loss in this step; only in `on_outputs`.
  void set_loss_weight(double weight) { detail::check(ET_SLOT_(session, set_loss_weight)(raw_, weight)); }

  // Data. Sources are "train", "valid", those of the configuration, and what strategies opened.

  /// The sources in the order of their numbers: {"sources": [{"name": .., "records": .., "batches": .., ..}]}; only
  /// after setup.
  Config sources() {
    const std::string list = answer([&](et_buffer **out) { return ET_SLOT_(session, sources)(raw_, out); });
    return Config("{\"sources\":" + list + "}");
  }
  /// Opens one more file as a source; only in `on_setup`. `options`: task, domain, weight, labelled, columns.
  void open_source(std::string_view name, std::string_view path, const Json &options = Json()) {
    const std::string json = options.text();
    detail::check(ET_SLOT_(session, open_source)(raw_, detail::text(name), detail::text(path), detail::text(json)));
  }
  /// The next batch of a source, without end.
  Map next_batch(std::string_view source) {
    et_map *out = nullptr;
    detail::check(ET_SLOT_(session, next_batch)(raw_, detail::text(source), &out));
    return Map(out);
  }
  /// The next batch of one of the sources, drawn with these weights, or with their own where there are none.
  Map draw_batch(const std::vector<std::string> &sources, const std::vector<double> &weights = {}) {
    if (!weights.empty() && weights.size() != sources.size())
      throw Error(ET_ERR_INVALID_ARGUMENT, "draw_batch: expected a weight for each source");
    std::vector<et_str> names;
    for (const std::string &source : sources) names.push_back(detail::text(source));
    et_map *out = nullptr;
    const double *given = weights.empty() ? nullptr : weights.data();
    detail::check(ET_SLOT_(session, draw_batch)(raw_, names.data(), given, names.size(), &out));
    return Map(out);
  }
  /// A batch of records of a source by their numbers.
  Map records(std::string_view source, const std::vector<std::uint64_t> &numbers) {
    et_map *out = nullptr;
    detail::check(ET_SLOT_(session, records)(raw_, detail::text(source), numbers.data(), numbers.size(), &out));
    return Map(out);
  }
  /// One record of a source, from role to value.
  Config record(std::string_view source, std::uint64_t number) {
    return Config(
        answer([&](et_buffer **out) { return ET_SLOT_(session, record)(raw_, detail::text(source), number, out); }));
  }
  /// Figures of a model on the first `rows` records of a source, or on all for 0.
  Config evaluate(std::string_view model, std::string_view source, std::uint64_t rows = 0) {
    return Config(answer([&](et_buffer **out) {
      return ET_SLOT_(session, evaluate)(raw_, detail::text(model), detail::text(source), rows, out);
    }));
  }

  // Steps.

  /// Opens an optimizer of the registry over a set of parameters or a part of one, which it seals.
  SessionOptimizer optimizer(std::string_view name, Params params, const Json &options = Json()) {
    const std::string json = options.text();
    et_session_optimizer *out = nullptr;
    detail::check(ET_SLOT_(session, optimizer)(raw_, detail::text(name), detail::text(json), params.get(), &out));
    return SessionOptimizer(out);
  }
  /// One step of an optimizer with the gradients present; without one, of the run's own.
  void optimizer_step(double lr, SessionOptimizer optimizer = SessionOptimizer()) {
    detail::check(ET_SLOT_(session, optimizer_step)(raw_, optimizer.get(), lr));
  }
  /// Gradients of a scalar, added to those that are there.
  void backward(const Tensor &loss) { detail::check(ET_SLOT_(session, backward)(raw_, loss.get())); }
  /// The trainer's own step with the next batches of a source; only in `fit`, and not counted before `commit`.
  void step_once(std::string_view source = "train") {
    detail::check(ET_SLOT_(session, step_once)(raw_, detail::text(source)));
  }
  /// Ends a step: counts it, logs the figures ("loss" is that of the step), evaluates and writes a checkpoint when due.
  /// Whether the run goes on. Only in `fit`.
  bool commit(const Figures &figures = {}) { return commit(figures, nullptr); }
  /// The same for a strategy with a state: `save` gets a Stream and writes what `load` will read, like
  /// `[this](Stream &stream) { save(stream); }`.
  template <class Save, std::enable_if_t<std::is_invocable<Save &, Stream &>::value, int> = 0>
  bool commit(const Figures &figures, Save &&save) {
    using Saver = std::remove_reference_t<Save>;
    const et_saver saver = {sizeof(et_saver), const_cast<std::remove_const_t<Saver> *>(&save),
                            [](void *context, et_stream *raw) noexcept {
                              return detail::guard([&] {
                                Stream stream(raw);
                                (*static_cast<Saver *>(context))(stream);
                              });
                            }};
    return commit(figures, &saver);
  }
  std::uint64_t step() const { return ET_SLOT_(session, step)(raw_); }
  std::uint64_t total_steps() const { return ET_SLOT_(session, total_steps)(raw_); }
  /// Says how many steps the run has, for a strategy that drives the fit; only in `on_setup`.
  void set_total_steps(std::uint64_t steps) { detail::check(ET_SLOT_(session, set_total_steps)(raw_, steps)); }
  /// The learning rate of the present step by the run's schedule.
  double lr() { return ET_SLOT_(session, lr)(raw_); }
  /// Writes a number to the run's metrics.
  void log_scalar(std::string_view name, double value) {
    detail::check(ET_SLOT_(session, log_scalar)(raw_, detail::text(name), value));
  }
  bool is_cancelled() const { return ET_SLOT_(session, is_cancelled)(raw_) != 0; }
  et_session *get() const noexcept { return raw_; }

private:
  template <class Ask> static std::string answer(Ask &&ask) { return detail::filled(ask); }
  bool commit(const Figures &figures, const et_saver *saver) {
    const std::string json = detail::json(figures);
    std::int32_t goes_on = 0;
    detail::check(ET_SLOT_(session, commit)(raw_, detail::text(json), saver, &goes_on));
    return goes_on != 0;
  }
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
///   std::vector<Json> columns() const;                      // columns that it needs, as et_plugin_strategy says
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
        return detail::guard([&] { detail::put(detail::written(of(self).columns()), out); });
      };
    }
    if constexpr (detail::has_save<Self> && detail::has_load<Self>) {
      table.state_save = [](void *self, et_stream *stream) noexcept {
        return detail::streamed(&Self::save, &of(self), stream);
      };
      table.state_load = [](void *self, et_stream *stream) noexcept {
        return detail::streamed(&Self::load, &of(self), stream);
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
      table.on_setup = [](void *self, et_session *raw) noexcept {
        return hook(raw, [&](Session &session) { of(self).on_setup(session); });
      };
    }
    if constexpr (detail::has_on_batch<Self>) {
      table.on_batch = [](void *self, et_session *raw, et_map *batch) noexcept {
        return hook(raw, [&](Session &session) { of(self).on_batch(session, detail::Lent(batch).map()); });
      };
    }
    if constexpr (detail::has_on_outputs<Self>) {
      table.on_outputs = [](void *self, et_session *raw, const et_map *batch, const et_map *outputs) noexcept {
        return hook(raw, [&](Session &session) {
          of(self).on_outputs(session, detail::Lent(batch).map(), detail::Lent(outputs).map());
        });
      };
    }
    if constexpr (detail::has_combine<Self>) {
      table.combine = [](void *self, et_session *raw, const et_map *losses, et_tensor **out) noexcept {
        return hook(raw, [&](Session &session) {
          Tensor loss = of(self).combine(session, detail::Lent(losses).map());
          *out = loss.take();
        });
      };
    }
    if constexpr (detail::has_on_gradients<Self>) {
      table.on_gradients = [](void *self, et_session *raw) noexcept {
        return hook(raw, [&](Session &session) { of(self).on_gradients(session); });
      };
    }
    if constexpr (detail::has_on_epoch<Self>) {
      table.on_epoch = [](void *self, et_session *raw, std::uint64_t epoch, et_str metrics) noexcept {
        return hook(raw, [&](Session &session) {
          of(self).on_epoch(session, epoch, detail::view(metrics));
        });
      };
    }
    if constexpr (detail::has_fit<Self>) {
      table.fit = [](void *self, et_session *raw) noexcept {
        return hook(raw, [&](Session &session) { of(self).fit(session); });
      };
    }
  }
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_STRATEGY_HPP
