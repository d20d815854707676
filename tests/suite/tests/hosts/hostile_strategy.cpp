// Strategies against the C++ headers that do what a session refuses, or answer what a run cannot use: what their
// option `at` names. What they do not know is no fault.
#include "easytransfer_plugin.hpp"

#include <limits>

using easytransfer::Config;
using easytransfer::Map;
using easytransfer::Session;
using easytransfer::Tensor;
using easytransfer::detail::check;
using easytransfer::detail::tables;
using easytransfer::detail::text;

namespace {

/// What both strategies share: the fault.
class Hostile {
public:
  static constexpr const char *schema = R"({"type":"object","properties":{"at":{"type":"string","default":""}}})";
  explicit Hostile(const Config &options) : at_(options.string("at", "")) {}

protected:
  bool is(const char *fault) const { return at_ == fault; }

  void module(Session &session, const char *name) {
    session.module(name);
  }
  void open_source(Session &session, const char *path) {
    session.open_source("more", path);
  }
  void setup(Session &session) {
    if (is("module: the model's name")) module(session, "model");
    if (is("module: a name twice")) module(session, "own"), module(session, "own");
    if (is("source: no file")) open_source(session, "no-such.tsv");
    if (is("source: no records")) open_source(session, "empty.tsv");
    if (is("source: a name twice")) open_source(session, "dev.tsv"), open_source(session, "dev.tsv");
  }

private:
  std::string at_;
};

/// Uses hooks.
class Hooks : public Hostile, public easytransfer::StrategyPlugin<Hooks> {
public:
  static constexpr const char *name = "hostile";
  static constexpr const char *schema = Hostile::schema;
  using Hostile::Hostile;

  std::string columns() const { return is("columns: an object") ? "{}" : is("columns: no JSON") ? "[{" : "[]"; }
  void on_setup(Session &session) { setup(session); }
  void on_batch(Session &, Map &batch) {
    if (is("weights: of another number of rows")) batch.put("weights", Tensor::full(1.0, {3}));
  }
  void on_outputs(Session &session, const Map &, const Map &outputs) {
    if (is("loss: no scalar")) session.add_loss("extra", outputs["logits"]);
    if (is("loss: not a number")) session.add_loss("extra", Tensor::full(std::numeric_limits<double>::quiet_NaN(), {}));
    if (is("batch: no such source")) session.next_batch("more");
    if (is("record: beyond the last")) {
      session.records("train", {std::uint64_t(1) << 40});
    }
    if (is("module: too late")) module(session, "own");
  }
};

/// Drives the fit.
class Drives : public Hostile, public easytransfer::StrategyPlugin<Drives> {
public:
  static constexpr const char *name = "hostile-driver";
  static constexpr const char *schema = Hostile::schema;
  using Hostile::Hostile;

  void on_setup(Session &session) { setup(session); }
  void fit(Session &session) {
    std::int32_t goes_on = 1;
    if (is("fit: an error")) throw std::runtime_error("thrown in fit");
    while (goes_on != 0) {
      if (is("step: no such source")) session.step_once("more");
      session.step_once();
      const char *figures = is("commit: no JSON") ? "{" : is("commit: no number") ? "{\"loss\":\"low\"}" : "{}";
      check(tables().session->commit(session.get(), text(figures), nullptr, &goes_on));
    }
  }
};

} // namespace

ET_EXPORT_PLUGIN("tl-hostile", "0.1.0", Hooks, Drives)
