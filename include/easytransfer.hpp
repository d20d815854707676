// easytransfer.hpp: EasyTransfer for C++17, a wrapper over the two C headers. Header only.
//
// Programs link libeasytransfer and begin with easytransfer::Runtime. Plugins link nothing: for them
// easytransfer_plugin.hpp, which this file includes too, is enough. easytransfer_engine.hpp says how objects own what
// they hold and what is thrown. Several libraries of a program may use these files; one that was compiled with
// -fvisibility=hidden and makes no Runtime of its own calls easytransfer::attach first.
//
// Texts and requests are handed over with their lengths, so a NUL in one of them ends nothing. In a path, a name or
// options a NUL is an error.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_HPP
#define EASYTRANSFER_HPP

#include "easytransfer.h"
#include "easytransfer_options.hpp"
#include "easytransfer_plugin.hpp"

#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace easytransfer {
inline namespace v0_2 {

namespace detail {

/// Throws the error that a library function returned, if it did.
inline void check_library(et_error *error) {
  if (error == nullptr) return;
  const std::int32_t code = et_error_code(error);
  const std::string message = copy(et_error_message(error));
  et_error_release(error);
  throw Error(code, message);
}

struct TextPolicy {
  static void release(et_text *raw) noexcept { et_text_release(raw); }
};
using Text = Handle<et_text, TextPolicy>;

inline std::string copy(const Text &text) {
  return text.get() == nullptr ? std::string() : std::string(et_text_data(text.get()), et_text_len(text.get()));
}

/// A text for a C function that knows no length. Errors: a NUL in it.
inline const char *terminated(const std::string &text, const char *what) {
  const std::size_t found = text.find('\0');
  if (found == std::string::npos) return text.c_str();
  throw Error(ET_ERR_INVALID_ARGUMENT,
              std::string(what) + ": expected a text without NUL, found one at offset " + std::to_string(found));
}

/// For overloads that take Json and nothing that could become it.
template <class Object> using IsJson = std::enable_if_t<std::is_same<Object, Json>::value, int>;

/// Texts with their lengths, so that a NUL inside ends none of them.
inline std::vector<et_str> sized(const std::vector<std::string> &texts) {
  std::vector<et_str> raw;
  for (const std::string &text : texts) raw.push_back(et_str{text.data(), text.size()});
  return raw;
}

} // namespace detail

/// Something that happened in a run, or in work on a file: et_event in C++.
struct Event {
  /// One of the ET_EVENT_ constants.
  std::int32_t kind;
  /// Steps done and in all; 0 where that is not said.
  std::uint64_t step, total_steps;
  /// Loss of a step or of an evaluation, learning rate of a step; otherwise NaN.
  double loss, lr;
  /// Rows or epochs done and in all; 0 where that is not known.
  std::uint64_t done, total;
  /// All of it as the JSON text of an object, with the figures of an evaluation, the path of a checkpoint, and so on.
  std::string json;
};

/// Told of events on the thread of the call; false ends the work, and so does what it throws, which comes out of the
/// call.
using OnEvent = std::function<bool(const Event &)>;

namespace detail {

/// Calls a C function with a callback for events and a place for the text of its result.
template <class Call> std::string watched(const OnEvent &on_event, const Call &call) {
  struct Listener {
    const OnEvent &on_event;
    std::exception_ptr thrown;
    static std::int32_t tell(void *user, const et_event *event) {
      Listener *self = static_cast<Listener *>(user);
      try {
        return self->on_event(Event{event->kind, event->step, event->total_steps, event->loss, event->lr, event->done,
                                    event->total, std::string(event->json.ptr, event->json.len)})
                   ? 1
                   : 0;
      } catch (...) {
        self->thrown = std::current_exception();
        return 0;
      }
    }
  };
  Listener listener{on_event, nullptr};
  Text out;
  et_error *error = call(on_event ? &Listener::tell : nullptr, &listener, out.out());
  if (listener.thrown != nullptr) {
    et_error_release(error);
    std::rethrow_exception(listener.thrown);
  }
  check_library(error);
  return copy(out);
}

} // namespace detail

/// Answers of an app, one row per text or record.
class Predictions {
public:
  explicit Predictions(et_predictions *raw) noexcept : handle_(raw) {}
  std::size_t size() const { return et_predictions_len(handle_.get()); }
  std::size_t classes() const { return et_predictions_classes_len(handle_.get()); }
  /// Name of a class. Throws past the end.
  std::string class_name(std::size_t index) const {
    const char *name = et_predictions_class(handle_.get(), index);
    if (name == nullptr) throw nothing_at(index);
    return name;
  }
  /// The whole answer, the JSON text of an object with whatever the app says. Throws past the end.
  std::string json(std::size_t row) const {
    const et_str text = et_predictions_answer(handle_.get(), row);
    if (text.ptr == nullptr) throw nothing_at(row);
    return std::string(text.ptr, text.len);
  }
  /// Whether the answer has a label; those of apps for spans, texts or numbers have none.
  bool has_label(std::size_t row) const { return et_predictions_label(handle_.get(), row) != nullptr; }
  /// The label, or the labels joined by commas. Throws past the end, and where the answer has no label.
  std::string label(std::size_t row) const {
    const char *label = et_predictions_label(handle_.get(), row);
    if (label != nullptr) return label;
    throw Error(ET_ERR_NOT_FOUND, "predictions: expected a label at " + std::to_string(row) + ", found " + json(row));
  }
  /// The score of the label or span, or the number; NaN where the app says none of these.
  float score(std::size_t row) const { return et_predictions_score(handle_.get(), row); }
  /// Probability of a class; NaN where the app says none.
  float probability(std::size_t row, std::size_t index) const {
    return et_predictions_probability(handle_.get(), row, index);
  }

private:
  static Error nothing_at(std::size_t index) {
    return Error(ET_ERR_INVALID_ARGUMENT, "predictions: nothing at " + std::to_string(index));
  }
  struct Policy {
    static void release(et_predictions *raw) noexcept { et_predictions_release(raw); }
  };
  detail::Handle<et_predictions, Policy> handle_;
};

/// A trained bundle that answers texts and other records.
class App {
public:
  explicit App(et_app *raw) noexcept : handle_(raw) {}
  /// Names of the classes.
  std::vector<std::string> labels() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < et_app_labels_len(handle_.get()); ++i) names.emplace_back(et_app_label(handle_.get(), i));
    return names;
  }
  /// Threads may predict with one app at the same time.
  Predictions predict(const std::vector<std::string> &texts) const {
    const std::vector<et_str> raw = detail::sized(texts);
    et_predictions *out = nullptr;
    detail::check_library(et_app_predict_texts(handle_.get(), raw.data(), raw.size(), &out));
    return Predictions(out);
  }
  /// Answers records, each the JSON text of an object from role to value: {"question": .., "context": ..}.
  Predictions predict_records(const std::vector<std::string> &records) const {
    const std::vector<et_str> raw = detail::sized(records);
    et_predictions *out = nullptr;
    detail::check_library(et_app_predict_records(handle_.get(), raw.data(), raw.size(), &out));
    return Predictions(out);
  }
  /// Predictions for a JSON text: an object, a string, or an array of them.
  std::string predict_json(const std::string &request) const {
    detail::Text out;
    detail::check_library(et_app_predict_request(handle_.get(), detail::text(request), out.out()));
    return detail::copy(out);
  }

  /// Figures on labelled data, a file or records. Answers with JSON.
  std::string evaluate(const DataOptions &options, const OnEvent &on_event = nullptr) {
    return evaluate(options.json(), on_event);
  }
  /// The same with options as JSON, as et_app_evaluate says.
  std::string evaluate(const std::string &options, const OnEvent &on_event = nullptr) {
    return detail::watched(on_event, [&](et_on_event tell, void *user, et_text **out) {
      return et_app_evaluate(handle_.get(), detail::terminated(options, "options"), tell, user, out);
    });
  }
  /// Predictions for data, written to a file. Answers with JSON.
  std::string predict_file(const DataOptions &options, const OnEvent &on_event = nullptr) {
    return predict_file(options.json(), on_event);
  }
  /// The same with options as JSON, as et_app_predict_file says.
  std::string predict_file(const std::string &options, const OnEvent &on_event = nullptr) {
    return detail::watched(on_event, [&](et_on_event tell, void *user, et_text **out) {
      return et_app_predict_file(handle_.get(), detail::terminated(options, "options"), tell, user, out);
    });
  }

private:
  struct Policy {
    static void release(et_app *raw) noexcept { et_app_release(raw); }
  };
  detail::Handle<et_app, Policy> handle_;
};

/// An encoder that turns texts into vectors.
class Embedder {
public:
  explicit Embedder(et_embedder *raw) noexcept : handle_(raw) {}
  std::size_t width() const { return et_embedder_width(handle_.get()); }
  /// Vectors, row-major [texts, width]. Threads may embed with one embedder at the same time.
  std::vector<float> embed(const std::vector<std::string> &texts) const {
    const std::vector<et_str> raw = detail::sized(texts);
    std::vector<float> out(texts.size() * width() + 1); // one more, because an empty vector has no memory
    detail::check_library(et_embedder_embed_texts(handle_.get(), raw.data(), raw.size(), out.data(), out.size() - 1));
    out.pop_back();
    return out;
  }

  /// Vectors of data, written to a file. Answers with JSON.
  std::string embed_file(const DataOptions &options, const OnEvent &on_event = nullptr) {
    return embed_file(options.json(), on_event);
  }
  /// The same with options as JSON, as et_embedder_embed_file says.
  std::string embed_file(const std::string &options, const OnEvent &on_event = nullptr) {
    return detail::watched(on_event, [&](et_on_event tell, void *user, et_text **out) {
      return et_embedder_embed_file(handle_.get(), detail::terminated(options, "options"), tell, user, out);
    });
  }

private:
  struct Policy {
    static void release(et_embedder *raw) noexcept { et_embedder_release(raw); }
  };
  detail::Handle<et_embedder, Policy> handle_;
};

/// A model with its parameters.
class Model {
public:
  explicit Model(et_model *raw) noexcept : handle_(raw) {}
  void load_weights(const std::string &directory) {
    detail::check_library(et_model_load_weights(handle_.get(), detail::terminated(directory, "directory")));
  }
  /// Writes config.json and model.safetensors, which `load_weights` and transformers read.
  void save(const std::string &directory) {
    detail::check_library(et_model_save(handle_.get(), directory.c_str()));
  }
  /// The parameters, valid while the model lives.
  Params params() { return Params(et_model_params(handle_.get())); }
  Map forward(const Map &batch, bool training = false, std::uint32_t want = 0) {
    et_map *out = nullptr;
    detail::check_library(et_model_forward(handle_.get(), batch.get(), training ? 1 : 0, want, &out));
    return Map(out);
  }
  et_model *get() const noexcept { return handle_.get(); }

private:
  struct Policy {
    static void release(et_model *raw) noexcept { et_model_release(raw); }
  };
  detail::Handle<et_model, Policy> handle_;
};

/// A loss.
class Loss {
public:
  explicit Loss(et_loss *raw) noexcept : handle_(raw) {}
  Tensor forward(const Map &outputs, const Map &batch) {
    et_tensor *out = nullptr;
    detail::check_library(et_loss_forward(handle_.get(), outputs.get(), batch.get(), &out));
    return Tensor(out);
  }

private:
  struct Policy {
    static void release(et_loss *raw) noexcept { et_loss_release(raw); }
  };
  detail::Handle<et_loss, Policy> handle_;
};

/// An optimizer for the parameters of one model, which stay as long as it does. `step` refuses another model.
class Optimizer {
public:
  explicit Optimizer(et_optimizer *raw) noexcept : handle_(raw) {}
  void step(Model &model, double lr) { detail::check_library(et_optimizer_step(handle_.get(), model.get(), lr)); }

private:
  struct Policy {
    static void release(et_optimizer *raw) noexcept { et_optimizer_release(raw); }
  };
  detail::Handle<et_optimizer, Policy> handle_;
};

/// A message of the library or of a plugin.
struct LogMessage {
  /// An ET_LOG_ constant: ET_LOG_ERROR is the most urgent, and the least number.
  std::int32_t level;
  /// Who says it: "engine", "train", the id of a plugin.
  std::string_view target;
  std::string_view text;
};

/// What gets messages.
using OnLog = std::function<void(const LogMessage &)>;

/// Sends the messages of the whole process to `callback`, nullptr for the default: one line each to standard error. It
/// is called on the threads that have something to say, so on several at once, and must not wait for one of them; what
/// it throws is lost. The callback of before is done when this returns. Not from inside a callback.
inline void on_log(OnLog callback) {
  static std::mutex one;
  // Never given back at the end of the process, when other threads may still have something to say.
  static const OnLog *present = nullptr;
  const std::lock_guard<std::mutex> lock(one);
  std::unique_ptr<const OnLog> next(callback ? new OnLog(std::move(callback)) : nullptr);
  const et_log_callback call = [](void *user, std::int32_t level, et_str target, et_str text) {
    try {
      (*static_cast<const OnLog *>(user))(LogMessage{level, detail::view(target), detail::view(text)});
    } catch (...) { // it must not cross, and there is nobody to tell
    }
  };
  detail::check_library(et_log_to(next == nullptr ? nullptr : call, const_cast<OnLog *>(next.get())));
  const std::unique_ptr<const OnLog> before(std::exchange(present, next.release()));
}

/// One engine and the plugins found for it.
class Runtime {
public:
  /// Starts the engine.
  explicit Runtime(const RuntimeOptions &options = {}) : Runtime(options.json()) {}
  /// The same with options as JSON, as et_runtime_new says.
  explicit Runtime(const std::string &options) {
    detail::check_library(et_runtime_new(detail::terminated(options, "options"), handle_.out()));
    detail::attach(et_runtime_host(handle_.get()));
  }
  void load_plugin(const std::string &path) {
    detail::check_library(et_runtime_load_plugin(handle_.get(), detail::terminated(path, "path")));
  }
  void register_plugin(const et_plugin_record *record) {
    detail::check_library(et_runtime_register_plugin(handle_.get(), record));
  }
  std::string plugins_json() const {
    detail::Text out;
    detail::check_library(et_runtime_plugins_json(handle_.get(), out.out()));
    return detail::copy(out);
  }
  App app(const std::string &directory, const AppOptions &options = {}) const { return app(directory, options.json()); }
  /// The same with options as JSON, as et_app_load_with says.
  App app(const std::string &directory, const std::string &options) const {
    et_app *out = nullptr;
    detail::check_library(et_app_load_with(handle_.get(), detail::terminated(directory, "directory"),
                                           detail::terminated(options, "options"), &out));
    return App(out);
  }
  Embedder embedder(const std::string &directory, const EmbedOptions &options = {}) const {
    return embedder(directory, options.json());
  }
  /// The same with options as JSON, as et_embedder_load says.
  Embedder embedder(const std::string &directory, const std::string &options) const {
    et_embedder *out = nullptr;
    detail::check_library(et_embedder_load(handle_.get(), detail::terminated(directory, "directory"),
                                           detail::terminated(options, "options"), &out));
    return Embedder(out);
  }
  /// `config` is the content of a config.json.
  Model model(const std::string &name, const std::string &config, std::uint64_t seed) const {
    et_model *out = nullptr;
    detail::check_library(et_model_new(handle_.get(), detail::terminated(name, "name"),
                                       detail::terminated(config, "config"), seed, &out));
    return Model(out);
  }
  template <class Object, detail::IsJson<Object> = 0>
  Model model(const std::string &name, const Object &config, std::uint64_t seed) const {
    return model(name, config.text(), seed);
  }
  /// `options` is JSON, as Json or as its text; so for optimizers.
  Loss loss(const std::string &name, const std::string &options = "{}") const {
    et_loss *out = nullptr;
    detail::check_library(
        et_loss_new(handle_.get(), detail::terminated(name, "name"), detail::terminated(options, "options"), &out));
    return Loss(out);
  }
  template <class Object, detail::IsJson<Object> = 0> Loss loss(const std::string &name, const Object &options) const {
    return loss(name, options.text());
  }
  Optimizer optimizer(const std::string &name, Model &model, const std::string &options = "{}") const {
    et_optimizer *out = nullptr;
    detail::check_library(et_optimizer_new(handle_.get(), detail::terminated(name, "name"),
                                           detail::terminated(options, "options"), model.get(), &out));
    return Optimizer(out);
  }
  template <class Object, detail::IsJson<Object> = 0>
  Optimizer optimizer(const std::string &name, Model &model, const Object &options) const {
    return optimizer(name, model, options.text());
  }
  /// Asks the runs of `fit` that are under way with this runtime to end, from any thread: et_fit says what they leave.
  void cancel() const noexcept { et_runtime_cancel(handle_.get()); }
  /// The engine's tables, for easytransfer::attach in another library.
  const et_host *host() const noexcept { return et_runtime_host(handle_.get()); }
  /// Trains an app and writes its bundle. `on_event` may end the run by returning false; what it throws ends the run
  /// too and comes out of here. Answers with the result as JSON.
  std::string fit(const FitOptions &options, const OnEvent &on_event = nullptr) const {
    return fit(options.json(), on_event);
  }
  /// The same with options as JSON, as et_fit says.
  std::string fit(const std::string &options, const OnEvent &on_event = nullptr) const {
    return detail::watched(on_event, [&](et_on_event tell, void *user, et_text **out) {
      return et_fit(handle_.get(), detail::terminated(options, "options"), tell, user, out);
    });
  }
  et_runtime *get() const noexcept { return handle_.get(); }

private:
  struct Policy {
    static void release(et_runtime *raw) noexcept { et_runtime_release(raw); }
  };
  detail::Handle<et_runtime, Policy> handle_;
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_HPP
