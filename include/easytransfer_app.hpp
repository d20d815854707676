// easytransfer_app.hpp: apps of plugins in C++17. easytransfer_plugin.hpp includes it.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_APP_HPP
#define EASYTRANSFER_APP_HPP

#include "easytransfer_plugin.hpp"

namespace easytransfer {
inline namespace v0_2 {

/// A column that records need.
struct Column {
  /// What the app calls it: the key in a record.
  std::string role;
  /// Names that it usually has in files, the best first.
  std::vector<std::string> names;
  bool required = true;
  /// Whether it is what is to be predicted, which may be missing then.
  bool target = false;
};

namespace detail {

inline std::string written(const std::vector<Column> &columns) {
  std::vector<Json> all;
  for (const Column &column : columns)
    all.push_back(Json().set("role", column.role).set("names", column.names).set("required", column.required).set(
        "target", column.target));
  return Json(all).text();
}

inline std::string written(const std::vector<Json> &parts) { return Json(parts).text(); }

} // namespace detail

/// What an app throws for a value that it cannot use; the host adds file, line and the column's name.
inline Error bad_value(const std::string &role, const std::string &expected, const std::string &found) {
  const Json details = Json().set("role", role).set("expected", expected).set("found", found);
  return Error(ET_ERR_BAD_INPUT, role + ": expected " + expected + ", found " + found, details.text());
}

/// What the features of a record are made for.
class Context {
public:
  explicit Context(et_context *raw) noexcept : raw_(raw) {}
  bool training() const { return ET_SLOT_(context, training)(raw_) != 0; }
  /// Epoch of training, from 0.
  std::uint64_t epoch() const { return ET_SLOT_(context, epoch)(raw_); }
  std::uint64_t source() const { return ET_SLOT_(context, source)(raw_); }
  /// Number of the record in its source.
  std::uint64_t record() const { return ET_SLOT_(context, record)(raw_); }
  /// Records of the source that `record_at` reads.
  std::uint64_t size() const { return ET_SLOT_(context, records_len)(raw_); }
  /// Another record of the source.
  Config record_at(std::uint64_t index) const {
    return Config(detail::filled([&](et_buffer **out) { return ET_SLOT_(context, record_at)(raw_, index, out); }));
  }
  /// Random numbers of this record.
  Rng rng() const {
    et_rng *out = nullptr;
    detail::check(ET_SLOT_(context, rng)(raw_, &out));
    return Rng(out);
  }
  et_context *get() const noexcept { return raw_; }

private:
  et_context *raw_;
};

/// The networks that an app drives in `forward`.
class Net {
public:
  explicit Net(et_net *raw) noexcept : raw_(raw) {}
  /// Runs the encoder (module "") or a module on a batch; what it says is added to `outputs`.
  void run(const Call &call, const Map &batch, Map &outputs, std::string_view module = "") {
    detail::check(ET_SLOT_(net, run)(raw_, detail::text(module), call.raw, batch.get(), outputs.get()));
  }
  /// The tensor of a parameter of the whole set, for heads that are tied to the encoder.
  Tensor param(std::string_view name) const {
    et_tensor *out = nullptr;
    detail::check(ET_SLOT_(net, param)(raw_, detail::text(name), &out));
    return Tensor(out);
  }
  /// Continues the runs of a batch, with the options that et_host_net.generate has.
  void generate(const Map &batch, const Json &options, Map &outputs, std::string_view module = "") {
    const std::string json = options.text();
    detail::check(
        ET_SLOT_(net, generate)(raw_, detail::text(module), batch.get(), detail::text(json), outputs.get()));
  }
  et_net *get() const noexcept { return raw_; }

private:
  et_net *raw_;
};

/// An app of a plugin: from records to features, a head and predictions. `Self` has name and schema (optional) as a
/// loss has, and
///
///   Self(const Config &options, std::string_view state);    // `state`: what an earlier one said, empty for a new one
///   std::vector<Column> columns() const;
///   void observe(const Config &record);                     // optional: sees every training record, to learn labels
///   void observed();                                        // optional: all were seen
///   Json state() const;                                     // optional: what a bundle must keep
///   Json describe() const;                                  // et_plugin_app.describe: loss, metrics, best, labels, ..
///   void features(const Context &, const Tokenizer &, const Config &record, Rows &rows) const;
///                                                           // adds a row or more; several threads call it at once
///   void build(const Scope &root, const Config &model);     // optional: declares the head
///   void forward(const Call &, Net &, const Map &batch, Map &outputs);    // runs the encoder and puts what the loss
///                                                           // and `decode` read, for instance "logits"
///   std::vector<Json> decode(const Map &batch, const Map &outputs);       // a part for each row of the batch
///   Json finish(const Config &record, const Config &parts); // optional: the answer of a record of many rows; `parts`
///                                                           // is {"parts": [..]}
///
/// What it has against a record it throws as bad_value.
template <class Self> class AppPlugin {
public:
  static constexpr const char *schema = detail::NO_OPTIONS;
  static constexpr const char *kind = "et.app/1";

  /// The C table.
  ET_HIDDEN static et_plugin_app table() noexcept {
    et_plugin_app table = {};
    table.struct_size = sizeof table;
    table.name = Self::name;
    table.schema = Self::schema;
    table.create = [](et_str options, et_str state, void **out) noexcept {
      return detail::guard([&] { *out = new Self(Config(detail::view(options)), detail::view(state)); });
    };
    table.release = [](void *self) noexcept { detail::Instances<Self>::drop(self); };
    table.columns = [](void *self, et_buffer **out) noexcept {
      return detail::guard([&] { detail::put(detail::written(of(self).columns()), out); });
    };
    table.describe = [](void *self, et_buffer **out) noexcept {
      return detail::guard([&] { detail::put(detail::written(of(self).describe()), out); });
    };
    learning(table);
    table.features = [](void *self, et_context *context, const et_tokenizer *tokenizer, et_str record,
                        et_rows *rows) noexcept {
      return detail::guard([&] {
        const Self &app = of(self);
        Rows out(rows);
        app.features(Context(context), Tokenizer(tokenizer), Config(detail::view(record)), out);
      });
    };
    table.forward = [](void *self, const et_call *call, et_net *net, const et_map *batch, et_map *outputs) noexcept {
      return detail::guard([&] {
        detail::Lent given(batch), answers(outputs);
        Net networks(net);
        of(self).forward(Call(call), networks, given.map(), answers.map());
      });
    };
    table.decode = [](void *self, const et_map *batch, const et_map *outputs, et_buffer **out) noexcept {
      return detail::guard([&] {
        detail::Lent given(batch), answers(outputs);
        detail::put(detail::written(of(self).decode(given.map(), answers.map())), out);
      });
    };
    if constexpr (detail::has_finish<Self>) {
      table.finish = [](void *self, et_str record, et_str parts, et_buffer **out) noexcept {
        return detail::guard([&] {
          const Config all("{\"parts\":" + detail::copy(parts) + "}");
          detail::put(detail::written(of(self).finish(Config(detail::view(record)), all)), out);
        });
      };
    }
    return table;
  }

private:
  static Self &of(void *self) noexcept { return *static_cast<Self *>(self); }

  /// What an app learns from its training data, and what becomes of it. The host asks all of these of every app.
  static void learning(et_plugin_app &table) noexcept {
    table.observe = [](void *self, et_str record) noexcept {
      return detail::guard([&] {
        if constexpr (detail::has_observe<Self>) of(self).observe(Config(detail::view(record)));
        static_cast<void>(self), static_cast<void>(record);
      });
    };
    table.observed = [](void *self) noexcept {
      return detail::guard([&] {
        if constexpr (detail::has_observed<Self>) of(self).observed();
        static_cast<void>(self);
      });
    };
    table.state = [](void *self, et_buffer **out) noexcept {
      return detail::guard([&] {
        if constexpr (detail::has_state<Self>) detail::put(detail::written(of(self).state()), out);
        else detail::put("{}", out);
        static_cast<void>(self);
      });
    };
    table.build = [](void *self, const et_scope *scope, et_str model) noexcept {
      return detail::guard([&] {
        if constexpr (detail::has_build<Self>) of(self).build(Scope::lent(scope), Config(detail::view(model)));
        static_cast<void>(self), static_cast<void>(scope), static_cast<void>(model);
      });
    };
  }
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_APP_HPP
