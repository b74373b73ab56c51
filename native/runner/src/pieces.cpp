// SentencePiece: what diffulex_edge/text/sentencepiece_tokenizer.py does.
#include <sentencepiece_processor.h>

#include "words.h"

namespace diffulex {
namespace {

const std::string kSpace = "\xE2\x96\x81";  // U+2581, as which SentencePiece writes a space

class Pieces : public Words {
 public:
  explicit Pieces(const std::filesystem::path& path) {
    if (!model_.Load(path.string()).ok()) throw BadPack(path.string() + ": not a SentencePiece model");
  }

  int64_t size() const override { return model_.GetPieceSize(); }

  std::string decode(const std::vector<int64_t>& ids) const override {
    std::string text;
    for (const auto id : ids) text += bytes(static_cast<int>(id));
    return text;
  }

 protected:
  std::vector<int64_t> encode_normalized(const std::string& text) const override {
    std::vector<int64_t> ids;
    for (size_t start = 0;;) {
      const auto end = text.find(kSpace, start);
      const auto part = model_.EncodeAsIds(text.substr(start, end - start));
      ids.insert(ids.end(), part.begin(), part.end());
      if (end == std::string::npos) return ids;
      for (const char* byte : {"<0xE2>", "<0x96>", "<0x81>"}) ids.push_back(model_.PieceToId(byte));  // it is no space
      start = end + kSpace.size();
    }
  }

 private:
  std::string bytes(int id) const {
    if (model_.IsControl(id) || model_.IsUnknown(id)) return "";
    std::string piece = model_.IdToPiece(id);
    if (model_.IsByte(id)) return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    for (size_t at; (at = piece.find(kSpace)) != std::string::npos;) piece.replace(at, kSpace.size(), " ");
    return piece;
  }

  sentencepiece::SentencePieceProcessor model_;
};

}  // namespace

std::unique_ptr<Words> open_pieces(const Pack& pack) { return std::make_unique<Pieces>(pack.tokenizer); }

}  // namespace diffulex
