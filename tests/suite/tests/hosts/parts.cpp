// The same as parts.c says, through the C++ header: errors are exceptions.
#include "easytransfer.hpp"

#include <iostream>
#include <string>

using namespace easytransfer;

template <typename F> static void fails(F call, std::int32_t code, const std::string &words) {
  try {
    call();
  } catch (const Error &error) {
    if (error.code() == code && std::string(error.what()).find(words) != std::string::npos) return;
    throw std::runtime_error("expected " + words + ", found " + error.what());
  }
  throw std::runtime_error("expected an error: " + words);
}

static Tensor loss_of(Model &model) {
  Params params = model.params();
  for (std::size_t i = 0; i < params.size(); ++i)
    if (params[i].name() == "pooler.dense.weight") return params[i].tensor().sqr().sum();
  throw std::runtime_error("no such parameter");
}

static void parts(const std::string &config, const std::string &directory) {
  const Runtime runtime;
  Model first = runtime.model("bert", config, 1);
  Model second = runtime.model("bert", config, 2);
  Optimizer optimizer = runtime.optimizer("adamw", first);
  fails([&] { optimizer.step(second, 0.1); }, ET_ERR_INVALID_ARGUMENT, "the optimizer was made for");

  const Tensor stale = loss_of(first);
  loss_of(first).backward();
  optimizer.step(first, 0.1);
  fails([&] { stale.backward(); }, ET_ERR_FAILED_PRECONDITION, "\"pooler.dense.weight\" has changed");

  first.save(directory);
  second.load_weights(directory);
  if (loss_of(second).item() != loss_of(first).item()) throw std::runtime_error("read back, it differs");
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  try {
    parts(argv[1], argv[2]);
  } catch (const std::exception &error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
  return et_live_handles() == 0 ? 0 : 1;
}
