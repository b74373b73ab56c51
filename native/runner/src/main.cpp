// diffulex-runner PACK --prompt TEXT: a pack's model continues a text, greedily, and streams it.
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>
#include <string>

#include "decode.h"
#include "words.h"

namespace {

constexpr const char* kUsage =
    "usage: diffulex-runner PACK --prompt TEXT [--max_new_tokens N] [--threshold P] [--dual] [--threads 0|1]\n"
    "                       [--ids] [--stats json]\n"
    "  --prompt TEXT       the text to go on from; - reads standard input\n"
    "  --max_new_tokens N  128\n"
    "  --threshold P       show at once what is at least so probable; 2: by the pack's schedule alone\n"
    "  --dual              LLaDA, Dream: after a first look at each block, read the block alone; much faster, not exact\n"
    "  --threads 0|1       1: one; 0: as many as ExecuTorch takes\n"
    "  --ids               ids in place of text\n"
    "  --stats json        figures on standard error when done\n"
    "exit codes: 0 done, 2 usage, 3 bad pack\n";

struct Usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Flags {
  std::string pack, prompt;
  int64_t max_new_tokens = 128;
  diffulex::Options options;
  bool one_thread = true, ids = false, stats = false, prompted = false;
};

template <typename T>
T number(const std::string& flag, const std::string& text, T (*read)(const std::string&, size_t*), T least) {
  size_t used = 0;
  T value{};
  try {
    value = read(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || value < least) throw Usage(flag + " " + text + ": not a number of at least " + std::to_string(least));
  return value;
}

Flags parse(int argc, char** argv) {
  Flags flags;
  const std::vector<std::string> words(argv + 1, argv + argc);
  for (size_t i = 0; i < words.size(); ++i) {
    const auto& word = words[i];
    const auto value = [&]() -> const std::string& {
      if (i + 1 == words.size()) throw Usage(word + " needs a value");
      return words[++i];
    };
    if (word == "--ids") flags.ids = true;
    else if (word == "--dual") flags.options.dual = true;
    else if (word == "--prompt") flags.prompt = value(), flags.prompted = true;
    else if (word == "--max_new_tokens") flags.max_new_tokens = number<int64_t>(word, value(), [](const std::string& s, size_t* n) -> int64_t { return std::stoll(s, n); }, 0);
    else if (word == "--threshold") flags.options.threshold = number<float>(word, value(), [](const std::string& s, size_t* n) { return std::stof(s, n); }, 0);
    else if (word == "--threads") flags.one_thread = number<int64_t>(word, value(), [](const std::string& s, size_t* n) -> int64_t { return std::stoll(s, n); }, 0) == 1;
    else if (word == "--stats") { if (value() != "json") throw Usage("--stats " + words[i] + ": only json is known"); flags.stats = true; }
    else if (word.rfind("--", 0) == 0) throw Usage(word + " is not a flag");
    else if (flags.pack.empty()) flags.pack = word;
    else throw Usage(word + ": one pack is enough");
  }
  if (flags.pack.empty() || !flags.prompted) throw Usage("a PACK and --prompt are needed");
  if (flags.prompt == "-") flags.prompt = {std::istreambuf_iterator<char>(std::cin), {}};
  return flags;
}

double milliseconds(std::chrono::steady_clock::time_point since) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - since).count();
}

void run(const Flags& flags, std::chrono::steady_clock::time_point began) {
  const auto pack = diffulex::open_pack(flags.pack);
  const auto words = diffulex::open_words(pack);
  diffulex::Program program(pack, flags.one_thread);
  const double loaded = milliseconds(began);
  auto prompt = flags.prompt;
  prompt.erase(prompt.find_last_not_of(' ') + 1);  // a space at the end belongs to the token that follows
  double first = 0;
  std::vector<int64_t> written;
  std::string text;
  size_t shown = 0;
  const auto start = std::chrono::steady_clock::now();
  if (!flags.ids) std::cout << prompt << std::flush;
  const auto counted = diffulex::decode(pack, program, words->encode(prompt), flags.max_new_tokens, flags.options, [&](const std::vector<int64_t>& ids) {
    if (first == 0) first = milliseconds(began);
    if (flags.ids) {
      for (const auto id : ids) std::cout << id << ' ';
      return;
    }
    written.insert(written.end(), ids.begin(), ids.end());
    text = words->decode(written);
    const auto size = std::max(shown, diffulex::whole(text));
    std::cout << text.substr(shown, size - shown) << std::flush;
    shown = size;
  });
  std::cout << text.substr(shown) << std::endl;
  if (!flags.stats) return;
  const double decoding = milliseconds(start);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  std::cerr << nlohmann::json{{"load_ms", loaded},
                              {"first_text_ms", first},
                              {"decode_ms", decoding},
                              {"tokens", counted.tokens},
                              {"tokens_per_s", decoding > 0 ? 1000 * counted.tokens / decoding : 0},
                              {"forwards", counted.forwards},
                              {"commits", counted.commits},
                              {"peak_memory_bytes", usage.ru_maxrss * 1024L}}
            << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  const auto began = std::chrono::steady_clock::now();
  try {
    run(parse(argc, argv), began);
    return 0;
  } catch (const Usage& error) {
    std::cerr << "diffulex-runner: " << error.what() << '\n' << kUsage;
    return 2;
  } catch (const std::invalid_argument& error) {
    std::cerr << "diffulex-runner: " << error.what() << '\n';
    return 2;
  } catch (const diffulex::BadPack& error) {
    std::cerr << "diffulex-runner: " << error.what() << '\n';
    return 3;
  }
}
