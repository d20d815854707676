// easytransfer_plugin.hpp: plugins in C++17, over easytransfer_plugin.h. Header only; a plugin links nothing.
//
// A plugin derives from LossPlugin, MetricPlugin, OpPlugin, ModelPlugin, OptimizerPlugin, AppPlugin or StrategyPlugin,
// each with the class itself as the argument, and ends with ET_EXPORT_PLUGIN. Members that a base calls optional are
// found by their names, where they are public: a class that has them offers them to the host. Whatever a member throws
// is an error in the host, and nothing else happens. Compile with -fvisibility=hidden, so that the library exports its
// entry alone.
// `easytransfer plugin new loss NAME --language c++` starts one (also: metric, op, strategy).
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_PLUGIN_HPP
#define EASYTRANSFER_PLUGIN_HPP

#include "easytransfer_engine.hpp"
#include "easytransfer_json.hpp"

#include <exception>
#include <new>
#include <type_traits>

namespace easytransfer {
inline namespace v0_2 {

/// What a forward pass is for.
struct Call {
  bool training;
  /// A set of ET_WANT_ bits.
  std::uint32_t want;
  /// Random numbers while training, else NULL.
  et_rng *rng = nullptr;
  /// What a model keeps of the tokens so far while the host generates, else NULL.
  et_map *cache = nullptr;
  /// What the host handed in.
  const et_call *raw = nullptr;

  Call(bool is_training, std::uint32_t wanted) noexcept : training(is_training), want(wanted) {}
  explicit Call(const et_call *call) noexcept
      : training(call->training != 0), want(call->want), rng(call->rng),
        cache(ET_HAS(call, cache) ? call->cache : nullptr), raw(call) {}
};

namespace detail {

inline et_error *make_error(std::int32_t code, const char *message, std::string_view details = {}) noexcept {
  const Tables *present = attached.load(std::memory_order_acquire);
  if (present == nullptr) return nullptr; // nobody could have called a plugin
  const et_host *host = present->host;
  const et_str said{message, std::strlen(message)};
  if (!details.empty() && ET_HAS(host, error_new_detailed)) return host->error_new_detailed(code, said, text(details));
  return host->error_new(code, said);
}

/// Runs the body of a slot; exceptions become errors of the boundary.
template <class Body> et_error *guard(Body &&body) noexcept {
  try {
    body();
    return nullptr;
  } catch (const Error &error) {
    return make_error(error.code(), error.what(), error.details());
  } catch (const std::bad_alloc &) {
    return make_error(ET_ERR_OUT_OF_MEMORY, "no memory is left");
  } catch (const std::exception &error) {
    return make_error(ET_ERR_PANIC, error.what());
  } catch (...) {
    return make_error(ET_ERR_PANIC, "an exception that is no std::exception");
  }
}

/// A map that belongs to the host for the time of a call.
class Lent {
public:
  explicit Lent(const et_map *raw) noexcept : map_(const_cast<et_map *>(raw)) {}
  ~Lent() { map_.take(); }
  Lent(const Lent &) = delete;
  Lent &operator=(const Lent &) = delete;
  Map &map() noexcept { return map_; }

private:
  Map map_;
};

/// Hands a text to the host.
inline void put(const std::string &text, et_buffer **out) {
  check(ET_SLOT_(data, buffer_new)(text.data(), text.size(), out));
}

/// What components with instances share: how they are made and released.
template <class Self> struct Instances {
  static et_error *create(et_str options, void **out) noexcept {
    return guard([&] { *out = new Self(Config(copy(options))); });
  }
  static void drop(void *instance) noexcept {
    try {
      delete static_cast<Self *>(instance);
    } catch (...) { // nothing can be done about it, and it must not cross
    }
  }
};

inline std::string_view view(et_str value) noexcept {
  return value.len == 0 ? std::string_view() : std::string_view(value.ptr, value.len);
}

constexpr const char *NO_OPTIONS = "{\"type\":\"object\",\"properties\":{},\"additionalProperties\":false}";

// Whether a class has a member of a name: detail::has_NAME<Self>. For this file alone.
#define ET_FIND_(member)                                                                                               \
  template <class Self, class = void> inline constexpr bool has_##member = false;                                     \
  template <class Self> inline constexpr bool has_##member<Self, std::void_t<decltype(&Self::member)>> = true;
ET_FIND_(forward)
ET_FIND_(rows)
ET_FIND_(weight)
ET_FIND_(lower_is_better)
ET_FIND_(save)
ET_FIND_(merge)
ET_FIND_(load)
ET_FIND_(backward)
ET_FIND_(on_setup)
ET_FIND_(on_batch)
ET_FIND_(on_outputs)
ET_FIND_(combine)
ET_FIND_(on_gradients)
ET_FIND_(on_epoch)
ET_FIND_(fit)
ET_FIND_(columns)
ET_FIND_(step_part)
ET_FIND_(observe)
ET_FIND_(observed)
ET_FIND_(state)
ET_FIND_(build)
ET_FIND_(finish)
ET_FIND_(answers)
#undef ET_FIND_

} // namespace detail

/// The bytes of a checkpoint, which belong to the host. Values are written as they lie in memory.
class Stream {
public:
  explicit Stream(et_stream *raw) noexcept : raw_(raw) {}
  template <class Value> void write(const Value &value) {
    static_assert(std::is_trivially_copyable<Value>::value, "only plain values have bytes that mean something");
    detail::check(ET_SLOT_(stream, write)(raw_, &value, sizeof(Value)));
  }
  template <class Value> Value read() {
    static_assert(std::is_trivially_copyable<Value>::value, "only plain values have bytes that mean something");
    Value value;
    detail::check(ET_SLOT_(stream, read)(raw_, &value, sizeof(Value)));
    return value;
  }
  /// Several values with their number.
  template <class Value> void write(const std::vector<Value> &values) {
    static_assert(std::is_trivially_copyable<Value>::value, "only plain values have bytes that mean something");
    write(static_cast<std::uint64_t>(values.size()));
    if (!values.empty()) detail::check(ET_SLOT_(stream, write)(raw_, values.data(), values.size() * sizeof(Value)));
  }
  template <class Value> std::vector<Value> read_all() {
    static_assert(std::is_trivially_copyable<Value>::value, "only plain values have bytes that mean something");
    const auto size = read<std::uint64_t>();
    const std::size_t left = ET_SLOT_(stream, remaining)(raw_);
    if (size > left / sizeof(Value))
      throw Error(ET_ERR_BAD_INPUT, "stream: expected " + std::to_string(size) + " values of " +
                                        std::to_string(sizeof(Value)) + " bytes, found " + std::to_string(left) + " bytes");
    std::vector<Value> values(static_cast<std::size_t>(size));
    if (!values.empty()) detail::check(ET_SLOT_(stream, read)(raw_, values.data(), values.size() * sizeof(Value)));
    return values;
  }
  et_stream *get() const noexcept { return raw_; }

private:
  et_stream *raw_;
};

namespace detail {

/// The body of a slot that hands a stream to a member.
template <class Self, class Member> et_error *streamed(Member member, Self *self, et_stream *raw) noexcept {
  return guard([&] {
    Stream stream(raw);
    (self->*member)(stream);
  });
}

/// The text of a description, which is Json or text already.
inline std::string written(const Json &json) { return json.text(); }
inline std::string written(const std::string &json) { return json; }

} // namespace detail

// ---------------------------------------------------------------- losses

/// A loss of a plugin. `Self` has
///
///   static constexpr const char *name = "mine";             // what users write
///   static constexpr const char *schema = "{..}";           // optional: JSON Schema of the options
///   explicit Self(const Config &options);
///   Tensor rows(const Call &, const Map &outputs, const Map &batch);      // the loss of each row by itself, [B]
///   Tensor forward(const Call &, const Map &outputs, const Map &batch);   // a scalar; optional where there is `rows`:
///                                                           // then it is the mean of the rows by their weights
///   double weight(const Map &batch);                        // optional: what `forward` is a mean over; if absent the
///                                                           // number of rows, or the sum of their weights
///
/// of which a loss whose rows have none of their own has `forward` alone. `outputs` usually holds "logits", `batch`
/// "labels" and, when rows are weighted, "weights" [B].
template <class Self> class LossPlugin : detail::Instances<Self> {
public:
  static constexpr const char *schema = detail::NO_OPTIONS;
  static constexpr const char *kind = "et.loss/1";

  /// The C table.
  ET_HIDDEN static et_plugin_loss table() noexcept {
    et_plugin_loss table = {};
    table.struct_size = sizeof table;
    table.name = Self::name;
    table.schema = Self::schema;
    table.create = LossPlugin::create;
    table.release = LossPlugin::drop;
    table.forward = [](void *self, const et_call *call, const et_map *outputs, const et_map *batch,
                       et_tensor **out) noexcept {
      if constexpr (detail::has_forward<Self>) return run(&Self::forward, self, call, outputs, batch, out);
      else return run(&LossPlugin::mean_of_rows, self, call, outputs, batch, out);
    };
    if constexpr (detail::has_rows<Self>) {
      table.rows = [](void *self, const et_call *call, const et_map *outputs, const et_map *batch,
                      et_tensor **out) noexcept { return run(&Self::rows, self, call, outputs, batch, out); };
    }
    if constexpr (detail::has_weight<Self>) {
      table.weight = [](void *self, const et_map *batch, double *out) noexcept {
        return detail::guard([&] { *out = static_cast<Self *>(self)->weight(detail::Lent(batch).map()); });
      };
    }
    return table;
  }

private:
  Tensor mean_of_rows(const Call &call, const Map &outputs, const Map &batch) {
    const Tensor each = static_cast<Self *>(this)->rows(call, outputs, batch);
    if (!batch.has("weights")) return each.mean();
    const Tensor weights = batch["weights"].cast(each.dtype());
    return (each * weights).sum() / weights.sum();
  }
  template <class Member>
  static et_error *run(Member member, void *self, const et_call *call, const et_map *outputs, const et_map *batch,
                       et_tensor **out) noexcept {
    return detail::guard([&] {
      detail::Lent given(outputs), targets(batch);
      const Call purpose(call);
      Tensor loss = (static_cast<Self *>(self)->*member)(purpose, given.map(), targets.map());
      *out = loss.take();
    });
  }
};

// ---------------------------------------------------------------- metrics

/// Figures by name.
using Figures = std::vector<std::pair<std::string, double>>;

namespace detail {

/// Figures as a JSON object; what is no finite number becomes null.
inline std::string json(const Figures &figures) {
  std::string text = "{";
  for (const auto &figure : figures)
    text += (text.size() > 1 ? "," : "") + quoted(figure.first) + ":" + number(figure.second);
  return text + "}";
}

} // namespace detail

/// A metric of a plugin. `Self` has name, schema (optional) and a constructor as a loss has, and
///
///   void update(const Map &outputs, const Map &batch);      // counts one batch
///   Figures compute() const;                                // over everything that was counted
///   static std::vector<std::string> lower_is_better();      // optional: figures of which less is better
///   void save(Stream &) const;                              // optional, both: writes what was counted,
///   void merge(Stream &);                                   // and adds what another instance has written
///   void answers(std::string_view answers, std::string_view records);     // instead of update: counts predictions
///                                                           // beside their records, JSON arrays of one length
template <class Self> class MetricPlugin : detail::Instances<Self> {
public:
  static constexpr const char *schema = detail::NO_OPTIONS;
  static constexpr const char *kind = "et.metric/1";

  /// The C table.
  ET_HIDDEN static et_plugin_metric table() noexcept {
    et_plugin_metric table = {};
    table.struct_size = sizeof table;
    table.name = Self::name;
    table.schema = Self::schema;
    table.create = MetricPlugin::create;
    table.release = MetricPlugin::drop;
    table.update = [](void *self, const et_map *outputs, const et_map *batch) noexcept {
      return detail::guard([&] {
        detail::Lent given(outputs), targets(batch);
        if constexpr (!detail::has_answers<Self>) static_cast<Self *>(self)->update(given.map(), targets.map());
        else static_cast<void>(self);
      });
    };
    if constexpr (detail::has_answers<Self>) {
      table.answers = [](void *self, et_str answers, et_str records) noexcept {
        return detail::guard([&] { static_cast<Self *>(self)->answers(detail::view(answers), detail::view(records)); });
      };
    }
    table.compute = [](void *self, et_buffer **out) noexcept {
      return detail::guard([&] { detail::put(detail::json(static_cast<Self *>(self)->compute()), out); });
    };
    if constexpr (detail::has_lower_is_better<Self> || detail::has_answers<Self>) {
      table.describe = [](void *, et_buffer **out) noexcept {
        return detail::guard([&] {
          Json info;
          if constexpr (detail::has_lower_is_better<Self>) info.set("lower_is_better", Self::lower_is_better());
          if constexpr (detail::has_answers<Self>) info.set("of", "answers");
          detail::put(info.text(), out);
        });
      };
    }
    if constexpr (detail::has_save<Self> && detail::has_merge<Self>) {
      table.state_save = [](void *self, et_stream *stream) noexcept {
        return detail::streamed(&Self::save, static_cast<Self *>(self), stream);
      };
      table.state_merge = [](void *self, et_stream *stream) noexcept {
        return detail::streamed(&Self::merge, static_cast<Self *>(self), stream);
      };
    }
    return table;
  }
};

// ---------------------------------------------------------------- the entry

namespace detail {

/// The components of a plugin.
template <class... Components> struct Plugin {
  ET_HIDDEN static et_error *init(const et_host *host) noexcept {
    attach(host);
    return guard([] {
      if (tables().tensor == nullptr || tables().data == nullptr || tables().config == nullptr)
        throw Error(ET_ERR_UNIMPLEMENTED, "init: expected et.tensor/1, et.data/1 and et.config/1, this host lacks one; a "
                                          "newer host is needed");
    });
  }
  template <class Component> ET_HIDDEN static const void *table() noexcept {
    static const auto table = Component::table();
    return &table;
  }
  ET_HIDDEN static const void *component(const char *kind, std::size_t index) noexcept {
    const void *found = nullptr;
    const auto look = [&](const char *of, const void *table) {
      if (std::strcmp(kind, of) == 0 && index-- == 0) found = table;
    };
    (look(Components::kind, table<Components>()), ...);
    return found;
  }
  ET_HIDDEN static et_plugin_record record(const char *id, const char *version) noexcept {
    et_plugin_record record = {};
    record.magic = ET_PLUGIN_MAGIC;
    record.abi_major = ET_ABI_MAJOR;
    record.abi_minor = ET_ABI_MINOR;
    record.struct_size = sizeof record;
    record.id = id;
    record.version = version;
    record.init = init;
    record.component = component;
    return record;
  }
};

} // namespace detail
} // namespace v0_2
} // namespace easytransfer

/// The entry of a plugin: its id, its version, and the classes of its components.
#define ET_EXPORT_PLUGIN(id, version, ...)                                                                             \
  extern "C" ET_EXPORT const et_plugin_record *et_plugin_entry() {                                                     \
    static const et_plugin_record record = ::easytransfer::detail::Plugin<__VA_ARGS__>::record(id, version);           \
    return &record;                                                                                                    \
  }

// The kinds that have more to them.
#include "easytransfer_app.hpp"
#include "easytransfer_model.hpp"
#include "easytransfer_op.hpp"
#include "easytransfer_strategy.hpp"

#endif // EASYTRANSFER_PLUGIN_HPP
