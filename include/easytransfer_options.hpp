// easytransfer_options.hpp: options of the library in C++17, which make the JSON that easytransfer.h speaks of.
// easytransfer.hpp includes it. What has no name here is set by its key:
//
//   FitOptions("train.tsv", "runs/mine").encoder("bert").lr(5e-5).set("config.schedule.warmup", 0.1)
//
// Licensed under the Apache License, Version 2.0.
#ifndef EASYTRANSFER_OPTIONS_HPP
#define EASYTRANSFER_OPTIONS_HPP

#include "easytransfer_json.hpp"

namespace easytransfer {
inline namespace v0_2 {

namespace detail {

/// Options of the class `Self`.
template <class Self> class Options {
public:
  /// Any option by its key; a dotted one leads into objects within. The library refuses a key that it does not know.
  Self &set(std::string_view key, const Json &value) {
    json_.set(key, value);
    return static_cast<Self &>(*this);
  }
  /// What the library gets.
  std::string json() const { return json_.text(); }

protected:
  Json json_;
};

} // namespace detail

/// Options of a Runtime.
class RuntimeOptions : public detail::Options<RuntimeOptions> {
public:
  /// Manifests and folders that are searched before all other places.
  RuntimeOptions &plugins(const std::vector<std::string> &places) { return set("plugins", places); }
  /// Whether no other places are searched.
  RuntimeOptions &only_these(bool only) { return set("only_these", only); }
  /// "any", "hash-pinned" (the default) or "hash-required".
  RuntimeOptions &policy(std::string_view policy) { return set("policy", policy); }
  /// "cpu" (the default), "cuda", "cuda:N" or "auto"; the first runtime of a process decides for all.
  RuntimeOptions &device(std::string_view device) { return set("device", device); }
  /// "f32" (the default), "tf32", "bf16" or "f16".
  RuntimeOptions &precision(std::string_view precision) { return set("precision", precision); }
};

/// Options of an App.
class AppOptions : public detail::Options<AppOptions> {
public:
  /// "f32" (the default), "bf16" or "int8".
  AppOptions &precision(std::string_view precision) { return set("precision", precision); }
};

/// Options of an Embedder; what is not said is as the encoder's directory says.
class EmbedOptions : public detail::Options<EmbedOptions> {
public:
  /// "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken" or "pooled".
  EmbedOptions &pooling(std::string_view pooling) { return set("pooling", pooling); }
  /// Whether vectors have the length 1.
  EmbedOptions &normalize(bool normalize) { return set("normalize", normalize); }
  /// Tokens of a text that count.
  EmbedOptions &max_length(std::uint64_t tokens) { return set("max_length", tokens); }
  /// What stands before each text.
  EmbedOptions &prompt(std::string_view prompt) { return set("prompt", prompt); }
  /// A prompt of the directory's by its name.
  EmbedOptions &prompt_name(std::string_view name) { return set("prompt_name", name); }
  /// "f32" (the default), "bf16" or "int8".
  EmbedOptions &precision(std::string_view precision) { return set("precision", precision); }
};

/// Data that an App or an Embedder works on: a file, or records like {"text": "..", "label": ".."}.
class DataOptions : public detail::Options<DataOptions> {
public:
  explicit DataOptions(std::string_view file) { set("data", file); }
  explicit DataOptions(const std::vector<Json> &records) { set("data", records); }
  /// The file that predictions or vectors are written to.
  DataOptions &output(std::string_view file) { return set("output", file); }
  /// The HTML page that App::evaluate writes.
  DataOptions &report(std::string_view file) { return set("report", file); }
  /// The column of a role, where it has none of the usual names.
  DataOptions &column(std::string_view role, std::string_view column) {
    columns_.set_exactly(role, column);
    return set("columns", columns_);
  }
  /// "auto" (the default), "tsv", "csv", "jsonl" or "text".
  DataOptions &format(std::string_view format) { return set("format", format); }
  /// "stop" (the default) or "skip".
  DataOptions &on_bad_row(std::string_view what) { return set("on_bad_row", what); }

private:
  Json columns_;
};

/// A whole training run.
class FitOptions : public detail::Options<FitOptions> {
public:
  /// The file of training data and the directory of the bundle.
  FitOptions(std::string_view train, std::string_view output) { set("train", train).set("output", output); }
  /// The same with records like {"text": "..", "label": ".."}.
  FitOptions(const std::vector<Json> &train, std::string_view output) { set("train", train).set("output", output); }
  /// "text-classify" (the default) or another app.
  FitOptions &app(std::string_view app) { return set("app", app); }
  /// Directory of the encoder; without one the model is what `config.encoder` says.
  FitOptions &encoder(std::string_view directory) { return set("encoder", directory); }
  /// The file of validation data.
  FitOptions &valid(std::string_view file) { return set("valid", file); }
  FitOptions &valid(const std::vector<Json> &records) { return set("valid", records); }
  /// Whether the weights are random.
  FitOptions &from_scratch(bool scratch) { return set("from_scratch", scratch); }
  /// The column of a role, where it has none of the usual names.
  FitOptions &column(std::string_view role, std::string_view column) {
    columns_.set_exactly(role, column);
    return set("columns", columns_);
  }
  /// Whether to go on from the checkpoint in the output directory.
  FitOptions &resume(bool resume) { return set("resume", resume); }
  /// Whether what is in the output directory is replaced.
  FitOptions &overwrite(bool overwrite) { return set("overwrite", overwrite); }
  /// What is shown on standard error: "silent" (the default), "plain" or "auto".
  FitOptions &progress(std::string_view mode) { return set("progress", mode); }
  /// All options under "config" as JSON; those below come on top when they are set later.
  FitOptions &config(const Json &config) { return set("config", config); }
  FitOptions &epochs(std::uint64_t epochs) { return set("config.epochs", epochs); }
  /// Most steps of the run.
  FitOptions &max_steps(std::uint64_t steps) { return set("config.max_steps", steps); }
  /// Peak learning rate.
  FitOptions &lr(double rate) { return set("config.lr", rate); }
  FitOptions &seed(std::uint64_t seed) { return set("config.seed", seed); }
  /// Records of a batch.
  FitOptions &batch_rows(std::uint64_t rows) { return set("config.batch.rows", rows); }

private:
  Json columns_;
};

} // namespace v0_2
} // namespace easytransfer

#endif // EASYTRANSFER_OPTIONS_HPP
