// A metric, an operation and a strategy against the C++ headers that throw in the callback that their option (for the
// operation the environment variable ET_THROWS) names. Each holds a tensor, which must not stay behind.
#include "easytransfer_plugin.hpp"

#include <cstdlib>
#include <stdexcept>

using easytransfer::Config;
using easytransfer::Map;
using easytransfer::Session;
using easytransfer::Spec;
using easytransfer::Stream;
using easytransfer::Tensor;
using easytransfer::View;

static const char *const OPTIONS = R"({"type":"object","properties":{"at":{"type":"string"}}})";

/// Throws in the callback that was asked for.
class Fragile {
public:
  explicit Fragile(const Config &options) : at_(options.string("at", "")), held_(Tensor::arange(3)) { reach("create"); }
  void reach(const char *callback) const {
    const Tensor made = held_ + 1.0;
    if (at_ == callback) throw std::runtime_error(std::string("thrown in ") + callback);
  }

private:
  std::string at_;
  Tensor held_;
};

class Metric : public easytransfer::MetricPlugin<Metric> {
public:
  static constexpr const char *name = "throws-metric";
  static inline const char *const schema = OPTIONS;
  explicit Metric(const Config &options) : fragile_(options) {}
  void update(const Map &, const Map &) { fragile_.reach("update"); }
  easytransfer::Figures compute() const {
    fragile_.reach("compute");
    return {{"one", 1.0}, {"none", std::nan("")}};
  }
  void save(Stream &stream) const {
    fragile_.reach("state_save");
    stream.write(1.0);
  }
  void merge(Stream &stream) {
    stream.read<double>();
    fragile_.reach("state_merge");
  }

private:
  Fragile fragile_;
};

class Op : public easytransfer::OpPlugin<Op> {
public:
  static constexpr const char *name = "throws-op";
  static constexpr std::uint32_t inputs = 1, outputs = 1;
  static std::vector<Spec> infer(const std::vector<Spec> &given) {
    reach("infer");
    return is("infer: too many") ? std::vector<Spec>{given[0], given[0]} : given;
  }
  static void forward(const std::vector<View> &x, const std::vector<View> &y) {
    reach("forward");
    for (std::size_t i = 0; i < x[0].size(); ++i) y[0].data<float>()[i] = x[0].data<const float>()[i];
  }
  static std::vector<std::optional<Tensor>> backward(const std::vector<Tensor> &x, const std::vector<Tensor> &,
                                                     const std::vector<std::optional<Tensor>> &dy) {
    const Tensor made = x[0].sqr();
    reach("backward");
    return is("backward: none") ? std::vector<std::optional<Tensor>>{} : dy;
  }

private:
  static bool is(const std::string &fault) {
    const char *asked = std::getenv("ET_THROWS");
    return asked != nullptr && fault == asked;
  }
  static void reach(const char *callback) {
    if (is(callback)) throw std::runtime_error(std::string("thrown in ") + callback);
  }
};

class Strategy : public easytransfer::StrategyPlugin<Strategy> {
public:
  static constexpr const char *name = "throws-strategy";
  static inline const char *const schema = OPTIONS;
  explicit Strategy(const Config &options) : fragile_(options) {}
  void on_setup(Session &) { fragile_.reach("on_setup"); }
  void on_batch(Session &, Map &batch) {
    batch.put("weights", Tensor::full(1.0, {1}));
    fragile_.reach("on_batch");
  }
  void on_outputs(Session &, const Map &, const Map &) { fragile_.reach("on_outputs"); }
  Tensor combine(Session &, const Map &losses) {
    const Tensor loss = losses["logits"];
    fragile_.reach("combine");
    return loss;
  }
  void on_gradients(Session &) { fragile_.reach("on_gradients"); }
  void on_epoch(Session &, std::uint64_t, std::string_view) { fragile_.reach("on_epoch"); }
  void fit(Session &) { fragile_.reach("fit"); }
  void save(Stream &) const { fragile_.reach("state_save"); }
  void load(Stream &) { fragile_.reach("state_load"); }

private:
  Fragile fragile_;
};

ET_EXPORT_PLUGIN("throws-by-kind", "0.1.0", Metric, Op, Strategy)
