// threads BUNDLE ENCODER: many threads share one app and one embedder; every answer must be the one that it is alone, to
// the byte, while others load the same bundle and give it back, and while the app they use is released.
#include "easytransfer.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

using namespace easytransfer;

static const std::size_t THREADS = 16, ROUNDS = 12;
static std::atomic<int> wrong(0);

static void check(bool is_right, const char *what) {
  if (is_right) return;
  std::fprintf(stderr, "%s\n", what);
  wrong.fetch_add(1);
}

template <class Work> static void at_once(const Work &work) {
  std::atomic<std::size_t> begun(0);
  std::vector<std::thread> threads;
  for (std::size_t thread = 0; thread < THREADS; ++thread) {
    threads.emplace_back([&, thread] {
      begun.fetch_add(1);
      while (begun.load() < THREADS) std::this_thread::yield();
      for (std::size_t round = 0; round < ROUNDS; ++round) work(thread, round);
    });
  }
  for (std::thread &thread : threads) thread.join();
}

// Threads use a handle until it is released under them.
static void released_meanwhile(const Runtime &runtime, const char *bundle, const std::string &expected) {
  et_app *app = nullptr;
  if (et_app_load(runtime.get(), bundle, &app) != nullptr) return check(false, "the bundle does not load");
  const et_str text = {"where is my parcel", 18};
  std::atomic<int> done(0);
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 8; ++thread) {
    threads.emplace_back([&] {
      for (;;) {
        et_predictions *answers = nullptr;
        et_error *error = et_app_predict_texts(app, &text, 1, &answers);
        if (error != nullptr) {
          check(et_error_code(error) == ET_ERR_BAD_HANDLE, "a released app: another error than BAD_HANDLE");
          et_error_release(error);
          return;
        }
        const et_str json = et_predictions_answer(answers, 0);
        check(std::string(json.ptr, json.len) == expected, "an answer beside a release differs");
        et_predictions_release(answers);
        done.fetch_add(1);
      }
    });
  }
  while (done.load() < 8) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  et_app_release(app);
  for (std::thread &thread : threads) thread.join();
}

int main(int argc, char **argv) {
  if (argc != 3) return 2;
  try {
    const Runtime runtime("{\"threads\": 2}");
    try {
      const Runtime other("{\"threads\": 3}");
      check(false, "another number of threads was accepted");
    } catch (const Error &error) {
      check(std::string(error.what()).find("threads: expected 2") != std::string::npos, error.what());
    }
    const std::string bundle = argv[1];
    const std::vector<std::string> texts = {"where is my parcel", "refund please", "never again, and not today either"};
    const App app = runtime.app(bundle);
    const Embedder embedder = runtime.embedder(argv[2]);
    std::vector<std::string> expected;
    std::vector<std::vector<float>> vectors;
    for (const std::string &text : texts) {
      expected.push_back(app.predict({text}).json(0));
      vectors.push_back(embedder.embed({text}));
    }
    const std::string request = "[{\"text\": \"refund please\"}, \"never again\"]", all = app.predict_json(request);
    at_once([&](std::size_t thread, std::size_t round) {
      const std::size_t index = (thread + round) % texts.size();
      switch ((thread + round) % 4) {
      case 0:
        check(app.predict_json(request) == all, "a JSON answer differs");
        break;
      case 1:
        check(runtime.app(bundle).predict({texts[index]}).json(0) == expected[index], "another app's answer differs");
        break;
      case 2:
        check(embedder.embed({texts[index]}) == vectors[index], "a vector differs");
        break;
      default:
        check(app.predict({texts[index]}).json(0) == expected[index], "an answer differs");
      }
    });
    for (int turn = 0; turn < 5; ++turn) released_meanwhile(runtime, argv[1], expected[0]);
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  check(et_live_handles() == 0, "handles are alive at the end");
  return wrong.load() == 0 ? 0 : 1;
}
