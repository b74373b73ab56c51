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
  Decoder(const Pack& pack, Program& program, const Ids& prompt, int64_t max_new_tokens, float threshold)
      : pack_(pack), program_(program), threshold_(threshold), canvas_(pack.context == "canvas") {
    const auto size = pack.block_size, n = static_cast<int64_t>(prompt.size());
    first_ = n;
    end_ = n + max_new_tokens;
    start_ = canvas_ ? n : n / size * size;
    const auto width = canvas_ ? end_ : (end_ + size - 1) / size * size;
    if (pack.max_length && width > *pack.max_length) {
      throw std::invalid_argument(std::to_string(width) + " tokens are more than the " + std::to_string(*pack.max_length) +
                                  " that the program takes");
    }
    text_ = prompt;
    text_.resize(static_cast<size_t>(width), pack.mask_id);
  }

  Counted run(const Told& told) {
    for (int64_t at = 0; !canvas_ && at < start_; at += pack_.block_size) commit(at);
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
      auto inputs = seen(stop);
      inputs["t"].real = {1.0F - static_cast<float>(step) / static_cast<float>(counts.size())};
      inputs["asked"].whole = {last - start_};
      inputs["count"].whole = {final_step ? pack_.block_size : counts[step]};
      inputs["threshold"].real = {threshold_};
      const auto shown = program_.call(canvas_ ? "look" : "denoise", inputs).at("block").whole;
      std::copy(shown.begin(), shown.begin() + (last - start_), from);
      ++counted_.forwards;
    }
  }

  Program::Values seen(int64_t stop) const {
    Program::Values inputs;
    inputs["start"].whole = {start_};
    if (canvas_) {
      inputs["canvas"].whole = text_;
      inputs["canvas"].whole.resize(static_cast<size_t>(*pack_.max_length), pack_.mask_id);
      inputs["stop"].whole = {static_cast<int64_t>(text_.size())};
    } else {
      inputs["block"].whole.assign(text_.begin() + start_, text_.begin() + stop);
    }
    return inputs;
  }

  void commit(int64_t at) {
    Program::Values inputs;
    inputs["start"].whole = {at};
    inputs["block"].whole.assign(text_.begin() + at, text_.begin() + at + pack_.block_size);
    auto found = program_.call("commit", inputs);
    if (found.count("opening")) opening_ = std::move(found.at("opening").real);
    ++counted_.commits;
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
  float threshold_;
  bool canvas_;
  Ids text_;
  int64_t first_, end_, start_;  // of what is asked for; of the block
  std::vector<float> opening_;
  Counted counted_;
};

}  // namespace

Counted decode(const Pack& pack, Program& program, const std::vector<int64_t>& prompt, int64_t max_new_tokens,
               float threshold, const Told& told) {
  return Decoder(pack, program, prompt, max_new_tokens, threshold).run(told);
}

}  // namespace diffulex
