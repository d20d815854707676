// texts BUNDLE: no function loses what follows a NUL, and where a text cannot have one it is an error that says so.
#include "easytransfer.hpp"

#include <atomic>
#include <iostream>
#include <thread>

using namespace easytransfer;

static int wrong = 0;

static void check(bool holds, const char *what) {
  if (holds) return;
  std::cout << "wrong: " << what << '\n';
  wrong = 1;
}

/// Whether `body` throws an error of that code with `part` in its text.
template <class Body> static bool throws(std::int32_t code, const char *part, Body &&body) {
  try {
    body();
  } catch (const Error &error) {
    if (error.code() == code && std::string(error.what()).find(part) != std::string::npos) return true;
    std::cout << "found " << error.code() << ": " << error.what() << '\n';
  }
  return false;
}

int main(int argc, char **argv) {
  if (argc != 2) return 1;
  const std::string bundle = argv[1], head = "where is my parcel", whole = head + '\0' + "I want my money back";
  const std::string cut = bundle + '\0' + "behind";
  try {
    const Runtime runtime;
    App app = runtime.app(bundle);
    Embedder embedder = runtime.embedder(bundle, EmbedOptions().normalize(true));
    check(app.predict({head}).json(0) != app.predict({whole}).json(0), "predict loses what follows a NUL");
    check(embedder.embed({head}) != embedder.embed({whole}), "embed loses what follows a NUL");
    const Json record = Json().set("text", whole);
    check(record.text().find("\\u0000") != std::string::npos, "JSON escapes no NUL");
    check(app.predict_records({record.text()}).label(0) == app.predict({whole}).label(0), "a record is cut");
    check(app.predict_json(record.text()) != app.predict_json(Json().set("text", head).text()), "a request is cut");
    check(throws(ET_ERR_BAD_INPUT, "JSON", [&] { app.predict_json(record.text() + '\0' + "{}"); }),
          "what follows a request is passed over");
    // A prompt with a NUL is the text with one.
    Embedder prompted = runtime.embedder(bundle, EmbedOptions().normalize(true).prompt(head + '\0'));
    check(prompted.embed({"I want my money back"}) == embedder.embed({whole}), "a prompt is cut");
    const char *said = "expected a text without NUL, found one at offset";
    const auto refused = [&](auto &&body) { return throws(ET_ERR_INVALID_ARGUMENT, said, body); };
    check(refused([&] { runtime.app(cut); }), "a path is cut");
    check(refused([&] { runtime.embedder(cut); }), "a path is cut");
    check(refused([&] { runtime.loss(std::string("cross-entropy\0x", 15)); }), "a name is cut");
    check(refused([&] { Runtime(std::string("{}\0{", 4)); }), "options are cut");
    check(refused([&] { runtime.fit(FitOptions("a", "b").json() + '\0'); }), "options are cut");
    // Options: what is set is what arrives, with the key's own error.
    check(throws(ET_ERR_BAD_INPUT, "`precision`", [&] { runtime.app(bundle, AppOptions().set("precison", "f32")); }),
          "an option is lost");
    check(throws(ET_ERR_BAD_INPUT, "a\"b\\", [&] { runtime.fit(FitOptions("a\"b\\", bundle + "/no").encoder(bundle)); }),
          "a name is not escaped");
    check(throws(ET_ERR_INVALID_ARGUMENT, "finite", [] { FitOptions("a", "b").lr(1.0 / 0.0 * 0.0); }), "NaN is written");

    // Messages come to a function, from whatever thread, and to standard error again afterwards.
    std::atomic<int> lines{0};
    on_log([&](const LogMessage &message) {
      lines += message.level == ET_LOG_ERROR && message.target == "easytransfer" &&
               message.text.find("an app") != message.text.npos;
      throw 1; // is lost
    });
    char nobody = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([&] { et_app_release(reinterpret_cast<et_app *>(&nobody)); });
    for (std::thread &thread : threads) thread.join();
    check(lines == 4, "messages are lost");
    on_log([&](const LogMessage &) { lines += 10; });
    et_app_release(reinterpret_cast<et_app *>(&nobody));
    on_log(nullptr);
    et_app_release(reinterpret_cast<et_app *>(&nobody));
    check(lines == 14, "the former callback is called, or the present one is not");
  } catch (const std::exception &error) {
    std::cout << "error: " << error.what() << '\n';
    return 1;
  }
  check(et_live_handles() == 0, "handles are alive");
  return wrong;
}
