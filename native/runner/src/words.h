// Text to ids and back: what diffulex_edge/text/ does in Python, over the same libraries.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "pack.h"

namespace diffulex {

class Words {
 public:
  virtual ~Words() = default;

  // NFC, LF line ends, no control characters; never a control id, whatever the text says.
  std::vector<int64_t> encode(const std::string& text) const;

  // The text of ids; a control id has none. Its last character may lack bytes that the next id brings: see `whole`.
  virtual std::string decode(const std::vector<int64_t>& ids) const = 0;

  // One more than the largest id.
  virtual int64_t size() const = 0;

 protected:
  virtual std::vector<int64_t> encode_normalized(const std::string& text) const = 0;
};

// The pack's tokenizer. Throws BadPack where it is none.
std::unique_ptr<Words> open_words(const Pack& pack);
std::unique_ptr<Words> open_pieces(const Pack& pack);  // SentencePiece
std::unique_ptr<Words> open_json(const Pack& pack);    // tokenizer.json

// How much of the text is whole UTF-8 characters, and no U+FFFD for a half one at its end: a stream shows no half ones.
size_t whole(const std::string& text);

}  // namespace diffulex
