// easytransfer.hpp: EasyTransfer for C++17, a wrapper over the two C headers. Header only.
//
// Programs link libeasytransfer and begin with easytransfer::Runtime. Plugins link nothing: for them
// easytransfer_plugin.hpp, which this file includes too, is enough. easytransfer_engine.hpp says how objects own what
// they hold and what is thrown.
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_HPP
#define EASYTRANSFER_HPP

#include "easytransfer.h"
#include "easytransfer_plugin.hpp"

#include <exception>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace easytransfer {

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

/// Texts with their lengths, so that a NUL inside ends none of them.
inline std::vector<et_str> sized(const std::vector<std::string> &texts) {
  std::vector<et_str> raw;
  for (const std::string &text : texts) raw.push_back(et_str{text.data(), text.size()});
  return raw;
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
  Predictions predict(const std::vector<std::string> &texts) {
    const std::vector<et_str> raw = detail::sized(texts);
    et_predictions *out = nullptr;
    detail::check_library(et_app_predict_texts(handle_.get(), raw.data(), raw.size(), &out));
    return Predictions(out);
  }
  /// Answers records, each the JSON text of an object from role to value: {"question": .., "context": ..}.
  Predictions predict_records(const std::vector<std::string> &records) {
    const std::vector<et_str> raw = detail::sized(records);
    et_predictions *out = nullptr;
    detail::check_library(et_app_predict_records(handle_.get(), raw.data(), raw.size(), &out));
    return Predictions(out);
  }
  /// Predictions for a JSON text: an object, a string, or an array of them.
  std::string predict_json(const std::string &request) {
    detail::Text out;
    detail::check_library(et_app_predict_json(handle_.get(), request.c_str(), out.out()));
    return detail::copy(out);
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
  /// Vectors, row-major [texts, width].
  std::vector<float> embed(const std::vector<std::string> &texts) {
    const std::vector<et_str> raw = detail::sized(texts);
    std::vector<float> out(texts.size() * width() + 1); // one more, because an empty vector has no memory
    detail::check_library(et_embedder_embed_texts(handle_.get(), raw.data(), raw.size(), out.data(), out.size() - 1));
    out.pop_back();
    return out;
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
    detail::check_library(et_model_load_weights(handle_.get(), directory.c_str()));
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

/// One step of a training run.
struct Step {
  std::uint64_t step, total_steps;
  double loss, lr;
};

/// One engine and the plugins found for it.
class Runtime {
public:
  /// Starts the engine; `options` is JSON as et_runtime_new says.
  explicit Runtime(const std::string &options = "{}") {
    detail::check_library(et_runtime_new(options.c_str(), handle_.out()));
    detail::attach(et_runtime_host(handle_.get()));
  }
  void load_plugin(const std::string &path) {
    detail::check_library(et_runtime_load_plugin(handle_.get(), path.c_str()));
  }
  void register_plugin(const et_plugin_record *record) {
    detail::check_library(et_runtime_register_plugin(handle_.get(), record));
  }
  std::string plugins_json() const {
    detail::Text out;
    detail::check_library(et_runtime_plugins_json(handle_.get(), out.out()));
    return detail::copy(out);
  }
  App app(const std::string &directory) const {
    et_app *out = nullptr;
    detail::check_library(et_app_load(handle_.get(), directory.c_str(), &out));
    return App(out);
  }
  /// `options` is JSON: {"precision": "f32" | "bf16" | "int8"}.
  App app(const std::string &directory, const std::string &options) const {
    et_app *out = nullptr;
    detail::check_library(et_app_load_with(handle_.get(), directory.c_str(), options.c_str(), &out));
    return App(out);
  }
  Embedder embedder(const std::string &directory, const std::string &options = "{}") const {
    et_embedder *out = nullptr;
    detail::check_library(et_embedder_load(handle_.get(), directory.c_str(), options.c_str(), &out));
    return Embedder(out);
  }
  Model model(const std::string &name, const std::string &config, std::uint64_t seed) const {
    et_model *out = nullptr;
    detail::check_library(et_model_new(handle_.get(), name.c_str(), config.c_str(), seed, &out));
    return Model(out);
  }
  Loss loss(const std::string &name, const std::string &options = "{}") const {
    et_loss *out = nullptr;
    detail::check_library(et_loss_new(handle_.get(), name.c_str(), options.c_str(), &out));
    return Loss(out);
  }
  Optimizer optimizer(const std::string &name, Model &model, const std::string &options = "{}") const {
    et_optimizer *out = nullptr;
    detail::check_library(et_optimizer_new(handle_.get(), name.c_str(), options.c_str(), model.get(), &out));
    return Optimizer(out);
  }
  /// Trains an app and writes its bundle; `options` is JSON as et_fit says. `progress` may end the run by returning
  /// false; what it throws ends the run too and comes out of here. Answers with the result as JSON.
  std::string fit(const std::string &options, const std::function<bool(const Step &)> &progress = nullptr) const {
    Callback callback{progress, nullptr};
    detail::Text out;
    et_error *error = et_fit(handle_.get(), options.c_str(), progress ? &Callback::call : nullptr, &callback, out.out());
    if (callback.thrown != nullptr) {
      et_error_release(error);
      std::rethrow_exception(callback.thrown);
    }
    detail::check_library(error);
    return detail::copy(out);
  }
  et_runtime *get() const noexcept { return handle_.get(); }

private:
  struct Callback {
    const std::function<bool(const Step &)> &progress;
    std::exception_ptr thrown;
    static std::int32_t call(void *user, std::uint64_t step, std::uint64_t total_steps, double loss, double lr) {
      Callback *self = static_cast<Callback *>(user);
      try {
        return self->progress(Step{step, total_steps, loss, lr}) ? 1 : 0;
      } catch (...) {
        self->thrown = std::current_exception();
        return 0;
      }
    }
  };
  struct Policy {
    static void release(et_runtime *raw) noexcept { et_runtime_release(raw); }
  };
  detail::Handle<et_runtime, Policy> handle_;
};

} // namespace easytransfer

#endif // EASYTRANSFER_HPP
