// A strategy in C++17 that drives the fit: it trains the head by an optimizer of its own and the rest by the run's, and
// what is kept is a slow average of the model, a module of the strategy's.
#include "easytransfer_plugin.hpp"

using namespace easytransfer;

class Average : public StrategyPlugin<Average> {
public:
  static constexpr const char *name = "cpp-average";
  static constexpr const char *schema =
      R"({"type":"object","additionalProperties":false,"properties":{"head":{"type":"string","default":"head.*"},)"
      R"("steps":{"type":"integer","default":20}}})";
  explicit Average(const Config &options)
      : head_(options.string("head", "head.*")), steps_(static_cast<std::uint64_t>(options.integer("steps", 20))) {}

  void on_setup(Session &session) {
    session.module("average", "model", Json(), ET_MODULE_HEAD | ET_MODULE_COPY);
    session.module("memory").param("counts", {1}, init::zeros());
    session.keep("average");
    session.set_total_steps(steps_);
  }
  void fit(Session &session) {
    Params model = session.params(), average = session.params("average");
    Params memory = session.params("memory");
    const SessionOptimizer own = session.optimizer("sgd", model.part({head_}));
    const Config sources = session.sources();
    if (sources.string("sources.0.name") != "train") throw Error(ET_ERR_UNKNOWN, "the first source is not train");
    const std::size_t records = static_cast<std::size_t>(sources.integer("sources.0.records", 0));
    for (bool goes_on = session.step() < session.total_steps(); goes_on;) {
      model.zero_grads();
      const Map batch = session.step() % 2 == 0 ? session.draw_batch({"train"})
                                                : session.records("train", {session.step() % records, 0});
      const Map outputs = session.forward("model", batch, true);
      const Tensor loss = session.loss_rows(outputs, batch).mean();
      session.backward(loss);
      session.optimizer_step(0.1, own);
      session.optimizer_step(session.lr());
      average.lerp(model, 0.5);
      Param counts = memory.find("counts");
      counts.assign(counts.tensor().detach() + 1.0);
      session.log_scalar("counts", counts.tensor().item());
      goes_on = session.commit({{"loss", loss.item()}}, [this](Stream &stream) { save(stream); });
      ++done_;
    }
    const double right = session.evaluate("average", "valid", 16).number("loss", -1.0);
    if (right < 0.0) throw Error(ET_ERR_UNKNOWN, "no figure of the average");
  }
  void save(Stream &stream) const { stream.write(done_); }
  void load(Stream &stream) { done_ = stream.read<std::uint64_t>(); }

private:
  std::string head_;
  std::uint64_t steps_, done_ = 0;
};

ET_EXPORT_PLUGIN("cpp-average", "0.1.0", Average)
