#include "words.h"

#include <sentencepiece_processor.h>
#include <utf8proc.h>

#include <cstdlib>

#include "pack.h"

namespace diffulex {
namespace {

const std::string kSpace = "\xE2\x96\x81";  // U+2581, as which SentencePiece writes a space
const std::string kUnknown = "\xEF\xBF\xBD";  // U+FFFD

// Line ends made LF, control characters dropped, bytes that are no UTF-8 made U+FFFD.
std::string cleaned(const std::string& text) {
  std::string out;
  const auto* at = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  for (size_t i = 0; i < text.size();) {
    utf8proc_int32_t point = -1;
    const auto size = utf8proc_iterate(at + i, static_cast<utf8proc_ssize_t>(text.size() - i), &point);
    if (size <= 0) {
      out += kUnknown;
      ++i;
    } else if (point == '\r') {
      out += '\n';
      i += text.compare(i, 2, "\r\n") == 0 ? 2 : 1;
    } else {
      const bool control = (point < 0x20 && point != '\t' && point != '\n') || (point >= 0x7F && point < 0xA0);
      if (!control) out.append(text, i, static_cast<size_t>(size));
      i += static_cast<size_t>(size);
    }
  }
  return out;
}

std::string normalized(const std::string& text) {
  const auto clean = cleaned(text);
  utf8proc_uint8_t* made = nullptr;
  const auto* from = reinterpret_cast<const utf8proc_uint8_t*>(clean.data());
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  const auto size = utf8proc_map(from, static_cast<utf8proc_ssize_t>(clean.size()), &made, options);
  if (size < 0) throw std::runtime_error(utf8proc_errmsg(size));
  std::string out(reinterpret_cast<char*>(made), static_cast<size_t>(size));
  std::free(made);
  return out;
}

}  // namespace

Words::Words(const std::filesystem::path& model) : model_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {
  const auto status = model_->Load(model.string());
  if (!status.ok()) throw BadPack(model.string() + ": not a SentencePiece model");
}

Words::~Words() = default;

int64_t Words::size() const { return model_->GetPieceSize(); }

std::vector<int64_t> Words::encode(const std::string& text) const {
  const auto clean = normalized(text);
  std::vector<int64_t> ids;
  for (size_t start = 0;;) {
    const auto end = clean.find(kSpace, start);
    const auto part = model_->EncodeAsIds(clean.substr(start, end - start));
    ids.insert(ids.end(), part.begin(), part.end());
    if (end == std::string::npos) return ids;
    for (const char* byte : {"<0xE2>", "<0x96>", "<0x81>"}) ids.push_back(model_->PieceToId(byte));  // it is no space
    start = end + kSpace.size();
  }
}

std::string Words::bytes(int64_t id) const {
  const int token = static_cast<int>(id);
  if (model_->IsControl(token) || model_->IsUnknown(token)) return "";
  std::string piece = model_->IdToPiece(token);
  if (model_->IsByte(token)) return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
  for (size_t at; (at = piece.find(kSpace)) != std::string::npos;) piece.replace(at, kSpace.size(), " ");
  return piece;
}

size_t whole(const std::string& text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) break;
    if (byte >= 0xC0) {
      const size_t needs = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
      return needs > back ? text.size() - back : text.size();
    }
  }
  return text.size();
}

}  // namespace diffulex
