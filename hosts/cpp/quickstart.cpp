// A training loop by hand, one line per step: plugins, model, batch, loss, gradients, freezing, optimizer. The
// encoder directory gives configuration and tokenizer; weights are random, so the numbers depend on the seed alone.
#include "common.hpp"

using namespace easytransfer;

static const std::vector<std::pair<std::string, std::int64_t>> examples = {{"where is my parcel", 0},
                                                                           {"I want my money back", 1},
                                                                           {"the parcel is late", 0},
                                                                           {"please return the money", 1}};

static bool is_embedding(const Param &param) { return param.name().rfind("embeddings.", 0) == 0; }

/// A batch of the examples: token ids end to end, and where each row starts.
static Map make_batch(const std::string &encoder) {
  const Tokenizer tokenizer(encoder);
  std::vector<Row> rows;
  for (const auto &[text, label] : examples) {
    const auto encoding = tokenizer.encode(text);
    Row row;
    row.tokens("ids", encoding.ids).tokens("segments", encoding.segments).integers("labels", {label});
    rows.push_back(std::move(row));
  }
  return Map::batch(rows);
}

/// The loss of the present parameters on the batch, on the tape.
static Tensor forward(Model &model, const Param &head, Loss &loss, const Map &batch) {
  Map outputs = model.forward(batch, false, ET_WANT_POOLED);
  outputs.put("logits", outputs["pooled"].linear(head.tensor()));
  return loss.forward(outputs, batch);
}

static void print_gradients(const char *step, const Params &params) {
  std::size_t count = 0, embeddings = 0;
  for (std::size_t i = 0; i < params.size(); ++i) {
    const Param param = params[i];
    count += param.has_grad();
    embeddings += param.has_grad() && is_embedding(param);
  }
  std::cout << step << ": " << count << " parameters received a gradient, " << embeddings << " of them embeddings\n";
}

int main(int argc, char **argv) {
  return run(argc, argv, 1, 1, "quickstart ENCODER", [](const std::vector<std::string> &arguments) {
    const Runtime runtime;
    std::cerr << "plugins: " << runtime.plugins_json() << '\n';
    std::cout << "1 load: easytransfer " << et_version() << '\n';

    Model model = runtime.model("bert", read_file(arguments[0] + "/config.json"), 7);
    Params params = model.params();
    std::size_t elements = 0;
    for (std::size_t i = 0; i < params.size(); ++i) elements += params[i].tensor().size();
    std::cout << "2 model: " << params.size() << " parameters, " << elements << " values\n";

    const Map batch = make_batch(arguments[0]);
    std::cout << "3 batch: " << examples.size() << " rows, " << batch["ids"].size() << " tokens\n";

    const std::size_t width = model.forward(batch, false, ET_WANT_POOLED)["pooled"].shape()[1];
    const Param head = params.declare("classifier.weight", {2, width}, {ET_INIT_NORMAL, 0, 0.0, 0.02});
    Optimizer optimizer = runtime.optimizer("adamw", model); // seals the parameters
    Loss loss = runtime.loss("cross-entropy");
    const Tensor first = forward(model, head, loss, batch);
    std::cout << "4 loss: " << number(first.item()) << '\n';

    first.backward();
    print_gradients("5 backward", params);

    params.zero_grads();
    for (std::size_t i = 0; i < params.size(); ++i) {
      Param param = params[i];
      if (is_embedding(param)) param.set_trainable(false);
    }
    forward(model, head, loss, batch).backward();
    print_gradients("6 frozen", params);

    params.zero_grads();
    for (int step = 1; step <= 5; ++step) {
      forward(model, head, loss, batch).backward();
      optimizer.step(model, 1e-3);
      std::cout << "7 step " << step << ": loss " << number(forward(model, head, loss, batch).item()) << '\n';
    }
  });
}
