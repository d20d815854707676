// A model, an optimizer, an app and a metric in C++17 against the headers alone: a bag of words, momentum, a
// classifier of texts and the share of right answers.
#include "easytransfer_plugin.hpp"

#include <algorithm>
#include <optional>

using namespace easytransfer;

/// Vectors of words, a layer norm and a linear layer; the pooled vector is the mean.
class Words : public ModelPlugin<Words> {
public:
  static constexpr const char *name = "cpp-words";
  static constexpr const char *schema =
      R"({"type":"object","additionalProperties":true,"properties":{"vocab_size":{"type":"integer","minimum":1},)"
      R"("hidden_size":{"type":"integer","minimum":1,"default":16}},"required":["vocab_size"]})";

  Words(const Config &config, const Scope &scope)
      : words_(static_cast<std::size_t>(config.integer("vocab_size", 0))),
        width_(static_cast<std::size_t>(config.integer("hidden_size", 16))),
        table_(scope.child("embeddings.word_embeddings").param("weight", {words_, width_}, init::normal(0.0, 0.1))),
        gamma_(scope.child("norm").param("weight", {width_}, init::constant(1.0))),
        beta_(scope.child("norm").param("bias", {width_}, init::zeros())),
        weight_(scope.child("dense").param("weight", {width_, width_}, init::normal(0.0, 0.1))),
        bias_(scope.child("dense").param("bias", {width_}, init::zeros())) {}

  Json describe() const {
    return Json()
        .set("hidden_size", width_)
        .set("layers", 1)
        .set("vocab_size", words_)
        .set("max_positions", 512)
        .set("pooled", true)
        .set("class", "CppWords")
        .set("depth", std::vector<std::string>{"embeddings", "dense"})
        .set("beside", std::vector<Json>{Json(std::vector<Json>{"norm", 0})});
  }
  void forward(const Call &call, const Map &batch, Map &outputs) {
    const Tensor below =
        table_.tensor().embedding(batch["ids"]).layer_norm(gamma_.tensor(), beta_.tensor()).dropout(0.1, call.rng);
    const Tensor bias = bias_.tensor();
    const Tensor last = below.linear(weight_.tensor(), &bias, ET_ACTIVATION_TANH);
    outputs.put("last", last);
    if (call.want & ET_WANT_POOLED) outputs.put("pooled", last.pool(batch["starts"], ET_POOL_MEAN));
    if (call.want & ET_WANT_HIDDEN_STATES) {
      outputs.put("hidden_states/0", below);
      outputs.put("hidden_states/1", last);
    }
  }

private:
  std::size_t words_, width_;
  Param table_, gamma_, beta_, weight_, bias_;
};

/// Gradient descent with momentum, parameter by parameter.
class Momentum : public OptimizerPlugin<Momentum> {
public:
  static constexpr const char *name = "cpp-momentum";
  static constexpr const char *schema = R"({"type":"object","additionalProperties":false,"default_lr":0.05,)"
                                        R"("properties":{"momentum":{"type":"number","default":0.9}}})";

  Momentum(const Config &options, Params params)
      : momentum_(options.number("momentum", 0.9)), velocities_(params.size()) {}

  void step(Params params, double lr, std::uint64_t) {
    for (std::size_t i = 0; i < params.size(); ++i) {
      Param param = params[i];
      const std::optional<Tensor> grad = param.is_trainable() ? param.grad() : std::nullopt;
      if (!grad.has_value()) continue;
      velocities_[i] = velocities_[i].has_value() ? *velocities_[i] * momentum_ + *grad : *grad;
      param.assign(param.tensor().detach() - *velocities_[i] * (lr * param.lr_scale()));
    }
  }
  void save(Stream &stream) const {
    for (const auto &velocity : velocities_) {
      stream.write(velocity.has_value() ? velocity->to_floats() : std::vector<float>());
      stream.write(velocity.has_value() ? velocity->shape() : std::vector<std::size_t>());
    }
  }
  void load(Stream &stream) {
    for (auto &velocity : velocities_) {
      const auto values = stream.read_all<float>();
      const auto shape = stream.read_all<std::size_t>();
      velocity = values.empty() ? std::nullopt : std::optional<Tensor>(Tensor::from(values, shape));
    }
  }

private:
  double momentum_;
  std::vector<std::optional<Tensor>> velocities_;
};

/// One label for each text, by a linear layer over the pooled vector.
class Classify : public AppPlugin<Classify> {
public:
  static constexpr const char *name = "cpp-classify";

  Classify(const Config &, std::string_view state) {
    if (!state.empty()) labels_ = Config(state).strings("labels");
  }
  std::vector<Column> columns() const {
    return {{"text", {"text", "sentence"}, true, false}, {"label", {"label", "intent"}, true, true}};
  }
  void observe(const Config &record) {
    const std::string label = needed(record, "label");
    if (std::find(labels_.begin(), labels_.end(), label) == labels_.end()) labels_.push_back(label);
  }
  void observed() { std::sort(labels_.begin(), labels_.end()); }
  Json state() const { return Json().set("labels", labels_); }
  Json describe() const {
    return Json()
        .set("loss.name", "cross-entropy")
        .set("metrics", std::vector<Json>{Json().set("name", "cpp-right")})
        .set("best", "right")
        .set("best_is", "max")
        .set("want", static_cast<std::uint32_t>(ET_WANT_POOLED))
        .set("labels", labels_)
        .set("longest", LONGEST);
  }
  void features(const Context &, const Tokenizer &tokenizer, const Config &record, Rows &rows) const {
    const auto encoding = tokenizer.encode(needed(record, "text"), LONGEST);
    Row row = rows.add();
    row.tokens("ids", encoding.ids).tokens("segments", encoding.segments);
    if (!record.has("label")) return;
    const auto found = std::find(labels_.begin(), labels_.end(), record.string("label"));
    if (found == labels_.end()) throw bad_value("label", "one of the training data's labels", record.string("label"));
    row.integers("labels", {found - labels_.begin()});
  }
  void build(const Scope &root, const Config &model) {
    const auto width = static_cast<std::size_t>(model.integer("hidden_size", 0));
    head_.emplace(root.child("head").param("weight", {labels_.size(), width}, init::normal(0.0, 0.02)));
  }
  void forward(const Call &call, Net &net, const Map &batch, Map &outputs) {
    net.run(call, batch, outputs);
    outputs.put("logits", outputs["pooled"].linear(head_.value().tensor()));
  }
  std::vector<Json> decode(const Map &, const Map &outputs) {
    const std::vector<float> all = outputs["logits"].softmax().to_floats();
    std::vector<Json> answers;
    for (auto row = all.begin(); row != all.end(); row += static_cast<std::ptrdiff_t>(labels_.size())) {
      const auto best = std::max_element(row, row + static_cast<std::ptrdiff_t>(labels_.size()));
      answers.push_back(Json().set("label", labels_[static_cast<std::size_t>(best - row)]).set("score", *best));
    }
    return answers;
  }

private:
  static constexpr std::size_t LONGEST = 64;
  static std::string needed(const Config &record, const char *role) {
    if (!record.has(role)) throw bad_value(role, "a text", "nothing");
    return record.string(role);
  }
  std::vector<std::string> labels_;
  std::optional<Param> head_;
};

/// The share of records whose label is the one that was said.
class Right : public MetricPlugin<Right> {
public:
  static constexpr const char *name = "cpp-right";
  explicit Right(const Config &) {}

  void answers(std::string_view answers, std::string_view records) {
    const Config all("{\"answers\":" + std::string(answers) + ",\"records\":" + std::string(records) + "}");
    for (std::size_t i = 0; i < all.size("answers"); ++i) {
      const std::string at = "." + std::to_string(i) + ".label";
      right_ += all.string("answers" + at) == all.string("records" + at) ? 1.0 : 0.0;
      ++count_;
    }
  }
  Figures compute() const { return {{"right", count_ > 0.0 ? right_ / count_ : 0.0}}; }
  void save(Stream &stream) const {
    stream.write(right_);
    stream.write(count_);
  }
  void merge(Stream &stream) {
    right_ += stream.read<double>();
    count_ += stream.read<double>();
  }

private:
  double right_ = 0.0, count_ = 0.0;
};

ET_EXPORT_PLUGIN("cpp-kinds", "0.1.0", Words, Momentum, Classify, Right)
