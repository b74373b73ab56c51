#include "decode.h"

#include <algorithm>
#include <limits>
#include <stdexcept>

namespace diffulex {
namespace {

using Ids = std::vector<int64_t>;

// One text, block by block: block-causal contexts on the program's grid, a canvas from the prompt's end on.
class Decoder {
 public:
  Decoder(const Pack& pack, Program& program, const Ids& prompt, int64_t max_new_tokens, const Options& options)
      : pack_(pack), program_(program), options_(options), canvas_(pack.context == "canvas") {
    const auto size = pack.block_size, n = static_cast<int64_t>(prompt.size());
    first_ = n;
    end_ = n + max_new_tokens;
    start_ = canvas_ ? n : n / size * size;
    const auto width = canvas_ ? end_ : (end_ + size - 1) / size * size;
    if (pack.max_length && width > *pack.max_length) {
      throw std::invalid_argument(std::to_string(width) + " tokens are more than the " + std::to_string(*pack.max_length) +
                                  " that the program takes");
    }
    if (canvas_) bucket_ = *std::lower_bound(pack.buckets.begin(), pack.buckets.end(), width);
    text_ = prompt;
    text_.resize(static_cast<size_t>(width), pack.mask_id);
  }

  Counted run(const Told& told) {
    for (int64_t at = 0; !canvas_ && at < start_;) {
      const bool many = pack_.prefill && at + *pack_.prefill <= start_;
      at += many ? commit(at, "prefill", *pack_.prefill) : commit(at);
    }
    for (bool more = start_ < end_; more;) {
      const auto stop = std::min(start_ + pack_.block_size, static_cast<int64_t>(text_.size()));
      open();
      denoise(stop);
      more = !tell(stop, told) && stop < end_;
      if (more && !canvas_) commit(start_);
      start_ = stop;
    }
    return counted_;
  }

 private:
  bool asked(int64_t at) const { return at >= first_ && at < end_; }

  // Some models decide a block's first token when they remember the block before.
  void open() {
    auto& token = text_[static_cast<size_t>(start_)];
    if (opening_.empty() || token != pack_.mask_id || !asked(start_)) return;
    for (auto id : pack_.banned) opening_[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
    token = std::max_element(opening_.begin(), opening_.end()) - opening_.begin();
  }

  void denoise(int64_t stop) {
    const auto last = std::min(stop, end_);  // what is asked for ends here
    const auto hidden = std::count(text_.begin() + std::max(start_, first_), text_.begin() + last, pack_.mask_id);
    const auto& counts = pack_.counts.at(static_cast<size_t>(hidden));
    for (size_t step = 0; step < counts.size(); ++step) {
      const auto from = text_.begin() + start_;
      if (!std::count(from, text_.begin() + last, pack_.mask_id)) break;
      const bool final_step = step + 1 == counts.size();
      const auto view = look(options_.dual && step > 0);
      auto inputs = seen(view, stop);
      inputs["t"].real = {1.0F - static_cast<float>(step) / static_cast<float>(counts.size())};
      inputs["asked"].whole = {last - view.start};
      inputs["count"].whole = {final_step ? pack_.block_size : counts[step]};
      inputs["threshold"].real = {options_.threshold};
      const auto shown = program_.call(view.method, inputs).at("block").whole;
      const auto first = shown.begin() + (start_ - view.start);
      std::copy(first, first + (last - start_), from);
      ++counted_.forwards;
    }
  }

  // A method that looks at a block, where that begins, and of how many tokens the canvas is.
  struct View {
    std::string method;
    int64_t start, length;
  };

  // At a canvas's end the block reaches back over text that is written.
  View look(bool kept) const {
    if (!canvas_) return {"denoise", start_, 0};
    const auto length = kept ? *pack_.max_length : bucket_;
    return {kept ? "denoise" : pack_.look(bucket_), std::min(start_, length - pack_.block_size), length};
  }

  Program::Values seen(const View& view, int64_t stop) const {
    Program::Values inputs;
    inputs["start"].whole = {view.start};
    if (canvas_) {
      inputs["canvas"].whole = text_;
      inputs["canvas"].whole.resize(static_cast<size_t>(view.length), pack_.mask_id);
      inputs["stop"].whole = {static_cast<int64_t>(text_.size())};
    } else {
      inputs["block"].whole.assign(text_.begin() + start_, text_.begin() + stop);
    }
    return inputs;
  }

  int64_t commit(int64_t at) { return commit(at, "commit", pack_.block_size); }

  // Remembers so many tokens, and gives their number.
  int64_t commit(int64_t at, const char* method, int64_t length) {
    Program::Values inputs;
    inputs["start"].whole = {at};
    inputs["block"].whole.assign(text_.begin() + at, text_.begin() + at + length);
    auto found = program_.call(method, inputs);
    if (found.count("opening")) opening_ = std::move(found.at("opening").real);
    ++counted_.commits;
    return length;
  }

  // Whether the text has ended in this block.
  bool tell(int64_t stop, const Told& told) {
    Ids fresh;
    bool ended = false;
    for (auto at = std::max(start_, first_); at < std::min(stop, end_) && !ended; ++at) {
      fresh.push_back(text_[static_cast<size_t>(at)]);
      ended = std::count(pack_.stop_ids.begin(), pack_.stop_ids.end(), fresh.back()) > 0;
    }
    counted_.tokens += static_cast<int64_t>(fresh.size());
    told(fresh);
    return ended;
  }

  const Pack& pack_;
  Program& program_;
  Options options_;
  bool canvas_;
  Ids text_;
  int64_t first_, end_, start_;  // of what is asked for; of the block
  int64_t bucket_ = 0;           // tokens of the canvas that is looked at
  std::vector<float> opening_;
  Counted counted_;
};

}  // namespace

Counted decode(const Pack& pack, Program& program, const std::vector<int64_t>& prompt, int64_t max_new_tokens,
               const Options& options, const Told& told) {
  if (options.dual && pack.context != "canvas") throw std::invalid_argument("dual: only a canvas is read so, and this pack's context is " + pack.context);
  return Decoder(pack, program, prompt, max_new_tokens, options).run(told);
}

}  // namespace diffulex
