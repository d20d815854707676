// events.c in C++.
#include "easytransfer.hpp"

#include <cstdlib>
#include <iostream>

int main(int argc, char **argv) {
  if (argc != 7) return 2;
  const bool stop = std::atoi(argv[6]) != 0;
  const auto told = [&](const std::string &what) {
    return [&stop, what](const easytransfer::Event &event) {
      std::cout << what << ' ' << event.kind << ' ' << event.step << ' ' << event.total_steps << ' ' << event.done << ' '
                << event.total << ' ' << event.json << '\n';
      return !(stop && event.kind == ET_EVENT_ROWS);
    };
  };
  const auto show = [](const std::string &what, const auto &work) {
    try {
      const std::string result = work();
      std::cout << what << ' ' << result << '\n';
    } catch (const easytransfer::Error &error) {
      if (error.code() != ET_ERR_CANCELLED) throw;
      std::cout << what << " cancelled\n";
    }
  };
  try {
    const easytransfer::Runtime runtime;
    show("fit", [&] { return runtime.fit(argv[1], told("fit")); });
    easytransfer::App app = runtime.app(argv[2]);
    easytransfer::Embedder embedder = runtime.embedder(argv[2]);
    show("evaluate", [&] { return app.evaluate(argv[3], told("evaluate")); });
    show("predict", [&] { return app.predict_file(argv[4], told("predict")); });
    show("embed", [&] { return embedder.embed_file(argv[5], told("embed")); });
  } catch (const easytransfer::Error &error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
