// Text to ids and back: what diffulex_edge/text/ does in Python, over SentencePiece.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace diffulex {

class Words {
 public:
  explicit Words(const std::filesystem::path& model);
  ~Words();

  // NFC, LF line ends, no control characters; never a control id, whatever the text says.
  std::vector<int64_t> encode(const std::string& text) const;

  // The bytes of an id; none for a control id.
  std::string bytes(int64_t id) const;

  int64_t size() const;

 private:
  std::unique_ptr<sentencepiece::SentencePieceProcessor> model_;
};

// How much of the text is whole UTF-8 characters: a stream shows no half ones.
size_t whole(const std::string& text);

}  // namespace diffulex
