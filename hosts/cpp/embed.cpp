// Turns the lines of a file into vectors: the width, then the first four values, separated by tabs.
#include "common.hpp"

int main(int argc, char **argv) {
  return run(argc, argv, 1, 2, "embed ENCODER [TEXTS]", [](const std::vector<std::string> &arguments) {
    const easytransfer::Runtime runtime;
    easytransfer::Embedder embedder = runtime.embedder(arguments[0]);
    const std::size_t width = embedder.width();
    const std::vector<float> vectors = embedder.embed(read_lines(arguments.size() > 1 ? arguments[1] : "-"));
    for (std::size_t row = 0; row < vectors.size(); row += width) {
      std::cout << width;
      for (std::size_t i = 0; i < width && i < 4; ++i) std::cout << '\t' << number(vectors[row + i]);
      std::cout << '\n';
    }
  });
}
